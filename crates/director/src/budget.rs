//! How many bytes of bodies a picker holds at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use routing::client_of;

use crate::Rejection;

/// The budget of a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: u64,
    held: AtomicU64,
    clients: Mutex<Clients>,
}

/// What each client holds.
#[derive(Debug, Default)]
struct Clients {
    held: HashMap<IpAddr, Arc<AtomicU64>>,
    /// At how many those that are gone are looked for again.
    sweep_at: usize,
}

/// Bytes that are held. Given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
    /// All that its client holds.
    client: Option<Arc<AtomicU64>>,
}

impl Budget {
    /// 1 GiB: sixteen bodies of the largest size that is taken by default.
    pub const DEFAULT_BYTES: u64 = 1 << 30;

    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Inner { limit, held: AtomicU64::new(0), clients: Mutex::default() }))
    }

    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Begins to hold a body of which nothing came yet. Refuses at once when what it announces would be too much.
    pub fn open(&self, announced: Option<u64>) -> Result<Reservation, Rejection> {
        if self.held().saturating_add(announced.unwrap_or(0)) > self.0.limit {
            return Err(Rejection::Overloaded { limit: self.0.limit });
        }
        Ok(Reservation { budget: self.clone(), bytes: 0, client: None })
    }

    /// The same for a client at this address. Once the budget is half full, no client holds more than half of it.
    pub fn open_for(&self, client: IpAddr, announced: Option<u64>) -> Result<Reservation, Rejection> {
        let mut reservation = self.open(announced)?;
        reservation.client = Some(self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).of(client));
        Ok(reservation)
    }

    /// Holds so many bytes now, for a client at this address where that is known.
    pub fn take(&self, client: Option<IpAddr>, bytes: u64) -> Result<Reservation, Rejection> {
        let mut reservation = match client {
            Some(client) => self.open_for(client, None),
            None => self.open(None),
        }?;
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Whether so many bodies like this would be more than half of it.
    pub(crate) fn is_large(&self, bytes: u64, count: usize) -> bool {
        bytes.saturating_mul(count as u64) > self.0.limit / 2
    }

    pub fn is_half_full(&self) -> bool {
        self.held() > self.0.limit / 2
    }
}

impl Clients {
    /// Fewer than this are never looked through.
    const FEW: usize = 64;

    /// What this one holds. Those that hold nothing any more are forgotten whenever there are twice as many as there were.
    fn of(&mut self, address: IpAddr) -> Arc<AtomicU64> {
        let held = Arc::clone(self.held.entry(client_of(address)).or_default());
        if self.held.len() > self.sweep_at.max(Self::FEW) {
            self.held.retain(|_, held| Arc::strong_count(held) > 1);
            self.sweep_at = 2 * self.held.len();
        }
        held
    }
}

impl Reservation {
    /// Holds more. Only what came is held: whoever merely announces much keeps nobody else out.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Rejection> {
        let Inner { limit, held, .. } = &*self.budget.0;
        let fits = |held: u64| held.checked_add(bytes).filter(|held| held <= limit);
        let of_client = self.client.as_ref().map_or(0, |client| client.load(Ordering::Relaxed));
        if self.budget.is_half_full() && of_client.saturating_add(bytes) > limit / 2 {
            return Err(Rejection::Overloaded { limit: *limit });
        }
        // What does not fit takes no room from others.
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| Rejection::Overloaded { limit: *limit })?;
        self.bytes += bytes;
        if let Some(client) = &self.client {
            client.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether so little of the budget is held that a body may stay for longer than it must: a quarter.
    pub fn is_of_plenty(&self) -> bool {
        self.budget.held() <= self.budget.0.limit / 4
    }

    /// Gives some back.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.budget.0.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(client) = &self.client {
            client.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.bytes -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_room_for_others() {
        let budget = Budget::new(100);
        let (stranger, honest) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut held = Vec::new();
        for _ in 0..9 {
            let mut reservation = budget.open_for(stranger, None).unwrap();
            if reservation.grow(10).is_ok() {
                held.push(reservation);
            }
        }
        assert_eq!(budget.held(), 60, "what it had when the budget was half full, and what made it so");
        let mut other = budget.open_for(honest, None).unwrap();
        other.grow(40).unwrap();
        drop(held);
        assert_eq!(budget.held(), 40);
        drop(other);
    }

    #[test]
    fn clients_that_hold_nothing_are_forgotten() {
        let budget = Budget::new(100);
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let held: Vec<_> = (0..100).map(|number| budget.open_for(address(number), None).unwrap()).collect();
        (0..10_000).for_each(|number| drop(budget.open_for(address(number), None).unwrap()));
        assert!((100..=400).contains(&budget.0.clients.lock().unwrap().held.len()));
        drop(held);
    }

    #[test]
    fn the_newcomer_is_refused_and_everything_is_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.open(Some(90)).unwrap();
        first.grow(90).unwrap();
        assert!(matches!(budget.open(Some(20)), Err(Rejection::Overloaded { limit: 100 })));
        let mut second = budget.open(None).unwrap();
        assert!(second.grow(20).is_err());
        drop(second);
        first.shrink(50);
        assert_eq!(budget.held(), 40);
        budget.open(Some(60)).unwrap().grow(60).unwrap();
        drop(first);
        assert_eq!(budget.held(), 0);
    }
}
