//! One request through the proxy.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use director::{
    BodyTimeouts, Bound, DROPPED_REASON, Dialect, HeldBody, Rejection, Reply, RequestHandler, Settled, TRACEPARENT,
    TRACESTATE, Trace, TraceParent, Transaction,
};
use http::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, RETRY_AFTER,
    UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use request::{FAIRNESS_HEADERS, RequestHead, Resource, SESSION_HEADERS};
use routing::{Draw, Operation};
use tokio_util::task::TaskTracker;

use crate::body::ResponseBody;
use crate::cors::Cors;
use crate::forward::{Going, forward};
use crate::server::READ_BUFFER;
use crate::upload::Original;
use crate::upstream::Upstream;
use crate::websocket;

/// How the proxy behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a body may take.
    pub body: BodyTimeouts,
    /// How long a model server may take to accept a connection before the next is tried.
    pub connect_timeout: Duration,
    /// How long a model server may take to the first byte of its answer; none waits for as long as the client does.
    pub first_byte_timeout: Option<Duration>,
    pub cors: Cors,
}

/// The proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxy {
    handler: Arc<RequestHandler>,
    options: Options,
    upstream: Upstream,
    /// Requests that have begun and not ended; what a listener that stops waits for.
    pub(crate) under_way: TaskTracker,
}

/// How much of an upload that was refused is read, and for how long, from one piece to the next and in all: a connection that is closed
/// while the client still writes takes the refusal along before it was read. As long as nginx lingers.
const DRAINED_BYTES: usize = 64 << 20;
const DRAINED_STALL: Duration = Duration::from_secs(5);
const DRAINED_FOR: Duration = Duration::from_secs(30);

/// Headers by which clients authorize: OpenAI's, Anthropic's and Azure's.
const CREDENTIALS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// Headers that name an objective; the first counts.
const OBJECTIVES: [&str; 2] = ["x-llm-d-inference-objective", "x-gateway-inference-objective"];

impl Proxy {
    pub fn new(handler: Arc<RequestHandler>, options: Options, under_way: TaskTracker) -> Self {
        let upstream = Upstream::new(options.connect_timeout);
        Self { handler, options, upstream, under_way }
    }

