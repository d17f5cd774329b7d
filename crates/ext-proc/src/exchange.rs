//! One request's exchange with a gateway, without I/O: messages in, messages out.
//!
//! ```text
//!  Start ──headers──► Reading ──end of body──► Decided ──► (response direction passes through) ──► Ended
//!                        └───── anything wrong ──► immediate response ──► Ended
//! ```
//!
//! What gateways send is written down in `docs/life-of-a-request.md`: an empty body message with the end flag after the last data, or
//! trailers instead of it, or no body at all; and after the end possibly another end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use director::{Bound, Decision, Dialect, Front, Intake, Maker, Outcome, Rejection, Reservation};
use request::{InferenceRequest, JobSeeker, Resource, rewrite};
use routing::{Draw, Operation};
use scheduling::Subset;

use crate::Options;
use crate::proto::processing_request::Request as Asked;
use crate::proto::{BodySendMode, HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse};

mod answer;
mod headers;

pub(crate) use headers::Head;

/// The header and the metadata key that name the destination (Endpoint Picker Protocol, proposal 004 of the Gateway API Inference
/// Extension).
pub(crate) const DESTINATION: &str = "x-gateway-destination-endpoint";

/// One request, from its headers to the end of its response.
#[derive(Debug)]
pub(crate) struct Exchange {
    front: Front,
    options: Options,
    state: State,
    /// Of the errors that the client expects; known with the path.
    dialect: Dialect,
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
        intake: Box<Intake>,
    },
    /// The decision counts at its endpoint until it is dropped.
    Decided {
        decision: Box<Decision>,
        /// Of the body, until all of it is sent.
        reservation: Option<Reservation>,
        job: Option<Job>,
    },
    Ended,
}

/// A job that is being made: its name stands in the answer. Told only by gateways that send answers' bodies.
#[derive(Debug)]
struct Job {
    maker: Maker,
    seeker: JobSeeker,
}

