//! Why nothing at all could be found out.

use std::time::Duration;

/// Why a model server could not be asked. Each reads as the end of a sentence that begins with its address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("cannot be reached: {0}")]
    Unreachable(String),

    #[error("did not answer {path} within {} s", after.as_secs())]
    Slow { path: &'static str, after: Duration },

    #[error("broke off its answer to {path}: {why}")]
    BrokeOff { path: &'static str, why: String },

    #[error("answers {path} with more than {limit} bytes")]
    TooMuch { path: &'static str, limit: usize },

    #[error("asks for an API key (status {0}); give one with --api-key")]
    NoKey(u16),

    #[error("is not a model server that is known here: it answers {path} with {what}")]
    NoModelServer { path: &'static str, what: String },
}