    /// Answers a request: with the model server's answer, the picker's own, or with why there is none.
    pub(crate) async fn handle(&self, request: Request<Incoming>, client: IpAddr) -> Response<ResponseBody> {
        let cors = &self.options.cors;
        if let Some((status, headers)) = cors.preflight(request.method(), request.headers()) {
            let mut response = Response::new(Either::Right(Full::default()));
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            return response;
        }
        let origin = cors.allows(request.headers());
        let dialect = Dialect::of_path(request.uri().path());
        let asks_for_an_upgrade = request.headers().contains_key(UPGRADE);
        let trace = self.handler.follow(request.method().as_str(), || parent(request.headers()), Instant::now);
        let mut response = match self.place(request, client, dialect, &trace).await {
            Ok(response) => response,
            Err(rejection) => {
                trace.refused(&rejection);
                answered(rejection.reply(dialect))
            }
        };
        Cors::mark(origin, response.headers_mut());
        // What follows on a connection that was to be another is looked at by nobody.
        if asks_for_an_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Answers a request that was refused before it was one.
    pub(crate) fn refuse(&self, rejection: Rejection) -> Response<ResponseBody> {
        let mut response = answered(self.handler.reject(rejection).reply(Dialect::OpenAi));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    async fn place(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
        dialect: Dialect,
        trace: &Trace,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let under_way = self.under_way.token();
        let (mut parts, body) = request.into_parts();
        let (transaction, held) = match self.open(&parts, client) {
            Ok(opened) => opened,
            Err(rejection) => {
                // Whoever waits to be told to go on has not sent it, and need not.
                if !parts.headers.contains_key(EXPECT) {
                    tokio::spawn(drain(body));
                }
                return Err(rejection);
            }
        };
        let is_websocket = *transaction.resource() == Resource::Operation(Operation::Realtime);
        let (transaction, held) = if is_websocket {
            if !websocket::is_asked_for(&parts) {
                let why = "/v1/realtime is a WebSocket: request it with `upgrade: websocket` over HTTP/1.1";
                return Err(self.handler.reject(Rejection::WebSocket(why)));
            }
            (transaction, held)
        } else {
            self.read(transaction, held, body).await?
        };
        let draw = Draw::new(fastrand::u64(..));
        let caller = director::caller(
            CREDENTIALS.iter().flat_map(|name| parts.headers.get_all(*name)).map(HeaderValue::as_bytes),
        );
        let step = transaction.traced(trace.clone()).finish(Bound::default(), caller.as_deref(), Instant::now, draw)?;
        let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let dispatch = match self.handler.settle(step, authorization, Some(client), Instant::now).await? {
            Settled::Answer(reply) => return Ok(answered(reply)),
            Settled::Dispatch(dispatch) => *dispatch,
        };
        if is_websocket {
            return websocket::connect(&mut parts, dispatch, &self.options, under_way).await;
        }
        let (chunks, reservation) = held.finish();
        let body = Original::new(chunks, reservation);
        let going = Going { dialect, first_byte_timeout: self.options.first_byte_timeout, under_way };
        forward(&self.upstream, &parts, body, dispatch, going).await
    }

    fn open(&self, parts: &http::request::Parts, client: IpAddr) -> Result<(Transaction, HeldBody), Rejection> {
        if [CONTENT_TYPE, CONTENT_ENCODING].iter().any(|name| parts.headers.get_all(name).iter().count() > 1) {
            return Err(self.handler.reject(Rejection::AmbiguousHead("duplicate header")));
        }
        // SGLang has a word of its own for the same (srt/entrypoints/http_request_decompression.py).
        let encodings = [CONTENT_ENCODING, HeaderName::from_static("x-body-compressed")];
        let mut encodings =
            encodings.iter().filter_map(|name| parts.headers.get(name)).map(|value| value.to_str().unwrap_or("?"));
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        // What is no text is no host either; any character that no host has says so.
        let host = parts.headers.get(HOST).map(|value| value.to_str().unwrap_or("?"));
        let first_of = |names: &[&'static str]| names.iter().find_map(|name| parts.headers.get(*name)?.to_str().ok());
        let head = RequestHead {
            method: parts.method.as_str(),
            path: parts.uri.path_and_query().map_or("/", |path| path.as_str()),
            authority: host.or(parts.uri.authority().map(Authority::as_str)),
            content_type: parts.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?")),
            content_encoding: encodings.find(|encoding| !encoding.trim().eq_ignore_ascii_case("identity")),
            content_length: text(CONTENT_LENGTH).and_then(|length| length.trim().parse().ok()),
            objective: first_of(&OBJECTIVES),
            session: first_of(&SESSION_HEADERS),
            fairness: first_of(&FAIRNESS_HEADERS),
        };
        let transaction = self.handler.open(&head)?;
        let body = HeldBody::open_for(&self.handler.budget, READ_BUFFER, client, head.content_length);
        Ok((transaction, body.map_err(|rejection| self.handler.reject(rejection))?))
    }

    async fn read(
        &self,
        transaction: Transaction,
        held: HeldBody,
        mut body: Incoming,
    ) -> Result<(Transaction, HeldBody), Rejection> {
        let result = self.fill(transaction, held, &mut body).await;
        if result.is_err() {
            tokio::spawn(drain(body));
        }
        result
    }

    async fn fill(
        &self,
        mut transaction: Transaction,
        mut held: HeldBody,
        body: &mut Incoming,
    ) -> Result<(Transaction, HeldBody), Rejection> {
        let reject = |rejection| self.handler.reject(rejection);
        let began = tokio::time::Instant::now();
        let (mut last, mut came) = (began, 0);
        loop {
            let wait =
                self.options.body.next(began.elapsed(), last.elapsed(), came, &self.handler.budget).map_err(reject)?;
            match tokio::time::timeout(wait, body.frame()).await {
                // Looked at once more.
                Err(_) => {}
                Ok(None) => return Ok((transaction, held)),
                Ok(Some(Ok(frame))) => {
                    last = tokio::time::Instant::now();
                    if let Ok(chunk) = frame.into_data() {
                        came += chunk.len() as u64;
                        transaction.feed(&chunk)?;
                        held.push(chunk).map_err(reject)?;
                    }
                }
                // The client is gone, or broke its own framing; what came of the body says the rest.
                Ok(Some(Err(_))) => return Err(reject(Rejection::Incomplete)),
            }
        }
    }
}

/// What a request says of the trace that it belongs to.
fn parent(headers: &HeaderMap) -> TraceParent<'_> {
    let values = |name| headers.get_all(name).iter().map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    TraceParent::of(values(TRACEPARENT), values(TRACESTATE))
}

/// Our own answer.
fn answered(reply: Reply) -> Response<ResponseBody> {
    let mut response = Response::new(Either::Right(Full::new(reply.body)));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(reply.retry_after.map(|after| (RETRY_AFTER, HeaderValue::from(after.as_secs()))));
    headers.extend(reply.dropped.map(|why| (HeaderName::from_static(DROPPED_REASON), HeaderValue::from_static(why))));
    headers.extend(reply.allow.and_then(|methods| Some((ALLOW, methods.parse().ok()?))));
    response
}

async fn drain(mut body: Incoming) {
    let read = async {
        let mut left = DRAINED_BYTES;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(DRAINED_STALL, body.frame()).await {
            let size = frame.data_ref().map_or(0, Bytes::len);
            if size > left {
                return;
            }
            left -= size;
        }
    };
    // Out of patience is as good as done.
    let _ = tokio::time::timeout(DRAINED_FOR, read).await;
}
