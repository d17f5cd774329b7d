//! What changed between two tables: `apply(a, diff(a, b)) == b`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use routing::{AppProtocol, Endpoint, Model, ModelName, Pool, PoolName, PoolPolicy, RoutingTable};

/// The changes that make one table into another. A resource is a pool, an endpoint or a model, so that a pod that comes or goes in a
/// pool of ten thousand is one small change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delta {
    pub pools: BTreeMap<PoolName, PoolHead>,
    pub endpoints: BTreeMap<EndpointKey, Endpoint>,
    pub models: BTreeMap<ModelName, Arc<Model>>,
    /// With all their endpoints.
    pub removed_pools: Vec<PoolName>,
    pub removed_endpoints: Vec<EndpointKey>,
    pub removed_models: Vec<ModelName>,
    pub elsewhere: BTreeMap<ModelName, Vec<PoolName>>,
    pub removed_elsewhere: Vec<ModelName>,
    pub hash_key: Option<u64>,
}

/// A pool but for its endpoints.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PoolHead {
    pub app_protocol: AppProtocol,
    pub policy: PoolPolicy,
}

/// An endpoint's pool and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointKey {
    pub pool: PoolName,
    pub name: Arc<str>,
}

/// A delta that was not made for this table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApplicable {
    #[error("endpoint {name:?} belongs to pool {pool:?}, which is not known")]
    NoSuchPool { pool: PoolName, name: Arc<str> },
}

impl Delta {
    /// What must change in `from` to make it `to`.
    pub fn between(from: &RoutingTable, to: &RoutingTable) -> Self {
        let hash_key = Some(to.hash_key).filter(|key| *key != from.hash_key);
        let mut delta = Self { hash_key, ..Self::default() };
        compare(&from.models, &to.models, |name, _, model| match model {
            Some(model) => _ = delta.models.insert(name.clone(), Arc::clone(model)),
            None => delta.removed_models.push(name.clone()),
        });
        // Parts of one table share it, and so does the next where no model changed.
        if !Arc::ptr_eq(&from.pools_of_models, &to.pools_of_models) {
            compare(&from.pools_of_models, &to.pools_of_models, |name, _, pools| match pools {
                Some(pools) => _ = delta.elsewhere.insert(name.clone(), pools.clone()),
                None => delta.removed_elsewhere.push(name.clone()),
            });
        }
        compare(&from.pools, &to.pools, |name, before, pool| {
            let Some(pool) = pool else { return delta.removed_pools.push(name.clone()) };
            if before.is_none_or(|b| b.app_protocol != pool.app_protocol || b.policy != pool.policy) {
                let head = PoolHead { app_protocol: pool.app_protocol, policy: pool.policy.clone() };
                delta.pools.insert(name.clone(), head);
            }
            delta.endpoints_between(name, before.map_or(&Pool::default(), |before| before), pool);
        });
        delta
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The table with the changes made.
    pub fn apply(&self, table: &RoutingTable) -> Result<RoutingTable, NotApplicable> {
        let mut table = table.clone();
        table.hash_key = self.hash_key.unwrap_or(table.hash_key);
        for name in &self.removed_models {
            table.models.remove(name);
        }
        table.models.extend(self.models.iter().map(|(name, model)| (name.clone(), Arc::clone(model))));
        if !self.elsewhere.is_empty() || !self.removed_elsewhere.is_empty() {
            let pools_of_models = Arc::make_mut(&mut table.pools_of_models);
            for name in &self.removed_elsewhere {
                pools_of_models.remove(name);
            }
            pools_of_models.extend(self.elsewhere.iter().map(|(name, pools)| (name.clone(), pools.clone())));
        }
        for name in &self.removed_pools {
            table.pools.remove(name);
        }
        for (name, PoolHead { app_protocol, policy }) in &self.pools {
            let pool = Arc::make_mut(table.pools.entry(name.clone()).or_default());
            (pool.app_protocol, pool.policy) = (*app_protocol, policy.clone());
        }
        for key in &self.removed_endpoints {
            if let Some(pool) = table.pools.get_mut(&key.pool) {
                Arc::make_mut(pool).endpoints.remove(&key.name);
            }
        }
        for (key, endpoint) in &self.endpoints {
            let EndpointKey { pool, name } = key;
            let Some(known) = table.pools.get_mut(pool) else {
                return Err(NotApplicable::NoSuchPool { pool: pool.clone(), name: Arc::clone(name) });
            };
            Arc::make_mut(known).endpoints.insert(Arc::clone(name), endpoint.clone());
        }
        Ok(table)
    }

    fn endpoints_between(&mut self, pool: &PoolName, from: &Pool, to: &Pool) {
        let key = |name: &Arc<str>| EndpointKey { pool: pool.clone(), name: Arc::clone(name) };
        compare(&from.endpoints, &to.endpoints, |name, _, endpoint| match endpoint {
            Some(endpoint) => _ = self.endpoints.insert(key(name), endpoint.clone()),
            None => self.removed_endpoints.push(key(name)),
        });
    }
}

/// Tells of each name that does not stand for the same in both, what it stands for in each. One walk through both: most is the same, and
/// shared.
fn compare<'a, K: Ord, T: PartialEq>(
    from: &'a BTreeMap<K, T>,
    to: &'a BTreeMap<K, T>,
    mut tell: impl FnMut(&'a K, Option<&'a T>, Option<&'a T>),
) {
    let (mut from, mut to) = (from.iter().peekable(), to.iter().peekable());
    loop {
        let order = match (from.peek(), to.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let before = if order == Ordering::Greater { None } else { from.next() };
        let after = if order == Ordering::Less { None } else { to.next() };
        let (before_is, after_is) = (before.map(|(_, is)| is), after.map(|(_, is)| is));
        if before_is != after_is
            && let Some((name, _)) = after.or(before)
        {
            tell(name, before_is, after_is);
        }
    }
}
