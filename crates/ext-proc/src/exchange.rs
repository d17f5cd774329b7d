//! One request's exchange with a gateway, without I/O: messages in, messages out.
//!
//! ```text
//!  Start ──headers──► Reading ──end of body──► Dispatched ──► (response direction passes through) ──► Ended
//!                        │            └──► Settling ──owner, room──┘
//!                        └───── anything wrong ──► immediate response ──► Answered, which ends the stream
//! ```
//!
//! In mode FULL_DUPLEX_STREAMED the body comes in pieces, nothing is answered before its end, and then all of it goes back. In mode BUFFERED
//! the gateway waits for a nod to the headers, keeps the body, and sends it whole; it goes back only where it changes.
//!
//! What gateways send is written down in `docs/life-of-a-request.md`: an empty body message with the end flag after the last data, or
//! trailers instead of it, or no body at all; and after the end possibly another end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use director::{
    Bound, Dialect, Dispatch, Head, HeldBody, Plan, Rejection, RequestHandler, Reservation, RunningAttempt, Settled,
    Step, TRACEPARENT, Trace, TraceParent, Transaction,
};
use request::{Resource, splice};
use routing::{Draw, Operation};
use scheduling::Subset;

use crate::Options;
use crate::proto::processing_request::Request as Asked;
use crate::proto::{BodySendMode, HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse};

mod answer;
mod headers;

/// What tonic reads the messages of a stream into, at least, once they are larger than its first 8 KiB (bytes 1.12, `BytesMut::reserve`).
const BUFFER: usize = 64 << 10;

/// One request, from its headers to the end of its response.
#[derive(Debug)]
pub(crate) struct Exchange {
    handler: Arc<RequestHandler>,
    options: Options,
    state: State,
    /// Of the errors that the client expects; known with the path.
    dialect: Dialect,
    /// Of the call by which the gateway asks, where it follows the request itself.
    parent: Option<String>,
    /// Until it is dispatched.
    trace: Trace,
    subset: Option<Subset>,
    /// The client of a conformance suite said which endpoints; what the gateway says of them counts no more.
    selected: bool,
    request_mode: BodySendMode,
    response_mode: BodySendMode,
}

#[derive(Debug)]
enum State {
    Start,
    Reading {
        head: Head,
        transaction: Transaction,
        body: HeldBody,
    },
    /// The body has ended, and it is being found out what to do with the request. The step is whoever's that finds out, once taken.
    Settling {
        step: Option<Step>,
        read: Box<Read>,
    },
    /// The attempt counts at its endpoint until it is dropped.
    Dispatched {
        plan: Plan,
        attempt: RunningAttempt,
        /// Of the body, until all of it is sent.
        reservation: Option<Reservation>,
    },
    /// By us.
    Answered,
    Ended,
}

/// A request whose body has ended.
#[derive(Debug)]
struct Read {
    head: Head,
    chunks: Vec<Bytes>,
    reservation: Reservation,
    end: End,
}

impl Exchange {
    /// `parent` is what the gateway says of its own part in a trace.
    pub(crate) fn new(handler: Arc<RequestHandler>, options: Options, parent: Option<String>) -> Self {
        let full_duplex = BodySendMode::FullDuplexStreamed;
        Self {
            handler,
            options,
            state: State::Start,
            dialect: Dialect::OpenAi,
            parent,
            trace: Trace::default(),
            subset: None,
            selected: false,
            request_mode: full_duplex,
            response_mode: full_duplex,
        }
    }

    /// Whether the exchange waits for more of the request, so that a gateway that sends none is to be cut.
    pub(crate) fn is_reading(&self) -> bool {
        matches!(self.state, State::Start | State::Reading { .. })
    }

    /// Whether the gateway keeps the body until it is whole, so that nothing is heard of a client that sends it.
    pub(crate) fn waits_for_a_kept_body(&self) -> bool {
        matches!(self.state, State::Reading { .. }) && self.request_mode == BodySendMode::Buffered
    }

