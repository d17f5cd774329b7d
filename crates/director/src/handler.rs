//! What all requests of a process share, whichever edge they come by.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use request::{InferenceRequest, Limits, RequestHead, Resource};
use routing::{Draw, PoolName};

use crate::transaction::Undecided;
use crate::{
    AttemptReport, Bound, Budget, Contradiction, Director, Dispatch, OwnerFinder, OwnerQuestion, Owners, Plan,
    QueueLimits, Rejection, Reply, RequestReport, RunningAttempt, Search, Step, Timer, Trace, TraceParent, Tracer,
    Transaction,
};

/// Is told what becomes of requests: log lines, counters, or a test's memory. Of the first three each request has one,
/// unless its client or gateway goes away before it was decided.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// It goes to an endpoint.
    fn dispatched(&self, _: &InferenceRequest, _: &Plan, _took: Duration) {}

    /// The picker answers it.
    fn answered(&self, _: &InferenceRequest, _: &Reply) {}

    /// It is refused.
    fn rejected(&self, _: &Rejection) {}

    /// It went to an endpoint, or was to, and is answered with an error of ours.
    fn failed(&self, _: &Plan, _: &Rejection) {}

    /// An attempt has ended.
    fn attempted(&self, _: &AttemptReport<'_>) {}

    /// A request that went to an endpoint has ended, after all of its attempts.
    fn finished(&self, _: &RequestReport<'_>) {}

    /// An endpoint refused what it was believed to take. The same is told once a minute at most.
    fn contradicted(&self, _: &Contradiction<'_>) {}

    /// A gateway sent it to an endpoint that was not among the attempts.
    fn served_elsewhere(&self, _: &Plan, _: SocketAddr) {}
}

/// Hears it and says nothing.
impl Observer for () {}

/// Who asks, by everything that they authorize by, in the order of its headers; none where they do not.
pub fn caller<'h>(credentials: impl IntoIterator<Item = &'h [u8]>) -> Option<Vec<u8>> {
    let mut caller = Vec::new();
    for credential in credentials {
        // The length first, so that no two lists run into the same bytes.
        caller.extend_from_slice(&(credential.len() as u64).to_le_bytes());
        caller.extend_from_slice(credential);
    }
    (!caller.is_empty()).then_some(caller)
}

/// What becomes of paths of which nothing is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherPaths {
    pub pool: PoolName,
    /// Which of them pass: a path each, or, with `*` at its end, how paths begin. All where nothing stands here.
    pub only: Vec<String>,
}

/// What an edge is to do with a request in the end.
#[derive(Debug)]
pub enum Settled {
    /// Answer this.
    Answer(Reply),
    /// Send it there.
    Dispatch(Box<Dispatch>),
}

/// What requests are handled by.
#[derive(Debug, Clone)]
pub struct RequestHandler {
    pub director: Arc<Director>,
    pub limits: Limits,
    pub budget: Budget,
    pub owners: Arc<Owners>,
    /// Who asks around for owners that are not known; none leaves them unknown.
    pub owner_finder: Option<Arc<dyn OwnerFinder>>,
    /// How many requests wait for room, and how long.
    pub queue: QueueLimits,
    /// Who says that they have waited long enough; without one they wait for as long as their clients.
    pub timer: Option<Arc<dyn Timer>>,
    /// Whose models these are, in lists of models.
    pub namespace: Arc<str>,
    /// Domains whose hosts are inside, beside those that everyone knows ([`media::PRIVATE_DOMAINS`]). In lower case.
    pub private_domains: Vec<String>,
    /// Where paths go of which nothing is known; none refuses them.
    pub other_paths: Option<OtherPaths>,
    pub observer: Arc<dyn Observer>,
    /// Who follows single requests, if anybody does.
    pub tracer: Option<Arc<dyn Tracer>>,
}

impl OtherPaths {
    /// Compared as the path is written, up to its query: what is written otherwise than it is listed does not pass.
    pub(crate) fn take(&self, path_and_query: &str) -> bool {
        let path = path_and_query.split('?').next().unwrap_or_default();
        let is_listed = |listed: &String| match listed.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == listed,
        };
        self.only.is_empty() || self.only.iter().any(is_listed)
    }
}

impl RequestHandler {
    /// A handler of these tables with everything else as it is by default, that tells nobody.
    pub fn new(director: Arc<Director>, namespace: &str) -> Self {
        Self {
            director,
            limits: Limits::default(),
            budget: Budget::new(Budget::DEFAULT_BYTES),
            owners: Arc::default(),
            owner_finder: None,
            queue: QueueLimits::default(),
            timer: None,
            namespace: namespace.into(),
            private_domains: Vec::new(),
            other_paths: None,
            observer: Arc::new(()),
            tracer: None,
        }
    }

    /// The same, and nobody hears of what it is asked.
    #[must_use]
    pub fn unobserved(&self) -> Arc<Self> {
        Arc::new(Self { observer: Arc::new(()), tracer: None, ..self.clone() })
    }

