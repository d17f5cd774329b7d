//! How long a client may take over the body of a request.

use std::time::Duration;

use crate::Rejection;

/// How long a body may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyTimeouts {
    /// From one piece to the next.
    pub stall: Duration,
    /// From the head to the last piece.
    pub whole: Duration,
}

impl BodyTimeouts {
    /// How long to wait for the next piece of a body whose head came `taken` ago, and what it means when none comes. An error when the
    /// time is up: a body that always has more ready is never waited for.
    pub fn next(self, taken: Duration) -> Result<(Duration, Rejection), Rejection> {
        let too_slow = Rejection::TooSlow { limit: self.whole };
        let left = match self.whole.checked_sub(taken) {
            None | Some(Duration::ZERO) => return Err(too_slow),
            Some(left) => left,
        };
        Ok(if left < self.stall { (left, too_slow) } else { (self.stall, Rejection::Stalled { waited: self.stall }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_end_is_waited_for_and_named() {
        let seconds = Duration::from_secs;
        let timeouts = BodyTimeouts { stall: seconds(30), whole: seconds(300) };
        let next = |taken| match timeouts.next(seconds(taken)) {
            Ok((wait, rejection)) => (wait.as_secs(), rejection.code().as_str()),
            Err(rejection) => (0, rejection.code().as_str()),
        };
        assert_eq!(next(0), (30, "body_stalled"));
        assert_eq!(next(270), (30, "body_stalled"));
        assert_eq!(next(271), (29, "body_too_slow"));
        assert_eq!(next(300), (0, "body_too_slow"));
        assert_eq!(next(1000), (0, "body_too_slow"));
    }
}
