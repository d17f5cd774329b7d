//! Work that this picker sent to an endpoint and that waits there, and how fast it is done.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use scheduling::Load;

use crate::attempt::micros;
use crate::board::Clock;

/// Work is in microseconds of a reference server.
#[derive(Debug)]
pub(crate) struct Backlog {
    clock: Clock,
    /// Work of those that have not come to their first byte, all together.
    queued: AtomicU64,
    /// Those that this is the work of.
    unread: AtomicU32,
    /// Since when it has been working on the first of them; [`UNKNOWN`] where that one may have left.
    head_since: AtomicU64,
    /// Work of those of whose first byte nobody tells; and when they should be done.
    untold: AtomicU64,
    untold_until: AtomicU64,
    /// How many they are.
    pending_untold: AtomicU32,
    /// Work that is done; how much and when it was when it was last looked at; and how much a second that is, as bits.
    done: AtomicU64,
    done_before: AtomicU64,
    done_at: AtomicU64,
    done_a_second: AtomicU32,
    /// How many times as long as the reference server it takes, as bits.
    pace: AtomicU32,
}

/// Later than any instant, so that nothing is done since.
const UNKNOWN: u64 = u64::MAX;

/// How many times as long a server takes to read prompts where it writes answers beside.
const BESIDE_ANSWERS: f32 = 1.5;

/// Work below this says nothing of how long a server takes for it, in milliseconds: connections, the network and the engine's steps take as long.
pub(crate) const TELLING: f32 = 20.0;

/// What the last look at what a server has done weighs beside all before it.
const LATELY: f32 = 0.2;

impl Backlog {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            queued: AtomicU64::new(0),
            unread: AtomicU32::new(0),
            head_since: AtomicU64::new(0),
            untold: AtomicU64::new(0),
            untold_until: AtomicU64::new(0),
            pending_untold: AtomicU32::new(0),
            done: AtomicU64::new(0),
            done_before: AtomicU64::new(0),
            done_at: AtomicU64::new(0),
            done_a_second: AtomicU32::new(0),
            pace: AtomicU32::new(1.0_f32.to_bits()),
        }
    }

    /// What it makes of an endpoint's load.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn load_at(&self, now: u64) -> Load {
        // Some are over before that.
        let untold = self.untold_until.load(Relaxed).saturating_sub(now) as f32 / 1e6 / self.pace();
        Load {
            unread: self.unread(),
            queued: self.queued_at(now),
            untold: untold.min(self.untold.load(Relaxed) as f32 / 1000.0),
            pending: self.pending(),
            pace: self.pace(),
            ..Load::NONE
        }
    }

    /// Requests whose first byte is still to come, and will be told of.
    pub(crate) fn unread(&self) -> u32 {
        self.unread.load(Relaxed)
    }

    /// How many times as long as the reference server it takes.
    fn pace(&self) -> f32 {
        f32::from_bits(self.pace.load(Relaxed))
    }

    /// Requests of ours of whose first byte nobody has told, whether anybody will or not.
    pub(crate) fn pending(&self) -> u32 {
        self.unread() + self.pending_untold.load(Relaxed)
    }

    /// Looks how much work it has done since it was last looked at.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn measure(&self, at: u64) {
        let (done, before) = (self.done.load(Relaxed), self.done_at.swap(at, Relaxed));
        let done = done.saturating_sub(self.done_before.swap(done, Relaxed));
        let seconds = at.saturating_sub(before) as f32 / 1e9;
        if before > 0 && seconds > 0.0 {
            let (rate, now) = (f32::from_bits(self.done_a_second.load(Relaxed)), done as f32 / 1000.0 / seconds);
            self.done_a_second.store((rate + (now - rate) * LATELY).to_bits(), Relaxed);
        }
    }

    /// Milliseconds of work that it does in a second, of late.
    pub(crate) fn work_a_second(&self) -> f32 {
        f32::from_bits(self.done_a_second.load(Relaxed))
    }

    /// So many microseconds of work wait there from `began` on; says how many did before.
    pub(crate) fn queue(&self, work: u64, began: Instant) -> u64 {
        let began = self.clock.stamp(began);
        let before = micros(self.queued_at(began));
        if self.unread.fetch_add(1, Relaxed) == 0 {
            let untold_until = if self.untold.load(Relaxed) > 0 { self.untold_until.load(Relaxed) } else { 0 };
            self.head_since.store(began.max(untold_until), Relaxed);
        }
        self.queued.fetch_add(work, Relaxed);
        before
    }

    /// So many microseconds of work came to their first byte at `at`; the server has been working on the next request since.
    pub(crate) fn read(&self, work: u64, at: Instant) {
        self.unqueue(work);
        self.did(work);
        self.head_since.store(self.clock.stamp(at), Relaxed);
    }

    /// So many microseconds of work left before their first byte, from wherever they stood.
    pub(crate) fn leave(&self, work: u64) {
        self.unqueue(work);
        self.head_since.store(UNKNOWN, Relaxed);
    }

    /// Milliseconds of work that wait there: of what it works on, some should be done. How much that is nobody keeps, so that it is taken to be as much
    /// as the others; where it is overdue, it is taken to last as long again as it is late. Without this a server whose first byte is due looks as busy as one
    /// that has just begun, and load spreads worse than in turns (`text-alone`).
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn queued_at(&self, now: u64) -> f32 {
        let queued = self.queued.load(Relaxed) as f32 / 1000.0;
        let head = queued / self.unread().max(1) as f32;
        if head < TELLING {
            return queued;
        }
        let since = now.saturating_sub(self.head_since.load(Relaxed)) as f32 / 1e6;
        let done = since / (BESIDE_ANSWERS * self.pace());
        queued - head + (head - done).abs().min(head)
    }

    /// So many microseconds of work wait there, of which nobody will tell when they are done: they are taken for it when they should be.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, never below zero"
    )]
    pub(crate) fn queue_untold(&self, work: u64, began: Instant) {
        let pace = self.pace();
        let (began, takes) = (self.clock.stamp(began), (work as f32 * BESIDE_ANSWERS * pace * 1000.0) as u64);
        self.pending_untold.fetch_add(1, Relaxed);
        if self.untold.fetch_add(work, Relaxed) == 0 {
            self.untold_until.store(0, Relaxed);
        }
        let _ = self.untold_until.fetch_update(Relaxed, Relaxed, |until| Some(until.max(began).saturating_add(takes)));
    }

    /// It is over, whenever it should have been.
    pub(crate) fn unqueue_untold(&self, work: u64) {
        self.pending_untold.fetch_sub(1, Relaxed);
        self.untold.fetch_sub(work, Relaxed);
    }

    /// So many microseconds of work are done.
    pub(crate) fn did(&self, work: u64) {
        self.done.fetch_add(work, Relaxed);
    }

    /// So many microseconds of work do not wait there any more, or not to be told of.
    pub(crate) fn unqueue(&self, work: u64) {
        self.queued.fetch_sub(work, Relaxed);
        self.unread.fetch_sub(1, Relaxed);
    }

    /// Notes that something took so many times as long as it would at a reference server.
    pub(crate) fn took(&self, times: f32) {
        let pace = self.pace();
        // A step of a tenth at most, so that one outlier moves it by a little.
        let next = pace * (times / pace).powf(0.1).clamp(0.9, 1.1);
        if next.is_finite() {
            self.pace.store(next.clamp(0.1, 100.0).to_bits(), Relaxed);
        }
    }
}
