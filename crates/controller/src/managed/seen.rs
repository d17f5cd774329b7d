//! What is there of managed pickers, and what was last applied.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use index::{Change, ObjectKey};
use kube::ResourceExt as _;
use kube::core::DynamicObject;

use super::child::{ChildKey, ChildKind, belongs, child_key, fingerprint, hash, is_hands_off};
use super::rollout::{Phase, Progress};

#[derive(Default)]
pub(super) struct Seen {
    objects: BTreeMap<ChildKey, DynamicObject>,
    listed: BTreeSet<ChildKind>,
    /// Of each object that was applied, what was wanted and what came of it: as long as both are as they were, nothing is to be done.
    applied: HashMap<ChildKey, (u64, u64)>,
}

/// Something to be done about one object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Nobody is known to be there: look, and make it.
    Make(DynamicObject),
    /// Ours is there. Where a version is named, only over that one: what was wanted depends on what was seen.
    Mend(DynamicObject, Option<String>),
    Remove(ChildKey, Option<String>),
}

impl Seen {
    pub(super) fn observe(&mut self, kind: ChildKind, change: Change<DynamicObject>) {
        match change {
            Change::Applied(object) => self.keep((kind, ObjectKey::of(&object)), object),
            Change::Deleted(key) => self.forget(&(kind, key)),
            Change::Relisted(all) => {
                self.objects.retain(|key, _| key.0 != kind);
                for object in all {
                    self.keep((kind, ObjectKey::of(&object)), object);
                }
                self.applied.retain(|key, _| self.objects.contains_key(key));
                self.listed.insert(kind);
            }
        }
    }

    /// Whether every kind was listed once.
    pub(super) fn is_complete(&self) -> bool {
        self.listed.len() == ChildKind::ALL.len()
    }

    /// Remembers what was applied and what came of it.
    pub(super) fn note(&mut self, key: ChildKey, wanted: u64, object: DynamicObject) {
        self.applied.insert(key.clone(), (wanted, fingerprint(&object)));
        self.keep(key, object);
    }

    pub(super) fn forget(&mut self, key: &ChildKey) {
        self.objects.remove(key);
        self.applied.remove(key);
    }

    /// The Deployment of this name, if it belongs to the pool with this uid.
    pub(super) fn deployment(&self, key: ObjectKey, owner: Option<&str>) -> Option<&DynamicObject> {
        self.objects.get(&(ChildKind::Deployment, key)).filter(|there| belongs(there, owner))
    }

    #[cfg(test)]
    pub(super) fn object(&self, key: &ChildKey) -> Option<&DynamicObject> {
        self.objects.get(key)
    }

    /// What is to be done about one object; nothing where it is as it was left.
    pub(super) fn step(&self, desired: DynamicObject, owner: Option<&str>) -> Option<Step> {
        let key = child_key(&desired)?;
        match self.objects.get(&key) {
            None => Some(Step::Make(desired)),
            Some(there) if belongs(there, owner) && is_hands_off(there) => None,
            // It says that it is ours and is not this pool's: looked at again, and told.
            Some(there) if !belongs(there, owner) => Some(Step::Make(desired)),
            Some(there) => {
                let as_it_was = self.applied.get(&key) == Some(&(hash(&desired), fingerprint(there)));
                (!as_it_was).then_some(Step::Mend(desired, None))
            }
        }
    }

    /// What belongs to the pool and is not wanted any more. While its picker is not complete nothing goes: what serves now may be it.
    pub(super) fn stray(
        &self,
        owner: &str,
        wanted: &BTreeSet<ChildKey>,
        deployment: Option<&DynamicObject>,
    ) -> Vec<Step> {
        if !deployment.is_some_and(|deployment| Progress::of(deployment).phase == Phase::Complete) {
            return Vec::new();
        }
        let stray = self
            .objects
            .iter()
            .filter(|(key, object)| belongs(object, Some(owner)) && !wanted.contains(key) && !is_hands_off(object));
        stray.map(|(key, object)| Step::Remove(key.clone(), object.uid())).collect()
    }

    /// What belongs to the pool and was taken back.
    pub(super) fn hands_off(&self, owner: &str) -> impl Iterator<Item = &ChildKey> {
        let taken_back =
            self.objects.iter().filter(move |(_, object)| is_hands_off(object) && belongs(object, Some(owner)));
        taken_back.map(|(key, _)| key)
    }

    /// Who owns which field matters of Deployments alone, and is most of what an object weighs.
    fn keep(&mut self, key: ChildKey, mut object: DynamicObject) {
        if key.0 != ChildKind::Deployment {
            object.metadata.managed_fields = None;
        }
        self.objects.insert(key, object);
    }
}
