//! The board: what is known of each endpoint, written by attempts and pollers, read by every decision.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

use routing::{ModalitySet, PoolName, Uid};
use scheduling::{Health, Load, SATURATED_WAITING, Scraped, Work};

use crate::adapters::{Adapters, AdaptersRead};
use crate::attempt::micros;
use crate::backlog::Backlog;
use crate::cached::{Cached, Visit};
use crate::content::Content;
use crate::queue::Queue;
use crate::refusals::{Belief, Refusals};

/// What an endpoint is, wherever it listens: a pod that comes back under an old name and address is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    pub pool: PoolName,
    pub name: Arc<str>,
    /// Of its pod.
    pub uid: Uid,
    pub port: u16,
}

/// What is known of one endpoint. Each number is read by itself: a decision may see a queue and a cache of two scrapes, which does no
/// harm.
#[derive(Debug)]
pub struct EndpointState {
    id: EndpointId,
    clock: Clock,
    shared: Arc<Shared>,
    in_flight: AtomicU32,
    pub(crate) backlog: Backlog,
    /// Of all that have not come to their first byte, how many were there at the last scrape.
    pending_at_scrape: AtomicU32,
    /// See [`Load::others_waiting`]; as bits.
    others_waiting: AtomicU32,
    /// See [`Load::others_share`]; as bits.
    others_share: AtomicU32,
    cached: RwLock<Cached>,
    /// When the server started, as it says, as bits; 0 where it never did.
    started: AtomicU64,
    /// [`UNKNOWN`] where the last scrape did not tell; so for the next.
    waiting: AtomicU32,
    running: AtomicU32,
    /// As bits; NaN where the last scrape did not tell.
    kv_cache_usage: AtomicU32,
    scraped_at: AtomicU64,
    silent_since: AtomicU64,
    /// What the server has got done in all, as it counts it.
    progress: AtomicU64,
    /// Since when it has work and gets on with nothing.
    stuck_since: AtomicU64,
    /// How bad the last answers in a row were.
    demerits: AtomicU32,
    /// Whether the last of them was a connection that it did not take.
    refused: AtomicBool,
    failed_at: AtomicU64,
    refusals: Refusals,
    pub(crate) adapters: Adapters,
}

/// One reading of an endpoint's metrics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reading {
    pub scraped: Scraped,
    /// What the server has got done since it started, in tokens and requests; none where it does not count.
    pub progress: Option<u64>,
    /// Tokens that its KV cache holds.
    pub kv_tokens: Option<u64>,
    /// When it started, in seconds since 1970.
    pub started: Option<f64>,
    /// None where it has no adapters.
    pub adapters: Option<AdaptersRead>,
}

/// How an attempt went, as far as it speaks for or against the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Answered,
    /// A 429 or 5xx, a break, or no byte in time: may be the request's fault.
    Failed,
    /// Not even a connection.
    Unreachable,
}

/// What all endpoints have in common.
#[derive(Debug)]
struct Shared {
    /// At most so many blocks of prompts, and as many media items, are remembered of what each endpoint was sent.
    most_cached: usize,
    /// Requests under way everywhere.
    total: AtomicU64,
    /// Those that wait for room.
    queue: Arc<Queue>,
}

/// The states of all endpoints of the table, and of those that left it with requests under way.
#[derive(Debug)]
pub(crate) struct Board {
    clock: Clock,
    shared: Arc<Shared>,
    /// An endpoint that comes back, as one does that was not ready for a moment, still has its requests.
    left: Mutex<HashMap<EndpointId, Weak<EndpointState>>>,
}

/// Instants as nanoseconds after an epoch, plus one: 0 is never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

/// A scrape older than this says nothing any more.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// A server that has not answered for this long is taken for dead or stuck. A busy engine may skip a second.
pub const SILENT_AFTER: Duration = Duration::from_secs(3);

/// An engine that works on requests and has got on with nothing for this long is taken for stuck: its `/health` may still say 200. A long
/// prefill counts nothing before its end, and few take longer.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);

/// From so many demerits on an endpoint counts as failing: one refused connection, or three bad answers in a row. A single 500 may be the
/// fault of what was asked.
const FAILING: u32 = 3;

/// For how long it does at first; with each further demerit twice as long, up to the most.
const FAILING_FOR: Duration = Duration::from_secs(1);
const MAX_DOUBLINGS: u32 = 5;

/// How much of what a scrape says of others' queues is believed at once, where they grow; the rest in the next seconds.
const NEWS: f32 = 0.1;