impl Exchange {
    pub(crate) fn new(front: Front, options: Options) -> Self {
        let full_duplex = BodySendMode::FullDuplexStreamed;
        Self {
            front,
            options,
            state: State::Start,
            dialect: Dialect::OpenAi,
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

    /// The job that a message asks for, whose maker should be known before the message is taken, and what the client authorizes by.
    pub(crate) fn job_of(message: &ProcessingRequest) -> Option<(Resource, Option<String>)> {
        let Some(Asked::RequestHeaders(headers)) = &message.request else { return None };
        // Every message passes here, and nearly none is about a job.
        let mut all = headers.headers.iter().flat_map(|map| &map.headers);
        all.find(|header| header.key == ":path" && headers::text(header).contains("/videos/"))?;
        let Head { path, authorization, .. } = Head::read(headers);
        let resource = Resource::of_path(&path).ok().filter(|resource| matches!(resource, Resource::Job(_)))?;
        Some((resource, authorization))
    }

    /// Takes a message and says what to answer, which may be nothing.
    pub(crate) fn on(
        &mut self,
        message: ProcessingRequest,
        clock: impl Fn() -> Instant,
        draw: Draw,
    ) -> Vec<ProcessingResponse> {
        if let Some(config) = message.protocol_config {
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
                if let State::Decided { decision, job, .. } = &mut self.state {
                    if !headers::succeeded(&headers) {
                        *job = None;
                    }
                    if let Some(address) = served.and_then(|served| served.parse::<SocketAddr>().ok()) {
                        let maker = self.front.served(decision, address);
                        // Where nobody knows who served, nobody knows who made a job.
                        *job = job.take().zip(maker).map(|(job, maker)| Job { maker, ..job });
                    }
                }
                self.response(headers.end_of_stream);
                vec![answer::response_headers(served.filter(|_| self.options.test_selection))]
            }
            Some(Asked::ResponseBody(body)) => {
                let streamed = self.response_mode == BodySendMode::FullDuplexStreamed;
                self.learn(&body.body, body.end_of_stream);
                self.response(body.end_of_stream);
                if streamed {
                    answer::response_body(&body.body, body.end_of_stream)
                } else {
                    vec![answer::untouched_response_body()]
                }
            }
            Some(Asked::ResponseTrailers(_)) => {
                self.learn(&[], true);
                self.response(true);
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
        let head = Head::read(headers);
        self.dialect = Dialect::of_path(&head.path);
        // In any other mode the gateway waits for an answer to the headers before it sends the body, and the answer needs the body.
        if !headers.end_of_stream && self.request_mode != BodySendMode::FullDuplexStreamed {
            let mode = self.request_mode.as_str_name();
            tracing::error!(mode, "gateway must send bodies in mode FULL_DUPLEX_STREAMED");
            return vec![self.reject_new(Rejection::GatewayMode { mode })];
        }
        if let Some(selection) = head.test_selection.as_deref().filter(|_| self.options.test_selection) {
            self.subset = Some(Subset::parse([selection]));
            self.selected = true;
        }
        if head.ambiguous {
            return vec![self.reject_new(Rejection::AmbiguousHead("a header given twice that may be given once"))];
        }
        match self.front.intake(&head.of_request()) {
            Ok(intake) if *intake.resource() == Resource::Operation(Operation::Realtime) => {
                let why = "/v1/realtime is served by the picker's HTTP port; let the gateway send WebSockets there";
                vec![self.reject_new(Rejection::WebSocket(why))]
            }
            Ok(intake) => {
                self.state = State::Reading { head, intake: Box::new(intake) };
                if headers.end_of_stream { self.end_of_body(End::OfHeaders, clock, draw) } else { Vec::new() }
            }
            Err(rejection) => vec![self.reject_new(rejection)],
        }
    }

    fn request_body(&mut self, body: HttpBody, clock: impl Fn() -> Instant, draw: Draw) -> Vec<ProcessingResponse> {
        // After the end, or after an immediate response, gateways may still send what was under way.
        let State::Reading { intake, .. } = &mut self.state else { return Vec::new() };
        if let Err(rejection) = intake.feed(body.body) {
            return vec![self.reject_new(rejection)];
        }
        if body.end_of_stream { self.end_of_body(End::OfStream, clock, draw) } else { Vec::new() }
    }

    fn request_trailers(&mut self, clock: impl Fn() -> Instant, draw: Draw) -> Vec<ProcessingResponse> {
        match self.state {
            State::Reading { .. } => self.end_of_body(End::WithTrailers, clock, draw),
            State::Decided { .. } => vec![answer::request_trailers()],
            State::Start | State::Ended => Vec::new(),
        }
    }

    fn end_of_body(&mut self, end: End, clock: impl Fn() -> Instant, draw: Draw) -> Vec<ProcessingResponse> {
        let State::Reading { head, intake } = std::mem::replace(&mut self.state, State::Ended) else {
            return Vec::new();
        };
        match intake.finish() {
            Ok((request, chunks, reservation)) => {
                let bound = Bound { subset: self.subset.as_ref(), pool: head.pool.as_deref() };
                match self.front.respond(&request, bound, clock, draw) {
                    Ok(Outcome::Forward(decision)) => self.forward(&request, &head, chunks, reservation, end, decision),
                    Ok(Outcome::Answer(reply)) => vec![answer::reply(reply, "answered_by_the_picker")],
                    Err(rejection) => vec![self.reject(&rejection)],
                }
            }
            Err(rejection) => vec![self.reject_new(rejection)],
        }
    }

    fn forward(
        &mut self,
        request: &InferenceRequest,
        head: &Head,
        chunks: Vec<Bytes>,
        reservation: Reservation,
        end: End,
        decision: Decision,
    ) -> Vec<ProcessingResponse> {
        let chunks = match (decision.rewrite(request), &request.model_span) {
            (Some(model), Some(span)) => rewrite(chunks, span, model),
            _ => chunks,
        };
        let makes_a_job = request.resource == Resource::Operation(Operation::Videos);
        // Where the gateway chooses, nobody here knows who made a job.
        let destination = if self.options.fallbacks && !makes_a_job {
            decision.endpoints.iter().map(|choice| choice.address.to_string()).collect::<Vec<_>>().join(",")
        } else {
            decision.endpoints[0].address.to_string()
        };
        let length = head.content_length.map(|_| chunks.iter().map(Bytes::len).sum());
        let mut answers = vec![answer::request_headers(&destination, length)];
        match end {
            End::OfHeaders => {}
            End::OfStream => answer::request_body(&chunks, true, &mut answers),
            End::WithTrailers => {
                answer::request_body(&chunks, false, &mut answers);
                answers.push(answer::request_trailers());
            }
        }
        let maker = || Maker { pool: Arc::clone(&decision.pool), endpoint: Arc::clone(&decision.endpoints[0].name) };
        let job = makes_a_job.then(|| Job { maker: maker(), seeker: JobSeeker::default() });
        self.state = State::Decided { decision: Box::new(decision), reservation: Some(reservation), job };
        answers
    }

    /// All that was answered so far is sent, and the request's body with it.
    pub(crate) fn sent(&mut self) {
        if let State::Decided { reservation, .. } = &mut self.state {
            *reservation = None;
        }
    }

    /// Looks for the name of a job in its answer.
    fn learn(&mut self, body: &[u8], ended: bool) {
        let State::Decided { job, .. } = &mut self.state else { return };
        if let Some(job) = job {
            job.seeker.feed(body);
        }
        if ended
            && let Some(Job { maker, seeker }) = job.take()
            && let Some(id) = seeker.finish()
        {
            self.front.job_made(id, maker);
        }
    }

    /// The response direction has begun, so that nothing is asked any more; when it has ended, the request is no more under way.
    fn response(&mut self, ended: bool) {
        if ended || self.is_reading() {
            self.state = State::Ended;
        }
    }

    /// Tells the witness of what this edge found by itself; the director's own rejections are told of already.
    fn reject_new(&mut self, rejection: Rejection) -> ProcessingResponse {
        let rejection = self.front.reject(rejection);
        self.reject(&rejection)
    }

    fn reject(&mut self, rejection: &Rejection) -> ProcessingResponse {
        self.state = State::Ended;
        answer::reply(rejection.reply(self.dialect), rejection.code().as_str())
    }
}

/// How a body ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Before it began: the headers had the end flag.
    OfHeaders,
    OfStream,
    WithTrailers,
}

#[cfg(test)]
mod tests;
