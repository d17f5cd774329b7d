//! What the watches said: a store of each kind, which follows applied, deleted and relisted objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::llm_d::{InferenceModelRewrite, InferenceObjective};
use api::{InferenceModel, InferencePool, PickerTemplate};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use routing::Found;

use crate::finds::{Finds, ServerKey};
use crate::pod::{PodFacts, selects};
use crate::stale::{Stale, is_same_but_for_status};

/// A namespace and a name. Objects of a folder that name no namespace live in `default`, as with kubectl.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

/// Something happened to the objects of one kind.
#[derive(Debug, Clone)]
pub enum Change<T> {
    Applied(T),
    Deleted(ObjectKey),
    /// All there are; whatever else was known is gone.
    Relisted(Vec<T>),
}

/// What a watch said.
#[expect(clippy::large_enum_variant, reason = "events are moved a few times each; a box would cost more than it saves")]
#[derive(Debug, Clone)]
pub enum Event {
    Pool(Change<InferencePool>),
    Model(Change<InferenceModel>),
    Pod(Change<Pod>),
    Service(Change<Service>),
    Template(Change<PickerTemplate>),
    Objective(Change<InferenceObjective>),
    Rewrite(Change<InferenceModelRewrite>),
    /// A model server was asked what it is.
    Found(ServerKey, Arc<Found>),
}

/// The cluster as far as it was seen.
#[derive(Debug, Default)]
pub struct Index {
    pub(crate) pools: Store<InferencePool>,
    pub(crate) models: Store<InferenceModel>,
    pub(crate) pods: Store<PodFacts>,
    pub(crate) services: Store<ServiceFacts>,
    pub(crate) templates: Store<PickerTemplate>,
    pub(crate) objectives: Store<InferenceObjective>,
    pub(crate) rewrites: Store<InferenceModelRewrite>,
    pub(crate) managed_by_default: ManagedByDefault,
    pub(crate) finds: Finds,
}

/// How much of the cluster was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    TooLittle,
    /// All but kinds of other projects, whose definitions may be broken without our doing.
    AllButOthers,
    All,
}

/// Which pools are managed that do not say so themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ManagedByDefault {
    #[default]
    None,
    /// Those of these namespaces.
    In(Vec<String>),
    All,
}

/// Objects of one kind.
#[derive(Debug)]
pub(crate) struct Store<T> {
    pub(crate) objects: BTreeMap<ObjectKey, T>,
    listed: bool,
}

/// What a change told that was not known.
enum News<T> {
    None,
    /// Of one object, and what was known of it before.
    Of(ObjectKey, Option<T>),
    OfAll,
}

/// What matters of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    pub(crate) external_name: bool,
    pub(crate) ports: Vec<i32>,
    /// Whether it has a port for clients that come without a gateway: one called `http`, as our manifests and managed pickers have it.
    pub(crate) takes_clients: bool,
}

// === impl Index ===

impl Index {
    /// Takes note of what happened, and says what that makes stale of what was compiled before: see [`Index::compile_again`].
    pub fn observe(&mut self, event: Event) -> Stale {
        match event {
            Event::Pod(change) => {
                let news = self.pods.observe(change, |pod| PodFacts::of(&pod), PodFacts::eq);
                self.forget_pods(&news);
                match news {
                    News::Of(key, before) => self.stale_with_pod(&key, before.as_ref()),
                    all_or_none => all_or_none.stale(),
                }
            }
            Event::Found(server, found) => {
                let is_there = self.pods.objects.get(&server.pod).is_some_and(|pod| pod.uid == server.uid);
                if is_there && self.finds.learn(&server, found) {
                    self.stale_with_pod(&server.pod, None)
                } else {
                    Stale::NOTHING
                }
            }
            Event::Service(change) => {
                match self.services.observe(change, |service| ServiceFacts::of(&service), ServiceFacts::eq) {
                    News::Of(key, _) if !self.is_named_by_a_pool(&key) => Stale::NOTHING,
                    news => news.stale(),
                }
            }
            Event::Pool(change) => self.pools.observe(change, |pool| pool, is_same_but_for_status).stale(),
            Event::Model(change) => self.models.observe(change, |model| model, is_same_but_for_status).stale(),
            Event::Template(change) => self.templates.observe(change, |one| one, is_same_but_for_status).stale(),
            Event::Objective(change) => self.objectives.observe(change, |one| one, is_same_but_for_status).stale(),
            Event::Rewrite(change) => self.rewrites.observe(change, |one| one, is_same_but_for_status).stale(),
        }
    }

    /// What was found of pods that are gone, or became others, is of no use.
    fn forget_pods(&mut self, news: &News<PodFacts>) {
        let is_there = |key: &ObjectKey, uid| self.pods.objects.get(key).is_some_and(|pod| pod.uid == uid);
        match news {
            News::None => {}
            News::Of(key, before) if before.as_ref().is_none_or(|before| is_there(key, before.uid)) => {}
            News::Of(..) | News::OfAll => self.finds.retain(is_there),
        }
    }

