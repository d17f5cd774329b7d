//! What may happen with each connection is said once a minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after one line no other is written.
const PAUSE: Duration = Duration::from_mins(1);

/// Lets one line a minute through, whoever asks.
#[derive(Debug)]
pub struct Rarely(Mutex<Option<Instant>>);

impl Rarely {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether to say it now.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = said.is_none_or(|said| now.saturating_duration_since(said) >= PAUSE);
        if is_due {
            *said = Some(now);
        }
        is_due
    }
}

impl Default for Rarely {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute() {
        let (rarely, start) = (Rarely::new(), Instant::now());
        let said = [0, 1, 59, 60, 61, 119, 121].map(|second| rarely.is_due(start + Duration::from_secs(second)));
        assert_eq!(said, [true, false, false, true, false, false, true]);
    }
}
