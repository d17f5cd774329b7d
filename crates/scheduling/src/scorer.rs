//! Scorers: how good an endpoint is, 0 to 1. Each falls as the load it looks at rises, or rises with what it has cached, and looks at one endpoint alone.

use crate::Candidate;

/// Scores one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scorer {
    /// 1 / (1 + requests of ours there).
    LeastActive,
    /// 1 / (1 + seconds of our work there, on a reference server).
    LeastQueued,
    /// 1 / (1 + requests queued).
    ShortestQueue,
    /// 1 / (1 + requests that it works on).
    FewestRunning,
    /// The free share of the KV cache.
    FreeKvCache,
    /// The share of the request's work that its caches spare.
    Cached,
}

/// What an endpoint scores of which the matter is not known: worse than an idle one, better than a busy one.
const UNKNOWN: f32 = 0.5;

impl Scorer {
    /// A word for files, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeastActive => "active",
            Self::LeastQueued => "queuedWork",
            Self::ShortestQueue => "queue",
            Self::FewestRunning => "running",
            Self::FreeKvCache => "kvCache",
            Self::Cached => "cached",
        }
    }

    /// From 0 (worst) to 1 (best).
    pub fn score(self, candidate: &Candidate<'_>) -> f32 {
        let Candidate { load, work, .. } = candidate;
        let scraped = load.scraped.unwrap_or_default();
        match self {
            Self::LeastActive => one_over(load.in_flight),
            Self::LeastQueued => 1.0 / (1.0 + (load.queued + load.untold) / 1000.0),
            Self::ShortestQueue => scraped.waiting.map_or(UNKNOWN, one_over),
            Self::FewestRunning => scraped.running.map_or(UNKNOWN, one_over),
            Self::FreeKvCache => scraped.kv_cache_usage.map_or(UNKNOWN, |usage| 1.0 - usage.clamp(0.0, 1.0)),
            Self::Cached => work.saved / (work.saved + work.all()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "above 2^24 requests the order no longer matters")]
fn one_over(requests: u32) -> f32 {
    1.0 / (1.0 + requests as f32)
}