    /// The pools that a pod was in, or is in now.
    fn stale_with_pod(&self, key: &ObjectKey, before: Option<&PodFacts>) -> Stale {
        let after = self.pods.objects.get(key);
        let has_it = |(_, pool): &(_, &InferencePool)| {
            before.into_iter().chain(after).any(|pod| selects(&pool.spec.selector.match_labels, &pod.labels))
        };
        let pools = self.pools.in_namespace(&key.namespace).filter(has_it);
        let names: BTreeSet<String> = pools.map(|(pool, _)| pool.name.clone()).collect();
        if names.is_empty() { Stale::NOTHING } else { Stale::Pools(BTreeMap::from([(key.namespace.clone(), names)])) }
    }

    /// Whether a Service is some pool's picker; what other Services are is said of nothing.
    fn is_named_by_a_pool(&self, service: &ObjectKey) -> bool {
        let pickers = self.pools.in_namespace(&service.namespace).map(|(_, pool)| &pool.spec.endpoint_picker_ref);
        pickers.flatten().any(|picker| picker.name == service.name)
    }

    /// Says which pools are managed that do not say so themselves.
    #[must_use]
    pub fn managing(self, managed_by_default: ManagedByDefault) -> Self {
        Self { managed_by_default, ..self }
    }

    /// How much was listed. A table that is compiled before would miss what was merely not seen yet.
    pub fn listed(&self) -> Listed {
        let ours = self.pools.listed
            && self.models.listed
            && self.pods.listed
            && self.services.listed
            && self.templates.listed;
        match ours {
            true if self.objectives.listed && self.rewrites.listed => Listed::All,
            true => Listed::AllButOthers,
            false => Listed::TooLittle,
        }
    }

    pub fn pool(&self, key: &ObjectKey) -> Option<&InferencePool> {
        self.pools.objects.get(key)
    }

    pub fn pools(&self) -> impl Iterator<Item = (&ObjectKey, &InferencePool)> {
        self.pools.objects.iter()
    }

    pub fn models(&self) -> impl Iterator<Item = (&ObjectKey, &InferenceModel)> {
        self.models.objects.iter()
    }

    pub fn model(&self, key: &ObjectKey) -> Option<&InferenceModel> {
        self.models.objects.get(key)
    }
}

// === impl Change ===

impl<O: ResourceExt> Change<O> {
    /// The one object that it happens to; none where it happens to all.
    pub fn key(&self) -> Option<ObjectKey> {
        match self {
            Self::Applied(object) => Some(ObjectKey::of(object)),
            Self::Deleted(key) => Some(key.clone()),
            Self::Relisted(_) => None,
        }
    }

    /// Makes the change in what is known of the objects of its kind.
    pub fn happens_to<T>(self, known: &mut BTreeMap<ObjectKey, T>, facts: impl Fn(O) -> T) {
        match self {
            Self::Applied(object) => _ = known.insert(ObjectKey::of(&object), facts(object)),
            Self::Deleted(key) => _ = known.remove(&key),
            Self::Relisted(all) => {
                *known = all.into_iter().map(|object| (ObjectKey::of(&object), facts(object))).collect();
            }
        }
    }
}

// === impl ManagedByDefault ===

impl ManagedByDefault {
    pub(crate) fn holds(&self, namespace: &str) -> bool {
        match self {
            Self::None => false,
            Self::In(namespaces) => namespaces.iter().any(|one| one == namespace),
            Self::All => true,
        }
    }
}

// === impl Store ===

impl<T> Store<T> {
    /// Answers what of it is news, by what makes two objects the `same`. The first list always is: something may wait for it.
    fn observe<O: ResourceExt>(
        &mut self,
        change: Change<O>,
        facts: impl Fn(O) -> T,
        same: impl Fn(&T, &T) -> bool,
    ) -> News<T> {
        let Some(key) = change.key() else {
            let (was_listed, before) = (std::mem::replace(&mut self.listed, true), std::mem::take(&mut self.objects));
            change.happens_to(&mut self.objects, facts);
            let mut both = before.iter().zip(&self.objects);
            let is_same = before.len() == self.objects.len() && both.all(|(a, b)| a.0 == b.0 && same(a.1, b.1));
            return if was_listed && is_same { News::None } else { News::OfAll };
        };
        let before = self.objects.remove(&key);
        change.happens_to(&mut self.objects, facts);
        match (&before, self.objects.get(&key)) {
            (None, None) => News::None,
            (Some(before), Some(after)) if same(before, after) => News::None,
            _ => News::Of(key, before),
        }
    }

    /// The objects of one namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &T)> {
        let from = ObjectKey { namespace: namespace.to_owned(), name: String::new() };
        self.objects.range(from..).take_while(move |(key, _)| key.namespace == namespace)
    }
}

impl<T> News<T> {
    /// Of objects that anything may be made from.
    fn stale(self) -> Stale {
        match self {
            Self::None => Stale::NOTHING,
            Self::Of(..) | Self::OfAll => Stale::All,
        }
    }
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listed: false }
    }
}

// === impl ObjectKey ===

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn of<K: ResourceExt>(object: &K) -> Self {
        Self::new(object.namespace().unwrap_or_else(|| "default".into()), object.name_any())
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ServiceFacts {
    fn of(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let ports = spec.ports.unwrap_or_default();
        Self {
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            takes_clients: ports.iter().any(|port| port.name.as_deref() == Some("http")),
            ports: ports.iter().map(|port| port.port).collect(),
        }
    }
}
