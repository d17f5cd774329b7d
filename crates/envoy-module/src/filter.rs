//! The life of one request in Envoy: its head is held back, its body kept and read as it comes, and then it goes where the director says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ask::{Answer, Asked, Asker, Instruction, Question, Told};
use director::{
    Bound, DESTINATION, DROPPED_REASON, Dialect, Dispatch, Head, HeaderChanges, Rejection, Reply, RequestHandler,
    Reservation, Settled, Step, Transaction,
};
use http::StatusCode;
use request::{Resource, Splice};
use routing::{Draw, Operation};

use crate::abi::{Body, Event, Stream, Waker};
use crate::course::Course;
use crate::service::{Service, Task, Watch};
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
    /// It is being found out what becomes of it: here, or by a picker that is asked.
    Asking {
        read: Box<Read>,
        heard: Hearing,
        by: Finder,
    },
    /// It counts at its endpoint until this is dropped.
    Dispatched(Box<Course>),
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

/// A picker that is asked.
#[derive(Debug)]
struct Awaited {
    asked: Asked,
    since: Instant,
    _watch: Watch,
}

/// Who finds it out.
#[derive(Debug)]
enum Finder {
    Here { _task: Task },
    Picker(Box<Awaited>),
}

/// Beyond what requests wait there, a picker that has not answered for so long is gone, or of another mind: it gives up looking for an owner sooner.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What came of asking, as soon as somebody knows.
type Hearing = Arc<Mutex<Option<Heard>>>;

