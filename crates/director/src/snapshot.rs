//! A routing table with the state of each endpoint laid beside it, so that a decision looks up pools and no endpoints; and what is made of a table once
//! that requests would else make anew.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use request::OwnedKind;
use routing::{
    AppProtocol, Capability, Endpoint, Found, Limits, Modality, Model, ModelName, Offer, Offers, Operation, Pool,
    PoolName, RoutingTable, Target, Uid,
};
use scheduling::{Candidate, Profiles, SATURATED_WAITING};

use crate::board::{Board, EndpointId, EndpointState};
use crate::cached::MOST_CACHED;
use crate::content::Content;
use crate::density::Density;
use crate::queue::Queue;
use crate::reply;

/// Knows the newest table, and what is known of its endpoints.
#[derive(Debug)]
pub struct Director {
    newest: ArcSwapOption<Snapshot>,
    board: Board,
    hash_key: AtomicU64,
    profiles: ArcSwap<Profiles>,
}

#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) table: Arc<RoutingTable>,
    pools: HashMap<PoolName, Arc<Slots>>,
    made: Arc<Made>,
}

/// What requests ask for and is made when the first one does: for all tables with the same models, whose pools offer the same.
#[derive(Debug, Default)]
struct Made {
    /// The list of models that are served, and of all.
    lists: [OnceLock<Bytes>; 2],
    /// The pools whose servers make what only they know.
    makers: [OnceLock<HashSet<PoolName>>; 2],
    /// What endpoints were found to serve.
    found: OnceLock<BTreeMap<ModelName, Offer>>,
}

/// The endpoints of a pool.
#[derive(Debug)]
pub(crate) struct Slots {
    pool: Arc<Pool>,
    pub(crate) all: Vec<Slot>,
    /// What its endpoints say of themselves and were found to be, each once: thousands are the same.
    words: HashSet<Words>,
    /// What some of them list: see [`Found::offer`].
    listed: HashSet<ModelName>,
    density: Arc<Density>,
}

type Words = (Option<Capability>, Option<Arc<Found>>);

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) endpoint: Endpoint,
    pub(crate) state: Arc<EndpointState>,
}

/// An endpoint whose state somebody keeps up to date.
#[derive(Debug, Clone)]
pub struct KnownEndpoint {
    pub state: Arc<EndpointState>,
    pub address: SocketAddr,
    pub app_protocol: AppProtocol,
}

/// What Istio leaves of a pool's name at most, in the name of the Service that it makes for it (`InferencePoolServiceName`).
const CUT_POOL_NAME: usize = 63 - "-ip-".len() - 8;

// === impl Director ===

impl Director {
    /// A director that knows no table yet. `epoch` is any instant before the first request: what is known is dated from it.
    pub fn new(epoch: Instant) -> Self {
        Self::remembering(epoch, MOST_CACHED)
    }

    /// The same, that remembers at most so many blocks of prompts, and as many media items, of what each endpoint was sent; some 60 bytes each.
    pub fn remembering(epoch: Instant, most_cached: usize) -> Self {
        Self {
            newest: ArcSwapOption::empty(),
            board: Board::new(epoch, most_cached),
            hash_key: AtomicU64::default(),
            profiles: ArcSwap::default(),
        }
    }

