//! Watches: what the API server says, as events for the index.

mod gateways;
mod optional;

use std::fmt::Debug;
use std::time::Duration;

use api::{InferenceModel, InferencePool, PickerTemplate};
use futures::future::{ready, select_all};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use index::{Change, Event, ObjectKey};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::{ApiResource, DeserializeGuard, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use publish::Backoff;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub(crate) use gateways::gateways;

/// Watches every kind. Resolves when one of them ends, which none does while somebody receives.
pub(crate) fn all(
    client: &Client,
    namespace: Option<&str>,
    events: &mpsc::Sender<Event>,
    anew: &watch::Receiver<u64>,
) -> impl Future<Output = ()> + use<> {
    let optional = [
        optional::one(client, namespace, "InferenceObjective", "inferenceobjectives", Event::Objective, events, anew),
        optional::one(
            client,
            namespace,
            "InferenceModelRewrite",
            "inferencemodelrewrites",
            Event::Rewrite,
            events,
            anew,
        ),
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
    let again = move || follow(said(api.clone(), watcher::Config::default()), kind.clone(), read).boxed();
    tokio::spawn(carry(again, anew.clone(), events.clone(), event))
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

/// How long after its end a watch is begun anew: an API server that ends each at once is not to be asked without a pause.
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

/// What a watch says, whatever happens to the API server, until it has to be begun anew.
pub(crate) fn said<W>(api: Api<W>, config: watcher::Config) -> impl Stream<Item = Said<W>>
where
    W: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    // The library goes on from the same place when a watch is refused because that place is gone.
    let is_stale = |said: &Said<W>| matches!(said, Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410);
    watcher(api, config).backoff(Patience::default()).take_while(move |said| ready(!is_stale(said)))
}

type Said<W> = watcher::Result<watcher::Event<W>>;

/// What happens to the objects of one kind. `read` makes of each what is wanted of it, or its key where it is to be left out.
pub(crate) fn follow<W, K>(
    said: impl Stream<Item = Said<W>>,
    kind: String,
    read: impl Fn(W) -> Result<K, ObjectKey>,
) -> impl Stream<Item = Change<K>>
where
    W: Resource,
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
        Ok(watcher::Event::Delete(object)) => Some(Change::Deleted(ObjectKey::of(&object))),
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
    said.filter_map(move |said| ready(take(said)))
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
