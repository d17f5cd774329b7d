//! The picker's end: decides for those who read elsewhere.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use director::{
    Bound, Budget, Dialect, Dispatch, Ending, Rejection, RequestHandler, Reservation, RunningAttempt, Settled, Step,
};
use futures::future::{AbortHandle, Aborted, BoxFuture, abortable};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _};
use http::StatusCode;
use metered::{Meter, Metered};
use routing::Draw;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Response, Status, Streaming};

use crate::proto::decisions_server::{Decisions as Service, DecisionsServer};
use crate::proto::from_picker::Message as Said;
use crate::proto::from_reader::Message as Heard;
use crate::proto::{End, FromPicker, FromReader, Leaving, Report, report};
use crate::wire::{self, Question};
use crate::{HASH_KEY, MAX_QUESTION, UNSEEN};

/// How it answers.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most requests under way at once, and of one reader the half, once half of them are taken.
    pub max_requests: usize,
}

/// The service that is asked.
#[derive(Debug, Clone)]
pub struct Decisions {
    handler: Arc<RequestHandler>,
    options: Options,
    under_way: TaskTracker,
    /// Of a request each.
    requests: Budget,
    stop: CancellationToken,
}

/// What is heard besides questions is small.
const MAX_MESSAGE: usize = MAX_QUESTION + 1024;

/// What half-sent questions hold together. They have room of their own: bodies must not cut readers off.
const QUESTIONS: u64 = 64 << 20;

/// So many owners are looked for at once, for one reader; for another one nobody is asked.
const MAX_SEARCHES: usize = 64;

/// One reader's stream.
struct Conversation {
    service: Decisions,
    peer: Option<IpAddr>,
    messages: Streaming<FromReader>,
    meter: Option<Meter>,
    pending: VecDeque<FromPicker>,
    running: HashMap<u64, Running>,
    /// What is being found out before those can go on; what nobody wants to know any more is given up.
    unsettled: FuturesUnordered<BoxFuture<'static, Result<Found, Aborted>>>,
    settling: HashMap<u64, AbortHandle>,
    searches: Arc<AtomicUsize>,
    said_that_it_leaves: bool,
}

/// A request that was dispatched; counts at its endpoint until it is dropped.
struct Running {
    attempt: RunningAttempt,
    _counted: Counted,
}

/// What a request takes of the picker.
struct Counted {
    _request: Reservation,
    _under_way: TaskTrackerToken,
}

/// What came of finding it out.
struct Found {
    number: u64,
    dialect: Dialect,
    settled: Result<Settled, Rejection>,
    counted: Counted,
}

/// One of those searches.
struct Search(Arc<AtomicUsize>);

impl Drop for Search {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What happens next on a stream.
enum Event {
    Message(Box<FromReader>),
    Found(Box<Found>),
    GivenUp,
    Stopping,
    /// The reader is gone, or cannot be understood.
    Over(Option<Status>),
}

impl Decisions {
    /// `under_way` holds each request that was dispatched: what a port that stops waits for. Once `stop` is cancelled readers are told to go
    /// elsewhere.
    pub fn new(
        handler: Arc<RequestHandler>,
        options: Options,
        under_way: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let requests = Budget::new(options.max_requests as u64);
        Self { handler, options, under_way, requests, stop }
    }

    /// The gRPC service.
    pub fn service(self) -> Metered<DecisionsServer<Self>> {
        let server = DecisionsServer::new(self).max_decoding_message_size(MAX_MESSAGE);
        Metered::new(server, Budget::new(QUESTIONS))
    }
}

#[tonic::async_trait]
impl Service for Decisions {
    type AskStream = Pin<Box<dyn Stream<Item = Result<FromPicker, Status>> + Send>>;

