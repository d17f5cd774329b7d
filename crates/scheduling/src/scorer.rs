//! Scorers: how good an endpoint is, 0 to 1. Each falls as the load it looks at rises, and looks at one endpoint alone.

use crate::Candidate;

/// Scores one candidate.
pub trait Scorer: Send + Sync + std::fmt::Debug {
    /// A lower-case word for logs and metric labels.
    fn name(&self) -> &'static str;

    /// From 0 (worst) to 1 (best).
    fn score(&self, candidate: &Candidate<'_>) -> f32;
}

/// 1 / (1 + requests there). What this picker sent counts at once, what others sent as soon as it was scraped; the larger of both,
/// since the server's own count holds ours too.
#[derive(Debug)]
pub struct LeastActive;

/// 1 / (1 + requests queued).
#[derive(Debug)]
pub struct ShortestQueue;

/// The free share of the KV cache.
#[derive(Debug)]
pub struct FreeKvCache;

impl Scorer for LeastActive {
    fn name(&self) -> &'static str {
        "active"
    }

    fn score(&self, candidate: &Candidate<'_>) -> f32 {
        one_over(candidate.load.in_flight.max(candidate.load.running.saturating_add(candidate.load.waiting)))
    }
}

impl Scorer for ShortestQueue {
    fn name(&self) -> &'static str {
        "queue"
    }

    fn score(&self, candidate: &Candidate<'_>) -> f32 {
        one_over(candidate.load.waiting)
    }
}

impl Scorer for FreeKvCache {
    fn name(&self) -> &'static str {
        "kv-cache"
    }

    fn score(&self, candidate: &Candidate<'_>) -> f32 {
        1.0 - candidate.load.kv_cache_usage.clamp(0.0, 1.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "above 2^24 requests the order no longer matters")]
fn one_over(requests: u32) -> f32 {
    1.0 / (1.0 + requests as f32)
}
