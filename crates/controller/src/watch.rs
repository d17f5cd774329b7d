//! Watches: what the API server says, as events for the index.

use std::fmt::Debug;
use std::time::Duration;

use api::{InferenceModel, InferencePool};
use futures::StreamExt as _;
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
    async move {
        tokio::select! {
            _ = pools => {}
            _ = models => {}
            _ = pods => {}
            _ = services => {}
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
    let kind = K::kind(&());
    let mut stream = watcher(api, watcher::Config::default()).backoff(Patience::default()).boxed();
    // A list arrives object by object; the index takes it whole, so that it never sees half a cluster.
    let mut listing = Vec::new();
    while let Some(said) = stream.next().await {
        let change = match said {
            Ok(watcher::Event::Init) => {
                listing.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listing.extend(read(object).ok());
                continue;
            }
            Ok(watcher::Event::InitDone) => {
                tracing::info!(%kind, objects = listing.len(), "listed");
                Change::Relisted(std::mem::take(&mut listing))
            }
            Ok(watcher::Event::Apply(object)) => read(object).map_or_else(Change::Deleted, Change::Applied),
            Ok(watcher::Event::Delete(object)) => Change::Deleted(key(&object)),
            Err(error) => {
                tracing::warn!(%kind, %error, "watch interrupted; it will be taken up again");
                continue;
            }
        };
        if events.send(event(change)).await.is_err() {
            return;
        }
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

fn key<K: Resource<DynamicType = ()>>(guard: &DeserializeGuard<K>) -> ObjectKey {
    let meta = guard.meta();
    ObjectKey::new(meta.namespace.clone().unwrap_or_default(), guard.name_any())
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
