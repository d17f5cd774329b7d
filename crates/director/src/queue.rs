//! Requests that wait until some endpoint has room, each behind whoever is before it.
//!
//! ```text
//!  Full ──enter──► place ──called──► decides again ──► goes, and its place with it
//!                    ▲                    └─ still full ─┘  its call goes to the next that may go elsewhere
//!        first bytes, ends, metrics and tables call as many as there may be room for
//! ```
//!
//! An endpoint that was full calls one for each of ours that has come to its first byte, and a few more when its metrics say that its queue is short:
//! its own queue never runs empty, and never grows long. Room that nobody is there to take, because whoever waits is just deciding, is kept for them.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use routing::{Modality, PoolName};
use scheduling::{Asks, FairQueue, Lane, Place};

/// How many requests may wait, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// 0 sends all on, however full endpoints are. Of what is heavier than text no kind has more than half of the places.
    pub requests: usize,
    pub wait: Duration,
}

/// Who wakes a request whose time is up.
pub trait Timer: Send + Sync + std::fmt::Debug {
    /// Is done at that instant.
    fn until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Those that wait. Costs one look at a number while nobody does.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Tickets that are held.
    held: AtomicUsize,
    waiting: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: FairQueue<Arc<Bell>>,
    held: usize,
    /// Pools with room for which nobody was there, since some were just deciding.
    missed: BTreeSet<PoolName>,
}

/// Tells a request that it is called.
#[derive(Debug, Default)]
pub(crate) struct Bell(Mutex<Rung>);

#[derive(Debug, Default)]
struct Rung {
    call: Option<Call>,
    waker: Option<Waker>,
}

/// Why it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    /// There may be room in this pool, as there was for these, which had to stay.
    Room { pool: PoolName, tried: Vec<Arc<Lane>> },
    /// It may be able to go elsewhere than before.
    LookAgain,
    /// Somebody more important needs the place.
    MakeWay,
}

/// A request's place; given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    place: Place,
    bell: Arc<Bell>,
    limits: QueueLimits,
    since: Instant,
    /// The call that it has taken and not used.
    call: Option<Call>,
}

/// There is no place for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoPlace {
    pub(crate) waiting: usize,
}

impl QueueLimits {
    pub const DEFAULT_REQUESTS: usize = 4096;
    pub const DEFAULT_WAIT: Duration = Duration::from_secs(30);
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { requests: Self::DEFAULT_REQUESTS, wait: Self::DEFAULT_WAIT }
    }
}

// === impl Queue ===

impl Queue {
    /// Requests that wait, with those that were just called.
    pub(crate) fn len(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// How many wait for each pool.
    pub(crate) fn len_by_pool(&self) -> BTreeMap<PoolName, usize> {
        if self.len() == 0 { BTreeMap::new() } else { self.lock().queue.len_by_pool() }
    }

    /// The work of those that wait for one of these pools, in milliseconds of a reference server.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn work(&self, pools: &[PoolName]) -> f32 {
        if self.len() == 0 { 0.0 } else { self.lock().queue.work(pools) as f32 / 1000.0 }
    }

    /// Whether one that goes to this pool now would be before others in those lanes that are at least as important.
    pub(crate) fn is_before(&self, pool: &PoolName, priority: i32, in_lane: impl Fn(&Lane) -> bool) -> bool {
        self.len() > 0 && self.lock().queue.is_before(pool, priority, in_lane)
    }

    /// Gives it a place, or that of somebody less important where there is none. Whoever enters looks after that whether there is room by now.
    pub(crate) fn enter(self: &Arc<Self>, asks: Asks, limits: QueueLimits, now: Instant) -> Result<Ticket, NoPlace> {
        let bell = Arc::<Bell>::default();
        let place = self.change(|inner, wakers| {
            let heaviest = asks.lane.heaviest();
            let is_too_many = heaviest != Modality::Text && 2 * inner.queue.len_of(heaviest) >= limits.requests;
            if is_too_many || inner.held >= limits.requests {
                let whose = is_too_many.then_some(heaviest);
                let last = inner.queue.call_off_below(asks.priority, whose).ok_or(NoPlace { waiting: inner.held })?;
                wakers.extend(last.ring(Call::MakeWay));
            }
            inner.held += 1;
            Ok(inner.queue.enter(asks, Arc::clone(&bell)))
        })?;
        // Whoever makes room looks after that whether anybody waits.
        fence(SeqCst);
        Ok(Ticket { queue: Arc::clone(self), place, bell, limits, since: now, call: None })
    }

