//! Watches: what the API server says, as events for the index.
//!
//! Invariants:
//! - a list is taken whole, so that nobody ever sees half a cluster;
//! - whatever happens to the API server, the watch is taken up again, and what was known meanwhile stays;
//! - an object that cannot be read is left out by its key, and the log says why.

mod gateways;
mod optional;
#[doc(hidden)]
pub mod testing;

use std::fmt::Debug;
use std::time::Duration;

use api::{InferenceModel, InferencePool, PickerTemplate, llm_d};
use futures::future::{ready, select_all};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use index::{Change, Event, ObjectKey};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::{ApiResource, DeserializeGuard, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use publish::Backoff;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use gateways::gateways;

use optional::Optional;

const OBJECTIVES: Optional = of_llm_d("InferenceObjective", "inferenceobjectives");
const REWRITES: Optional = of_llm_d("InferenceModelRewrite", "inferencemodelrewrites");

const fn of_llm_d(kind: &'static str, plural: &'static str) -> Optional {
    const GROUPS: [(&str, &str); 2] = [(llm_d::GROUPS[0], llm_d::VERSION), (llm_d::GROUPS[1], llm_d::VERSION)];
    Optional { kind, plural, groups: &GROUPS }
}

/// Ours, where whoever watches can do without it.
const MODELS: Optional =
    Optional { kind: "InferenceModel", plural: "inferencemodels", groups: &[("thalamus.dev", "v1alpha1")] };

/// Watches every kind. Resolves when one of them ends, which none does while somebody receives.
pub fn all(
    client: &Client,
    namespace: Option<&str>,
    events: &mpsc::Sender<Event>,
    anew: &watch::Receiver<u64>,
) -> impl Future<Output = ()> + use<> {
    let watches = [
        one::<InferencePool>(client, namespace, None, Event::Pool, events, anew),
        one::<InferenceModel>(client, namespace, None, Event::Model, events, anew),
        one::<Pod>(client, namespace, None, Event::Pod, events, anew),
        one::<Service>(client, namespace, None, Event::Service, events, anew),
        one::<PickerTemplate>(client, namespace, None, Event::Template, events, anew),
        optional::one(client, namespace, OBJECTIVES, Event::Objective, events, anew),
        optional::one(client, namespace, REWRITES, Event::Rewrite, events, anew),
    ];
    async move { _ = select_all(watches).await }
}

/// Watches what one pool is made from with the rights that every endpoint picker has: that pool, where it is named, and the pods of its
/// namespace; and models, objectives and rewrites where they are there and may be seen. Of the other kinds there are none. Resolves as
/// [`all`] does.
pub fn one_pool(
    client: &Client,
    namespace: &str,
    pool: Option<&str>,
    events: &mpsc::Sender<Event>,
) -> impl Future<Output = ()> + use<> {
    let namespace = Some(namespace);
    let (never, anew) = watch::channel(0);
    let pool = pool.map(|pool| one::<InferencePool>(client, namespace, Some(pool), Event::Pool, events, &anew));
    let watches = [
        one::<Pod>(client, namespace, None, Event::Pod, events, &anew),
        optional::one(client, namespace, MODELS, Event::Model, events, &anew),
        optional::one(client, namespace, OBJECTIVES, Event::Objective, events, &anew),
        optional::one(client, namespace, REWRITES, Event::Rewrite, events, &anew),
    ];
    let watches: Vec<_> = pool.into_iter().chain(watches).collect();
    async move {
        _ = select_all(watches).await;
        drop(never);
    }
}

fn one<K>(
    client: &Client,
    namespace: Option<&str>,
    name: Option<&str>,
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
    let config = watcher::Config::default();
    let config = match name {
        Some(name) => config.fields(&format!("metadata.name={name}")),
        None => config,
    };
    let again = move || follow(said(api.clone(), config.clone()), kind.clone(), read).boxed();
    tokio::spawn(carry(again, anew.clone(), events.clone(), event))
}

/// Objects of a kind that is known by its names alone, of one namespace or of all.
pub fn dynamic(client: &Client, namespace: Option<&str>, kind: &GroupVersionKind, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(kind, plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// How long after its end a watch is begun anew, and after a failure a question is asked again: an API server that ends each at once, or refuses, is not to
/// be asked without a pause.
const AGAIN: Duration = Duration::from_secs(1);

/// Hands on what a watch says, and begins the watch anew whenever it ends, or `anew` changes.
pub async fn carry<C, E>(
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
pub fn said<W>(api: Api<W>, config: watcher::Config) -> impl Stream<Item = Said<W>>
where
    W: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    // The library goes on from the same place when a watch is refused because that place is gone.
    let is_stale = |said: &Said<W>| matches!(said, Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410);
    patient(watcher(api, config)).take_while(move |said| ready(!is_stale(said)))
}

/// Waits after each error, longer and longer until something is known again: from 100 ms to 2 s, half of it jitter. An API server that is back is
/// to be listened to at once, and one that refuses not to be asked without end. (The library's own wrapper begins anew with each attempt at a list.)
fn patient<W>(said: impl Stream<Item = Said<W>>) -> impl Stream<Item = Said<W>> {
    let start = (Box::pin(said), Backoff::default(), None);
    futures::stream::unfold(start, |(mut said, mut backoff, wait)| async move {
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        let item = said.next().await?;
        let wait = match &item {
            Err(_) => Some(backoff.next(fastrand::f64()).min(LONGEST)),
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
            Ok(_) => {
                backoff = Backoff::default();
                None
            }
        };
        Some((item, (said, backoff, wait)))
    })
}

/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(2);

type Said<W> = watcher::Result<watcher::Event<W>>;

/// What happens to the objects of one kind. `read` makes of each what is wanted of it, or its key where it is to be left out.
pub fn follow<W, K>(
    said: impl Stream<Item = Said<W>>,
    kind: String,
    read: impl Fn(W) -> Result<K, ObjectKey>,
) -> impl Stream<Item = Change<K>>
where
    W: Resource,
{
    // A list arrives object by object; it is taken whole, so that nobody ever sees half a cluster.
    let mut listing = Vec::new();
    // Of what may stay so for long, what was said last.
    let mut known: Option<u16> = None;
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
            known = None;
            Some(Change::Relisted(std::mem::take(&mut listing)))
        }
        Ok(watcher::Event::Apply(object)) => Some(read(object).map_or_else(Change::Deleted, Change::Applied)),
        Ok(watcher::Event::Delete(object)) => Some(Change::Deleted(ObjectKey::of(&object))),
        Err(error) => {
            match refusal(&error) {
                Some(code) if known == Some(code) => {}
                Some(404) => tracing::error!(
                    kind,
                    "the API server does not know this kind; install the CRDs: kubectl apply --server-side -k crds, and kubectl create -k \
                     crds/inference-pool"
                ),
                Some(403) => tracing::error!(
                    kind,
                    %error,
                    "this account may not read objects of this kind; grant it get, list and watch"
                ),
                _ => tracing::warn!(kind, %error, "watch interrupted; resuming it"),
            }
            known = refusal(&error).or(known);
            None
        }
    };
    said.filter_map(move |said| ready(take(said)))
}

fn is_missing(error: &watcher::Error) -> bool {
    refusal(error) == Some(404)
}

/// The status by which the API server refuses a watch from its beginning, where that will not change by itself.
fn refusal(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            Some(status.code).filter(|code| matches!(code, 403 | 404))
        }
        _ => None,
    }
}

/// The object, or the key of one that does not parse: such an object is left out, as if it were not there.
fn read<K: Resource<DynamicType = ()>>(guard: DeserializeGuard<K>) -> Result<K, ObjectKey> {
    guard.0.map_err(|invalid| {
        let key = ObjectKey::new(
            invalid.metadata.namespace.clone().unwrap_or_default(),
            invalid.metadata.name.clone().unwrap_or_default(),
        );
        tracing::warn!(kind = %K::kind(&()), object = %key, error = %invalid.error, "object ignored: it cannot be parsed");
        key
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn who_may_not_look_asks_less_and_less_often() {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&asked);
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            ready(testing::answer(403, &json!({})))
        });
        let pods: Api<Pod> = Api::all(Client::new(service, "default"));
        let listening = said(pods, watcher::Config::default()).for_each(|_| ready(()));
        assert!(tokio::time::timeout(Duration::from_mins(1), listening).await.is_err(), "it never ends");
        // 2 s each, half of it jitter, after the first few.
        let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
        assert!((25..80).contains(&asked), "asked {asked} times in a minute");
    }

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