    async fn ask(&self, request: Request<Streaming<FromReader>>) -> Result<Response<Self::AskStream>, Status> {
        // It comes with the table by what key prompts are told apart, and that is said once.
        if self.handler.director.table().is_none() {
            return Err(Status::unavailable("no routing table yet"));
        }
        let conversation = Conversation {
            service: self.clone(),
            peer: request.extensions().get::<SocketAddr>().map(SocketAddr::ip),
            meter: request.extensions().get::<Meter>().cloned(),
            messages: request.into_inner(),
            pending: VecDeque::new(),
            running: HashMap::new(),
            unsettled: FuturesUnordered::new(),
            settling: HashMap::new(),
            searches: Arc::default(),
            said_that_it_leaves: false,
        };
        // Driven by whoever reads the answers: when the reader hangs up, this is dropped, and every request in flight with it.
        let answers =
            futures::stream::unfold(Some(conversation), async |conversation| match conversation?.next().await {
                (Ok(Some(answer)), conversation) => Some((Ok(answer), Some(conversation))),
                (Ok(None), _) => None,
                (Err(status), _) => Some((Err(status), None)),
            });
        let mut response: Response<Self::AskStream> = Response::new(Box::pin(answers));
        let hash_key = format!("{:x}", self.handler.director.hash_key());
        if let Ok(key) = hash_key.parse() {
            response.metadata_mut().insert(HASH_KEY, key);
        }
        Ok(response)
    }
}

impl Conversation {
    async fn next(mut self) -> (Result<Option<FromPicker>, Status>, Self) {
        loop {
            if let Some(answer) = self.pending.pop_front() {
                return (Ok(Some(answer)), self);
            }
            match self.event().await {
                Event::Message(message) => self.on(*message),
                Event::Found(found) => {
                    let Found { number, dialect, settled, counted } = *found;
                    // What was dispatched meanwhile for nobody ends as it is dropped.
                    if self.settling.remove(&number).is_some() {
                        let said = self.go_on(number, dialect, settled, counted);
                        self.say(number, said);
                    }
                }
                Event::GivenUp => {}
                Event::Stopping => {
                    self.said_that_it_leaves = true;
                    self.say(0, Said::Leaving(Leaving {}));
                }
                Event::Over(None) => return (Ok(None), self),
                Event::Over(Some(status)) => return (Err(status), self),
            }
        }
    }

    async fn event(&mut self) -> Event {
        let waits = !self.unsettled.is_empty();
        let asked = async {
            match self.messages.message().await {
                Ok(Some(message)) => {
                    if let Some(meter) = &self.meter {
                        meter.decoded();
                    }
                    Event::Message(Box::new(message))
                }
                Ok(None) => Event::Over(None),
                Err(status) => Event::Over(Some(status)),
            }
        };
        tokio::select! {
            biased;
            () = self.service.stop.cancelled(), if !self.said_that_it_leaves => Event::Stopping,
            Some(found) = self.unsettled.next(), if waits => found.map_or(Event::GivenUp, |found| Event::Found(Box::new(found))),
            event = asked => event,
        }
    }

    fn on(&mut self, FromReader { number, message }: FromReader) {
        match message {
            Some(Heard::Question(question)) => {
                // Whoever uses a number twice has forgotten the first.
                self.forget(number);
                if let Some(said) = self.decide(number, question) {
                    self.say(number, said);
                }
            }
            Some(Heard::Report(Report { report: Some(report) })) => self.hear(number, report),
            Some(Heard::Report(Report { report: None })) | None => {}
        }
    }

    fn say(&mut self, number: u64, said: Said) {
        self.pending.push_back(FromPicker { number, message: Some(said) });
    }

