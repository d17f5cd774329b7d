//! What an event makes wrong of what was compiled before it: of the many changes in a busy cluster most touch a pool or two, or nothing that
//! is compiled.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::object::HasSpec;

/// What must be compiled again.
#[must_use = "what is stale and not compiled again stays wrong"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stale {
    /// Endpoints of these pools, by namespace, and what follows from them; nothing where there are none.
    Pools(BTreeMap<String, BTreeSet<String>>),
    All,
}

impl Stale {
    pub const NOTHING: Self = Self::Pools(BTreeMap::new());

    /// Makes stale what `other` says as well.
    pub fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Pools(pools), Self::Pools(more)) => {
                for (namespace, names) in more {
                    pools.entry(namespace).or_default().extend(names);
                }
            }
            _ => *self = Self::All,
        }
    }
}

/// Whether two versions of an object differ in its status alone, and in what moves with every write.
pub(crate) fn is_same_but_for_status<K>(a: &K, b: &K) -> bool
where
    K: Resource + HasSpec,
    K::Spec: PartialEq,
{
    let lasting = |object: &K| ObjectMeta { managed_fields: None, resource_version: None, ..object.meta().clone() };
    a.spec() == b.spec() && lasting(a) == lasting(b)
}
