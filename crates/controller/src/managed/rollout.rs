//! How far a Deployment has come, and which of several may be changed next.
//!
//! An upgrade of the controller replaces the pickers of one pool at a time. One that does not come up holds up those after it, until
//! Kubernetes gives up on it; from then on it holds up its own namespace alone, so that nobody can keep others from being upgraded. What a
//! user asks for is done at once: it waits for no upgrade.

use std::collections::BTreeMap;

use index::ObjectKey;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde_json::Value;

use crate::status::MANAGER;

/// On a Deployment: by which release of the controller and its settings it was made.
pub(super) const RELEASE: &str = "thalamus.dev/release";

/// On a Deployment: what a user asked for it by. Where that changes, the user did it.
pub(super) const MADE_FROM: &str = "thalamus.dev/made-from";

/// On a Deployment: the release to which it was upgraded, until a user asks for something else. That roll alone makes others wait.
const UPGRADED: &str = "thalamus.dev/upgraded-to";

/// Kubernetes' own count of a Deployment's templates.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// What a Deployment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) wanted: i64,
    pub(super) ready: i64,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Kubernetes has not looked at the newest template.
    Unseen,
    /// Pods are being replaced.
    Rolling,
    /// Kubernetes gave up waiting.
    Stuck,
    /// No pod of an older template is left since this one was complete, and there are fewer or more than wanted. A Deployment that is to be
    /// larger than the cluster has room for is no upgrade.
    Scaling,
    /// Every pod is of the newest template and available, and no other is left.
    Complete,
}

impl Progress {
    pub(super) fn of(deployment: &DynamicObject) -> Self {
        let number = |at: &str| deployment.data.pointer(at).and_then(Value::as_i64);
        let wanted = number("/spec/replicas").unwrap_or(1);
        let is = |name: &str| number(&format!("/status/{name}")).unwrap_or(0);
        let conditions = deployment.data.pointer("/status/conditions").and_then(Value::as_array);
        let says = |reason: &str| conditions.is_some_and(|all| all.iter().any(|one| one["reason"] == reason));
        let all = ["updatedReplicas", "availableReplicas", "replicas"];
        let phase = if deployment.metadata.generation != number("/status/observedGeneration") {
            Phase::Unseen
        } else if all.into_iter().all(|name| is(name) == wanted) {
            Phase::Complete
        } else if is("replicas") == is("updatedReplicas") && says("NewReplicaSetAvailable") {
            Phase::Scaling
        } else if says("ProgressDeadlineExceeded") {
            Phase::Stuck
        } else {
            Phase::Rolling
        };
        Self { wanted, ready: is("readyReplicas"), phase }
    }
}

/// How many replicas to go on asking for where an autoscaler is to choose: as many as there are, until it has chosen. A field that its
/// only owner applies no more is reset, here to one; so it is left out once another owns it, and not before.
pub(super) fn replicas_until_scaled(seen: &DynamicObject) -> Option<i64> {
    let managed = seen.metadata.managed_fields.iter().flatten();
    let scaled = managed.filter(|entry| entry.manager.as_deref() != Some(MANAGER)).any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.and_then(|fields| fields.pointer("/f:spec/f:replicas")).is_some()
    });
    if scaled { None } else { seen.data.pointer("/spec/replicas").and_then(Value::as_i64) }
}

/// Where a Deployment is in the upgrade to the release that `desired` is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rollout {
    /// Through with it, or on its way to what a user asked for.
    Done,
    /// Of an older one.
    Due,
    /// Replaced, and not through with it. One that is new has nobody to replace and holds up nobody.
    UnderWay,
    /// Kubernetes gave up on it.
    Stuck,
}

/// Says on a Deployment by what release it is made and from what, given what is there.
pub(super) fn mark(desired: &mut DynamicObject, there: Option<&DynamicObject>, release: &str, made_from: &str) {
    let mut marks = vec![(RELEASE, release), (MADE_FROM, made_from)];
    let was = |name: &str| there.and_then(|there| there.annotations().get(name)).map(String::as_str);
    let is_upgrade = there.is_some() && was(RELEASE) != Some(release) || was(UPGRADED) == Some(release);
    // One that does not say what it was made from is of a release that did not write it.
    if is_upgrade && was(MADE_FROM).is_none_or(|was| was == made_from) {
        marks.push((UPGRADED, release));
    }
    desired.annotations_mut().extend(marks.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
}

/// Where a Deployment is, given what it is to be, with its marks.
pub(super) fn of(there: &DynamicObject, desired: &DynamicObject) -> Rollout {
    if !desired.annotations().contains_key(UPGRADED) {
        return Rollout::Done;
    }
    if there.annotations().get(RELEASE) != desired.annotations().get(RELEASE) {
        return Rollout::Due;
    }
    let revision = there.annotations().get(REVISION).and_then(|revision| revision.parse::<u64>().ok());
    match Progress::of(there).phase {
        Phase::Unseen => Rollout::UnderWay,
        Phase::Complete | Phase::Scaling => Rollout::Done,
        _ if revision.is_none_or(|revision| revision < 2) => Rollout::Done,
        Phase::Stuck => Rollout::Stuck,
        Phase::Rolling => Rollout::UnderWay,
    }
}

/// Whose turn it is.
pub(super) struct Turns<'a> {
    /// Who waits, and for whom.
    waiting: BTreeMap<&'a ObjectKey, &'a ObjectKey>,
}

