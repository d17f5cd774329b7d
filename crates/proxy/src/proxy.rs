//! One request through the proxy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use director::{Bound, Decision, Dialect, Front, Intake, Maker, Outcome, Rejection, Reply, Reservation};
use http::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, UPGRADE,
};
use http::uri::Authority;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use request::{InferenceRequest, JobSeeker, RequestHead, Resource, rewrite};
use routing::{AppProtocol, Draw, Operation};

use crate::body::{Answer, Chunks, Job, ResponseBody};
use crate::cors::Cors;
use crate::{forwarding, websocket};

/// How the proxy behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long to wait for more of a request's body.
    pub stall_timeout: Duration,
    /// How long a whole body may take.
    pub body_timeout: Duration,
    /// How long a model server may take to accept a connection before the next is tried.
    pub connect_timeout: Duration,
    pub cors: Cors,
}

/// The proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub(crate) front: Front,
    pub(crate) options: Options,
    http1: Client<HttpConnector, Chunks>,
    h2c: Client<HttpConnector, Chunks>,
}

/// How much of an upload that was refused is read, so that the client has time to read the refusal before the connection closes.
const DRAINED_BYTES: usize = 16 << 20;
const DRAINED_FOR: Duration = Duration::from_secs(2);

/// A request that was read.
struct Read {
    request: InferenceRequest,
    chunks: Vec<Bytes>,
    reservation: Reservation,
}

/// Headers that name an objective; the first counts.
const OBJECTIVES: [&str; 2] = ["x-llm-d-inference-objective", "x-gateway-inference-objective"];