    /// Decides by this table from now on. Requests under way keep the decision they have. Pools that are the same in both tables cost
    /// nothing.
    pub fn replace_table(&self, revision: u64, table: Arc<RoutingTable>) {
        if table.hash_key != 0 {
            self.set_hash_key(table.hash_key);
        }
        let before = self.newest.load_full();
        let known = |name: &PoolName| before.as_ref().and_then(|before| before.pools.get(name));
        let pools: HashMap<_, _> = table
            .pools
            .iter()
            .map(|(name, pool)| {
                let slots = match known(name) {
                    Some(slots) if Arc::ptr_eq(&slots.pool, pool) => Arc::clone(slots),
                    slots => Arc::new(Slots::new(name, pool, slots.map(|slots| &**slots), &self.board)),
                };
                (name.clone(), slots)
            })
            .collect();
        let still = |slots: &Arc<Slots>, name: &PoolName| pools.get(name).is_some_and(|now| Arc::ptr_eq(now, slots));
        for (name, slots) in before.iter().flat_map(|before| &before.pools).filter(|(name, slots)| !still(slots, name))
        {
            let now: HashSet<&EndpointId> =
                pools.get(name).into_iter().flat_map(|now| &now.all).map(|slot| slot.state.id()).collect();
            let gone = slots.all.iter().map(|slot| &slot.state).filter(|state| !now.contains(state.id()));
            self.board.leave(gone);
        }
        let alike = before.as_ref().filter(|before| before.offers_the_same_as(&table, &pools));
        let made = alike.map(|before| Arc::clone(&before.made)).unwrap_or_default();
        let snapshot = Snapshot { revision, table, pools, made };
        self.newest.store(Some(Arc::new(snapshot)));
        self.call_those_that_wait(before.as_deref());
    }

    /// A new table may have room for them: in pools that they could not go to before, and at endpoints that have joined.
    fn call_those_that_wait(&self, before: Option<&Snapshot>) {
        let queue = self.board.queue();
        let (Some(before), Some(now), true) = (before, self.snapshot(), queue.len() > 0) else { return };
        if before.table.models != now.table.models || !before.table.pools.keys().eq(now.table.pools.keys()) {
            return queue.look_again();
        }
        for (name, slots) in &now.pools {
            let Some(old) = before.pools.get(name).filter(|old| !Arc::ptr_eq(old, slots)) else { continue };
            let known: HashSet<&EndpointId> = old.all.iter().map(|slot| slot.state.id()).collect();
            let joined = slots.all.iter().filter(|slot| !known.contains(slot.state.id()));
            joined.for_each(|_| queue.room_in(name, SATURATED_WAITING));
        }
    }

    /// Schedules by these from now on.
    pub fn replace_profiles(&self, profiles: Profiles) {
        self.profiles.store(Arc::new(profiles));
        self.board.queue().look_again();
    }

    pub(crate) fn profiles(&self) -> arc_swap::Guard<Arc<Profiles>> {
        self.profiles.load()
    }

    /// By what key prompts are told apart, until a table says one.
    pub fn set_hash_key(&self, key: u64) {
        self.hash_key.store(key, Relaxed);
    }

    pub fn hash_key(&self) -> u64 {
        self.hash_key.load(Relaxed)
    }

    /// The table that decisions are made from, and its revision.
    pub fn table(&self) -> Option<(u64, Arc<RoutingTable>)> {
        self.newest.load().as_ref().map(|snapshot| (snapshot.revision, Arc::clone(&snapshot.table)))
    }

    /// Requests under way, everywhere.
    pub fn in_flight(&self) -> u64 {
        self.board.in_flight()
    }

    /// Requests that wait for room.
    pub fn waiting(&self) -> usize {
        self.board.queue().len()
    }

    /// How many wait for each pool.
    pub fn waiting_by_pool(&self) -> BTreeMap<PoolName, usize> {
        self.board.queue().len_by_pool()
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        self.board.queue()
    }

