//! Watches: what the API server says, as events for the index.

use std::fmt::Debug;
use std::time::Duration;

use api::{InferenceModel, InferencePool, PickerTemplate};
use futures::StreamExt as _;
use futures::future::ready;
use futures::stream::BoxStream;
use index::{Change, Event, ObjectKey};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use publish::Backoff;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// Watches every kind. Resolves when one of them ends, which none does while somebody receives.
pub(crate) fn all(
    client: &Client,
    namespace: Option<&str>,
    events: &mpsc::Sender<Event>,
) -> impl Future<Output = ()> + use<> {
    let pools = tokio::spawn(watch(api::<InferencePool>(client, namespace), Event::Pool, events.clone()));
    let models = tokio::spawn(watch(api::<InferenceModel>(client, namespace), Event::Model, events.clone()));
    let pods = tokio::spawn(watch(api::<Pod>(client, namespace), Event::Pod, events.clone()));
    let services = tokio::spawn(watch(api::<Service>(client, namespace), Event::Service, events.clone()));
    let templates = tokio::spawn(watch(api::<PickerTemplate>(client, namespace), Event::Template, events.clone()));
    async move {
        tokio::select! {
            _ = pools => {}
            _ = models => {}
            _ = pods => {}
            _ = services => {}
            _ = templates => {}
        }
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<DeserializeGuard<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn watch<K>(api: Api<DeserializeGuard<K>>, event: fn(Change<K>) -> Event, events: mpsc::Sender<Event>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut changes = follow(api, watcher::Config::default(), K::kind(&()).into_owned(), read);
    while let Some(change) = changes.next().await {
        if events.send(event(change)).await.is_err() {
            return;
        }
    }
}

/// What happens to the objects of one kind, whatever happens to the API server. `read` makes of each what is wanted of it, or its key
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
    watcher(api, config).backoff(Patience::default()).filter_map(move |said| ready(take(said))).boxed()
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
