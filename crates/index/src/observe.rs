//! What the watches said: a store of each kind, which follows applied, deleted and relisted objects.

use std::collections::BTreeMap;

use api::llm_d::{InferenceModelRewrite, InferenceObjective};
use api::{InferenceModel, InferencePool, PickerTemplate};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;

use crate::pod::PodFacts;

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

/// What matters of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    pub(crate) external_name: bool,
    pub(crate) ports: Vec<i32>,
}

// === impl Index ===

impl Index {
    pub fn observe(&mut self, event: Event) {
        match event {
            Event::Pool(change) => self.pools.observe(change, |pool| pool),
            Event::Model(change) => self.models.observe(change, |model| model),
            Event::Pod(change) => self.pods.observe(change, |pod| PodFacts::of(&pod)),
            Event::Service(change) => self.services.observe(change, |service| ServiceFacts::of(&service)),
            Event::Template(change) => self.templates.observe(change, |template| template),
            Event::Objective(change) => self.objectives.observe(change, |objective| objective),
            Event::Rewrite(change) => self.rewrites.observe(change, |rewrite| rewrite),
        }
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
    fn observe<O: ResourceExt>(&mut self, change: Change<O>, facts: impl Fn(O) -> T) {
        self.listed |= matches!(change, Change::Relisted(_));
        change.happens_to(&mut self.objects, facts);
    }

    /// The objects of one namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &T)> {
        let from = ObjectKey { namespace: namespace.to_owned(), name: String::new() };
        self.objects.range(from..).take_while(move |(key, _)| key.namespace == namespace)
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
        Self {
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            ports: spec.ports.unwrap_or_default().iter().map(|port| port.port).collect(),
        }
    }
}
