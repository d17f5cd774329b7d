//! How many bytes of bodies a picker holds at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Rejection;

/// The budget of a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: u64,
    held: AtomicU64,
}

/// Bytes that are held. Given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    /// 1 GiB: sixteen bodies of the largest size that is taken by default.
    pub const DEFAULT_BYTES: u64 = 1 << 30;

    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Inner { limit, held: AtomicU64::new(0) }))
    }

    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Begins to hold a body of which nothing came yet. Refuses at once when what it announces would be too much.
    pub fn open(&self, announced: Option<u64>) -> Result<Reservation, Rejection> {
        if self.held().saturating_add(announced.unwrap_or(0)) > self.0.limit {
            return Err(Rejection::Overloaded { limit: self.0.limit });
        }
        Ok(Reservation { budget: self.clone(), bytes: 0 })
    }
}

impl Reservation {
    /// Holds more. Only what came is held: whoever merely announces much keeps nobody else out.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Rejection> {
        let Inner { limit, held } = &*self.budget.0;
        let fits = |held: u64| held.checked_add(bytes).filter(|held| held <= limit);
        // What does not fit takes no room from others.
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| Rejection::Overloaded { limit: *limit })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives some back.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.budget.0.held.fetch_sub(bytes, Ordering::Relaxed);
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
