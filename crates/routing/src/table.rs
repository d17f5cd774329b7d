//! The routing table: an immutable picture of what is served where. Built by the index, carried by publish, read by the director.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::route::{NoRoute, Route};
use crate::{
    Capability, Family, Found, Known, Limits, MediaPolicy, ModalitySet, ModelName, Offer, Offers, OperationSet,
    PoolName, PoolPolicy, Requirement, Uid,
};

/// What one namespace serves. Names are unique within it. Models and pools are shared: the next table is mostly the one before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoutingTable {
    pub models: BTreeMap<ModelName, Arc<Model>>,
    pub pools: BTreeMap<PoolName, Arc<Pool>>,
    /// In a part of a table: the pools of each model of the whole, so that a refusal can say where one is served. Shared by all parts; empty
    /// in a whole.
    pub pools_of_models: Arc<BTreeMap<ModelName, Vec<PoolName>>>,
    /// By what key prompts are told apart, which all pickers of the namespace have and no stranger; 0 where nobody says one.
    pub hash_key: u64,
}

/// A table's models by their pools, for whoever wants the parts of many pools: as long as no model changes, they are made once.
#[derive(Debug, Default)]
pub struct Parts {
    models: BTreeMap<PoolName, BTreeMap<ModelName, Arc<Model>>>,
    pools_of_models: Arc<BTreeMap<ModelName, Vec<PoolName>>>,
}

/// A name that clients ask for, and the targets behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub criticality: Criticality,
    /// When it was declared, in seconds since 1970; 0 where objects have no time.
    pub created: i64,
    /// How long its servers may take to the first byte of an answer; none where nobody says.
    pub first_byte_timeout: Option<Duration>,
    /// In the order of the object; at least one.
    pub targets: Vec<Target>,
    pub media: MediaPolicy,
}

/// How much a request matters when there is not enough for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Criticality {
    /// Refused with 429 when every endpoint that could take it is saturated.
    Sheddable,
    #[default]
    Standard,
    Critical,
}

/// A model that some pool's servers know by `name`, and what it takes and gives there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What the model server is asked for.
    pub name: ModelName,
    pub pool: PoolName,
    pub capability: Capability,
    /// What kind of model it is, for estimates of tokens; none where nobody says and the name does not tell.
    pub family: Option<Family>,
    /// How much of it one request may bring, as its object says.
    pub limits: Limits,
    /// Share among equally tight targets, relative to theirs; at least 1.
    pub weight: u32,
}

/// A group of model servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pool {
    pub app_protocol: AppProtocol,
    pub policy: PoolPolicy,
    /// Ready endpoints by name; an empty pool is a fact, not an error.
    pub endpoints: BTreeMap<Arc<str>, Endpoint>,
}

/// How the servers of a pool speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AppProtocol {
    /// HTTP/1.1 in clear text.
    #[default]
    Http,
    /// HTTP/2 with prior knowledge, in clear text.
    H2c,
}

/// One ip:port of a ready model server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Of the pod that it is in, so that one that comes back under an old name and address is known for another.
    pub uid: Uid,
    /// What this endpoint says of itself; it narrows what its pool's targets offer and never widens it.
    pub capability: Option<Capability>,
    /// What it was found to be, which narrows in the same way; none where nobody asked, or it did not answer.
    pub found: Option<Arc<Found>>,
}

// === impl Model ===

impl Model {
    /// A model of which only the targets are told.
    pub fn new(targets: Vec<Target>) -> Self {
        let (criticality, media) = (Criticality::default(), MediaPolicy::default());
        Self { criticality, created: 0, first_byte_timeout: None, targets, media }
    }

    /// The pools of its targets, each once, in order.
    pub fn pools(&self) -> Vec<PoolName> {
        Target::pools(&self.targets).into_iter().cloned().collect()
    }
}

// === impl Target ===

impl Target {
    /// A target of which nothing is told but what it can do.
    pub fn new(name: impl Into<ModelName>, pool: impl Into<PoolName>, capability: Capability) -> Self {
        Self { name: name.into(), pool: pool.into(), capability, family: None, limits: Limits::NONE, weight: 1 }
    }

    /// The pools of these, each once, in order.
    pub fn pools(targets: &[Self]) -> Vec<&PoolName> {
        let mut pools: Vec<&PoolName> = Vec::new();
        for target in targets {
            if !pools.contains(&&target.pool) {
                pools.push(&target.pool);
            }
        }
        pools
    }
}

// === impl RoutingTable ===

