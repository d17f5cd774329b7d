//! How busy and how healthy an endpoint is, as far as is known at the instant of a decision.

use routing::ModalitySet;

/// How busy an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Requests that this picker sent there and that have not ended.
    pub in_flight: u32,
    /// Those of them whose first byte is still to come, and what should be left of their work, in milliseconds of a reference server.
    pub unread: u32,
    pub queued: f32,
    /// Work that it should not have done yet, of requests of whose first byte nobody tells; in milliseconds of a reference server.
    pub untold: f32,
    /// Those of whose first byte nobody has told yet, whether anybody will or not; and how many more they are than when its metrics were read.
    pub pending: u32,
    pub arrived: i32,
    /// Requests of others in its queue, on average of late: what metrics say is old, and every picker hears it at once.
    pub others_waiting: f32,
    /// Of the requests in its queue and under way, the share that others sent, on average of late: 0 to 1.
    pub others_share: f32,
    /// How many times as long as a reference server it takes, as far as first bytes tell.
    pub pace: f32,
    /// What its metrics said; none where they were never read, say nothing of load, or are too old to be believed.
    pub scraped: Option<Scraped>,
}

/// What a model server's metrics say of its load. What they do not say is not known, which is another thing than zero.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scraped {
    /// Requests in its queue.
    pub waiting: Option<u32>,
    /// Requests that it works on.
    pub running: Option<u32>,
    /// Share of the KV cache in use, 0 to 1.
    pub kv_cache_usage: Option<f32>,
}

/// Whether an endpoint can be expected to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// False once it has given no sign of life for some time, or has got on with nothing although it has work.
    pub responsive: bool,
    /// False for some time after it failed what it was sent, and then until one that it is sent has gone well.
    pub answering: bool,
    /// How often it failed in a row, where that may be the fault of what it was asked: it took the connection.
    pub doubts: u32,
    /// What it refused of late, whatever it is believed to take.
    pub refuses: ModalitySet,
}

/// A queue this long means saturated. The value is llm-d's default for its utilisation detector.
pub const SATURATED_WAITING: u32 = 5;

/// A KV cache this full means saturated: a further request would mostly preempt others. Later than llm-d (0.8), because with
/// prefix caching a busy server fills its cache with reusable blocks long before it is short of them.
pub const SATURATED_KV_CACHE: f32 = 0.95;

/// So much work in its queue keeps a server busy, in milliseconds: some steps of an engine.
const ENOUGH: f32 = 200.0;

impl Default for Load {
    fn default() -> Self {
        Self::NONE
    }
}

impl Load {
    /// Of an endpoint that was sent nothing, and of whose metrics nothing is known.
    pub const NONE: Self = Self {
        in_flight: 0,
        unread: 0,
        queued: 0.0,
        untold: 0.0,
        pending: 0,
        arrived: 0,
        others_waiting: 0.0,
        others_share: 0.0,
        pace: 1.0,
        scraped: None,
    };

    /// Whether another request would only wait. Where nothing is known, nobody says so. A queue that was too long is shorter by those of ours that have
    /// left it since, and longer by those that came; one that was not is no reason to hold back anybody before it is looked at again.
    pub fn is_saturated(&self) -> bool {
        let is_too_long = |waiting: u32| waiting >= SATURATED_WAITING;
        self.scraped.is_some_and(|scraped| {
            scraped
                .waiting
                .is_some_and(|waiting| is_too_long(waiting) && is_too_long(waiting.saturating_add_signed(self.arrived)))
                || scraped.kv_cache_usage.is_some_and(|usage| usage >= SATURATED_KV_CACHE)
        })
    }

    /// Whether a request had better wait here than there. Where others have filled it, this picker's own get in all the same: a few at a time, and fewer
    /// where they are much work.
    pub fn is_full(&self) -> bool {
        let is_enough = self.pending >= SATURATED_WAITING || self.pending > 1 && self.work_to_offer() <= 0.0;
        is_enough && self.is_saturated()
    }

    /// How much more work keeps it busy until more can be sent, in milliseconds of a reference server; below zero where it has more than that.
    pub fn work_to_offer(&self) -> f32 {
        ENOUGH / self.pace - self.queued - self.untold
    }
}

impl Scraped {
    /// Whether it says anything at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { responsive: true, answering: true, doubts: 0, refuses: ModalitySet::EMPTY }
    }
}
