//! The life of one request in Envoy: its head is held back, its body kept and read as it comes, and then it goes where the director says.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use director::{
    Bound, DESTINATION, Dialect, Dispatch, Head, Rejection, Reply, RequestHandler, Reservation, RunningAttempt, Step,
    Transaction,
};
use http::StatusCode;
use request::Resource;
use routing::{Draw, Operation};

use crate::abi::{Body, Event, Stream, Waker};
use crate::service::{Service, Watch};
use crate::splices::{At, splice_body};

/// What becomes of the headers, or trailers, that a hook is about (`envoy_dynamic_module_type_on_http_filter_request_headers_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum HeadStatus {
    Continue = 0,
    Stop = 1,
}

/// What becomes of the part of a body (`envoy_dynamic_module_type_on_http_filter_request_body_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum BodyStatus {
    Continue = 0,
    StopAndKeep = 1,
    StopAndForget = 3,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Filter {
    service: Arc<Service>,
    /// Of the errors that the client expects; known with the path.
    dialect: Dialect,
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    Reading(Box<Reading>),
    /// Somebody is being asked who owns what the request is about.
    Asking {
        read: Box<Read>,
        answer: Answer,
    },
    /// The attempt counts at its endpoint until it is dropped.
    Dispatched {
        attempt: Box<RunningAttempt>,
    },
    /// By us, or it is over.
    Ended,
}

/// A request whose body is being kept.
#[derive(Debug)]
struct Reading {
    head: Head,
    transaction: Transaction,
    reservation: Reservation,
    began: Instant,
    /// When the last of it came, and how much in all.
    last: Instant,
    bytes: u64,
    /// Wakes the request now and then, for as long as its body is waited for.
    watch: Option<Watch>,
}

/// One whose body has ended.
#[derive(Debug)]
struct Read {
    head: Head,
    reservation: Reservation,
}

/// What came of asking, as soon as somebody knows.
type Answer = Arc<Mutex<Option<Result<Step, Rejection>>>>;

impl Filter {
    pub(crate) fn new(service: &Arc<Service>) -> Self {
        Self { service: Arc::clone(service), dialect: Dialect::OpenAi, state: State::Start }
    }

    fn handler(&self) -> &Arc<RequestHandler> {
        self.service.handler()
    }