impl RoutingTable {
    /// What was found of endpoints before stays where nothing is said of it now: whoever asks them is not done yet. Of another pod, or at another
    /// address, nothing is believed that was found before. Says of how many endpoints something stays.
    pub fn remember(&mut self, before: &Self) -> usize {
        let mut remembered = 0;
        for (name, pool) in &mut self.pools {
            let Some(before) = before.pools.get(name).filter(|before| !Arc::ptr_eq(before, pool)) else { continue };
            let untold = pool.endpoints.iter().filter(|(_, endpoint)| endpoint.found.is_none());
            let known = untold.filter_map(|(name, endpoint)| {
                let known = before.endpoints.get(name).filter(|known| known.is_same_server(endpoint))?;
                Some((Arc::clone(name), known.found.clone()?))
            });
            let known: Vec<(Arc<str>, Arc<Found>)> = known.collect();
            if known.is_empty() {
                continue;
            }
            remembered += known.len();
            let pool = Arc::make_mut(pool);
            for (name, found) in known {
                pool.endpoints.entry(name).and_modify(|endpoint| endpoint.found = Some(found));
            }
        }
        remembered
    }

    /// The targets for a request, the tightest fit first, or why there are none.
    ///
    /// `model` is none for a request that names no model (`GET /v1/models`), which only a scope without models can place. Where no model
    /// is declared at all and the scope is one pool, that pool is asked as it is, whatever the name. A name that nobody declared and that
    /// a pool has a rule for goes to that pool.
    pub fn route(&self, model: Option<&str>, need: Requirement) -> Result<Route<'_>, NoRoute> {
        match model.and_then(|name| self.models.get_key_value(name)) {
            Some((name, model)) => Route::of_model(name, model, need).ok_or_else(|| self.uncovered(name, model, need)),
            None if model.is_some_and(|name| self.pools_of_models.contains_key(name)) => {
                Err(self.unknown_model(model.unwrap_or_default()))
            }
            None => match model.and_then(|name| self.rewritten(name)) {
                Some((pool, facts)) => Ok(Route::undeclared(pool, &facts.policy, model, need)),
                None if self.models.is_empty() => self.undeclared(model, need),
                None => Err(model.map_or(NoRoute::NoModelNamed, |name| self.unknown_model(name))),
            },
        }
    }

    /// The way to a pool as it is, whatever models are declared.
    pub fn route_as_is(&self, pool: &str, need: Requirement) -> Result<Route<'_>, NoRoute> {
        let (pool, _) = self.pools.get_key_value(pool).ok_or(NoRoute::NothingServed)?;
        Ok(Route::as_it_is(pool, need))
    }

    /// That there is no model of this name, or where it is.
    pub fn unknown_model(&self, name: &str) -> NoRoute {
        if let Some(pools) = self.pools_of_models.get(name) {
            return NoRoute::out_of_scope(name, pools);
        }
        if self.models.is_empty() {
            let pools = self.pools.keys().map(ToString::to_string).take(NAMES_SHOWN).collect();
            return NoRoute::Undeclared { model: name.to_owned(), pools };
        }
        NoRoute::UnknownModel { model: name.to_owned(), near: self.near(name) }
    }

    /// What ready endpoints offer of a target, or none when there is no endpoint.
    pub fn on_offer(&self, target: &Target) -> Option<Capability> {
        let pool = self.pools.get(&target.pool)?;
        let model = pool.listed(&target.name);
        pool.endpoints
            .values()
            .filter_map(|endpoint| endpoint.narrow(target.capability, model))
            .reduce(Capability::union)
    }

    /// What a picker of one pool is sent: that pool, the models with a target in it, and where all others are. Where many are wanted,
    /// [`Parts`] makes them for less.
    #[must_use]
    pub fn scoped(&self, pool: &str) -> Self {
        Parts::of(self).part(self, pool)
    }

    /// Every address in the table.
    pub fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.pools.values().flat_map(|pool| pool.endpoints.values()).map(|endpoint| endpoint.address).collect()
    }

    /// The pool that has a rule for this very name; of several the first by name.
    fn rewritten(&self, model: &str) -> Option<(&PoolName, &Pool)> {
        let found = self.pools.iter().find(|(_, pool)| pool.policy.rewrites.contains_key(model));
        found.map(|(name, pool)| (name, &**pool))
    }

    fn undeclared(&self, model: Option<&str>, need: Requirement) -> Result<Route<'_>, NoRoute> {
        let mut pools = self.pools.iter();
        match (pools.next(), pools.next()) {
            (Some((pool, facts)), None) => Ok(Route::undeclared(pool, &facts.policy, model, need)),
            (None, _) => Err(NoRoute::NothingServed),
            (Some(_), Some(_)) => match model {
                Some(name) => Err(self.unknown_model(name)),
                None => Err(NoRoute::NoModelNamed),
            },
        }
    }

    fn uncovered(&self, name: &ModelName, model: &Model, need: Requirement) -> NoRoute {
        let could =
            |(_, other): &(&ModelName, &Arc<Model>)| other.targets.iter().any(|target| target.capability.covers(need));
        NoRoute::Uncovered {
            model: name.to_string(),
            offered: model.offered(),
            missing: need.missing_from(model.offered()),
            alternatives: self
                .models
                .iter()
                .filter(could)
                .map(|(name, _)| name.to_string())
                .take(NAMES_SHOWN)
                .collect(),
        }
    }

    fn near(&self, name: &str) -> Vec<String> {
        // Comparing is quadratic in the name's length, and the name is a stranger's.
        if name.len() > 256 {
            return Vec::new();
        }
        // A stranger may ask as often as they like: those that stand next to it in the alphabet are enough.
        let before = self.models.range::<str, _>((Bound::Unbounded, Bound::Excluded(name)));
        let after = self.models.range::<str, _>((Bound::Included(name), Bound::Unbounded));
        let near = before.rev().take(COMPARED).chain(after.take(COMPARED));
        let mut scored: Vec<(f64, &ModelName)> = near
            .map(|(known, _)| known)
            .map(|known| (strsim::jaro_winkler(name, known), known))
            .filter(|(score, _)| *score > 0.8)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        scored.into_iter().take(NAMES_SHOWN).map(|(_, known)| known.to_string()).collect()
    }
}

