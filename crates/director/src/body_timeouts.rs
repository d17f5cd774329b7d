//! How long a client may take over the body of a request.

use std::time::Duration;

use crate::{Budget, Rejection};

/// How long a body may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyTimeouts {
    /// From one piece to the next.
    pub stall: Duration,
    /// From the head to the last piece.
    pub whole: Duration,
}

/// Once the budget for bodies is half full, one that was begun this long ago must have come at [`LEAST_RATE`].
const GRACE: Duration = Duration::from_secs(5);

/// In bytes a second; the slowest mobile networks are faster.
const LEAST_RATE: u64 = 16 << 10;

/// How often it is looked whether a body that is waited for must give way.
const LOOK: Duration = Duration::from_secs(1);

impl BodyTimeouts {
    /// How long to wait for more of a request that began `taken` ago, of which so many `bytes` came, the last piece `idle` ago; then this is
    /// to be asked again. An error when its time is up, even if it always has more ready, or when it must give way to others.
    pub fn next(self, taken: Duration, idle: Duration, bytes: u64, budget: &Budget) -> Result<Duration, Rejection> {
        let left = |limit: Duration, of: Duration| limit.checked_sub(of).filter(|left| !left.is_zero());
        let whole = left(self.whole, taken).ok_or(Rejection::TooSlow { limit: self.whole })?;
        let stall = left(self.stall, idle).ok_or(Rejection::Stalled { waited: self.stall })?;
        let least = taken.as_secs().saturating_mul(LEAST_RATE);
        if taken >= GRACE && bytes < least && budget.is_half_full() {
            return Err(Rejection::GivesWay { rate: LEAST_RATE });
        }
        Ok(whole.min(stall).min(LOOK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_end_is_waited_for_and_named() {
        let seconds = Duration::from_secs;
        let (timeouts, budget) = (BodyTimeouts { stall: seconds(30), whole: seconds(300) }, Budget::new(1 << 20));
        let next =
            |taken, idle| match timeouts.next(Duration::from_millis(taken), Duration::from_millis(idle), 0, &budget) {
                Ok(wait) => (wait.as_millis(), ""),
                Err(rejection) => (0, rejection.code().as_str()),
            };
        assert_eq!(next(0, 0), (1000, ""));
        assert_eq!(next(29_500, 29_500), (500, ""));
        assert_eq!(next(30_000, 30_000), (0, "body_stalled"));
        assert_eq!(next(299_900, 0), (100, ""));
        assert_eq!(next(300_000, 0), (0, "body_too_slow"));
    }

    #[test]
    fn who_drips_gives_way_once_others_need_the_room() {
        let seconds = Duration::from_secs;
        let (timeouts, budget) = (BodyTimeouts { stall: seconds(30), whole: seconds(300) }, Budget::new(1 << 20));
        let next =
            |taken, bytes| timeouts.next(seconds(taken), seconds(0), bytes, &budget).map_err(|why| why.code().as_str());
        assert_eq!(next(60, 1024), Ok(LOOK), "there is room for all");
        let mut others = budget.open(None).unwrap();
        others.grow(600 << 10).unwrap();
        assert_eq!(next(4, 1024), Ok(LOOK));
        assert_eq!(next(5, 1024), Err("body_too_slow"));
        assert_eq!(next(5, 600 << 10), Ok(LOOK));
    }
}