    /// Whether the gateway has been told what to answer, so that the stream has nothing more to say.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.state, State::Answered)
    }

    /// Whether nobody counts on the request any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// What is to be settled before the exchange goes on, once; and what the client authorizes by.
    pub(crate) fn unsettled(&mut self) -> Option<(Step, Option<&str>)> {
        match &mut self.state {
            State::Settling { step, read } => Some((step.take()?, read.head.authorization())),
            _ => None,
        }
    }

    /// What came of [`Self::unsettled`].
    pub(crate) fn settled(&mut self, settled: Result<Settled, Rejection>) -> Vec<ProcessingResponse> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Settling { read, .. } => self.act(settled, *read),
            other => {
                self.state = other;
                Vec::new()
            }
        }
    }

    /// Takes a message and says what to answer, which may be nothing.
    pub(crate) fn on(
        &mut self,
        message: ProcessingRequest,
        clock: impl Fn() -> Instant,
        draw: Draw,
    ) -> Vec<ProcessingResponse> {
        // Said with the first message, and good for the whole stream.
        if let (State::Start, Some(config)) = (&self.state, message.protocol_config) {
            self.request_mode = config.request_body_mode();
            self.response_mode = config.response_body_mode();
        }
        if !self.selected
            && !self.options.ignore_subset
            && let Some(subset) = message.metadata_context.as_ref().and_then(headers::subset)
        {
            self.subset = Some(subset);
        }
        match message.request {
            Some(Asked::RequestHeaders(headers)) => self.request_headers(&headers, clock, draw),
            Some(Asked::RequestBody(body)) => self.request_body(body, clock, draw),
            Some(Asked::RequestTrailers(_)) => self.request_trailers(clock, draw),
            Some(Asked::ResponseHeaders(headers)) => {
                let served = message.metadata_context.as_ref().and_then(headers::served);
                if let State::Dispatched { plan, attempt, .. } = &mut self.state {
                    if let Some(address) = served.and_then(|served| served.parse::<SocketAddr>().ok()) {
                        self.handler.served(plan, attempt, address);
                    }
                    if let Some(status) = headers::status(&headers) {
                        attempt.head(status, clock());
                    }
                }
                self.response(headers.end_of_stream, clock);
                vec![answer::response_headers(served.filter(|_| self.options.test_selection))]
            }
            Some(Asked::ResponseBody(body)) => {
                let streamed = self.response_mode == BodySendMode::FullDuplexStreamed;
                if let State::Dispatched { attempt, .. } = &mut self.state {
                    attempt.body(&body.body, &clock);
                }
                self.response(body.end_of_stream, clock);
                if streamed {
                    answer::response_body(&body.body, body.end_of_stream)
                } else {
                    vec![answer::untouched_response_body()]
                }
            }
            Some(Asked::ResponseTrailers(_)) => {
                self.response(true, clock);
                vec![answer::response_trailers()]
            }
            None => Vec::new(),
        }
    }

    /// The gateway takes too long over the request.
    pub(crate) fn give_up(&mut self, why: Rejection) -> ProcessingResponse {
        self.reject_new(why)
    }

    fn request_headers(
        &mut self,
        headers: &HttpHeaders,
        clock: impl Fn() -> Instant,
        draw: Draw,
    ) -> Vec<ProcessingResponse> {
        // A stream is one request.
        if !matches!(self.state, State::Start) {
            return Vec::new();
        }
        let head = Head::read(headers::all(headers));
        self.dialect = Dialect::of_path(&head.path);
        let parent = || TraceParent::of(self.parent.as_deref(), None).or(head.trace());
        self.trace = self.handler.follow(&head.method, parent, &clock);
        // In any other mode the gateway lets the headers go, or parts of the body, before all of it is read.
        let waits = matches!(self.request_mode, BodySendMode::FullDuplexStreamed | BodySendMode::Buffered);
        if !headers.end_of_stream && !waits {
            let mode = self.request_mode.as_str_name();
            tracing::error!(mode, "gateway must send bodies in mode FULL_DUPLEX_STREAMED or BUFFERED");
            return vec![self.reject_new(Rejection::GatewayMode { mode })];
        }
        if let Some(selection) = head.test_selection.as_deref().filter(|_| self.options.test_selection) {
            self.subset = Some(Subset::parse([selection]));
            self.selected = true;
        }
        if let Err(rejection) = head.check() {
            return vec![self.reject_new(rejection)];
        }
        match self.open(&head) {
            Ok((transaction, _)) if *transaction.resource() == Resource::Operation(Operation::Realtime) => {
                let why = "/v1/realtime is served by the picker's HTTP port; route WebSockets there";
                vec![self.reject_new(Rejection::WebSocket(why))]
            }
            Ok((transaction, body)) => {
                self.state = State::Reading { head, transaction, body };
                match self.request_mode {
                    _ if headers.end_of_stream => self.end_of_body(End::OfHeaders, clock, draw),
                    BodySendMode::Buffered => vec![answer::body_please()],
                    _ => Vec::new(),
                }
            }
            Err(rejection) => vec![self.reject(&rejection)],
        }
    }

    fn open(&self, head: &Head) -> Result<(Transaction, HeldBody), Rejection> {
        let transaction = self.handler.open(&head.of_request())?;
        let body = HeldBody::open(&self.handler.budget, BUFFER, head.content_length);
        Ok((transaction, body.map_err(|rejection| self.handler.reject(rejection))?))
    }

    fn request_body(&mut self, message: HttpBody, clock: impl Fn() -> Instant, draw: Draw) -> Vec<ProcessingResponse> {
        // After the end, or after an immediate response, gateways may still send what was under way.
        let State::Reading { transaction, body, .. } = &mut self.state else { return Vec::new() };
        let read = transaction.feed(&message.body);
        if let Err(rejection) =
            read.and_then(|()| body.push(message.body).map_err(|rejection| self.handler.reject(rejection)))
        {
            return vec![self.reject(&rejection)];
        }
        match self.request_mode {
            // Trailers may follow it, but no more of the body.
            BodySendMode::Buffered => self.end_of_body(End::Whole, clock, draw),
            _ if message.end_of_stream => self.end_of_body(End::OfStream, clock, draw),
            _ => Vec::new(),
        }
    }

    fn request_trailers(&mut self, clock: impl Fn() -> Instant, draw: Draw) -> Vec<ProcessingResponse> {
        match self.state {
            // The body comes before its trailers, and was to be sent whole.
            State::Reading { .. } if self.request_mode == BodySendMode::Buffered => {
                vec![self.reject_new(Rejection::Incomplete)]
            }
            State::Reading { .. } => self.end_of_body(End::WithTrailers, clock, draw),
            State::Dispatched { .. } => vec![answer::request_trailers()],
            State::Start | State::Settling { .. } | State::Answered | State::Ended => Vec::new(),
        }
    }

    fn end_of_body(&mut self, end: End, clock: impl Fn() -> Instant, draw: Draw) -> Vec<ProcessingResponse> {
        let State::Reading { head, transaction, body } = std::mem::replace(&mut self.state, State::Ended) else {
            return Vec::new();
        };
        let (chunks, reservation) = body.finish();
        let bound = Bound { subset: self.subset.clone(), pool: head.pool.clone() };
        let step = transaction.traced(self.trace.clone()).finish(bound, head.caller().as_deref(), clock, draw);
        self.go_on(step, Read { head, chunks, reservation, end })
    }

    fn go_on(&mut self, step: Result<Step, Rejection>, read: Read) -> Vec<ProcessingResponse> {
        match step.map(Step::at_once) {
            Ok(Ok(settled)) => self.act(Ok(settled), read),
            Ok(Err(step)) => {
                self.state = State::Settling { step: Some(step), read: Box::new(read) };
                Vec::new()
            }
            Err(rejection) => self.act(Err(rejection), read),
        }
    }

    fn act(&mut self, settled: Result<Settled, Rejection>, read: Read) -> Vec<ProcessingResponse> {
        match settled {
            Ok(Settled::Answer(reply)) => {
                self.trace = Trace::default();
                self.state = State::Answered;
                vec![answer::reply(reply, "answered_by_the_picker")]
            }
            Ok(Settled::Dispatch(dispatch)) => self.forward(*dispatch, read),
            Err(rejection) => vec![self.reject(&rejection)],
        }
    }

    fn forward(
        &mut self,
        Dispatch { mut plan, mut attempt }: Dispatch,
        Read { head, chunks, reservation, end }: Read,
    ) -> Vec<ProcessingResponse> {
        // The head of an answer comes before its first byte (vLLM sends that of a stream at once), and a body that is kept for long after it.
        if !matches!(self.response_mode, BodySendMode::FullDuplexStreamed | BodySendMode::Streamed) {
            attempt.first_byte_untold();
        }
        plan.headers.set.extend(attempt.traceparent().map(|parent| (TRACEPARENT, parent)));
        self.trace = Trace::default();
        let is_changed = !plan.first().splices.is_empty();
        let chunks = splice(chunks, &plan.first().splices);
        // Where the gateway chooses, nobody here knows who made what the answer says is made.
        let destination = if self.options.fallbacks && plan.makes.is_none() {
            plan.alike().map(|attempt| attempt.address.to_string()).collect::<Vec<_>>().join(",")
        } else {
            plan.first().address.to_string()
        };
        let length = head.content_length.map(|_| chunks.iter().map(Bytes::len).sum());
        let changes = answer::request_changes(&destination, length, &plan.headers, &head);
        let mut answers = vec![if end == End::Whole {
            let instead = is_changed.then(|| chunks.concat().into());
            answer::whole_request_body(changes, &destination, instead)
        } else {
            answer::request_headers(changes, &destination)
        }];
        match end {
            End::OfHeaders | End::Whole => {}
            End::OfStream => answer::request_body(&chunks, true, &mut answers),
            End::WithTrailers => {
                answer::request_body(&chunks, false, &mut answers);
                answers.push(answer::request_trailers());
            }
        }
        self.state = State::Dispatched { plan, attempt, reservation: Some(reservation) };
        answers
    }

    /// All that was answered so far is sent, and the request's body with it.
    pub(crate) fn sent(&mut self) {
        if let State::Dispatched { reservation, .. } = &mut self.state {
            *reservation = None;
        }
    }

    /// The response direction has begun, so that nothing is asked any more; when it has ended, the request is no more under way.
    fn response(&mut self, ended: bool, clock: impl Fn() -> Instant) {
        if !ended && !self.is_reading() {
            return;
        }
        if let State::Dispatched { attempt, .. } = std::mem::replace(&mut self.state, State::Ended) {
            attempt.ended(clock());
        }
    }

    /// The stream is over. A gateway that keeps answers' bodies to itself ends it when the answer has ended (Envoy by a reset): the head is all
    /// that is told of how that went.
    pub(crate) fn closed(&mut self, clock: impl Fn() -> Instant) {
        if let State::Dispatched { attempt, .. } = std::mem::replace(&mut self.state, State::Ended)
            && attempt.has_head()
            && self.response_mode == BodySendMode::None
        {
            attempt.ended(clock());
        }
    }

    /// Tells of what this edge found by itself; the director's own rejections are told of already.
    fn reject_new(&mut self, rejection: Rejection) -> ProcessingResponse {
        let rejection = self.handler.reject(rejection);
        self.reject(&rejection)
    }

    fn reject(&mut self, rejection: &Rejection) -> ProcessingResponse {
        self.state = State::Answered;
        std::mem::take(&mut self.trace).refused(rejection);
        answer::reply(rejection.reply(self.dialect), rejection.code().as_str())
    }
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Before it began: the headers had the end flag.
    OfHeaders,
    OfStream,
    WithTrailers,
    /// The gateway has kept it, and sent it whole.
    Whole,
}

#[cfg(test)]
mod tests;
