//! Who is next of those that wait: by priority, and in one priority by turns of equal work.
//!
//! ```text
//!  room in a pool ──► the most important ──► of the lanes that can go there, the one whose turn it is ──► of its flows, likewise ──► who came first
//! ```
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996), on two levels: lanes take turns at each pool, and flows in each lane. Whoever is called has had
//! its turn; the next one is as much later as the work was. Who was away comes back at the turn that was called last: it has saved up nothing. Only what
//! is called is charged, so that what leaves without having been served costs nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use routing::{Endpoint, Modality, ModelName, PoolName, Requirement, Size};

use crate::Subset;

/// Requests that can go to the same endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    pub pools: Vec<PoolName>,
    pub need: Requirement,
    /// What endpoints are asked for, as far as some list it; none where any endpoint of the pools may take it.
    pub models: Vec<ModelName>,
    /// How much it brings, where that is too much for some of them.
    pub size: Option<Size>,
    pub subset: Option<Subset>,
}

/// What a request says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asks {
    pub lane: Arc<Lane>,
    pub priority: i32,
    /// With whose requests it takes turns in its lane.
    pub flow: u64,
    /// In any unit.
    pub work: u64,
}

/// A place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub asks: Asks,
    number: u64,
}

/// Those that wait, with something of each.
#[derive(Debug)]
pub struct FairQueue<T> {
    lanes: HashMap<Arc<Lane>, Waiting<T>>,
    /// The turn that was called last at each pool.
    called: HashMap<Stage, u64>,
    entered: u64,
    len: usize,
}

/// A pool, as those of one priority see it.
type Stage = (i32, PoolName);

/// Those of one lane.
#[derive(Debug)]
struct Waiting<T> {
    /// The lane's turn at each of its pools.
    turns: HashMap<Stage, u64>,
    classes: BTreeMap<Reverse<i32>, Class<T>>,
    len: usize,
    work: u64,
}

/// Those of one priority in it.
#[derive(Debug)]
struct Class<T> {
    /// The flows that wait: their turn, the number of their first, and which they are.
    order: BTreeSet<(u64, u64, u64)>,
    flows: HashMap<u64, Flow<T>>,
    /// The turn that was called last.
    called: u64,
}

/// Those of one flow in it.
#[derive(Debug)]
struct Flow<T> {
    turn: u64,
    /// By number, with their work.
    waiting: BTreeMap<u64, (u64, T)>,
}

/// So many lanes, and flows of a class, are remembered that do not wait, beside as many as do.
const SPARE: usize = 64;

impl Lane {
    /// Whether one of it could go there, whatever its target declares.
    pub fn could_use(&self, endpoint: &Endpoint) -> bool {
        let fits = |model: Option<&str>| {
            endpoint.offer(model).is_some_and(|offer| {
                offer.capability.covers(self.need)
                    && self.size.is_none_or(|size| offer.limits.exceeded_by(size).is_none())
            })
        };
        let may = if self.models.is_empty() { fits(None) } else { self.models.iter().any(|model| fits(Some(model))) };
        may && self.subset.as_ref().is_none_or(|subset| subset.allows(endpoint.address))
    }

    /// What its requests carry that is the most work.
    pub fn heaviest(&self) -> Modality {
        let all = self.need.input.union(self.need.output);
        let heavy = [Modality::Video, Modality::Audio, Modality::Image];
        heavy.into_iter().find(|modality| all.contains(*modality)).unwrap_or(Modality::Text)
    }
}

// === impl FairQueue ===

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), called: HashMap::new(), entered: 0, len: 0 }
    }
}