// === impl Parts ===

impl Parts {
    pub fn of(table: &RoutingTable) -> Self {
        let mut parts = Self::default();
        let mut pools_of_models = BTreeMap::new();
        for (name, model) in &table.models {
            let pools = model.pools();
            for pool in &pools {
                let models = parts.models.entry(pool.clone()).or_default();
                models.insert(name.clone(), Arc::clone(model));
            }
            pools_of_models.insert(name.clone(), pools);
        }
        parts.pools_of_models = Arc::new(pools_of_models);
        parts
    }

    /// The part of one pool. `table` is the one that these are the parts of, or one with the same models.
    pub fn part(&self, table: &RoutingTable, pool: &str) -> RoutingTable {
        let pools = table.pools.get_key_value(pool).map(|(name, pool)| (name.clone(), Arc::clone(pool)));
        RoutingTable {
            models: self.models.get(pool).cloned().unwrap_or_default(),
            pools: pools.into_iter().collect(),
            pools_of_models: Arc::clone(&self.pools_of_models),
            hash_key: table.hash_key,
        }
    }
}

/// How many names an error shows: as many as a person reads.
const NAMES_SHOWN: usize = 3;

/// How many names before and after one that is not known are compared with it.
const COMPARED: usize = 64;

// === impl Model ===

impl Model {
    /// Everything that some target takes or gives. Not every combination of it: that is a question for one target.
    pub fn offered(&self) -> Capability {
        let none = Capability::new(ModalitySet::EMPTY, ModalitySet::EMPTY).limited_to(OperationSet::EMPTY);
        self.targets.iter().fold(none, |all, target| all.union(target.capability))
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Whether both are one pod, at one address.
    fn is_same_server(&self, other: &Self) -> bool {
        self.uid != Uid::NONE && (self.uid, self.address) == (other.uid, other.address)
    }

    /// Whether the same is believed of what both take in.
    pub fn takes_the_same_as(&self, other: &Self) -> bool {
        self.capability == other.capability && self.found_inputs().eq(other.found_inputs())
    }

    fn found_inputs(&self) -> impl Iterator<Item = (&ModelName, Known)> {
        self.found.iter().flat_map(|found| &found.models).map(|(name, model)| (name, model.input))
    }

    /// One of which nothing more is known.
    pub const fn new(address: SocketAddr, uid: Uid) -> Self {
        Self { address, uid, capability: None, found: None }
    }

    /// What it offers of a model, which is as for [`Found::offer`]; see [`Offers::at`].
    pub fn offer(&self, model: Option<&str>) -> Option<Offer> {
        Offers::of_model(model).at(self)
    }

    /// What it offers of what is declared. None where it does not serve the model.
    pub fn narrow(&self, declared: Capability, model: Option<&str>) -> Option<Capability> {
        self.offer(model).map(|offer| declared.intersection(offer.capability))
    }
}

// === impl Pool ===

impl Pool {
    /// The name where some endpoint lists it, and none where none does: see [`Found::offer`].
    pub fn listed<'n>(&self, model: &'n str) -> Option<&'n str> {
        let lists = |endpoint: &Endpoint| endpoint.found.as_ref().is_some_and(|found| found.models.contains_key(model));
        self.endpoints.values().any(lists).then_some(model)
    }
}

impl Criticality {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sheddable => "Sheddable",
            Self::Standard => "Standard",
            Self::Critical => "Critical",
        }
    }
}

#[cfg(test)]
mod tests;