const UNKNOWN: u32 = u32::MAX;

// === impl EndpointId ===

/// `pool/name:port`.
impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, name, port, .. } = self;
        write!(f, "{pool}/{name}:{port}")
    }
}

// === impl EndpointState ===

impl EndpointState {
    fn new(id: EndpointId, clock: Clock, shared: Arc<Shared>) -> Self {
        Self {
            id,
            clock,
            in_flight: AtomicU32::new(0),
            backlog: Backlog::new(clock),
            pending_at_scrape: AtomicU32::new(0),
            others_waiting: AtomicU32::new(0),
            others_share: AtomicU32::new(0),
            cached: RwLock::new(Cached::new(shared.most_cached)),
            started: AtomicU64::new(0),
            waiting: AtomicU32::new(UNKNOWN),
            running: AtomicU32::new(UNKNOWN),
            kv_cache_usage: AtomicU32::new(f32::NAN.to_bits()),
            scraped_at: AtomicU64::new(0),
            silent_since: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            stuck_since: AtomicU64::new(0),
            demerits: AtomicU32::new(0),
            refused: AtomicBool::new(false),
            failed_at: AtomicU64::new(0),
            refusals: Refusals::default(),
            adapters: Adapters::default(),
            shared,
        }
    }

    pub fn id(&self) -> &EndpointId {
        &self.id
    }

    /// Notes what its metrics said at `at`.
    pub fn scraped(&self, reading: &Reading, at: Instant) {
        let Reading { scraped: Scraped { waiting, running, kv_cache_usage }, progress, kv_tokens, started, .. } =
            *reading;
        let at = self.clock.stamp(at);
        self.adapters.note(reading.adapters.clone(), at);
        let known = |count: Option<u32>| count.map_or(UNKNOWN, |count| count.min(UNKNOWN - 1));
        // Of ours, all may wait that are not among those that it works on.
        let ours = self.in_flight.load(Relaxed).saturating_sub(running.unwrap_or(0)).max(self.backlog.unread());
        self.pending_at_scrape.store(self.backlog.pending(), Relaxed);
        self.backlog.measure(at);
        self.others_wait(waiting.unwrap_or(0).saturating_sub(ours));
        self.others_send(waiting, running);
        self.waiting.store(known(waiting), Relaxed);
        self.running.store(known(running), Relaxed);
        self.kv_cache_usage.store(kv_cache_usage.unwrap_or(f32::NAN).to_bits(), Relaxed);
        self.scraped_at.store(if reading.scraped.is_empty() { 0 } else { at }, Relaxed);
        self.silent_since.store(0, Relaxed);
        let got_before = progress.map(|progress| self.progress.swap(progress, Relaxed));
        let got_on = progress.is_none() || progress != got_before;
        let started = started.map_or(0, f64::to_bits);
        let began_anew = started != 0 && ![0, started].contains(&self.started.swap(started, Relaxed));
        // Some do not say when they started, but all count from nothing.
        if began_anew || progress < got_before {
            self.cached_mut().clear();
        }
        if let Some(kv_tokens) = kv_tokens {
            self.cached_mut().resize(kv_tokens);
        }
        if got_on || running.is_none_or(|running| running == 0) {
            self.stuck_since.store(0, Relaxed);
        } else {
            let _ = self.stuck_since.compare_exchange(0, at, Relaxed, Relaxed);
        }
        self.offer_room(at);
    }

    /// Those that wait are called, as many as its queue takes. One that has nothing to do takes as many again as it has, at each look.
    fn offer_room(&self, at: u64) {
        let load = self.load_at(at);
        if !self.has_room(&load, at) {
            return;
        }
        let places = if load.is_saturated() {
            // Others fill it, and some of ours get in all the same.
            SATURATED_WAITING.saturating_sub(load.pending)
        } else {
            let waiting = load.scraped.map(|scraped| scraped.waiting);
            let is_idle = matches!(waiting, None | Some(Some(0)));
            let short = SATURATED_WAITING.saturating_sub(waiting.flatten().unwrap_or(0));
            short + if is_idle { load.in_flight } else { 0 }
        };
        // Whatever it has in its queue, it has enough to do with so much work.
        let work = load.work_to_offer();
        if work > 0.0 {
            self.shared.queue.room_for(&self.id.pool, places, micros(work));
        }
    }

