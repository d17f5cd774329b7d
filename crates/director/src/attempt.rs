//! A request at an endpoint: what comes back, and what is learned of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use request::Owned;
use routing::{Limits, ModalitySet, ModelName, Unfit};

use crate::backlog::TELLING;
use crate::board::{EndpointId, EndpointState, Verdict};
use crate::cached::Visit;
use crate::content::Content;
use crate::life::{LastAttempt, Life};
use crate::owners::Learner;
use crate::refusals::{self, Belief, Refusal};
use crate::usage::UsageReader;
use crate::{Attempt, AttemptTrace, Contradiction, Left, Observer, Plan};

/// A request under way at an endpoint. Whoever carries it says what happens; to drop it is an end as well: nobody wants the answer any
/// more.
#[derive(Debug)]
pub struct RunningAttempt {
    pub(crate) number: usize,
    endpoint: Option<Served>,
    content: Arc<Content>,
    /// Whether the endpoint is of the pool that the content was made for.
    is_its_own: bool,
    /// What the request carries, and how much of it the endpoint was believed to take.
    input: ModalitySet,
    pub(crate) limits: Limits,
    /// Whether its answer begins before it ends.
    streams: bool,
    observer: Arc<dyn Observer>,
    began: Instant,
    head: Option<(StatusCode, Instant)>,
    first_byte: Option<Instant>,
    learner: Option<Learner>,
    /// What was read of an answer that may say that the endpoint does not take what it was believed to.
    refusal: Option<Refusal>,
    /// Whether it is known what its head says of the endpoint.
    is_judged: bool,
    /// How much of the answer's body was seen, and what it says of tokens.
    bytes: u64,
    usage: Option<Box<UsageReader>>,
    life: Option<Arc<Life>>,
    trace: Option<Box<dyn AttemptTrace>>,
}

/// Whose answer it is.
#[derive(Debug, Clone)]
struct Served {
    state: Arc<EndpointState>,
    address: SocketAddr,
    visit: Visit,
    waits: Waits,
    belief: Belief,
    adapter: Option<ModelName>,
}

/// Work that waits at an endpoint, in microseconds of a reference server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// For its first byte, behind so much.
    Told {
        own: u64,
        before: u64,
    },
    /// Until it should be done, or is over.
    Untold {
        own: u64,
    },
    No,
}

/// What became of an attempt.
#[derive(Debug)]
pub struct AttemptReport<'a> {
    pub endpoint: &'a EndpointId,
    pub address: SocketAddr,
    pub ending: Ending,
    pub status: Option<StatusCode>,
    /// From the attempt's begin to the head of the answer, and to the first byte after it.
    pub to_head: Option<Duration>,
    pub to_first_byte: Option<Duration>,
    /// To its end; none where nobody said when that was.
    pub took: Option<Duration>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// The answer came whole, whatever it says.
    Complete,
    /// No connection.
    Unreachable,
    /// The connection broke, before the answer or in the middle of it.
    BrokeOff,
    /// Nothing came of the answer for too long.
    TimedOut,
    /// The client went away, or its gateway did.
    Abandoned,
}

// === impl RunningAttempt ===

impl RunningAttempt {
    /// Of this place in the plan.
    pub(crate) fn begin(plan: &Plan, number: usize, at: Instant) -> Self {
        let planned = &plan.attempts[number];
        let Attempt { state, address, content, limits, .. } = planned;
        let trace = plan.life.as_ref().and_then(|life| life.trace.hears());
        let mut attempt = Self {
            number,
            endpoint: Some(Served::begin(state, *address, content, planned.adapter.clone(), at)),
            content: Arc::clone(content),
            is_its_own: true,
            input: plan.why.need.input,
            limits: *limits,
            streams: plan.streams,
            observer: Arc::clone(&plan.observer),
            began: at,
            head: None,
            first_byte: None,
            learner: plan.makes.map(|kind| Learner::new(&plan.owners, kind)),
            refusal: None,
            is_judged: false,
            bytes: 0,
            usage: None,
            trace: trace.map(|trace| trace.attempt(planned, at)),
            life: plan.life.clone(),
        };
        // The first byte of an answer in one piece is its last.
        if !plan.streams {
            attempt.first_byte_untold();
        }
        attempt
    }