impl<T> FairQueue<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The work of those that wait for one of these pools.
    pub fn work(&self, pools: &[PoolName]) -> u64 {
        let meets = |lane: &Lane| lane.pools.iter().any(|pool| pools.contains(pool));
        self.lanes.iter().filter(|(lane, _)| meets(lane)).map(|(_, waiting)| waiting.work).fold(0, u64::saturating_add)
    }

    /// How many wait for each pool; of several that it can go to, the first counts.
    pub fn len_by_pool(&self) -> BTreeMap<PoolName, usize> {
        let mut all = BTreeMap::new();
        for (lane, waiting) in &self.lanes {
            if let Some(pool) = lane.pools.first().filter(|_| waiting.len > 0) {
                *all.entry(pool.clone()).or_default() += waiting.len;
            }
        }
        all
    }

    /// Those whose heaviest is this.
    pub fn len_of(&self, heaviest: Modality) -> usize {
        self.lanes.iter().filter(|(lane, _)| lane.heaviest() == heaviest).map(|(_, waiting)| waiting.len).sum()
    }

    pub fn enter(&mut self, asks: Asks, item: T) -> Place {
        self.entered += 1;
        let place = Place { asks, number: self.entered };
        self.put(&place, item);
        place
    }

    /// Whoever was called, for room in this pool if for any, could not go. It may ask for something else now; who came first stays so.
    pub fn enter_again(&mut self, place: &mut Place, pool: Option<&PoolName>, asks: Asks, item: T) {
        if let Some(pool) = pool {
            self.give_back(place, pool);
        }
        place.asks = asks;
        self.put(place, item);
    }

    /// Whoever was called for room in this pool has not used it, and is not charged for it.
    pub fn give_back(&mut self, Place { asks: Asks { lane, priority, flow, work }, .. }: &Place, pool: &PoolName) {
        let Some(waiting) = self.lanes.get_mut(lane) else { return };
        if let Some(turn) = waiting.turns.get_mut(&(*priority, pool.clone())) {
            *turn = turn.saturating_sub(*work);
        }
        if let Some(class) = waiting.classes.get_mut(&Reverse(*priority)) {
            class.change(*flow, |flow| flow.turn = flow.turn.saturating_sub(*work));
        }
    }

    /// Whether somebody waits in this pool, in one of those lanes, who is at least as important.
    pub fn is_before(&self, pool: &PoolName, priority: i32, in_lane: impl Fn(&Lane) -> bool) -> bool {
        let is_important = |waiting: &Waiting<T>| waiting.first().is_some_and(|(first, ..)| first >= priority);
        self.lanes_at(pool).any(|(lane, waiting)| is_important(waiting) && in_lane(lane))
    }

    /// Takes out whoever is next for room in this pool, of other lanes than these.
    pub fn call(&mut self, pool: &PoolName, except: &[Arc<Lane>]) -> Option<(Place, T)> {
        let lanes = self.lanes_at(pool).filter(|(lane, _)| !except.contains(lane));
        let first = lanes.filter_map(|(lane, waiting)| {
            let (priority, flow, number) = waiting.first()?;
            let turn = waiting.turns.get(&(priority, pool.clone())).copied().unwrap_or(0);
            Some((Reverse(priority), turn, number, flow, Arc::clone(lane)))
        });
        let (Reverse(priority), turn, number, flow, lane) = first.min_by_key(|first| (first.0, first.1, first.2))?;
        let (place, item) = self.take(&lane, priority, flow, number)?;
        let stage = (priority, pool.clone());
        let called = self.called.entry(stage.clone()).or_default();
        *called = turn.max(*called);
        if let Some(waiting) = self.lanes.get_mut(&lane) {
            waiting.turns.insert(stage, turn.saturating_add(place.asks.work));
            if let Some(class) = waiting.classes.get_mut(&Reverse(priority)) {
                class.charge(flow, place.asks.work);
            }
        }
        Some((place, item))
    }

    /// Takes out everybody, in the order in which they came.
    pub fn call_all(&mut self) -> Vec<(Place, T)> {
        let mut all = Vec::with_capacity(self.len);
        for (lane, waiting) in self.lanes.drain() {
            for (Reverse(priority), class) in waiting.classes {
                for (flow, Flow { waiting, .. }) in class.flows {
                    all.extend(waiting.into_iter().map(|(number, (work, item))| {
                        let asks = Asks { lane: Arc::clone(&lane), priority, flow, work };
                        (Place { asks, number }, item)
                    }));
                }
            }
        }
        self.clear();
        all.sort_by_key(|(place, _)| place.number);
        all
    }

    /// Takes out whoever came last of the least important, if it is less important than this; of those alone whose heaviest is this, where that is said.
    pub fn call_off_below(&mut self, priority: i32, heaviest: Option<Modality>) -> Option<T> {
        let lanes = self.lanes.iter().filter(|(lane, _)| heaviest.is_none_or(|heaviest| lane.heaviest() == heaviest));
        let last = lanes.filter_map(|(lane, waiting)| {
            let (priority, flow, number) = waiting.last_below(priority)?;
            Some((Reverse(priority), number, flow, Arc::clone(lane)))
        });
        let (Reverse(last), number, flow, lane) = last.max_by_key(|last| (last.0, last.1))?;
        self.take(&lane, last, flow, number).map(|(_, item)| item)
    }

    /// Takes it out; none where it is not there.
    pub fn leave(&mut self, Place { asks: Asks { lane, priority, flow, .. }, number }: &Place) -> Option<T> {
        self.take(lane, *priority, *flow, *number).map(|(_, item)| item)
    }

    /// Forgets whose turn it was. For when nobody waits, nor was called and may come back.
    pub fn clear(&mut self) {
        *self = Self { entered: self.entered, ..Self::default() };
    }

    fn lanes_at(&self, pool: &PoolName) -> impl Iterator<Item = (&Arc<Lane>, &Waiting<T>)> {
        self.lanes.iter().filter(|(lane, _)| lane.pools.contains(pool))
    }

    fn put(&mut self, Place { asks: Asks { lane, priority, flow, work }, number }: &Place, item: T) {
        self.forget();
        let waiting = self.lanes.entry(Arc::clone(lane)).or_default();
        let class = waiting.classes.entry(Reverse(*priority)).or_default();
        if class.order.is_empty() {
            for pool in &lane.pools {
                let stage = (*priority, pool.clone());
                let called = self.called.get(&stage).copied().unwrap_or(0);
                let turn = waiting.turns.entry(stage).or_default();
                *turn = called.max(*turn);
            }
        }
        class.put(*flow, *number, *work, item);
        waiting.len += 1;
        waiting.work = waiting.work.saturating_add(*work);
        self.len += 1;
    }

    fn take(&mut self, lane: &Arc<Lane>, priority: i32, flow: u64, number: u64) -> Option<(Place, T)> {
        let waiting = self.lanes.get_mut(lane)?;
        let (work, item) = waiting.classes.get_mut(&Reverse(priority))?.take(flow, number)?;
        waiting.len -= 1;
        waiting.work = waiting.work.saturating_sub(work);
        self.len -= 1;
        Some((Place { asks: Asks { lane: Arc::clone(lane), priority, flow, work }, number }, item))
    }

    /// Lanes in which nobody waits, where there are too many of them.
    fn forget(&mut self) {
        let waiting = self.lanes.values().filter(|waiting| waiting.len > 0).count();
        if self.lanes.len() > waiting + SPARE {
            self.lanes.retain(|_, waiting| waiting.len > 0);
            let lanes = &self.lanes;
            self.called.retain(|(_, pool), _| lanes.keys().any(|lane| lane.pools.contains(pool)));
        }
    }
}

