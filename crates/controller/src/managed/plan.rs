//! What is to be done about each managed picker: a pure function of what is wanted, what is there, and what failed before.

use std::collections::BTreeSet;

use api::InferencePool;
use index::{ManagedPicker, ObjectKey};
use kube::ResourceExt as _;
use kube::core::DynamicObject;

use super::child::{ChildKey, ChildKind, child_key, is_hands_off};
use super::render::{self, Settings};
use super::rollout::{self, Turns};
use super::seen::{Seen, Step};
use super::{Failures, Stage, Wanted};

/// What is to be done about one picker.
pub(super) struct Plan {
    pub(super) pool: ObjectKey,
    /// In this order; the first that fails ends it.
    pub(super) steps: Vec<Step>,
    /// What keeps something from being done now.
    pub(super) held_by: Option<Stage>,
}

/// A picker as it is to be.
struct Desired<'a> {
    key: &'a ObjectKey,
    pool: &'a InferencePool,
    picker: &'a ManagedPicker,
    deployment: DynamicObject,
    others: Vec<DynamicObject>,
}

/// A plan for each picker. Of those whose Deployment would be upgraded, those have it in their plan whose turn it is.
pub(super) fn plans(
    wanted: &Wanted,
    seen: &Seen,
    settings: &Settings,
    release: &str,
    failures: &Failures,
) -> Vec<Plan> {
    let desired: Vec<Desired<'_>> = wanted
        .pickers
        .iter()
        .filter_map(|(key, (pool, picker))| Desired::of(key, pool, picker, seen, settings, release))
        .collect();
    let rollouts = desired.iter().filter_map(|one| {
        // One that was taken back is not upgraded, and nobody waits for it.
        let there = one.there(seen).filter(|there| !is_hands_off(there))?;
        Some((one.key, rollout::of(there, &one.deployment)))
    });
    let turns = Turns::of(rollouts, |pool| failures.times(pool));
    desired.into_iter().map(|one| one.plan(seen, &turns, failures)).collect()
}

impl<'a> Desired<'a> {
    fn of(
        key: &'a ObjectKey,
        pool: &'a InferencePool,
        picker: &'a ManagedPicker,
        seen: &Seen,
        settings: &Settings,
        release: &str,
    ) -> Option<Self> {
        let mut objects = render::picker(pool, picker, settings);
        let place = objects
            .iter()
            .position(|object| child_key(object).is_some_and(|(kind, _)| kind == ChildKind::Deployment))?;
        let mut one = Self { key, pool, picker, deployment: objects.remove(place), others: objects };
        let there = one.there(seen);
        let replicas = match (&picker.template.autoscaling, there) {
            (None, _) => None,
            (Some(_), Some(there)) => rollout::replicas_until_scaled(there),
            (Some(autoscaling), None) => Some(i64::from(render::least(*autoscaling))),
        };
        if let Some(replicas) = replicas {
            one.deployment.data["spec"]["replicas"] = replicas.into();
        }
        rollout::mark(&mut one.deployment, there, release, &picker.made_from);
        Some(one)
    }

    fn there<'s>(&self, seen: &'s Seen) -> Option<&'s DynamicObject> {
        seen.deployment(ObjectKey::of(&self.deployment), self.pool.uid().as_deref())
    }

    fn plan(self, seen: &Seen, turns: &Turns<'_>, failures: &Failures) -> Plan {
        let (uid, there) = (self.pool.uid(), self.there(seen));
        let mut wanted: BTreeSet<ChildKey> = self.others.iter().filter_map(child_key).collect();
        wanted.extend(child_key(&self.deployment));
        let strays = uid.as_deref().map(|uid| seen.stray(uid, &wanted, there)).unwrap_or_default();
        let held_by = turns.behind(self.key).map(|behind| match failures.why(self.key) {
            // It had its turn.
            Some(why) => Stage::Failed(why.to_owned()),
            None => Stage::Queued { behind: behind.clone() },
        });
        let scaled_by_others = self.picker.template.autoscaling.is_some();
        let over = there.filter(|_| scaled_by_others).and_then(kube::ResourceExt::resource_version);
        let deployment =
            seen.step(self.deployment, uid.as_deref()).filter(|_| held_by.is_none()).map(|step| match step {
                // How many there are to be was read from what is there.
                Step::Mend(desired, _) => Step::Mend(desired, over),
                step => step,
            });
        // An autoscaler comes after what it scales.
        let (before, after): (Vec<_>, Vec<_>) = self
            .others
            .into_iter()
            .partition(|object| child_key(object).is_some_and(|(kind, _)| kind < ChildKind::Deployment));
        let step = |desired| seen.step(desired, uid.as_deref());
        let steps = before.into_iter().filter_map(step).chain(deployment).chain(after.into_iter().filter_map(step));
        Plan { pool: self.key.clone(), steps: steps.chain(strays).collect(), held_by }
    }
}

#[cfg(test)]
mod tests;
