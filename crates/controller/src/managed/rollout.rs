//! How far a Deployment has come, and which of several may be changed next: an upgrade of the controller replaces the pickers of one pool
//! at a time, and stops at the first that does not come up.

use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde_json::Value;

use crate::status::MANAGER;

/// On a Deployment: by which release of the controller's settings it was made.
pub(crate) const RELEASE: &str = "thalamus.dev/release";

/// Kubernetes' own count of a Deployment's templates.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// What a Deployment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) wanted: i64,
    pub(crate) ready: i64,
    /// Kubernetes has looked at the newest template.
    pub(crate) seen: bool,
    /// Every pod is of the newest template and available, and no other is left.
    pub(crate) complete: bool,
    /// Kubernetes gave up waiting.
    pub(crate) stuck: bool,
}

impl Progress {
    pub(crate) fn of(deployment: &DynamicObject) -> Self {
        let number = |at: &str| deployment.data.pointer(at).and_then(Value::as_i64);
        let wanted = number("/spec/replicas").unwrap_or(1);
        let is = |name: &str| number(&format!("/status/{name}")).unwrap_or(0);
        let seen = deployment.metadata.generation == number("/status/observedGeneration");
        let conditions = deployment.data.pointer("/status/conditions").and_then(Value::as_array);
        let stuck = conditions.is_some_and(|all| all.iter().any(|one| one["reason"] == "ProgressDeadlineExceeded"));
        Self {
            wanted,
            ready: is("readyReplicas"),
            seen,
            complete: seen
                && is("updatedReplicas") == wanted
                && is("availableReplicas") == wanted
                && is("replicas") == wanted,
            stuck,
        }
    }
}

/// How many replicas to go on asking for where an autoscaler is to choose: as many as there are, until it has chosen. A field that its
/// only owner applies no more is reset, here to one; so it is left out once another owns it, and not before.
pub(crate) fn replicas_until_scaled(seen: &DynamicObject) -> Option<i64> {
    let managed = seen.metadata.managed_fields.iter().flatten();
    let scaled = managed.filter(|entry| entry.manager.as_deref() != Some(MANAGER)).any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.and_then(|fields| fields.pointer("/f:spec/f:replicas")).is_some()
    });
    if scaled { None } else { seen.data.pointer("/spec/replicas").and_then(Value::as_i64) }
}

/// Whether applying `desired` over what is there is part of an upgrade, rather than what a user asked for.
pub(crate) fn is_upgrade(seen: &DynamicObject, desired: &DynamicObject) -> bool {
    seen.annotations().get(RELEASE) != desired.annotations().get(RELEASE)
}

/// Whether a Deployment is in the middle of being upgraded to `release`: replaced, and not through with it. One that is new has nobody
/// to replace and holds up nobody.
pub(crate) fn is_upgrading(seen: &DynamicObject, release: &str) -> bool {
    let annotation = |name: &str| seen.annotations().get(name).map(String::as_str);
    let has_rolled = annotation(REVISION).and_then(|revision| revision.parse::<u64>().ok()).is_some_and(|n| n > 1);
    let progress = Progress::of(seen);
    annotation(RELEASE) == Some(release) && (!progress.seen || has_rolled && !progress.complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(release: &str, revision: &str, observed: i64, updated: i64, replicas: i64) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "generation": 2, "annotations": {RELEASE: release, REVISION: revision}},
            "spec": {"replicas": 2},
            "status": {"observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": 2, "readyReplicas": 2,
                "replicas": replicas},
        }))
        .unwrap()
    }

    #[test]
    fn replicas_stay_until_somebody_else_chooses_them() {
        let owned_by = |manager: &str| {
            let mut seen = deployment("r", "1", 2, 2, 2);
            seen.metadata.managed_fields = serde_json::from_value(json!([
                {"manager": MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:template": {}}}},
                {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            ]))
            .unwrap();
            replicas_until_scaled(&seen)
        };
        assert_eq!(owned_by(MANAGER), Some(2));
        assert_eq!(owned_by("kube-controller-manager"), None);
    }

    #[test]
    fn an_upgrade_is_through_when_the_last_old_pod_is_gone() {
        assert!(is_upgrading(&deployment("new", "2", 1, 2, 2), "new"), "not looked at yet");
        assert!(is_upgrading(&deployment("new", "2", 2, 1, 3), "new"), "half way");
        assert!(is_upgrading(&deployment("new", "2", 2, 2, 3), "new"), "an old pod is left");
        assert!(!is_upgrading(&deployment("new", "2", 2, 2, 2), "new"));
    }

    #[test]
    fn a_new_deployment_holds_up_nobody() {
        assert!(!is_upgrading(&deployment("new", "1", 2, 1, 1), "new"));
        assert!(!is_upgrading(&deployment("old", "5", 2, 1, 1), "new"));
        assert!(is_upgrade(&deployment("old", "1", 2, 2, 2), &deployment("new", "1", 2, 2, 2)));
    }
}
