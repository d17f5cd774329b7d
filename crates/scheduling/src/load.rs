//! How busy an endpoint is, as far as is known.

use std::time::{Duration, Instant};

/// What is known of one endpoint's load at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Requests that this picker sent there and that have not ended.
    pub in_flight: u32,
    /// Requests the model server has queued (`vllm:num_requests_waiting`).
    pub waiting: u32,
    /// Requests the model server is working on (`vllm:num_requests_running`).
    pub running: u32,
    /// Share of the KV cache in use, 0 to 1 (`vllm:kv_cache_usage_perc`).
    pub kv_cache_usage: f32,
    /// When the last three were read; none when never.
    pub scraped_at: Option<Instant>,
    /// Since when its metrics port gives no answer at all; none while it answers, or was never asked.
    pub silent_since: Option<Instant>,
}

/// A scrape older than this says nothing any more.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// A server that has not answered for this long is taken for dead or stuck. A busy engine may skip a second.
pub const SILENT_AFTER: Duration = Duration::from_secs(3);

/// A queue this long means saturated. The value is llm-d's default for its utilisation detector.
pub const SATURATED_WAITING: u32 = 5;

/// A KV cache this full means saturated: a further request would mostly preempt others. Later than llm-d (0.8), because with
/// prefix caching a busy server fills its cache with reusable blocks long before it is short of them.
pub const SATURATED_KV_CACHE: f32 = 0.95;

impl Load {
    /// This load as it is to be believed: without a scrape that is too old, and without a silence that is still short.
    #[must_use]
    pub fn believed_at(self, now: Instant) -> Self {
        let age = |at: Instant| now.saturating_duration_since(at);
        let silent_since = self.silent_since.filter(|since| age(*since) >= SILENT_AFTER);
        if self.scraped_at.is_some_and(|at| age(at) <= STALE_AFTER) {
            Self { silent_since, ..self }
        } else {
            Self { in_flight: self.in_flight, silent_since, ..Self::default() }
        }
    }

    /// Whether the server is taken for dead or stuck.
    pub fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// Whether another request would only wait. An endpoint nobody has read is not saturated.
    pub fn is_saturated(&self) -> bool {
        self.waiting >= SATURATED_WAITING || self.kv_cache_usage >= SATURATED_KV_CACHE
    }
}
