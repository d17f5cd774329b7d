//! Requests that wait until some endpoint has room, each behind whoever is before it.
//!
//! ```text
//!  Full ──enter──► place ──called──► decides again ──► goes, and its place with it
//!                    ▲                    └─ still full ─┘  its call goes to the next that may go elsewhere
//!        first bytes, ends, metrics and tables call as many as there may be room for
//! ```
//!
//! An endpoint that was full calls one for each of ours that has come to its first byte, and a few more when its metrics say that its queue is short:
//! its own queue never runs empty, and never grows long.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use routing::{Modality, PoolName};
use scheduling::{FairQueue, Lane, Place};

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
    len: AtomicUsize,
    waiting: Mutex<FairQueue<Arc<Bell>>>,
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
    /// There may be room, as there was for these, which had to stay.
    Room { tried: Vec<Arc<Lane>> },
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

/// What a request says of itself to get a place.
#[derive(Debug, Clone)]
pub(crate) struct Asks {
    pub(crate) lane: Lane,
    pub(crate) priority: i32,
    pub(crate) flow: u64,
    /// In microseconds of a reference server.
    pub(crate) work: u64,
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
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// The work of all that wait, in milliseconds of a reference server.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn work(&self) -> f32 {
        if self.len() == 0 { 0.0 } else { self.lock().work() as f32 / 1000.0 }
    }

    /// Whether one that comes now must wait for others: those of its priority and above came first.
    pub(crate) fn is_before(&self, pools: &[PoolName], priority: i32) -> bool {
        self.len() > 0 && self.lock().is_before(pools, priority)
    }

    /// Gives it a place, or that of somebody less important where there is none. `is_short` is where the memory of those that wait runs short.
    pub(crate) fn enter(
        self: &Arc<Self>,
        Asks { lane, priority, flow, work }: Asks,
        limits: QueueLimits,
        is_short: bool,
        now: Instant,
    ) -> Result<Ticket, NoPlace> {
        let bell = Arc::<Bell>::default();
        let mut waiting = self.lock();
        let (heaviest, len) = (lane.heaviest(), waiting.len());
        let is_too_many = heaviest != Modality::Text && 2 * waiting.len_of(heaviest) >= limits.requests;
        let mut makes_way = None;
        if is_too_many || is_short || len >= limits.requests {
            makes_way = waiting.call_off_below(priority);
            if makes_way.is_none() {
                return Err(NoPlace { waiting: len });
            }
        }
        let place = waiting.enter(lane, priority, flow, work, Arc::clone(&bell));
        self.count(&waiting);
        drop(waiting);
        if let Some(bell) = makes_way {
            bell.ring(Call::MakeWay);
        }
        Ok(Ticket { queue: Arc::clone(self), place, bell, limits, since: now, call: None })
    }

    /// There may be room for so many more in this pool.
    pub(crate) fn room_in(&self, pool: &PoolName, places: u32) {
        for _ in 0..places {
            if self.len() == 0 || !self.call(std::slice::from_ref(pool), Vec::new()) {
                return;
            }
        }
    }

    /// Anything may have changed.
    pub(crate) fn look_again(&self) {
        if self.len() == 0 {
            return;
        }
        let mut waiting = self.lock();
        let called = waiting.call_all();
        self.count(&waiting);
        drop(waiting);
        for (_, bell) in called {
            bell.ring(Call::Room { tried: Vec::new() });
        }
    }

    /// Says whether there was somebody to call.
    fn call(&self, pools: &[PoolName], tried: Vec<Arc<Lane>>) -> bool {
        let mut waiting = self.lock();
        let called = waiting.call(pools, &tried);
        self.count(&waiting);
        drop(waiting);
        let Some((_, bell)) = called else { return false };
        bell.ring(Call::Room { tried });
        true
    }

    fn count(&self, waiting: &FairQueue<Arc<Bell>>) {
        self.len.store(waiting.len(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, FairQueue<Arc<Bell>>> {
        // Each change is whole before anything else could panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Bell ===

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, call: Call) {
        let mut rung = self.lock();
        rung.call = Some(call);
        let waker = rung.waker.take();
        drop(rung);
        if let Some(waker) = waker {
            waker.wake();
        }
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

    /// It could not go: it has its old place again, and its call is for others.
    pub(crate) fn enter_again(&mut self) {
        if let Some(Call::Room { mut tried }) = self.call.take() {
            let mut waiting = self.queue.lock();
            waiting.enter_again(&self.place, Arc::clone(&self.bell));
            self.queue.count(&waiting);
            drop(waiting);
            tried.push(Arc::clone(&self.place.lane));
            self.queue.call(&self.place.lane.pools, tried);
        }
    }

    /// It goes, and has used its call.
    pub(crate) fn goes(&mut self) {
        self.call = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.leave(&self.place);
        self.queue.count(&waiting);
        drop(waiting);
        let call = self.call.take().or_else(|| self.bell.lock().call.take());
        // What it was called for is there still.
        if let Some(Call::Room { tried }) = call {
            self.queue.call(&self.place.lane.pools, tried);
        }
    }
}