    /// There may be room for so many more in this pool.
    pub(crate) fn room_in(&self, pool: &PoolName, places: u32) {
        self.room_for(pool, places, u64::MAX);
    }

    /// The same, for so much work at most; the last may be more than what is left of that.
    pub(crate) fn room_for(&self, pool: &PoolName, places: u32, mut work: u64) {
        fence(SeqCst);
        if self.len() == 0 {
            return;
        }
        self.change(|inner, wakers| {
            for _ in 0..places {
                match inner.call(pool, Vec::new(), wakers) {
                    Some(called) if called < work => work -= called,
                    Some(_) | None => break,
                }
            }
        });
    }

    /// Anybody may be able to go elsewhere than before.
    pub(crate) fn look_again(&self) {
        fence(SeqCst);
        if self.len() == 0 {
            return;
        }
        self.change(|inner, wakers| {
            let called = inner.queue.call_all();
            wakers.extend(called.into_iter().filter_map(|(_, bell)| bell.ring(Call::LookAgain)));
        });
    }

    /// Changes it under its lock, counts who is there, and then wakes whoever was called.
    fn change<R>(&self, change: impl FnOnce(&mut Inner, &mut Vec<Waker>) -> R) -> R {
        let mut wakers = Vec::new();
        let mut inner = self.lock();
        let result = change(&mut inner, &mut wakers);
        self.held.store(inner.held, Relaxed);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is whole before anything else could panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    /// Calls whoever is next, if there is anybody, and says how much work that is.
    fn call(&mut self, pool: &PoolName, tried: Vec<Arc<Lane>>, wakers: &mut Vec<Waker>) -> Option<u64> {
        match self.queue.call(pool, &tried) {
            Some((place, bell)) => {
                wakers.extend(bell.ring(Call::Room { pool: pool.clone(), tried }));
                Some(place.asks.work)
            }
            None => {
                if tried.is_empty() && self.held > self.queue.len() {
                    self.missed.insert(pool.clone());
                }
                None
            }
        }
    }
}

// === impl Bell ===

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says it, under the queue's lock; whoever says it wakes after that.
    fn ring(&self, call: Call) -> Option<Waker> {
        let mut rung = self.lock();
        rung.call = Some(call);
        rung.waker.take()
    }
}

// === impl Ticket ===

impl Ticket {
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.since + self.limits.wait
    }

    /// Ready once it is called.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut rung = self.bell.lock();
        if rung.call.is_some() {
            return Poll::Ready(());
        }
        rung.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes the call, if there is one. False where it is to make way for somebody.
    pub(crate) fn take_call(&mut self) -> bool {
        if let Some(call) = self.bell.lock().call.take() {
            self.call = Some(call);
        }
        self.call != Some(Call::MakeWay)
    }

    /// It could not go, and waits for this from now on, before those that came after it. Its call is for others.
    pub(crate) fn enter_again(&mut self, asks: Asks) {
        let Some(call) = self.call.take() else { return };
        let (place, bell) = (&mut self.place, Arc::clone(&self.bell));
        self.queue.change(|inner, wakers| {
            let pool = match &call {
                Call::Room { pool, .. } => Some(pool),
                Call::LookAgain | Call::MakeWay => None,
            };
            inner.queue.enter_again(place, pool, asks, bell);
            if let Call::Room { pool, mut tried } = call {
                tried.push(Arc::clone(&place.asks.lane));
                inner.call(&pool, tried, wakers);
            }
            // Room that came meanwhile.
            for pool in &place.asks.lane.pools {
                if inner.missed.remove(pool) {
                    inner.call(pool, Vec::new(), wakers);
                }
            }
        });
    }

    /// It goes to this pool. Where it was called for room in another, that is there still.
    pub(crate) fn goes(&mut self, to: &PoolName) {
        if let Some(Call::Room { pool, .. }) = self.call.take()
            && pool != *to
        {
            self.queue.room_in(&pool, 1);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Self { place, bell, call, .. } = self;
        self.queue.change(|inner, wakers| {
            inner.queue.leave(place);
            // What it was called for is there still.
            if let Some(Call::Room { pool, tried }) = call.take().or_else(|| bell.lock().call.take()) {
                inner.queue.give_back(place, &pool);
                inner.call(&pool, tried, wakers);
            }
            inner.held -= 1;
            if inner.held == 0 {
                inner.queue.clear();
                inner.missed.clear();
            }
        });
    }
}
