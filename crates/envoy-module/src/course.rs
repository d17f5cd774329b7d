//! What comes back of a request that was dispatched, for whoever counts it: the picker in this process, or the one that was asked.

use std::time::Instant;

use ask::Asked;
use director::RunningAttempt;
use http::StatusCode;

/// A request under way. To drop it is an end as well.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "whoever has one has it in a box")]
pub(crate) enum Course {
    Here(RunningAttempt),
    Asked(Asked),
}

impl Course {
    pub(crate) fn head(&mut self, status: StatusCode) {
        match self {
            Self::Here(attempt) => attempt.head(status, Instant::now()),
            Self::Asked(asked) => asked.head(status),
        }
    }

    pub(crate) fn body(&mut self, bytes: &[u8]) {
        match self {
            Self::Here(attempt) => attempt.body(bytes, Instant::now),
            Self::Asked(asked) => asked.body(bytes),
        }
    }

    pub(crate) fn ended(self) {
        match self {
            Self::Here(attempt) => attempt.ended(Instant::now()),
            Self::Asked(asked) => asked.ended(),
        }
    }

    /// Envoy answers for the model server; `details` say why (`response_code_details` of its documentation, with the reason of a reset).
    pub(crate) fn failed(self, details: &str) {
        let (now, details) = (Instant::now(), details.replace(' ', "_"));
        let says = |word: &str| details.contains(word);
        let refused = says("connection_failure") || says("connection_timeout");
        let (timed_out, broke_off) = (says("timeout"), says("upstream_reset") && !says("overflow"));
        match self {
            Self::Here(attempt) if refused => attempt.unreachable(now),
            Self::Here(attempt) if timed_out => attempt.timed_out(now),
            Self::Here(attempt) if broke_off => attempt.broke_off(now),
            // It was not even asked.
            Self::Here(attempt) => attempt.unseen(),
            Self::Asked(asked) if refused => asked.unreachable(),
            Self::Asked(asked) if timed_out => asked.timed_out(),
            Self::Asked(asked) if broke_off => asked.broke_off(),
            Self::Asked(asked) => asked.unseen(),
        }
    }
}