    /// Which of the plan's attempts it is.
    pub fn of<'p>(&self, plan: &'p Plan) -> &'p Attempt {
        &plan.attempts[self.number]
    }

    /// What its endpoint is to be told in [`TRACEPARENT`], where the request is followed.
    ///
    /// [`TRACEPARENT`]: crate::TRACEPARENT
    pub fn traceparent(&self) -> Option<HeaderValue> {
        self.trace.as_ref().map(|trace| trace.traceparent())
    }

    /// No connection could be made.
    pub fn unreachable(mut self, at: Instant) {
        self.close(Ending::Unreachable, Some(at));
    }

    /// The endpoint closed a connection that was kept from an earlier request, and cannot have seen this one: no mark against it.
    pub fn unseen(mut self) {
        self.leave();
        if let Some(trace) = self.trace.take() {
            trace.left(Left::Unseen);
        }
        // It is no attempt: nothing is told of it.
        self.life = None;
    }

    /// The head of the answer. One that says that the server fails, or is full, is judged now: not every gateway tells of the end.
    pub fn head(&mut self, status: StatusCode, at: Instant) {
        self.head = Some((status, at));
        if !status.is_success() {
            self.learner = None;
        }
        self.refusal = Refusal::of(status, self.input);
        // One that may be about what it was asked is judged when that has been read.
        if self.refusal.is_none() {
            self.judge_head();
        }
    }

    fn judge_head(&mut self) {
        if let (Some((status, at)), Some(Served { state, .. })) = (self.head, &self.endpoint)
            && is_failure(status)
            && !self.is_judged
        {
            state.judge(Verdict::Failed, self.began, at);
        }
        self.is_judged = true;
    }

    /// Whether the answer has begun.
    pub fn has_head(&self) -> bool {
        self.head.is_some()
    }

    /// Whether the answer, by its head, may say that the endpoint does not take what it was believed to. Its body tells, where it is no longer
    /// than [`crate::MAX_REFUSAL`]: [`Self::unfit`].
    pub fn may_be_unfit(&self) -> bool {
        self.refusal.is_some()
    }

    /// What an answer of which this is the whole body says that the endpoint does not take.
    pub fn unfit(&self, body: &[u8]) -> Option<Unfit> {
        self.refusal.as_ref()?;
        refusals::read(body).filter(|unfit| unfit.is_about(self.input))
    }

    /// Some of the answer's body.
    pub fn body(&mut self, bytes: &[u8], at: impl FnOnce() -> Instant) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len() as u64;
        match &mut self.refusal {
            Some(refusal) => refusal.feed(bytes),
            // What was made before was counted when it was made.
            None if self.life.as_ref().is_some_and(|life| life.is_inference()) => {
                self.usage.get_or_insert_default().feed(bytes);
            }
            None => {}
        }
        self.first_byte(at);
        // Remembered as soon as it is said: whoever reads it may ask for it before the answer has ended.
        if let (Some(learner), Some(Served { state, .. })) = (&mut self.learner, &self.endpoint)
            && learner.learns(bytes, state.id())
        {
            self.learner = None;
        }
    }

    /// Some of the answer's body has come, which somebody else reads.
    pub fn first_byte(&mut self, at: impl FnOnce() -> Instant) {
        if self.first_byte.is_some() {
            return;
        }
        let at = at();
        self.first_byte = Some(at);
        // An error comes soon, and tells nothing of how fast a server reads.
        let is_good = self.head.is_none_or(|(status, _)| status.is_success());
        if let Some(served) = &mut self.endpoint {
            served.first_byte(at, at.saturating_duration_since(self.began), is_good);
        }
    }

    /// Nobody will tell when its first byte comes: what it asks of the endpoint is taken for done when it should be.
    pub fn first_byte_untold(&mut self) {
        if let Some(Served { state, waits, .. }) = &mut self.endpoint
            && let Waits::Told { own, .. } = *waits
        {
            state.backlog.unqueue(own);
            state.backlog.queue_untold(own, self.began);
            *waits = Waits::Untold { own };
        }
    }

    /// Somebody else has read in the answer what was made. What cannot be an id is none.
    pub fn made(&mut self, id: String) {
        if !Owned::may_have(&id) {
            return;
        }
        if let (Some(learner), Some(Served { state, .. })) = (self.learner.take(), &self.endpoint) {
            learner.learn(id, state.id());
        }
    }

    /// Somebody else has read in the answer what the endpoint does not take.
    pub fn refused(&mut self, unfit: Unfit, at: Instant) {
        let Some(Served { state, address, belief, .. }) = &self.endpoint else { return };
        if !unfit.is_about(self.input) {
            return;
        }
        // It is well, and says what it is.
        self.is_judged = true;
        if !refusals::contradicts(unfit, self.limits) {
            return;
        }
        let refused = unfit.refused(self.input);
        if state.refuse(refused, *belief, at) {
            self.observer.contradicted(&Contradiction { endpoint: state.id(), address: *address, unfit, refused });
        }
    }

    /// The answer has ended well.
    pub fn ended(mut self, at: Instant) {
        if let Some(unfit) = self.refusal.take().and_then(|refusal| refusal.unfit()) {
            self.refused(unfit, at);
        }
        self.close(Ending::Complete, Some(at));
    }

    /// The connection broke.
    pub fn broke_off(mut self, at: Instant) {
        self.close(Ending::BrokeOff, Some(at));
    }

    /// Nothing came for too long.
    pub fn timed_out(mut self, at: Instant) {
        self.close(Ending::TimedOut, Some(at));
    }

    /// The gateway says that another served: it counts there from now on, and nowhere if that is no endpoint of ours. Nobody knows then who
    /// made what was made.
    pub(crate) fn served_by(
        &mut self,
        served: Option<(Arc<EndpointState>, SocketAddr)>,
        limits: Limits,
        adapter: Option<ModelName>,
    ) {
        let is_told = self.endpoint.as_ref().is_some_and(|served| matches!(served.waits, Waits::Told { .. }));
        self.leave();
        self.is_its_own = false;
        self.endpoint =
            served.map(|(state, address)| Served::begin(&state, address, &self.content, adapter, self.began));
        self.limits = limits;
        if !is_told {
            self.first_byte_untold();
        }
        if self.endpoint.is_none() {
            self.learner = None;
        }
    }

    fn release(&mut self) -> Option<Served> {
        let served = self.endpoint.take()?;
        served.state.end();
        if let Some(adapter) = &served.adapter {
            served.state.adapters.leave(adapter);
        }
        match served.waits {
            Waits::Told { own, .. } => served.state.backlog.leave(own),
            Waits::Untold { own } => {
                served.state.backlog.unqueue_untold(own);
                served.state.backlog.did(own);
            }
            Waits::No => {}
        }
        Some(served)
    }

    /// It was not there, and left nothing in a cache.
    fn leave(&mut self) {
        if let Some(served) = self.release() {
            served.state.forget(&self.content, served.visit);
            served.made_room();
        }
    }

    /// Ends one that somebody else served: whoever asked is told how it went, and nobody's endpoint is.
    fn close_elsewhere(&mut self, ending: Ending, at: Option<Instant>) {
        let status = self.head.map(|(status, _)| status);
        if let Some(trace) = self.trace.take() {
            trace.left(Left::ServedElsewhere(status, ending));
        }
        if let Some(life) = self.life.take() {
            life.attempt_ended(self.last(None, ending, at));
        }
    }

    /// What is known of it when it ends.
    fn last(&self, endpoint: Option<EndpointId>, ending: Ending, ended: Option<Instant>) -> LastAttempt {
        LastAttempt {
            endpoint,
            ending,
            status: self.head.map(|(status, _)| status),
            first_byte: self.first_byte,
            ended,
            bytes: self.bytes,
            usage: self.usage.as_ref().map(|reader| reader.usage()).unwrap_or_default(),
        }
    }

    fn close(&mut self, ending: Ending, at: Option<Instant>) {
        self.judge_head();
        let Some(served) = self.release() else { return self.close_elsewhere(ending, at) };
        let Served { state, address, visit, .. } = &served;
        let status = self.head.map(|(status, _)| status);
        let verdict = match ending {
            // Judged by its head.
            Ending::Complete if status.is_some_and(is_failure) => None,
            Ending::Complete => Some(Verdict::Answered),
            Ending::Unreachable => Some(Verdict::Unreachable),
            Ending::BrokeOff | Ending::TimedOut => Some(Verdict::Failed),
            Ending::Abandoned => None,
        };
        if let (Some(verdict), Some(at)) = (verdict, at) {
            state.judge(verdict, self.began, at);
        }
        // Where an answer comes in one piece, who has waited long enough to leave has mostly had it read.
        let may_be_there = ending == Ending::Abandoned && !self.streams && status.is_none();
        let is_good = status.is_some_and(|status| status.is_success());
        if !may_be_there && !is_good {
            state.forget(&self.content, *visit);
        }
        if is_good
            && ending == Ending::Complete
            && self.is_its_own
            && let Some(tokens) = self.usage.as_ref().and_then(|reader| reader.usage().input)
        {
            self.content.counted(tokens);
        }
        // Judged before: whoever is called must not take it for what it was.
        served.made_room();
        // To the end of this: the request ends after its attempt.
        let life = self.life.take();
        if let Some(life) = &life {
            life.attempt_ended(self.last(Some(state.id().clone()), ending, at));
        }
        let since = |at: Instant| at.saturating_duration_since(self.began);
        let report = AttemptReport {
            endpoint: state.id(),
            address: *address,
            ending,
            status,
            to_head: self.head.map(|(_, at)| since(at)),
            to_first_byte: self.first_byte.map(since),
            took: at.map(since),
        };
        self.observer.attempted(&report);
        if let Some(trace) = self.trace.take() {
            trace.ended(&report);
        }
    }
}