    /// Every endpoint of the table, by pool and name.
    pub fn endpoints(&self) -> Vec<KnownEndpoint> {
        let Some(snapshot) = self.newest.load_full() else { return Vec::new() };
        snapshot.table.pools.keys().flat_map(|pool| snapshot.known_endpoints(pool)).collect()
    }

    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.newest.load_full()
    }

    pub(crate) fn stamp(&self, at: Instant) -> u64 {
        self.board.clock().stamp(at)
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub(crate) fn slots(&self, pool: &str) -> &[Slot] {
        self.pools.get(pool).map_or(&[], |slots| &slots.all)
    }

    /// What a token is to the servers of a pool.
    pub(crate) fn density(&self, pool: &str) -> Arc<Density> {
        self.pools.get(pool).map(|slots| Arc::clone(&slots.density)).unwrap_or_default()
    }

    fn known_endpoints(&self, pool: &str) -> impl Iterator<Item = KnownEndpoint> {
        let app_protocol = self.app_protocol(pool);
        self.slots(pool).iter().map(move |slot| slot.known(app_protocol))
    }

    pub(crate) fn app_protocol(&self, pool: &str) -> AppProtocol {
        self.table.pools.get(pool).map(|pool| pool.app_protocol).unwrap_or_default()
    }

    /// The pool that a gateway is bound to. It may have cut a long name to fit a Service's.
    pub(crate) fn pool_named(&self, name: &str) -> Option<&PoolName> {
        let exact = self.table.pools.get_key_value(name).map(|(pool, _)| pool);
        let mut cut = self.table.pools.keys().filter(|pool| name.len() >= CUT_POOL_NAME && pool.starts_with(name));
        exact.or_else(|| cut.next().filter(|_| cut.next().is_none()))
    }

    pub(crate) fn slot_of(&self, id: &EndpointId) -> Option<&Slot> {
        self.slots(&id.pool).iter().find(|slot| slot.state.id() == id)
    }

    pub(crate) fn slot_at(&self, address: SocketAddr) -> Option<&Slot> {
        self.pools.values().flat_map(|slots| &slots.all).find(|slot| slot.endpoint.address == address)
    }

    /// Every endpoint of the pools whose servers make such.
    pub(crate) fn makers_of(&self, kind: OwnedKind) -> Vec<KnownEndpoint> {
        let (place, operation, output) = match kind {
            OwnedKind::Video => (0, Operation::Videos, Modality::Video),
            OwnedKind::Response => (1, Operation::Responses, Modality::Text),
        };
        let pools = self.made.makers[place].get_or_init(|| {
            let makes = |Target { capability, .. }: &&Target| {
                capability.operations.contains(operation) && capability.output.contains(output)
            };
            let targets = self.table.models.values().flat_map(|model| &model.targets).filter(makes);
            let declared = targets.map(|target| target.pool.clone());
            if self.table.models.is_empty() { self.table.pools.keys().cloned().collect() } else { declared.collect() }
        });
        pools.iter().flat_map(|pool| self.known_endpoints(pool)).collect()
    }

    /// What ready endpoints offer of a model, or none when there is no endpoint.
    pub(crate) fn on_offer(&self, model: &Model) -> Option<Capability> {
        let of_target = |target: &Target| {
            let slots = self.pools.get(&target.pool)?;
            let model = slots.listed(&target.name);
            slots.alike().filter_map(|endpoint| endpoint.narrow(target.capability, model)).reduce(Capability::union)
        };
        model.targets.iter().filter_map(of_target).reduce(Capability::union)
    }

    /// How much of a model one request may bring to whichever endpoint takes most.
    pub(crate) fn limits(&self, model: &Model) -> Limits {
        let of_target = |target: &Target| {
            let slots = self.pools.get(&target.pool)?;
            let model = slots.listed(&target.name);
            let found = slots.alike().filter_map(|endpoint| Some(endpoint.offer(model)?.limits)).reduce(Limits::union);
            Some(target.limits.intersection(found?))
        };
        model.targets.iter().filter_map(of_target).reduce(Limits::union).unwrap_or_default()
    }

    /// What endpoints were found to serve: each name with what is offered of it, and how much at once.
    pub(crate) fn found(&self) -> &BTreeMap<ModelName, Offer> {
        self.made.found.get_or_init(|| {
            let mut all: BTreeMap<ModelName, Offer> = BTreeMap::new();
            for endpoint in self.pools.values().flat_map(|slots| slots.alike()) {
                for name in endpoint.found.iter().flat_map(|found| found.models.keys()) {
                    let Some(offer) = endpoint.offer(Some(name)) else { continue };
                    let known = all.entry(name.clone()).or_insert(offer);
                    known.capability = known.capability.union(offer.capability);
                    known.limits = known.limits.union(offer.limits);
                }
            }
            all
        })
    }

    /// The same name, where some endpoint of the pool lists it.
    pub(crate) fn listed_name(&self, pool: &str, model: &str) -> Option<ModelName> {
        self.pools.get(pool)?.listed.get(model).cloned()
    }

    /// The name where some endpoint of the pool lists it.
    pub(crate) fn listed<'n>(&self, pool: &str, model: &'n str) -> Option<&'n str> {
        self.pools.get(pool)?.listed(model)
    }

    fn offers_the_same_as(&self, table: &RoutingTable, pools: &HashMap<PoolName, Arc<Slots>>) -> bool {
        let same =
            |(name, slots): (&PoolName, &Arc<Slots>)| pools.get(name).is_some_and(|now| now.words == slots.words);
        self.pools.len() == pools.len() && self.pools.iter().all(same) && self.table.models == table.models
    }

    /// The list of models, made once: of those that somebody serves, or of all.
    pub(crate) fn list(&self, all: bool, owner: &str) -> Bytes {
        self.made.lists[usize::from(all)].get_or_init(|| reply::list_of_models(self, all, owner)).clone()
    }
}