#[derive(Debug)]
enum Heard {
    /// Here.
    Settled(Result<Settled, Rejection>),
    /// Of a picker.
    Told(Told),
}

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
            State::Dispatched(_) => return BodyStatus::Continue,
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
            State::Dispatched(_) => HeadStatus::Continue,
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
                        self.refuse(stream, why);
                    }
                }
                false
            }
            (Event::Tick, State::Asking { by: Finder::Picker(picker), .. })
                if picker.since.elapsed() > ANSWERED_WITHIN + self.handler().queue.wait =>
            {
                self.refuse(stream, Rejection::NobodyToAsk);
                false
            }
            (Event::Answer, State::Asking { read, heard, by }) => {
                let heard = heard.lock().unwrap_or_else(PoisonError::into_inner).take();
                let status = match (heard, by) {
                    (Some(Heard::Settled(settled)), _) => self.settled(stream, settled, *read, At::Elsewhere),
                    (Some(Heard::Told(told)), Finder::Picker(picker)) => {
                        self.go_on_as_told(stream, told, picker.asked, *read)
                    }
                    // Whoever asked panicked.
                    (None, _) | (Some(Heard::Told(_)), Finder::Here { .. }) => {
                        respond_broken(stream);
                        HeadStatus::Stop
                    }
                };
                status == HeadStatus::Continue
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
        let Reading { head, transaction, reservation, watch, .. } = *reading;
        if let Some(asker) = self.service.asker() {
            let read = Read { head, reservation };
            return self.ask(stream, &asker.clone(), transaction, read, watch);
        }
        let bound = Bound { subset: None, pool: head.pool.clone() };
        let draw = Draw::new(fastrand::u64(..));
        let step = transaction.finish(bound, head.caller().as_deref(), Instant::now, draw);
        self.go_on(stream, step, Read { head, reservation }, at)
    }

    /// Asks a picker where it goes.
    fn ask(
        &mut self,
        stream: &mut Stream<'_>,
        picker: &Asker,
        transaction: Transaction,
        read: Read,
        watch: Option<Watch>,
    ) -> HeadStatus {
        let request = match transaction.read() {
            Ok(request) => request,
            Err(rejection) => return self.reject(stream, &rejection),
        };
        let question = Question {
            request,
            path: read.head.path.clone(),
            pool: read.head.pool.clone(),
            caller: read.head.caller(),
            authorization: read.head.authorization().map(str::to_owned),
            dialect: self.dialect,
        };
        let heard = Hearing::default();
        let (waker, answer) = (WakesAtTheEnd(stream.waker()), Arc::clone(&heard));
        let told = move |told| {
            let _waker = waker;
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Heard::Told(told));
        };
        match picker.ask(question, told) {
            Ok(asked) => {
                let watch = watch.unwrap_or_else(|| self.service.watch(stream.waker()));
                let by = Finder::Picker(Box::new(Awaited { asked, since: Instant::now(), _watch: watch }));
                self.state = State::Asking { read: Box::new(read), heard, by };
                HeadStatus::Stop
            }
            Err(rejection) => self.refuse(stream, rejection),
        }
    }

    fn go_on_as_told(&mut self, stream: &mut Stream<'_>, told: Told, mut asked: Asked, read: Read) -> HeadStatus {
        match told {
            Ok(Answer::Reply(reply, code)) => {
                asked.answered();
                self.respond(stream, &reply, &code)
            }
            Ok(Answer::Dispatch(Instruction { address, headers, splices, makes })) => {
                asked.dispatched(makes);
                match send(stream, address, &headers, &splices, read, At::Elsewhere) {
                    Ok(()) => {
                        self.state = State::Dispatched(Box::new(Course::Asked(asked)));
                        HeadStatus::Continue
                    }
                    Err(rejection) => self.refuse(stream, rejection),
                }
            }
            Err(rejection) => self.refuse(stream, rejection),
        }
    }

    fn go_on(&mut self, stream: &mut Stream<'_>, step: Result<Step, Rejection>, read: Read, at: At) -> HeadStatus {
        match step.map(Step::at_once) {
            Ok(Ok(settled)) => self.settled(stream, Ok(settled), read, at),
            Ok(Err(step)) => {
                let heard = Hearing::default();
                let (waker, answer) = (WakesAtTheEnd(stream.waker()), Arc::clone(&heard));
                let handler = Arc::clone(self.handler());
                let authorization = read.head.authorization().map(str::to_owned);
                let task = self.service.spawn(async move {
                    let _waker = waker;
                    let settled = handler.settle(step, authorization.as_deref(), None, Instant::now).await;
                    *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Heard::Settled(settled));
                });
                self.state = State::Asking { read: Box::new(read), heard, by: Finder::Here { _task: task } };
                HeadStatus::Stop
            }
            Err(rejection) => self.settled(stream, Err(rejection), read, at),
        }
    }

    fn settled(
        &mut self,
        stream: &mut Stream<'_>,
        settled: Result<Settled, Rejection>,
        read: Read,
        at: At,
    ) -> HeadStatus {
        match settled {
            Ok(Settled::Answer(reply)) => self.respond(stream, &reply, "answered_by_the_picker"),
            Ok(Settled::Dispatch(dispatch)) => {
                let Dispatch { plan, attempt } = *dispatch;
                let first = plan.first();
                match send(stream, first.address, &plan.headers, &first.splices, read, at) {
                    Ok(()) => {
                        self.state = State::Dispatched(Box::new(Course::Here(attempt)));
                        HeadStatus::Continue
                    }
                    Err(rejection) => self.reject(stream, &plan.failed(rejection)),
                }
            }
            Err(rejection) => self.reject(stream, &rejection),
        }
    }

    pub(crate) fn response_headers(&mut self, stream: &Stream<'_>, ends: bool) {
        if let State::Dispatched(course) = &mut self.state {
            let headers = stream.response_headers();
            let status = headers.iter().find(|(name, _)| *name == b":status");
            if let Some(status) = status.and_then(|(_, status)| StatusCode::from_bytes(status).ok()) {
                course.head(status);
            }
        }
        if ends {
            self.response_ended();
        }
    }

    pub(crate) fn response_body(&mut self, stream: &Stream<'_>, ends: bool) {
        if let State::Dispatched(course) = &mut self.state {
            stream.body(Body::ReceivedOfResponse).into_iter().for_each(|piece| course.body(piece));
        }
        if ends {
            self.response_ended();
        }
    }

    pub(crate) fn response_ended(&mut self) {
        if let State::Dispatched(course) = std::mem::replace(&mut self.state, State::Ended) {
            course.ended();
        }
    }

    /// Envoy answers for the model server.
    pub(crate) fn local_reply(&mut self, details: &str) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Dispatched(course) => course.failed(details),
            other => self.state = other,
        }
    }

    /// Whatever is under way still is nobody's any more.
    pub(crate) fn completed(&mut self) {
        self.state = State::Ended;
    }

    /// Of what nobody has heard yet.
    fn refuse(&mut self, stream: &mut Stream<'_>, rejection: Rejection) -> HeadStatus {
        let rejection = self.handler().reject(rejection);
        self.reject(stream, &rejection)
    }

    fn reject(&mut self, stream: &mut Stream<'_>, rejection: &Rejection) -> HeadStatus {
        self.respond(stream, &rejection.reply(self.dialect), rejection.code().as_str())
    }

    fn respond(&mut self, stream: &mut Stream<'_>, reply: &Reply, details: &str) -> HeadStatus {
        self.state = State::Ended;
        let after = reply.retry_after.map(|after| after.as_secs().to_string());
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(after.as_deref().map(|after| ("retry-after", after)));
        headers.extend(reply.dropped.map(|why| (DROPPED_REASON, why)));
        headers.extend(reply.allow.as_deref().map(|methods| ("allow", methods)));
        stream.respond(reply.status.as_u16(), &headers, &reply.body, details);
        HeadStatus::Stop
    }
}

/// Changes the request into what goes out, and says where to. Envoy lets go of the body as fast as the model server takes it.
fn send(
    stream: &mut Stream<'_>,
    address: SocketAddr,
    headers: &HeaderChanges,
    splices: &[Splice],
    Read { head, mut reservation }: Read,
    at: At,
) -> Result<(), Rejection> {
    let mut length = None;
    if !splices.is_empty() {
        let bytes = splice_body(stream, splices, at, &mut reservation)?;
        length = head.content_length.map(|_| bytes);
    }
    for name in &head.removed {
        stream.remove_request_header(name);
    }
    let destination = address.to_string();
    for (name, value) in head.set(&destination, length, headers) {
        stream.set_request_header(name, value.as_bytes());
    }
    stream.set_metadata("envoy.lb", DESTINATION, &destination);
    stream.clear_route_cache();
    Ok(())
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
