//! What pickers consist of: which kinds, whose an object is, and what of it is ours to keep.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use api::annotations;
use index::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};

use cluster_watch::dynamic;

/// The label on all that we make, and its value.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "thalamus");

/// The kinds of objects that make up pickers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ChildKind {
    ServiceAccount,
    Service,
    ConfigMap,
    NetworkPolicy,
    PodDisruptionBudget,
    Deployment,
    HorizontalPodAutoscaler,
}

/// An object's kind and key.
pub(super) type ChildKey = (ChildKind, ObjectKey);

impl ChildKind {
    pub(super) const ALL: [Self; 7] = [
        Self::ServiceAccount,
        Self::Service,
        Self::ConfigMap,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
    ];

    /// Group, version, kind and plural.
    const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::PodDisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::HorizontalPodAutoscaler => {
                ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            }
        }
    }

    pub(super) const fn name(self) -> &'static str {
        self.names().2
    }

    /// The objects of this kind, of one namespace or of all.
    pub(super) fn api(self, client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version, kind, plural) = self.names();
        dynamic(client, namespace, &GroupVersionKind::gvk(group, version, kind), plural)
    }
}

/// The key of an object that we made or rendered; none of others.
pub(super) fn child_key(object: &DynamicObject) -> Option<ChildKey> {
    let name = &*object.types.as_ref()?.kind;
    let kind = ChildKind::ALL.into_iter().find(|kind| kind.name() == name)?;
    Some((kind, ObjectKey::of(object)))
}

pub(super) fn shown((kind, key): &ChildKey) -> String {
    format!("{} {}", kind.name(), key.name)
}

/// Whether we made it: for the pool with this uid, or, without one, by our label.
pub(super) fn belongs(object: &DynamicObject, owner: Option<&str>) -> bool {
    match owner {
        Some(uid) => self::owner(object).is_some_and(|owner| owner.uid == uid),
        None => object.labels().get(MANAGED_BY.0).is_some_and(|value| value == MANAGED_BY.1),
    }
}

/// Whether its owner took it back.
pub(super) fn is_hands_off(object: &DynamicObject) -> bool {
    object.annotations().get(annotations::HANDS_OFF).is_some_and(|value| value == "true")
}

pub(super) fn owner(object: &DynamicObject) -> Option<&OwnerReference> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// Whose an object is that is in the way of one of ours, and what to do about it.
pub(super) fn why_foreign(key: &ChildKey, there: &DynamicObject, desired: &DynamicObject) -> String {
    let what = shown(key);
    match (owner(there), owner(desired)) {
        (Some(old), Some(ours)) if old.kind == ours.kind && old.name == ours.name => {
            format!("{what} is left over from a deleted pool of this name; wait for Kubernetes to garbage-collect it")
        }
        (Some(other), Some(_)) => {
            format!("{what} belongs to {} {}; name another Service in endpointPickerRef", other.kind, other.name)
        }
        (None, Some(_)) => format!(
            "{what} already exists and was not created by Thalamus; delete it, or name another Service in endpointPickerRef"
        ),
        // Of a whole namespace, and of one name alone.
        (_, None) => {
            format!(
                "{what} already exists and was not created by Thalamus, but pickers verify the controller with it; delete it"
            )
        }
    }
}

/// What of an object is ours to keep, or could be: everything but its status and what the API server counts.
pub(super) fn fingerprint(object: &DynamicObject) -> u64 {
    let metadata = &object.metadata;
    let annotations: Option<BTreeMap<&String, &String>> = metadata
        .annotations
        .as_ref()
        .map(|all| all.iter().filter(|(name, _)| !name.starts_with("deployment.kubernetes.io/")).collect());
    let mut data = object.data.clone();
    if let Some(data) = data.as_object_mut() {
        data.remove("status");
    }
    hash(&serde_json::json!([metadata.labels, annotations, metadata.owner_references, metadata.uid, data]))
}

pub(super) fn hash(value: &impl serde::Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(value).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
