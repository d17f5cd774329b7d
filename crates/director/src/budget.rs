//! How many bytes of bodies a picker holds at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Rejection;

/// The budget of a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: u64,
    held: AtomicU64,
    /// Of each client that holds any.
    clients: Mutex<HashMap<IpAddr, Arc<AtomicU64>>>,
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

    /// The same for a client at this address. Once the budget is half full, no address holds more than half of it.
    pub fn open_for(&self, client: IpAddr, announced: Option<u64>) -> Result<Reservation, Rejection> {
        let mut reservation = self.open(announced)?;
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        // Of those that hold nothing nothing is kept.
        clients.retain(|_, held| Arc::strong_count(held) > 1);
        reservation.client = Some(Arc::clone(clients.entry(client).or_default()));
        Ok(reservation)
    }

    pub fn is_half_full(&self) -> bool {
        self.held() > self.0.limit / 2
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

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
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
        drop(budget.open_for(honest, None).unwrap());
        assert!(budget.0.clients.lock().unwrap().len() <= 1);
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