// === impl Slots ===

impl Slots {
    fn new(name: &PoolName, pool: &Arc<Pool>, before: Option<&Self>, board: &Board) -> Self {
        let known: HashMap<&EndpointId, &Slot> =
            before.iter().flat_map(|before| &before.all).map(|slot| (slot.state.id(), slot)).collect();
        let finds: HashSet<Arc<Found>> =
            pool.endpoints.values().filter_map(|endpoint| endpoint.found.clone()).collect();
        let slot = |(endpoint_name, endpoint): (&Arc<str>, &Endpoint)| {
            let id = EndpointId {
                pool: name.clone(),
                name: Arc::clone(endpoint_name),
                uid: endpoint.uid,
                port: endpoint.address.port(),
            };
            let state = match known.get(&id) {
                Some(before) => {
                    if !before.endpoint.takes_the_same_as(endpoint) {
                        before.state.forget_refusals();
                    }
                    Arc::clone(&before.state)
                }
                None => board.enter(id),
            };
            // One copy of what thousands are: it is looked at for each of them.
            let found = endpoint.found.as_ref().map(|found| Arc::clone(finds.get(found).unwrap_or(found)));
            Slot { endpoint: Endpoint { found, ..endpoint.clone() }, state }
        };
        let words = pool.endpoints.values().map(|endpoint| (endpoint.capability, endpoint.found.clone()));
        let words = words.collect();
        let listed = finds.iter().flat_map(|found| found.models.keys().cloned()).collect();
        let density = before.map(|before| Arc::clone(&before.density)).unwrap_or_default();
        Self { pool: Arc::clone(pool), all: pool.endpoints.iter().map(slot).collect(), words, listed, density }
    }

    fn listed<'n>(&self, model: &'n str) -> Option<&'n str> {
        self.listed.contains(model).then_some(model)
    }

    /// One endpoint of each kind.
    fn alike(&self) -> impl Iterator<Item = Endpoint> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.words.iter().map(move |(capability, found)| Endpoint {
            capability: *capability,
            found: found.clone(),
            ..Endpoint::new(nowhere, Uid::NONE)
        })
    }
}

// === impl Slot ===

impl Slot {
    /// `now` is a stamp of the board's clock.
    pub(crate) fn candidate(
        &self,
        place: usize,
        now: u64,
        content: &Content,
        offers: &mut Offers<'_>,
    ) -> Candidate<'_> {
        let Self { endpoint, state } = self;
        let (load, health) = (state.load_at(now), state.health_at(now));
        let (work, spared_share) = state.work(content);
        let offer = offers.at(endpoint);
        let adapter = offers.model().filter(|_| offer.is_some_and(|offer| offer.is_adapter));
        let has_adapter_place = adapter.is_none_or(|adapter| state.adapters.have_place_for(adapter, now));
        Candidate { endpoint, offer, load, health, work, has_adapter_place, spared_share, place }
    }

    fn known(&self, app_protocol: AppProtocol) -> KnownEndpoint {
        KnownEndpoint { state: Arc::clone(&self.state), address: self.endpoint.address, app_protocol }
    }
}

#[cfg(test)]
mod tests;