impl Proxy {
    pub fn new(front: Front, options: Options) -> Self {
        let connector = || {
            let mut connector = HttpConnector::new();
            connector.set_connect_timeout(Some(options.connect_timeout));
            connector.set_nodelay(true);
            connector
        };
        let builder = || {
            let mut builder = Client::builder(TokioExecutor::new());
            // Below the 5 s after which uvicorn closes: a request must not be written into a connection that is closing.
            builder.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(4));
            builder
        };
        let http1 = builder().build(connector());
        let h2c = builder().http2_only(true).build(connector());
        Self { front, options, http1, h2c }
    }

    /// Answers a request: with the model server's answer, the picker's own, or with why there is none.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let cors = &self.options.cors;
        if let Some((status, headers)) = cors.preflight(request.method(), request.headers()) {
            let mut response = Response::new(Either::Right(Full::default()));
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            return response;
        }
        let origin = cors.allows(request.headers());
        let dialect = Dialect::of_path(request.uri().path());
        let asks_for_an_upgrade = request.headers().contains_key(UPGRADE);
        let mut response = match self.place(request).await {
            Ok(response) => response,
            Err(rejection) => answered(rejection.reply(dialect)),
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
        let mut response = answered(self.front.reject(rejection).reply(Dialect::OpenAi));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    async fn place(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Rejection> {
        let (mut parts, body) = request.into_parts();
        let intake = self.open(&parts).map_err(|rejection| self.front.reject(rejection));
        let read = match intake {
            Ok(intake) if is_websocket(intake.resource()) => Self::read_websocket(&parts, intake),
            Ok(intake) => self.read(intake, body).await,
            Err(rejection) => {
                tokio::spawn(drain(body));
                return Err(rejection);
            }
        };
        let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Ok(read) = &read {
            self.front.find_job(&read.request.resource, authorization).await;
        }
        let Read { request, chunks, reservation } = read.map_err(|rejection| self.front.reject(rejection))?;
        let draw = Draw::new(fastrand::u64(..));
        let decision = match self.front.respond(&request, Bound::default(), Instant::now, draw)? {
            Outcome::Forward(decision) => decision,
            Outcome::Answer(reply) => return Ok(answered(reply)),
        };
        if is_websocket(&request.resource) {
            if let Some(target) = decision.rewrite(&request) {
                websocket::rename(&mut parts, target)?;
            }
            let upgraded = websocket::connect(&mut parts, decision, &self.options).await;
            return upgraded.map_err(|rejection| self.front.reject(rejection));
        }
        let chunks = match (decision.rewrite(&request), &request.model_span) {
            (Some(model), Some(span)) => rewrite(chunks, span, model),
            _ => chunks,
        };
        let chunks = Chunks::new(chunks, reservation);
        let forwarded = self.forward(&parts, &request, chunks, decision).await;
        forwarded.map_err(|rejection| self.front.reject(rejection))
    }

    fn open(&self, parts: &http::request::Parts) -> Result<Intake, Rejection> {
        if [CONTENT_TYPE, CONTENT_ENCODING].iter().any(|name| parts.headers.get_all(name).iter().count() > 1) {
            return Err(Rejection::AmbiguousHead("a header given twice that may be given once"));
        }
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        // What is no text is no host either; any character that no host has says so.
        let host = parts.headers.get(HOST).map(|value| value.to_str().unwrap_or("?"));
        self.front.intake(&RequestHead {
            method: parts.method.as_str(),
            path: parts.uri.path_and_query().map_or("/", |path| path.as_str()),
            authority: host.or(parts.uri.authority().map(Authority::as_str)),
            content_type: parts.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?")),
            content_encoding: parts.headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?")),
            content_length: text(CONTENT_LENGTH).and_then(|length| length.trim().parse().ok()),
            objective: OBJECTIVES.iter().find_map(|name| parts.headers.get(*name)?.to_str().ok()),
        })
    }

    fn read_websocket(parts: &http::request::Parts, intake: Intake) -> Result<Read, Rejection> {
        if !websocket::is_asked_for(parts) {
            return Err(Rejection::WebSocket(
                "/v1/realtime is a WebSocket: ask for it with `upgrade: websocket` over HTTP/1.1",
            ));
        }
        let (request, chunks, reservation) = intake.finish()?;
        Ok(Read { request, chunks, reservation })
    }

    async fn read(&self, intake: Intake, mut body: Incoming) -> Result<Read, Rejection> {
        let result = self.fill(intake, &mut body).await;
        if result.is_err() {
            tokio::spawn(drain(body));
        }
        result
    }

    async fn fill(&self, mut intake: Intake, body: &mut Incoming) -> Result<Read, Rejection> {
        let Options { stall_timeout, body_timeout, .. } = self.options;
        let deadline = tokio::time::Instant::now() + body_timeout;
        loop {
            let now = tokio::time::Instant::now();
            // A body that always has more ready is never waited for.
            if now > deadline {
                return Err(Rejection::TooSlow { limit: body_timeout });
            }
            let stalled = now + stall_timeout;
            match tokio::time::timeout_at(stalled.min(deadline), body.frame()).await {
                Err(_) if stalled > deadline => return Err(Rejection::TooSlow { limit: body_timeout }),
                Err(_) => return Err(Rejection::Stalled { waited: stall_timeout }),
                Ok(None) => {
                    let (request, chunks, reservation) = intake.finish()?;
                    return Ok(Read { request, chunks, reservation });
                }
                Ok(Some(Ok(frame))) => {
                    if let Ok(chunk) = frame.into_data() {
                        intake.feed(chunk)?;
                    }
                }
                // The client is gone, or broke its own framing; what came of the body says the rest.
                Ok(Some(Err(_))) => return Err(Rejection::Incomplete),
            }
        }
    }

    async fn forward(
        &self,
        parts: &http::request::Parts,
        request: &InferenceRequest,
        body: Chunks,
        mut decision: Decision,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let client = match decision.app_protocol {
            AppProtocol::Http => &self.http1,
            AppProtocol::H2c => &self.h2c,
        };
        for choice in 0..decision.endpoints.len() {
            decision.move_to(choice);
            let address = decision.endpoints[choice].address;
            match client.request(forwarding::to_model_server(parts, address, body.clone())?).await {
                Ok(response) => {
                    let (mut parts, body) = response.into_parts();
                    forwarding::remove_hop_by_hop(&mut parts.headers);
                    let makes_a_job =
                        request.resource == Resource::Operation(Operation::Videos) && parts.status.is_success();
                    let maker = || Maker {
                        pool: Arc::clone(&decision.pool),
                        endpoint: Arc::clone(&decision.endpoints[choice].name),
                    };
                    let job = makes_a_job.then(|| Job {
                        front: self.front.clone(),
                        maker: maker(),
                        seeker: JobSeeker::default(),
                    });
                    return Ok(Response::from_parts(parts, Either::Left(Answer::new(body, job, decision.in_flight))));
                }
                Err(error) if error.is_connect() => {
                    tracing::warn!(endpoint = %address, pool = %decision.pool, %error, "endpoint cannot be reached");
                }
                // It may have got the request, and a generation is not to be paid for twice.
                Err(error) => {
                    tracing::warn!(endpoint = %address, pool = %decision.pool, %error, "endpoint broke off");
                    return Err(Rejection::BrokenOff);
                }
            }
        }
        Err(Rejection::Unreachable { tried: decision.endpoints.len() })
    }
}

fn is_websocket(resource: &Resource) -> bool {
    *resource == Resource::Operation(Operation::Realtime)
}

/// Our own answer.
fn answered(reply: Reply) -> Response<ResponseBody> {
    let mut response = Response::new(Either::Right(Full::new(reply.body)));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(reply.retry_after.map(|after| (RETRY_AFTER, HeaderValue::from(after.as_secs()))));
    headers.extend(reply.allow.and_then(|methods| Some((ALLOW, methods.parse().ok()?))));
    response
}

async fn drain(mut body: Incoming) {
    let read = async {
        let mut left = DRAINED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
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