    /// Follows a request from now on, if anybody does; see [`Transaction::traced`].
    pub fn follow<'h>(
        &self,
        method: &str,
        parent: impl FnOnce() -> TraceParent<'h>,
        at: impl FnOnce() -> Instant,
    ) -> Trace {
        self.tracer.as_ref().map(|tracer| tracer.follow(method, parent(), at())).unwrap_or_default()
    }

    /// Begins the life of a request: a head that cannot be read is refused now; a path that is not served, once the body has ended.
    pub fn open(self: &Arc<Self>, head: &RequestHead<'_>) -> Result<Transaction, Rejection> {
        Transaction::open(self, head)
    }

    /// Whether such a path is served.
    pub(crate) fn takes(&self, resource: &Resource, path: &str) -> bool {
        match resource {
            Resource::Administrative => false,
            Resource::Unknown => self.other_paths.as_ref().is_some_and(|other| other.take(path)),
            _ => true,
        }
    }

    /// Decides where a request goes that was read, here or elsewhere. See [`Transaction::finish`] for the rest.
    pub fn decide(
        self: &Arc<Self>,
        request: InferenceRequest,
        bound: Bound,
        caller: Option<&[u8]>,
        clock: impl Fn() -> Instant,
        draw: Draw,
    ) -> Result<Step, Rejection> {
        self.decide_traced(request, bound, caller, Trace::default(), clock, draw)
    }

    pub(crate) fn decide_traced(
        self: &Arc<Self>,
        request: InferenceRequest,
        bound: Bound,
        caller: Option<&[u8]>,
        trace: Trace,
        clock: impl Fn() -> Instant,
        draw: Draw,
    ) -> Result<Step, Rejection> {
        if let Some(trace) = trace.hears() {
            trace.read(&request);
        }
        let undecided = Undecided::new(self, request, bound, caller, trace, clock(), draw);
        undecided.and_then(|undecided| undecided.step(clock)).map_err(|rejection| self.reject(rejection))
    }

    /// The same of a request that somebody else has read, whose path they say where nothing is known of it.
    pub fn decide_for(
        self: &Arc<Self>,
        request: InferenceRequest,
        path: &str,
        bound: Bound,
        caller: Option<&[u8]>,
        clock: impl Fn() -> Instant,
        draw: Draw,
    ) -> Result<Step, Rejection> {
        if self.takes(&request.resource, path) {
            self.decide(request, bound, caller, clock, draw)
        } else {
            Err(self.reject(Rejection::UnknownPath))
        }
    }

    /// Goes on from step to step until it is known what to do with the request. `authorization` and `client` are as for [`Self::find_owner`]. Whoever drops
    /// this gives up what it waited for.
    pub async fn settle(
        &self,
        mut step: Step,
        authorization: Option<&str>,
        client: Option<IpAddr>,
        clock: impl Fn() -> Instant,
    ) -> Result<Settled, Rejection> {
        loop {
            step = match step {
                Step::FindOwner(question) => {
                    let search = self.find_owner(&question, authorization, client).await;
                    question.answered(search, &clock)?
                }
                Step::Wait(waiting) if waiting.turn(self.timer.as_deref()).await => waiting.go_on(&clock)?,
                Step::Wait(waiting) => return Err(waiting.expired(clock())),
                Step::Answer(reply) => return Ok(Settled::Answer(reply)),
                Step::Dispatch(dispatch) => return Ok(Settled::Dispatch(dispatch)),
            }
        }
    }

    /// Asks those that may own it. To be awaited between the steps of a request, where nothing else is.
    /// `client` is its address, where no gateway stands before it.
    pub async fn find_owner(
        &self,
        question: &OwnerQuestion,
        authorization: Option<&str>,
        client: Option<IpAddr>,
    ) -> Search {
        match &self.owner_finder {
            Some(finder) => finder.find(question.owned(), authorization, client, question.among()).await,
            None => Search::Nobody,
        }
    }

    /// The gateway says who served a request: it counts there from now on, and nowhere if that is no endpoint of ours.
    pub fn served(&self, plan: &Plan, attempt: &mut RunningAttempt, address: SocketAddr) {
        if !plan.attempts.iter().any(|attempt| attempt.address == address) {
            self.observer.served_elsewhere(plan, address);
        }
        // Nearly always it is the first, where it counts already.
        if attempt.of(plan).address != address {
            let snapshot = self.director.snapshot();
            let slot = snapshot.as_ref().and_then(|snapshot| snapshot.slot_at(address));
            let planned = plan.attempts.iter().find(|attempt| attempt.address == address);
            let limits = planned.map_or(routing::Limits::NONE, |attempt| attempt.limits);
            let adapter = planned.and_then(|attempt| attempt.adapter.clone());
            attempt.served_by(slot.map(|slot| (Arc::clone(&slot.state), address)), limits, adapter);
        }
    }

    /// Says that a request is refused for what an edge found by itself, before it was decided.
    pub fn reject(&self, rejection: impl Into<Rejection>) -> Rejection {
        let rejection = rejection.into();
        self.observer.rejected(&rejection);
        rejection
    }
}