    /// None where something is to be found out first.
    fn decide(&mut self, number: u64, question: crate::proto::Question) -> Option<Said> {
        let handler = &self.service.handler;
        let Question { request, path, pool, caller, authorization, dialect } = match Question::try_from(question) {
            Ok(question) => question,
            Err(why) => {
                tracing::warn!(%why, "a question that this picker does not understand");
                let rejection = handler.reject(Rejection::NotUnderstood);
                return Some(Said::Reply(wire::rejection_out(&rejection, Dialect::OpenAi)));
            }
        };
        let counted = match self.service.requests.take(self.peer, 1) {
            Ok(request) => Counted { _request: request, _under_way: self.service.under_way.token() },
            Err(_) => {
                let rejection = handler.reject(Rejection::TooMany { limit: self.service.options.max_requests });
                return Some(Said::Reply(wire::rejection_out(&rejection, dialect)));
            }
        };
        let bound = Bound { subset: None, pool };
        let draw = Draw::new(fastrand::u64(..));
        let step = handler.decide_for(request, &path, bound, caller.as_deref(), Instant::now, draw);
        match step.map(Step::at_once) {
            Ok(Ok(settled)) => Some(self.go_on(number, dialect, Ok(settled), counted)),
            Ok(Err(Step::FindOwner(question))) if self.searches.load(Ordering::Relaxed) >= MAX_SEARCHES => {
                let owned = question.owned().clone();
                let rejection = handler.reject(Rejection::SearchUnfinished { owned });
                Some(self.go_on(number, dialect, Err(rejection), counted))
            }
            Ok(Err(step)) => {
                let search = matches!(step, Step::FindOwner(_)).then(|| {
                    self.searches.fetch_add(1, Ordering::Relaxed);
                    Search(Arc::clone(&self.searches))
                });
                let handler = Arc::clone(handler);
                let settled = async move {
                    let _search = search;
                    let settled = handler.settle(step, authorization.as_deref(), None, Instant::now).await;
                    Found { number, dialect, settled, counted }
                };
                let (settled, give_up) = abortable(settled);
                self.settling.insert(number, give_up);
                self.unsettled.push(settled.boxed());
                None
            }
            Err(rejection) => Some(self.go_on(number, dialect, Err(rejection), counted)),
        }
    }

    fn go_on(&mut self, number: u64, dialect: Dialect, settled: Result<Settled, Rejection>, counted: Counted) -> Said {
        match settled {
            Ok(Settled::Dispatch(dispatch)) => {
                let Dispatch { plan, attempt } = *dispatch;
                let said = Said::Dispatch(wire::dispatch_out(&plan));
                self.running.insert(number, Running { attempt, _counted: counted });
                said
            }
            Ok(Settled::Answer(reply)) => Said::Reply(wire::reply_out(&reply, "answered_by_the_picker")),
            Err(rejection) => Said::Reply(wire::rejection_out(&rejection, dialect)),
        }
    }

    /// Nobody wants to know of a request any more.
    fn forget(&mut self, number: u64) {
        self.give_up(number);
        self.running.remove(&number);
    }

    /// What was being found out for it is not any more.
    fn give_up(&mut self, number: u64) {
        if let Some(settling) = self.settling.remove(&number) {
            settling.abort();
        }
    }

    /// What came of a request; nothing, if it ended here before.
    fn hear(&mut self, number: u64, report: report::Report) {
        let now = Instant::now();
        if matches!(report, report::Report::End(_)) {
            self.give_up(number);
        }
        let Some(Running { attempt, .. }) = self.running.get_mut(&number) else { return };
        match report {
            report::Report::Head(status) => {
                if let Some(status) = status_in(status) {
                    attempt.head(status, now);
                }
            }
            report::Report::FirstByte(status) => {
                if let Some(status) = status_in(status).filter(|_| !attempt.has_head()) {
                    attempt.head(status, now);
                }
                attempt.first_byte(|| now);
            }
            report::Report::Made(id) => attempt.made(id),
            report::Report::Unfit(unfit) => {
                if let Some(unfit) = wire::unfit_in(unfit) {
                    attempt.refused(unfit, now);
                }
            }
            report::Report::End(End { how, status }) => {
                let Some(Running { mut attempt, .. }) = self.running.remove(&number) else { return };
                if let Some(status) = status.and_then(status_in).filter(|_| !attempt.has_head()) {
                    attempt.head(status, now);
                }
                match Ending::ALL.into_iter().find(|ending| ending.as_str() == how) {
                    Some(Ending::Complete) => attempt.ended(now),
                    Some(Ending::Unreachable) => attempt.unreachable(now),
                    Some(Ending::BrokeOff) => attempt.broke_off(now),
                    Some(Ending::TimedOut) => attempt.timed_out(now),
                    None if how == UNSEEN => attempt.unseen(),
                    // Dropped, which says it.
                    Some(Ending::Abandoned) | None => {}
                }
            }
        }
    }
}

fn status_in(status: u32) -> Option<StatusCode> {
    u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok())
}
