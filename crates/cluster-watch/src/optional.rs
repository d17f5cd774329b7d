//! Kinds that need not be there: they may come and go while we run, and llm-d's are served in one of two groups, or in both.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daemon::Deadline;
use futures::{Stream, StreamExt as _, stream};
use index::{Change, Event, ObjectKey};
use kube::api::ListParams;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{AGAIN, carry, dynamic, follow, is_missing, said};

/// How long a group may keep back what is known of the other, from when that is known.
const GROUP_PATIENCE: Duration = Duration::from_secs(3);

/// How often to look for kinds that have not been there for long.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A kind that need not be there, by its names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Optional {
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    /// Each with its version; the one that counts comes first.
    pub(super) groups: &'static [(&'static str, &'static str)],
}

/// What was seen of a kind in a group.
#[derive(Debug, Default)]
struct Known {
    there: AtomicBool,
    /// Whether it was said that it may not be seen.
    told: AtomicBool,
}

/// Watches a kind in each of its groups.
pub(super) fn one<K>(
    client: &Client,
    namespace: Option<&str>,
    Optional { kind, plural, groups }: Optional,
    event: fn(Change<K>) -> Event,
    events: &mpsc::Sender<Event>,
    anew: &watch::Receiver<u64>,
) -> JoinHandle<()>
where
    K: Resource + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let (sender, changes) = mpsc::channel(64);
    for (place, (group, version)) in groups.iter().enumerate() {
        let api = dynamic(client, namespace, &GroupVersionKind::gvk(group, version, kind), plural);
        let was_there = Arc::new(Known::default());
        let again = move || of_group::<K>(api.clone(), kind, Arc::clone(&was_there)).boxed();
        tokio::spawn(carry(again, anew.clone(), sender.clone(), move |change| (place, change)));
    }
    tokio::spawn(merge(kind, groups.len(), changes, events.clone(), event))
}

/// Hands on what happens in each group as what happens to all objects, to the end of either side.
async fn merge<K: Resource + Clone, E>(
    kind: &'static str,
    groups: usize,
    mut changes: mpsc::Receiver<(usize, Change<K>)>,
    events: mpsc::Sender<E>,
    event: fn(Change<K>) -> E,
) {
    let mut groups = Groups::of(groups);
    let mut patience = Deadline::default();
    loop {
        let change = tokio::select! {
            change = changes.recv() => {
                let Some((place, change)) = change else { return };
                groups.observe(place, change)
            }
            () = patience.reached() => {
                tracing::warn!(kind, "one group of this kind cannot be listed; going on with the other until it can");
                Some(groups.tell_all())
            }
        };
        match change {
            Some(change) => {
                patience = Deadline::default();
                if events.send(event(change)).await.is_err() {
                    return;
                }
            }
            None if groups.holds_back() => patience.within(GROUP_PATIENCE),
            None => patience = Deadline::default(),
        }
    }
}