// === impl Waiting ===

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { turns: HashMap::new(), classes: BTreeMap::new(), len: 0, work: 0 }
    }
}

impl<T> Waiting<T> {
    /// Priority, flow and number of the next.
    fn first(&self) -> Option<(i32, u64, u64)> {
        let mut classes = self.classes.iter();
        classes.find_map(|(priority, class)| class.order.first().map(|(_, number, flow)| (priority.0, *flow, *number)))
    }

    /// The same of whoever came last of the least important, of those that are less important than this.
    fn last_below(&self, below: i32) -> Option<(i32, u64, u64)> {
        let mut classes = self.classes.iter().rev().take_while(|(priority, _)| priority.0 < below);
        classes.find_map(|(priority, class)| {
            let last = |(flow, of): (&u64, &Flow<T>)| of.waiting.keys().next_back().map(|number| (*number, *flow));
            class.flows.iter().filter_map(last).max().map(|(number, flow)| (priority.0, flow, number))
        })
    }
}

// === impl Class ===

impl<T> Default for Class<T> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), flows: HashMap::new(), called: 0 }
    }
}

impl<T> Class<T> {
    fn put(&mut self, flow: u64, number: u64, work: u64, item: T) {
        if self.flows.len() > self.order.len() + SPARE {
            self.flows.retain(|_, flow| !flow.waiting.is_empty());
        }
        let called = self.called;
        self.flows.entry(flow).or_insert_with(|| Flow { turn: called, waiting: BTreeMap::new() });
        self.change(flow, |flow| {
            if flow.waiting.is_empty() {
                flow.turn = flow.turn.max(called);
            }
            flow.waiting.insert(number, (work, item));
        });
    }

    fn take(&mut self, flow: u64, number: u64) -> Option<(u64, T)> {
        self.change(flow, |flow| flow.waiting.remove(&number))?
    }

    /// It was its turn.
    fn charge(&mut self, flow: u64, work: u64) {
        let turn = self.change(flow, |flow| {
            let turn = flow.turn;
            flow.turn = turn.saturating_add(work.max(1));
            turn
        });
        self.called = self.called.max(turn.unwrap_or(0));
    }

    /// Changes a flow, and keeps the order.
    fn change<R>(&mut self, number: u64, change: impl FnOnce(&mut Flow<T>) -> R) -> Option<R> {
        let flow = self.flows.get_mut(&number)?;
        let entry = |flow: &Flow<T>| flow.waiting.keys().next().map(|first| (flow.turn, *first, number));
        if let Some(before) = entry(flow) {
            self.order.remove(&before);
        }
        let result = change(flow);
        self.order.extend(entry(flow));
        Some(result)
    }
}

#[cfg(test)]
mod tests;