    pub(crate) fn request_headers(&mut self, stream: &mut Stream<'_>, ends: bool) -> HeadStatus {
        let headers = stream.request_headers();
        let named = headers.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, *value)));
        let head = Head::read(named);
        drop(headers);
        // For a test of what a panic harms; it is not in what is shipped.
        #[cfg(debug_assertions)]
        assert!(head.path != "/panic", "as asked");
        self.dialect = Dialect::of_path(&head.path);
        match self.open(head) {
            Ok(mut reading) => {
                // A session has no body: what follows its head is the session.
                let is_session = *reading.transaction.resource() == Resource::Operation(Operation::Realtime);
                if ends || is_session {
                    self.state = State::Reading(Box::new(reading));
                    return self.decide(stream, At::Elsewhere);
                }
                // One byte more is one that the reader refuses, in words.
                stream.set_buffer_limit(self.handler().limits.max_body_bytes.saturating_add(1 << 20));
                reading.watch = Some(self.service.watch(stream.waker()));
                self.state = State::Reading(Box::new(reading));
                HeadStatus::Stop
            }
            Err(rejection) => self.reject(stream, &rejection),
        }
    }

    fn open(&self, head: Head) -> Result<Reading, Rejection> {
        let handler = self.handler();
        head.check().map_err(|rejection| handler.reject(rejection))?;
        let transaction = handler.open(&head.of_request())?;
        if *transaction.resource() == Resource::Operation(Operation::Realtime) && !head.asks_for_websocket {
            let why = "/v1/realtime is a WebSocket: request it with `upgrade: websocket` over HTTP/1.1";
            return Err(handler.reject(Rejection::WebSocket(why)));
        }
        let reservation = handler.budget.open(head.content_length).map_err(|rejection| handler.reject(rejection))?;
        let now = Instant::now();
        Ok(Reading { head, transaction, reservation, began: now, last: now, bytes: 0, watch: None })
    }

    pub(crate) fn request_body(&mut self, stream: &mut Stream<'_>, ends: bool) -> BodyStatus {
        let handler = Arc::clone(self.handler());
        let reading = match &mut self.state {
            State::Reading(reading) => reading,
            State::Dispatched { .. } => return BodyStatus::Continue,
            State::Asking { .. } => return BodyStatus::StopAndKeep,
            State::Start | State::Ended => return BodyStatus::StopAndForget,
        };
        reading.last = Instant::now();
        for piece in stream.body(Body::ReceivedOfRequest) {
            reading.bytes += piece.len() as u64;
            let grown = reading.transaction.feed(piece).and_then(|()| {
                reading.reservation.grow(piece.len() as u64).map_err(|rejection| handler.reject(rejection))
            });
            if let Err(rejection) = grown {
                self.reject(stream, &rejection);
                return BodyStatus::StopAndForget;
            }
        }
        if !ends {
            return BodyStatus::StopAndKeep;
        }
        match self.decide(stream, At::Body) {
            HeadStatus::Continue => BodyStatus::Continue,
            HeadStatus::Stop if matches!(self.state, State::Asking { .. }) => BodyStatus::StopAndKeep,
            HeadStatus::Stop => BodyStatus::StopAndForget,
        }
    }

    pub(crate) fn request_trailers(&mut self, stream: &mut Stream<'_>) -> HeadStatus {
        match self.state {
            State::Reading(_) => self.decide(stream, At::Elsewhere),
            State::Dispatched { .. } => HeadStatus::Continue,
            State::Start | State::Asking { .. } | State::Ended => HeadStatus::Stop,
        }
    }

    /// Something is to be looked at again; says whether the request goes on now.
    pub(crate) fn woken(&mut self, stream: &mut Stream<'_>, event: Event) -> bool {
        match (event, std::mem::replace(&mut self.state, State::Ended)) {
            (Event::Tick, State::Reading(reading)) => {
                let timeouts = self.service.body_timeouts();
                let (taken, idle) = (reading.began.elapsed(), reading.last.elapsed());
                match timeouts.next(taken, idle, reading.bytes, &self.handler().budget) {
                    Ok(_) => self.state = State::Reading(reading),
                    Err(why) => {
                        let rejection = self.handler().reject(why);
                        self.reject(stream, &rejection);
                    }
                }
                false
            }
            (Event::Answer, State::Asking { read, answer }) => {
                let step = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
                let Some(step) = step else {
                    // Whoever asked for it panicked.
                    respond_broken(stream);
                    return false;
                };
                self.go_on(stream, step, *read, At::Elsewhere) == HeadStatus::Continue
            }
            (_, other) => {
                self.state = other;
                false
            }
        }
    }

    fn decide(&mut self, stream: &mut Stream<'_>, at: At) -> HeadStatus {
        let State::Reading(reading) = std::mem::replace(&mut self.state, State::Ended) else {
            return HeadStatus::Stop;
        };
        let Reading { head, transaction, reservation, .. } = *reading;
        let bound = Bound { subset: None, pool: head.pool.clone() };
        let draw = Draw::new(fastrand::u64(..));
        let step = transaction.finish(bound, head.caller().as_deref(), Instant::now, draw);
        self.go_on(stream, step, Read { head, reservation }, at)
    }

    fn go_on(&mut self, stream: &mut Stream<'_>, step: Result<Step, Rejection>, read: Read, at: At) -> HeadStatus {
        match step {
            Ok(Step::FindOwner(question)) => {
                let answer = Answer::default();
                let (waker, answered) = (WakesAtTheEnd(stream.waker()), Arc::clone(&answer));
                let handler = Arc::clone(self.handler());
                let authorization = read.head.authorization().map(str::to_owned);
                self.service.spawn(async move {
                    let _waker = waker;
                    let search = handler.find_owner(&question, authorization.as_deref(), None).await;
                    let step = question.answered(search, Instant::now);
                    *answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
                });
                self.state = State::Asking { read: Box::new(read), answer };
                HeadStatus::Stop
            }
            Ok(Step::Answer(reply)) => self.respond(stream, &reply, "answered_by_the_picker"),
            Ok(Step::Dispatch(dispatch)) => match self.send(stream, *dispatch, read, at) {
                Ok(()) => HeadStatus::Continue,
                Err(rejection) => self.reject(stream, &rejection),
            },
            Err(rejection) => self.reject(stream, &rejection),
        }
    }

    /// Changes the request into what goes out, and says where to.
    fn send(
        &mut self,
        stream: &mut Stream<'_>,
        Dispatch { plan, attempt }: Dispatch,
        Read { head, mut reservation }: Read,
        at: At,
    ) -> Result<(), Rejection> {
        let (first, mut length) = (plan.first(), None);
        if !first.splices.is_empty() {
            let spliced = splice_body(stream, &first.splices, at, &mut reservation).map_err(|why| plan.failed(why))?;
            length = head.content_length.map(|_| spliced);
        }
        for name in &head.removed {
            stream.remove_request_header(name);
        }
        let destination = first.address.to_string();
        for (name, value) in head.set(&destination, length, &plan.headers) {
            stream.set_request_header(name, value.as_bytes());
        }
        stream.set_metadata("envoy.lb", DESTINATION, &destination);
        stream.clear_route_cache();
        // Envoy lets go of the body as fast as the model server takes it.
        self.state = State::Dispatched { attempt: Box::new(attempt) };
        Ok(())
    }

    pub(crate) fn response_headers(&mut self, stream: &Stream<'_>, ends: bool) {
        if let State::Dispatched { attempt } = &mut self.state {
            let headers = stream.response_headers();
            let status = headers.iter().find(|(name, _)| *name == b":status");
            if let Some(status) = status.and_then(|(_, status)| StatusCode::from_bytes(status).ok()) {
                attempt.head(status, Instant::now());
            }
        }
        if ends {
            self.response_ended();
        }
    }

    pub(crate) fn response_body(&mut self, stream: &Stream<'_>, ends: bool) {
        if let State::Dispatched { attempt } = &mut self.state {
            for piece in stream.body(Body::ReceivedOfResponse) {
                attempt.body(piece, Instant::now);
            }
        }
        if ends {
            self.response_ended();
        }
    }

    pub(crate) fn response_ended(&mut self) {
        if let State::Dispatched { attempt } = std::mem::replace(&mut self.state, State::Ended) {
            attempt.ended(Instant::now());
        }
    }

    /// Envoy answers for the model server; `details` say why (`response_code_details` of its documentation, with the reason of a reset).
    pub(crate) fn local_reply(&mut self, details: &str) {
        let attempt = match std::mem::replace(&mut self.state, State::Ended) {
            State::Dispatched { attempt } => attempt,
            other => return self.state = other,
        };
        let (now, details) = (Instant::now(), details.replace(' ', "_"));
        let says = |word: &str| details.contains(word);
        if says("connection_failure") || says("connection_timeout") {
            attempt.unreachable(now);
        } else if says("timeout") {
            attempt.timed_out(now);
        } else if says("upstream_reset") && !says("overflow") {
            attempt.broke_off(now);
        } else {
            // It was not even asked.
            attempt.unseen();
        }
    }

    /// Whatever is under way still is nobody's any more.
    pub(crate) fn completed(&mut self) {
        self.state = State::Ended;
    }

    fn reject(&mut self, stream: &mut Stream<'_>, rejection: &Rejection) -> HeadStatus {
        self.respond(stream, &rejection.reply(self.dialect), rejection.code().as_str())
    }

    fn respond(&mut self, stream: &mut Stream<'_>, reply: &Reply, details: &str) -> HeadStatus {
        self.state = State::Ended;
        let after = reply.retry_after.map(|after| after.as_secs().to_string());
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(after.as_deref().map(|after| ("retry-after", after)));
        headers.extend(reply.allow.as_deref().map(|methods| ("allow", methods)));
        stream.respond(reply.status.as_u16(), &headers, &reply.body, details);
        HeadStatus::Stop
    }
}

/// The request is lost by a fault of ours.
pub(crate) fn respond_broken(stream: &mut Stream<'_>) {
    let body = br#"{"error":{"message":"the picker failed over this request","type":"server_error","param":null,"code":"internal_error"}}"#;
    stream.respond(500, &[("content-type", "application/json")], body, "picker_failed");
}

/// Wakes a request when it is dropped, however that comes about.
struct WakesAtTheEnd(Waker);

impl Drop for WakesAtTheEnd {
    fn drop(&mut self) {
        self.0.wake(Event::Answer);
    }
}
