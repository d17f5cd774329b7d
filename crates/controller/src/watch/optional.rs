//! Kinds of llm-d's: they need not be there, may come and go while we run, and are served in one of two groups, or in both.

use std::collections::BTreeMap;
use std::future::ready;
use std::time::Duration;

use api::llm_d;
use futures::{Stream, StreamExt as _, stream};
use index::{Change, Event, ObjectKey};
use kube::api::ListParams;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{AGAIN, carry, dynamic, follow, is_missing, key, said};
use crate::alarm::Alarm;

/// How long a group may keep back what is known of the other, from when that is known.
const GROUP_PATIENCE: Duration = Duration::from_secs(3);

/// How often to look for kinds that were not there.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Watches a kind in each of its groups.
pub(super) fn one<K>(
    client: &Client,
    namespace: Option<&str>,
    kind: &'static str,
    plural: &'static str,
    event: fn(Change<K>) -> Event,
    events: &mpsc::Sender<Event>,
    anew: &watch::Receiver<u64>,
) -> JoinHandle<()>
where
    K: Resource + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let (sender, mut changes) = mpsc::channel(64);
    for (place, group) in llm_d::GROUPS.into_iter().enumerate() {
        let api = dynamic(client, namespace, &GroupVersionKind::gvk(group, llm_d::VERSION, kind), plural);
        let again = move || of_group::<K>(api.clone(), kind).boxed();
        tokio::spawn(carry(again, anew.clone(), sender.clone(), move |change| (place, change)));
    }
    let events = events.clone();
    tokio::spawn(async move {
        let mut groups = Groups::default();
        let mut patience = Alarm::default();
        loop {
            let change = tokio::select! {
                change = changes.recv() => {
                    let Some((place, change)) = change else { return };
                    groups.observe(place, change)
                }
                () = patience.rings() => {
                    tracing::warn!(kind, "one group of this kind cannot be listed; the other goes on without it until it can");
                    Some(groups.tell_all())
                }
            };
            let Some(change) = change else {
                patience.within(GROUP_PATIENCE);
                continue;
            };
            patience = Alarm::default();
            if events.send(event(change)).await.is_err() {
                return;
            }
        }
    })
}

/// What happens to the objects of one group: that there are none, for as long as the API server does not have them, and then what it says.
fn of_group<K>(api: Api<DynamicObject>, kind: &'static str) -> impl Stream<Item = Change<K>>
where
    K: Resource + DeserializeOwned + Send + 'static,
{
    let read = move |object: DynamicObject| {
        let key = key(&object);
        object.try_parse::<K>().map_err(|error| {
            tracing::warn!(kind, object = %key, %error, "object left out: it cannot be read");
            key
        })
    };
    let said = said(api.clone(), watcher::Config::default());
    // When its definition is taken away it is looked for from the beginning.
    let said = said.take_while(|said| ready(!said.as_ref().is_err_and(is_missing)));
    absence(api, kind).chain(follow(said, kind.to_owned(), read))
}

/// That there are no objects, again and again until the API server has their kind.
fn absence<K>(api: Api<DynamicObject>, kind: &'static str) -> impl Stream<Item = Change<K>> {
    stream::unfold((api, Duration::ZERO), move |(api, wait)| async move {
        tokio::time::sleep(wait).await;
        loop {
            match is_served(&api).await {
                Ok(true) => return None,
                Ok(false) => return Some((Change::Relisted(Vec::new()), (api, LOOK_AGAIN))),
                Err(error) => {
                    tracing::warn!(kind, %error, "the API server does not say whether it has this kind");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    })
}

/// Whether the API server has a kind. One that we may not see counts as one that is not there.
async fn is_served(api: &Api<DynamicObject>) -> kube::Result<bool> {
    match api.list(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The objects of each group, once they were listed. Of one name in both, that of the first group counts.
struct Groups<K> {
    known: [Option<BTreeMap<ObjectKey, K>>; llm_d::GROUPS.len()],
    /// Whether somebody was told of them.
    told: bool,
}

impl<K: Resource + Clone> Groups<K> {
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

    /// All that is known, whether or not every group was listed: one that cannot be must not hide the other.
    fn tell_all(&mut self) -> Change<K> {
        self.told = true;
        let all: BTreeMap<&ObjectKey, &K> = self.known.iter().rev().flatten().flatten().collect();
        Change::Relisted(all.into_values().cloned().collect())
    }
}

impl<K> Default for Groups<K> {
    fn default() -> Self {
        Self { known: llm_d::GROUPS.map(|_| None), told: false }
    }
}

#[cfg(test)]
mod tests {
    use api::llm_d::{InferenceObjective, InferenceObjectiveSpec};

    use super::*;

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
        let mut groups = Groups::default();
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

    #[test]
    fn a_group_that_cannot_be_listed_is_told_when_it_can() {
        let mut groups = Groups::default();
        let mut told = vec![groups.observe(1, Change::Relisted(vec![objective("a", 1)]))];
        told.push(Some(groups.tell_all()));
        assert_eq!(known(told.clone()), [("a".into(), Some(1))]);
        told.push(groups.observe(0, Change::Relisted(vec![objective("a", 0), objective("b", 0)])));
        assert_eq!(known(told), [("a".into(), Some(0)), ("b".into(), Some(0))]);
    }
}