// === impl Served ===

impl Served {
    fn begin(
        state: &Arc<EndpointState>,
        address: SocketAddr,
        content: &Content,
        adapter: Option<ModelName>,
        began: Instant,
    ) -> Self {
        if let Some(adapter) = &adapter {
            state.adapters.enter(adapter);
        }
        let (work, visit) = state.enter(content);
        let own = micros(work.all());
        state.begin();
        let waits = Waits::Told { own, before: state.backlog.queue(own, began) };
        Self { belief: state.belief(), state: Arc::clone(state), address, visit, waits, adapter }
    }

    /// It is gone, and with it what waited there for its first byte.
    fn made_room(&self) {
        if self.waits != Waits::No {
            self.state.made_room();
        }
    }

    fn first_byte(&mut self, at: Instant, took: Duration, is_good: bool) {
        let Waits::Told { own, before } = self.waits else { return };
        self.waits = Waits::No;
        self.state.backlog.read(own, at);
        self.state.made_room();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let expected = (own + before) as f32 / 1000.0;
        if is_good && expected >= TELLING {
            self.state.backlog.took(took.as_secs_f32() * 1000.0 / expected);
        }
    }
}

/// Microseconds of so many milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, never below zero")]
pub(crate) fn micros(milliseconds: f32) -> u64 {
    (milliseconds * 1000.0) as u64
}

/// Whether an answer speaks against the server.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

impl Drop for RunningAttempt {
    fn drop(&mut self) {
        self.close(Ending::Abandoned, None);
    }
}

// === impl Ending ===

impl Ending {
    pub const ALL: [Self; 5] = [Self::Complete, Self::Unreachable, Self::BrokeOff, Self::TimedOut, Self::Abandoned];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Unreachable => "unreachable",
            Self::BrokeOff => "broke_off",
            Self::TimedOut => "timed_out",
            Self::Abandoned => "abandoned",
        }
    }
}