    /// Of ours, one more has come to its first byte, or has left before it.
    pub(crate) fn made_room(&self) {
        self.shared.queue.room_in(&self.id.pool, 1);
    }

    /// Whether one that waits could go there.
    pub(crate) fn has_room_at(&self, now: Instant) -> bool {
        let at = self.clock.stamp(now);
        self.has_room(&self.load_at(at), at)
    }

    fn has_room(&self, load: &Load, at: u64) -> bool {
        let health = self.health_at(at);
        health.responsive && health.answering && !load.is_full()
    }

    /// Notes that its metrics port gave no answer at `at`. The silence began with the first time that it did not.
    pub fn silent(&self, at: Instant) {
        let _ = self.silent_since.compare_exchange(0, self.clock.stamp(at), Relaxed, Relaxed);
    }

    /// Notes that it answered at `at`, if not with metrics.
    pub fn alive(&self, at: Instant) {
        self.silent_since.store(0, Relaxed);
        self.offer_room(self.clock.stamp(at));
    }

    /// How busy it is, as far as is known at `now`.
    pub fn load(&self, now: Instant) -> Load {
        self.load_at(self.clock.stamp(now))
    }

    /// How healthy it is at `now`.
    pub fn health(&self, now: Instant) -> Health {
        self.health_at(self.clock.stamp(now))
    }

    /// For how long it has given no sign of life at all; none while it answers, or was never asked.
    pub fn silent_for(&self, now: Instant) -> Option<Duration> {
        let since = self.silent_since.load(Relaxed);
        (since > 0).then(|| Duration::from_nanos(self.clock.stamp(now).saturating_sub(since)))
    }

    pub(crate) fn load_at(&self, now: u64) -> Load {
        let backlog = self.backlog.load_at(now);
        let known = Load {
            in_flight: self.in_flight.load(Relaxed),
            arrived: backlog.pending.cast_signed() - self.pending_at_scrape.load(Relaxed).cast_signed(),
            ..backlog
        };
        let scraped_at = self.scraped_at.load(Relaxed);
        if scraped_at == 0 || now.saturating_sub(scraped_at) > nanos(STALE_AFTER) {
            return known;
        }
        let count = |count: &AtomicU32| Some(count.load(Relaxed)).filter(|count| *count != UNKNOWN);
        let kv_cache_usage = Some(f32::from_bits(self.kv_cache_usage.load(Relaxed))).filter(|usage| !usage.is_nan());
        let scraped = Scraped { waiting: count(&self.waiting), running: count(&self.running), kv_cache_usage };
        let float = |bits: &AtomicU32| f32::from_bits(bits.load(Relaxed));
        let (others_waiting, others_share) = (float(&self.others_waiting), float(&self.others_share));
        Load { scraped: Some(scraped), others_waiting, others_share, ..known }
    }

