//! Watches: what the API server says, as events for the index.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use api::{InferenceModel, InferencePool, PickerTemplate, llm_d};
use futures::StreamExt as _;
use futures::future::{ready, select_all};
use futures::stream::BoxStream;
use index::{Change, Event, ObjectKey};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::core::{ApiResource, DeserializeGuard, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use publish::Backoff;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Watches every kind. Resolves when one of them ends, which none does while somebody receives.
pub(crate) fn all(
    client: &Client,
    namespace: Option<&str>,
    events: &mpsc::Sender<Event>,
    anew: &watch::Receiver<u64>,
) -> impl Future<Output = ()> + use<> {
    let optional = [
        optional(client, namespace, "InferenceObjective", "inferenceobjectives", Event::Objective, events, anew),
        optional(client, namespace, "InferenceModelRewrite", "inferencemodelrewrites", Event::Rewrite, events, anew),
    ];
    let watches = [
        one::<InferencePool>(client, namespace, Event::Pool, events, anew),
        one::<InferenceModel>(client, namespace, Event::Model, events, anew),
        one::<Pod>(client, namespace, Event::Pod, events, anew),
        one::<Service>(client, namespace, Event::Service, events, anew),
        one::<PickerTemplate>(client, namespace, Event::Template, events, anew),
    ];
    async move { _ = select_all(watches.into_iter().chain(optional)).await }
}

fn one<K>(
    client: &Client,
    namespace: Option<&str>,
    event: fn(Change<K>) -> Event,
    events: &mpsc::Sender<Event>,
    anew: &watch::Receiver<u64>,
) -> JoinHandle<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<DeserializeGuard<K>> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let kind = K::kind(&()).into_owned();
    let again = move || follow(api.clone(), watcher::Config::default(), kind.clone(), read);
    tokio::spawn(carry(again, anew.clone(), events.clone(), event))
}

/// A kind of llm-d's, in each of its groups that the API server has; of one name in both, that of the first group counts. Where neither is,
/// there are no such objects; both are looked for again now and then.
fn optional<K>(
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
        tokio::spawn(of_group::<K>(api, place, kind, sender.clone(), anew.clone()));
    }
    let events = events.clone();
    tokio::spawn(async move {
        let mut known = llm_d::GROUPS.map(|_| None);
        let mut patience = std::pin::pin!(tokio::time::sleep(GROUP_PATIENCE));
        loop {
            tokio::select! {
                change = changes.recv() => {
                    let Some((place, change)) = change else { return };
                    change.happens_to(known[place].get_or_insert_default(), |object| object);
                }
                // One group that cannot be listed must not hide the other.
                () = &mut patience, if !patience.is_elapsed() => {}
            }
            let complete = known.iter().all(Option::is_some);
            if (complete || patience.is_elapsed()) && known.iter().any(Option::is_some) {
                let all: BTreeMap<&ObjectKey, &K> = known.iter().rev().flatten().flatten().collect();
                let all = all.into_values().cloned().collect();
                if events.send(event(Change::Relisted(all))).await.is_err() {
                    return;
                }
            }
        }
    })
}

