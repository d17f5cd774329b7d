//! Who is next of those that wait: by priority, and in one priority by turns of equal work.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996): a request's turn is where the work of its flow ended before it, and the earliest turn is the
//! next. Here the virtual time is the earliest turn of those that wait for the same, so that a flow that was away has saved up nothing, and one that
//! waits elsewhere owes nothing here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use routing::{Modality, PoolName, Requirement};

use crate::Subset;

/// Requests that can go to the same endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    pub pools: Vec<PoolName>,
    pub need: Requirement,
    pub subset: Option<Subset>,
}

/// A place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub lane: Arc<Lane>,
    rank: Rank,
    work: u64,
}

/// In their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    priority: Reverse<i32>,
    turn: u64,
    /// Of two that have the same turn, who came first.
    number: u64,
}

/// Those that wait, with something of each.
#[derive(Debug)]
pub struct FairQueue<T> {
    lanes: HashMap<Arc<Lane>, BTreeMap<Rank, (u64, T)>>,
    /// Where the work of each flow ends, of all that it has asked for.
    flows: HashMap<Flow, u64>,
    entered: u64,
    len: usize,
    work: u64,
}

/// Whose requests take turns with those of others: in each priority, for each set of pools, and of text apart from what is heavier.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Flow {
    of: u64,
    priority: i32,
    pools: Vec<PoolName>,
    heaviest: Modality,
}

/// So many flows are remembered beyond those that wait.
const SPARE_FLOWS: usize = 256;

impl Lane {
    /// What its requests carry that is the most work.
    pub fn heaviest(&self) -> Modality {
        let all = self.need.input.union(self.need.output);
        let heavy = [Modality::Video, Modality::Audio, Modality::Image];
        heavy.into_iter().find(|modality| all.contains(*modality)).unwrap_or(Modality::Text)
    }

    fn meets(&self, pools: &[PoolName]) -> bool {
        self.pools.iter().any(|pool| pools.contains(pool))
    }
}

impl Place {
    pub fn priority(&self) -> i32 {
        self.rank.priority.0
    }
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), flows: HashMap::new(), entered: 0, len: 0, work: 0 }
    }
}

impl<T> FairQueue<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The work of all that wait.
    pub fn work(&self) -> u64 {
        self.work
    }

    /// Those whose heaviest is this.
    pub fn len_of(&self, heaviest: Modality) -> usize {
        self.lanes.iter().filter(|(lane, _)| lane.heaviest() == heaviest).map(|(_, waiting)| waiting.len()).sum()
    }

    /// Work may be in any unit.
    pub fn enter(&mut self, lane: Lane, priority: i32, flow: u64, work: u64, item: T) -> Place {
        let least = Rank { priority: Reverse(priority), turn: 0, number: 0 };
        let first = self.lanes_meeting(&lane.pools).filter_map(|(_, waiting)| waiting.range(least..).next());
        let floor =
            first.map(|(rank, _)| rank).filter(|rank| rank.priority == least.priority).map(|rank| rank.turn).min();
        let flow = Flow { of: flow, priority, pools: lane.pools.clone(), heaviest: lane.heaviest() };
        self.forget_flows();
        let ends = self.flows.entry(flow).or_default();
        // Where nobody waits for the same, there are no turns to take.
        let turn = floor.map_or(0, |floor| floor.max(*ends));
        *ends = turn.saturating_add(work.max(1));
        self.entered += 1;
        let rank = Rank { priority: Reverse(priority), turn, number: self.entered };
        let place = Place { lane: Arc::new(lane), rank, work };
        self.enter_again(&place, item);
        place
    }

    /// Whoever was called and could not go has its old place.
    pub fn enter_again(&mut self, place: &Place, item: T) {
        let lane = self.lanes.entry(Arc::clone(&place.lane)).or_default();
        if lane.insert(place.rank, (place.work, item)).is_none() {
            self.len += 1;
            self.work = self.work.saturating_add(place.work);
        }
    }

    /// Whether somebody waits for one of these pools who is at least as important.
    pub fn is_before(&self, pools: &[PoolName], priority: i32) -> bool {
        let mut first = self.lanes_meeting(pools).filter_map(|(_, waiting)| waiting.keys().next());
        first.any(|rank| rank.priority.0 >= priority)
    }

    /// Takes out whoever is next for one of these pools, of other lanes than these.
    pub fn call(&mut self, pools: &[PoolName], except: &[Arc<Lane>]) -> Option<(Place, T)> {
        let lanes = self.lanes_meeting(pools).filter(|(lane, _)| !except.contains(lane));
        let first = lanes.filter_map(|(lane, waiting)| Some((waiting.first_key_value()?, lane)));
        let place = first.min_by_key(|((rank, _), _)| *rank).map(place_of)?;
        self.leave(&place).map(|item| (place, item))
    }

    /// Takes out whoever is the last of all, if it is less important than this.
    pub fn call_off_below(&mut self, priority: i32) -> Option<T> {
        let last = self.lanes.iter().filter_map(|(lane, waiting)| Some((waiting.last_key_value()?, lane)));
        let place = last.max_by_key(|((rank, _), _)| *rank).map(place_of)?;
        if place.priority() < priority { self.leave(&place) } else { None }
    }

    /// Takes it out; none where it is not there.
    pub fn leave(&mut self, place: &Place) -> Option<T> {
        let waiting = self.lanes.get_mut(&place.lane)?;
        let (work, item) = waiting.remove(&place.rank)?;
        if waiting.is_empty() {
            self.lanes.remove(&place.lane);
        }
        self.len -= 1;
        self.work = self.work.saturating_sub(work);
        if self.len == 0 {
            self.flows.clear();
        }
        Some(item)
    }

    /// Takes out whoever is next in each lane.
    pub fn call_all(&mut self) -> Vec<(Place, T)> {
        let first = self.lanes.iter().filter_map(|(lane, waiting)| Some((waiting.first_key_value()?, lane)));
        let first: Vec<Place> = first.map(place_of).collect();
        first.into_iter().filter_map(|place| self.leave(&place).map(|item| (place, item))).collect()
    }

    fn lanes_meeting(&self, pools: &[PoolName]) -> impl Iterator<Item = (&Arc<Lane>, &BTreeMap<Rank, (u64, T)>)> {
        self.lanes.iter().filter(|(lane, _)| lane.meets(pools))
    }

    /// Where there are too many, of those whose turn has come, and of all if that does not make much room.
    fn forget_flows(&mut self) {
        let most = 2 * self.len + SPARE_FLOWS;
        if self.flows.len() <= most {
            return;
        }
        let earliest = self.lanes.values().flat_map(BTreeMap::keys).map(|rank| rank.turn).min().unwrap_or(u64::MAX);
        self.flows.retain(|_, ends| *ends > earliest);
        if self.flows.len() > most / 2 {
            self.flows.clear();
        }
    }
}

fn place_of<T>(((rank, (work, _)), lane): ((&Rank, &(u64, T)), &Arc<Lane>)) -> Place {
    Place { lane: Arc::clone(lane), rank: *rank, work: *work }
}

#[cfg(test)]
mod tests;