impl<'a> Turns<'a> {
    /// Of those that are due one is next, unless another is under way: the one that failed the fewest `times`, and of equals the first by
    /// name.
    pub(super) fn of(
        rollouts: impl Iterator<Item = (&'a ObjectKey, Rollout)>,
        times: impl Fn(&ObjectKey) -> u32,
    ) -> Self {
        let rollouts: Vec<_> = rollouts.collect();
        let those = |wanted: Rollout| rollouts.iter().filter(move |(_, is)| *is == wanted).map(|(pool, _)| *pool);
        let stuck_before = |pool: &ObjectKey| those(Rollout::Stuck).find(|stuck| stuck.namespace == pool.namespace);
        let free = those(Rollout::Due).filter(|pool| stuck_before(pool).is_none());
        let first = those(Rollout::UnderWay).next().or_else(|| free.min_by_key(|pool| times(pool)));
        let behind = |pool: &'a ObjectKey| stuck_before(pool).or(first).filter(|first| *first != pool);
        let waiting = those(Rollout::Due).filter_map(|pool| Some((pool, behind(pool)?))).collect();
        Self { waiting }
    }

    /// Whom the upgrade of a pool's picker waits for.
    pub(super) fn behind(&self, pool: &ObjectKey) -> Option<&'a ObjectKey> {
        self.waiting.get(pool).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(release: &str, revision: &str, observed: i64, updated: i64, replicas: i64) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "generation": 2, "annotations": {RELEASE: release, UPGRADED: release, REVISION: revision}},
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
        let check = |there: &DynamicObject, expected| {
            let mut desired = deployment("", "1", 2, 2, 2);
            desired.metadata.annotations = None;
            mark(&mut desired, Some(there), "new", "a template");
            assert_eq!(of(there, &desired), expected);
        };
        check(&deployment("new", "2", 1, 2, 2), Rollout::UnderWay);
        check(&deployment("new", "2", 2, 1, 3), Rollout::UnderWay);
        check(&deployment("new", "2", 2, 2, 3), Rollout::UnderWay);
        check(&deployment("new", "2", 2, 2, 2), Rollout::Done);
        // One that is new holds up nobody.
        check(&deployment("new", "1", 2, 1, 1), Rollout::Done);
        check(&deployment("old", "5", 2, 1, 1), Rollout::Due);
        let mut stuck = deployment("new", "2", 2, 1, 3);
        stuck.data["status"]["conditions"] = json!([{"reason": "ProgressDeadlineExceeded"}]);
        check(&stuck, Rollout::Stuck);
        let mut growing = deployment("new", "2", 2, 2, 2);
        growing.data["spec"]["replicas"] = 9.into();
        check(&growing, Rollout::UnderWay);
        growing.data["status"]["conditions"] = json!([{"type": "Progressing", "reason": "NewReplicaSetAvailable"}]);
        check(&growing, Rollout::Done);
        // What a user asks for is done at once, and makes nobody wait.
        for release in ["old", "new"] {
            let mut edited = deployment(release, "5", 2, 1, 3);
            edited.annotations_mut().insert(MADE_FROM.into(), "another template".into());
            check(&edited, Rollout::Done);
        }
        let mut not_upgraded = deployment("new", "5", 2, 1, 3);
        not_upgraded.annotations_mut().remove(UPGRADED);
        check(&not_upgraded, Rollout::Done);
    }

    /// Whom each waits for: `a/1` is a pool's key, `-` nobody.
    #[track_caller]
    fn check_turns(rollouts: &[(&str, Rollout)], failed: &str, expected: &[(&str, &str)]) {
        let key = |shown: &str| shown.split_once('/').map(|(namespace, name)| ObjectKey::new(namespace, name)).unwrap();
        let keys: Vec<_> = rollouts.iter().map(|(pool, is)| (key(pool), *is)).collect();
        let turns = Turns::of(keys.iter().map(|(pool, is)| (pool, *is)), |pool| u32::from(pool.to_string() == failed));
        for (pool, behind) in expected {
            let found = turns.behind(&key(pool)).map_or_else(|| "-".to_owned(), ToString::to_string);
            assert_eq!(found, *behind, "whom {pool} waits for");
        }
    }

    #[test]
    fn pools_take_turns() {
        use Rollout::{Done, Due, Stuck, UnderWay};
        check_turns(&[("a/1", Due), ("a/2", Due), ("b/1", Due)], "", &[("a/1", "-"), ("a/2", "a/1"), ("b/1", "a/1")]);
        check_turns(
            &[("a/1", Done), ("a/2", Due), ("b/1", UnderWay)],
            "",
            &[("a/1", "-"), ("a/2", "b/1"), ("b/1", "-")],
        );
        // One whose upgrade the API server refuses lets the others go first.
        check_turns(&[("a/1", Due), ("a/2", Due)], "a/1", &[("a/1", "a/2"), ("a/2", "-")]);
        check_turns(&[("a/1", Due), ("a/2", Done)], "a/1", &[("a/1", "-")]);
        // One that Kubernetes gave up on holds up its own namespace.
        check_turns(
            &[("a/1", Stuck), ("a/2", Due), ("b/1", Due), ("b/2", Due)],
            "",
            &[("a/2", "a/1"), ("b/1", "-"), ("b/2", "b/1")],
        );
    }
}