/// What happens to a kind of one group, from when the API server has it on; until then, that there is none.
async fn of_group<K>(
    api: Api<DynamicObject>,
    place: usize,
    kind: &'static str,
    changes: mpsc::Sender<(usize, Change<K>)>,
    anew: watch::Receiver<u64>,
) where
    K: Resource + DeserializeOwned + Send + 'static,
{
    loop {
        match is_served(&api).await {
            Ok(true) => break,
            Ok(false) => {
                if changes.send((place, Change::Relisted(Vec::new()))).await.is_err() {
                    return;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => {
                tracing::warn!(kind, %error, "the API server does not say whether it has this kind");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    let read = move |object: DynamicObject| {
        let key = key(&object);
        object.try_parse::<K>().map_err(|error| {
            tracing::warn!(kind, object = %key, %error, "object left out: it cannot be read");
            key
        })
    };
    let again = move || follow(api.clone(), watcher::Config::default(), kind.to_owned(), read);
    carry(again, anew, changes, move |change| (place, change)).await;
}

/// Objects of a kind that is known by its names alone, of one namespace or of all.
pub(crate) fn dynamic(
    client: &Client,
    namespace: Option<&str>,
    kind: &GroupVersionKind,
    plural: &str,
) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(kind, plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Whether the API server has a kind. One that we may not see counts as one that is not there.
async fn is_served(api: &Api<DynamicObject>) -> kube::Result<bool> {
    match api.list(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(false),
        Err(error) => Err(error),
    }
}

/// How long one group may keep what is known of the other back.
const GROUP_PATIENCE: Duration = Duration::from_secs(3);

/// How often to look for kinds that were not there.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How long after its end a watch is begun anew.
const AGAIN: Duration = Duration::from_secs(1);

/// Hands on what a watch says, and begins the watch anew whenever it ends, or `anew` changes.
pub(crate) async fn carry<C, E>(
    again: impl Fn() -> BoxStream<'static, C>,
    mut anew: watch::Receiver<u64>,
    events: mpsc::Sender<E>,
    event: impl Fn(C) -> E,
) {
    let mut changes = again();
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(change) => if events.send(event(change)).await.is_err() {
                    return;
                },
                None => {
                    tokio::time::sleep(AGAIN).await;
                    changes = again();
                }
            },
            Ok(()) = anew.changed() => changes = again(),
        }
    }
}

/// What happens to the objects of one kind, whatever happens to the API server, until it has to be begun anew. `read` makes of each what is wanted of it, or its key
/// where it is to be left out.
pub(crate) fn follow<W, K>(
    api: Api<W>,
    config: watcher::Config,
    kind: String,
    read: impl Fn(W) -> Result<K, ObjectKey> + Send + 'static,
) -> BoxStream<'static, Change<K>>
where
    W: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    K: Send + 'static,
{
    // A list arrives object by object; it is taken whole, so that nobody ever sees half a cluster.
    let mut listing = Vec::new();
    let mut missing = false;
    let mut take = move |said| match said {
        Ok(watcher::Event::Init) => {
            listing.clear();
            None
        }
        Ok(watcher::Event::InitApply(object)) => {
            listing.extend(read(object).ok());
            None
        }
        Ok(watcher::Event::InitDone) => {
            tracing::info!(kind, objects = listing.len(), "listed");
            missing = false;
            Some(Change::Relisted(std::mem::take(&mut listing)))
        }
        Ok(watcher::Event::Apply(object)) => Some(read(object).map_or_else(Change::Deleted, Change::Applied)),
        Ok(watcher::Event::Delete(object)) => Some(Change::Deleted(key(&object))),
        Err(error) => {
            // Said once: it may stay so for long.
            if !is_missing(&error) {
                tracing::warn!(kind, %error, "watch interrupted; it will be taken up again");
            } else if !std::mem::replace(&mut missing, true) {
                tracing::error!(
                    kind,
                    "the API server does not know this kind; install the CRDs: kubectl apply -k crds"
                );
            }
            None
        }
    };
    // The library goes on from the same place when a watch is refused because that place is gone.
    let stale = |said: &watcher::Result<watcher::Event<W>>| matches!(said, Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410);
    let said = watcher(api, config).backoff(Patience::default()).take_while(move |said| ready(!stale(said)));
    said.filter_map(move |said| ready(take(said))).boxed()
}

fn is_missing(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// Waits between tries: from 100 ms to 2 s, half of it jitter. An API server that is back is to be listened to at once; the default of the
/// library goes to half a minute, twice over when what was known has expired.
#[derive(Debug, Default)]
struct Patience(Backoff);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next(fastrand::f64()).min(Duration::from_secs(2)))
    }
}

impl kube::runtime::utils::Backoff for Patience {
    fn reset(&mut self) {
        self.0 = Backoff::default();
    }
}

/// The object, or the key of one that does not parse: such an object is left out, as if it were not there.
fn read<K: Resource<DynamicType = ()>>(guard: DeserializeGuard<K>) -> Result<K, ObjectKey> {
    guard.0.map_err(|invalid| {
        let key = ObjectKey::new(
            invalid.metadata.namespace.clone().unwrap_or_default(),
            invalid.metadata.name.clone().unwrap_or_default(),
        );
        tracing::warn!(kind = %K::kind(&()), object = %key, error = %invalid.error, "object left out: it cannot be read");
        key
    })
}

fn key(object: &impl Resource) -> ObjectKey {
    ObjectKey::new(object.meta().namespace.clone().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_that_cannot_be_read_is_left_out_by_its_key() {
        let guard = |criticality: &str| -> DeserializeGuard<InferenceModel> {
            let object = json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "InferenceModel",
                "metadata": {"name": "m", "namespace": "n"}, "spec": {"modelName": "m", "criticality": criticality}});
            serde_json::from_value(object).expect("a guard takes whatever has metadata")
        };
        assert!(read(guard("Standard")).is_ok());
        assert_eq!(read(guard("OfTomorrow")).map(|_| ()), Err(ObjectKey::new("n", "m")));
    }
}