/// What happens to the objects of one group: that there are none, for as long as the API server does not have them, and then what it says.
fn of_group<K>(api: Api<DynamicObject>, kind: &'static str, was_there: Arc<Known>) -> impl Stream<Item = Change<K>>
where
    K: Resource + DeserializeOwned + Send + 'static,
{
    let read = move |object: DynamicObject| {
        let key = ObjectKey::of(&object);
        object.try_parse::<K>().map_err(|error| {
            tracing::warn!(kind, object = %key, %error, "object ignored: it cannot be parsed");
            key
        })
    };
    let said = said(api.clone(), watcher::Config::default());
    // When its definition is taken away it is looked for from the beginning.
    let said = said.take_while(|said| ready(!said.as_ref().is_err_and(is_missing)));
    absence(api, kind, was_there).chain(follow(said, kind.to_owned(), read))
}

/// That there are no objects, again and again until the API server has their kind.
fn absence<K>(api: Api<DynamicObject>, kind: &'static str, was_there: Arc<Known>) -> impl Stream<Item = Change<K>> {
    // A definition that is replaced is gone for a moment, one that was never installed for long.
    let longer = |wait: Duration| (2 * wait).clamp(AGAIN, LOOK_AGAIN);
    stream::unfold((api, was_there, Duration::ZERO), move |(api, was_there, wait)| async move {
        tokio::time::sleep(wait).await;
        loop {
            match is_served(&api, kind, &was_there).await {
                Ok(true) => return None,
                Ok(false) => return Some((Change::Relisted(Vec::new()), (api, was_there, longer(wait)))),
                Err(error) => {
                    tracing::warn!(kind, %error, "cannot tell whether the API server has this kind");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    })
}

/// Whether the API server has a kind. One that we may not see, and never could, counts as one that is not there: it need not be granted.
async fn is_served(api: &Api<DynamicObject>, kind: &str, was_there: &Known) -> kube::Result<bool> {
    match api.list(&ListParams::default().limit(1)).await {
        Ok(_) => {
            was_there.there.store(true, Ordering::Relaxed);
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            was_there.there.store(false, Ordering::Relaxed);
            Ok(false)
        }
        Err(kube::Error::Api(status)) if status.code == 403 && !was_there.there.load(Ordering::Relaxed) => {
            if !was_there.told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    kind,
                    "this account may not read objects of this kind, so they and their policies are ignored; if there are any, \
                     grant it get, list and watch"
                );
            }
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The objects of each group, once they were listed. Of one name in both, that of the first group counts.
struct Groups<K> {
    known: Vec<Option<BTreeMap<ObjectKey, K>>>,
    /// Whether somebody was told of them.
    told: bool,
}

impl<K: Resource + Clone> Groups<K> {
    fn of(groups: usize) -> Self {
        Self { known: (0..groups).map(|_| None).collect(), told: false }
    }

    /// What a change in one group is to somebody who knows them all; nothing while another group was not listed and nobody was told.
    fn observe(&mut self, place: usize, change: Change<K>) -> Option<Change<K>> {
        let key = change.key();
        change.happens_to(self.known[place].get_or_insert_default(), |object| object);
        match key {
            _ if !self.told && self.known.iter().any(Option::is_none) => None,
            Some(key) if self.told => {
                let counts = self.known.iter().flatten().find_map(|known| known.get(&key));
                Some(counts.map_or(Change::Deleted(key), |object| Change::Applied(object.clone())))
            }
            _ => Some(self.tell_all()),
        }
    }

    /// Whether objects are known that nobody was told of.
    fn holds_back(&self) -> bool {
        !self.told && self.known.iter().flatten().any(|known| !known.is_empty())
    }

    /// All that is known, whether or not every group was listed: one that cannot be must not hide the other.
    fn tell_all(&mut self) -> Change<K> {
        self.told = true;
        let all: BTreeMap<&ObjectKey, &K> = self.known.iter().rev().flatten().flatten().collect();
        Change::Relisted(all.into_values().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use api::llm_d::{self, InferenceObjective, InferenceObjectiveSpec};
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::testing::answer;

    fn objective(name: &str, priority: i32) -> InferenceObjective {
        let spec = InferenceObjectiveSpec { priority: Some(priority), ..InferenceObjectiveSpec::default() };
        let mut object = InferenceObjective::new(name, spec);
        object.metadata.namespace = Some("serving".into());
        object
    }

    /// What somebody knows who was told all this, by name.
    fn known(told: impl IntoIterator<Item = Option<Change<InferenceObjective>>>) -> Vec<(String, Option<i32>)> {
        let mut known = BTreeMap::new();
        for change in told.into_iter().flatten() {
            change.happens_to(&mut known, |object| object.spec.priority);
        }
        known.into_iter().map(|(key, priority)| (key.name, priority)).collect()
    }

    #[test]
    fn of_one_name_in_both_groups_that_of_the_first_counts_while_it_is_there() {
        let mut groups = Groups::of(2);
        let gone = || Change::Deleted(ObjectKey::new("serving", "both"));
        let mut told = vec![groups.observe(1, Change::Relisted(vec![objective("both", 1), objective("old", 1)]))];
        assert!(told[0].is_none(), "the other group may hold one of that name");
        told.push(groups.observe(0, Change::Relisted(vec![objective("both", 0)])));
        assert_eq!(known(told.clone()), [("both".into(), Some(0)), ("old".into(), Some(1))]);
        told.push(groups.observe(1, Change::Applied(objective("both", 7))));
        assert_eq!(known(told.clone())[0].1, Some(0));
        told.push(groups.observe(0, gone()));
        assert_eq!(known(told.clone())[0].1, Some(7));
        told.push(groups.observe(1, gone()));
        assert_eq!(known(told.clone()), [("old".into(), Some(1))]);
        assert!(matches!(told[4], Some(Change::Deleted(_))), "one change, however many objects there are");
        told.push(groups.observe(1, Change::Relisted(vec![])));
        assert_eq!(known(told), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_cannot_be_listed_hides_the_other_for_a_moment_alone_and_is_told_when_it_can() {
        let (sender, changes) = mpsc::channel(8);
        let (events, mut told) = mpsc::channel(8);
        tokio::spawn(merge("InferenceObjective", 2, changes, events, |change| change));
        let in_group = async |place, objects| sender.send((place, Change::Relisted(objects))).await.unwrap();
        let started = Instant::now();
        // Of one that is not there nothing is held back, however long the other takes.
        in_group(1, vec![]).await;
        assert!(tokio::time::timeout(10 * GROUP_PATIENCE, told.recv()).await.is_err(), "told of nothing at all");
        in_group(1, vec![objective("a", 1)]).await;
        let first = told.recv().await;
        assert_eq!(started.elapsed(), 11 * GROUP_PATIENCE);
        assert_eq!(known([first.clone()]), [("a".into(), Some(1))]);
        in_group(0, vec![objective("a", 0), objective("b", 0)]).await;
        assert_eq!(known([first, told.recv().await]), [("a".into(), Some(0)), ("b".into(), Some(0))]);
        assert!(tokio::time::timeout(10 * GROUP_PATIENCE, told.recv()).await.is_err(), "told once");
    }

    /// How often it is said that there is none, and after how long there is one, by an API server that answers lists with these statuses.
    async fn looked(was_there: &Arc<Known>, statuses: Vec<u16>) -> (usize, Duration) {
        let mut statuses = statuses.into_iter();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let empty = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []});
            ready(answer(statuses.next().unwrap_or(200), &empty))
        });
        let kind = GroupVersionKind::gvk(llm_d::GROUPS[0], llm_d::VERSION, "InferenceObjective");
        let api = dynamic(&Client::new(service, "serving"), None, &kind, "inferenceobjectives");
        let started = Instant::now();
        let said = absence::<InferenceObjective>(api, "InferenceObjective", Arc::clone(was_there)).count().await;
        (said, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_for_a_moment_is_looked_for_soon_and_what_is_not_there_less_and_less_often() {
        let seconds = Duration::from_secs;
        let was_there = Arc::default();
        assert_eq!(looked(&was_there, vec![]).await, (0, Duration::ZERO));
        assert_eq!(looked(&was_there, vec![404]).await, (1, seconds(1)));
        assert_eq!(looked(&was_there, vec![404; 7]).await, (7, seconds(1 + 2 + 4 + 8 + 16 + 30 + 30)));
        // What was seen and is forbidden for a moment is still there; what was never seen, or is gone, need not be granted.
        assert_eq!(looked(&was_there, vec![403, 500]).await, (0, seconds(2)));
        assert_eq!(looked(&was_there, vec![404, 403]).await, (2, seconds(1 + 2)));
        assert_eq!(looked(&Arc::default(), vec![403]).await, (1, seconds(1)));
    }
}