    pub(crate) fn health_at(&self, now: u64) -> Health {
        let lasts = |since: &AtomicU64, limit: Duration| {
            let since = since.load(Relaxed);
            since > 0 && now.saturating_sub(since) >= nanos(limit)
        };
        let responsive = !lasts(&self.silent_since, SILENT_AFTER) && !lasts(&self.stuck_since, STUCK_AFTER);
        let demerits = self.demerits.load(Relaxed);
        // Its time over, one at a time is sent there, until it has answered one.
        let is_back = |over: u32| {
            lasts(&self.failed_at, FAILING_FOR * (1 << over.min(MAX_DOUBLINGS))) && self.backlog.pending() == 0
        };
        let answering = demerits.checked_sub(FAILING).is_none_or(is_back);
        let doubts = if self.refused.load(Relaxed) { 0 } else { demerits };
        Health { responsive, answering, doubts, refuses: self.refusals.current(now) }
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn others_wait(&self, waiting: u32) {
        let (before, now) = (f32::from_bits(self.others_waiting.load(Relaxed)), waiting as f32);
        // A queue that is shorter is so for everybody.
        self.others_waiting.store((before + (now - before) * NEWS).min(now).to_bits(), Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn others_send(&self, waiting: Option<u32>, running: Option<u32>) {
        let all = waiting.zip(running).map_or(0, |(waiting, running)| waiting.saturating_add(running));
        if all > 0 {
            let others = all.saturating_sub(self.in_flight.load(Relaxed)) as f32 / all as f32;
            let before = f32::from_bits(self.others_share.load(Relaxed));
            self.others_share.store((before + (others - before) * NEWS).to_bits(), Relaxed);
        }
    }

    /// What is believed of it, for an attempt that begins.
    pub(crate) fn belief(&self) -> Belief {
        self.refusals.belief()
    }

    /// Notes that it refused these, or how much of them, at `at`, to an attempt that began with this belief; says whether that is to be told.
    pub(crate) fn refuse(&self, refused: ModalitySet, belief: Belief, at: Instant) -> bool {
        self.refusals.note(refused, belief, self.clock.stamp(at))
    }

    /// Something else is known of what it takes than before.
    pub(crate) fn forget_refusals(&self) {
        self.refusals.forget();
    }

    /// What a content would ask of it, and the share of such work that it was spared of late.
    pub(crate) fn work(&self, content: &Content) -> (Work, f32) {
        if content.is_empty() {
            return (content.work(0, false, |_| false), 0.0);
        }
        let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
        (cached.work(content), cached.spared_share())
    }

    /// Tokens that are believed to be in its KV cache.
    pub fn cached_tokens(&self) -> u64 {
        self.cached.read().unwrap_or_else(PoisonError::into_inner).tokens()
    }

    /// A content goes there. Says what it asks.
    pub(crate) fn enter(&self, content: &Content) -> (Work, Visit) {
        if content.is_empty() {
            return (self.work(content).0, 0);
        }
        self.cached_mut().enter(content)
    }

    /// What it brought did not come to be there.
    pub(crate) fn forget(&self, content: &Content, visit: Visit) {
        if !content.is_empty() {
            self.cached_mut().forget(content, visit);
        }
    }

    fn cached_mut(&self) -> RwLockWriteGuard<'_, Cached> {
        // A panic elsewhere leaves beliefs, if fewer.
        self.cached.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
        self.shared.total.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.shared.total.fetch_sub(1, Relaxed);
    }

    /// Notes how an attempt went that began at `began`. Of many that were under way when a server failed the first says it: the others began
    /// before that was known, and tell nothing new.
    pub(crate) fn judge(&self, verdict: Verdict, began: Instant, at: Instant) {
        if verdict != Verdict::Answered && self.clock.stamp(began) < self.failed_at.load(Relaxed) {
            return;
        }
        let demerits = match verdict {
            Verdict::Answered => return self.demerits.store(0, Relaxed),
            Verdict::Failed => 1,
            Verdict::Unreachable => FAILING,
        };
        self.failed_at.store(self.clock.stamp(at), Relaxed);
        self.refused.store(verdict == Verdict::Unreachable, Relaxed);
        // What has failed for long needs no more of them, and a number that grows for ever would come round again.
        let most = FAILING + MAX_DOUBLINGS;
        let _ = self.demerits.fetch_update(Relaxed, Relaxed, |now| {
            // A refused connection counts for all the bad answers it takes, and for one where it is failing already.
            Some(if now >= FAILING { (now + 1).min(most) } else { now + demerits }.min(most))
        });
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Clock ===

impl Clock {
    pub(crate) fn stamp(self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.0)).saturating_add(1)
    }
}

// === impl Board ===

impl Board {
    /// `epoch` is any instant before the first request.
    pub(crate) fn new(epoch: Instant, most_cached: usize) -> Self {
        let shared = Shared { most_cached, total: AtomicU64::new(0), queue: Arc::default() };
        Self { clock: Clock(epoch), shared: Arc::new(shared), left: Mutex::default() }
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Requests under way, everywhere.
    pub(crate) fn in_flight(&self) -> u64 {
        self.shared.total.load(Relaxed)
    }

    /// Those that wait for room.
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.shared.queue
    }

    /// The state of an endpoint that comes into the table: its old one where it still has requests, or a new one.
    pub(crate) fn enter(&self, id: EndpointId) -> Arc<EndpointState> {
        let known = self.left().remove(&id).and_then(|state| state.upgrade());
        known.unwrap_or_else(|| Arc::new(EndpointState::new(id, self.clock, Arc::clone(&self.shared))))
    }

    /// These endpoints are in the table no more.
    pub(crate) fn leave<'a>(&self, gone: impl IntoIterator<Item = &'a Arc<EndpointState>>) {
        let mut left = self.left();
        left.retain(|_, state| state.strong_count() > 0);
        left.extend(gone.into_iter().map(|state| (state.id.clone(), Arc::downgrade(state))));
    }

    fn left(&self) -> MutexGuard<'_, HashMap<EndpointId, Weak<EndpointState>>> {
        // A panic elsewhere leaves the map whole: each call changes it at once.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
