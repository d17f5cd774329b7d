//! One request through the proxy.

use std::time::{Duration, Instant};

use bytes::Bytes;
use director::{Decision, Front, Intake, Rejection};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use request::{InferenceRequest, RequestHead, rewrite};
use routing::{AppProtocol, Draw};

use crate::body::{Answer, Chunks, ResponseBody};
use crate::headers;

/// How the proxy behaves.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long to wait for more of a request's body.
    pub stall_timeout: Duration,
    /// How long a whole body may take.
    pub body_timeout: Duration,
    /// How long a model server may take to accept a connection before the next is tried.
    pub connect_timeout: Duration,
}

/// The proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxy {
    front: Front,
    options: Options,
    http1: Client<HttpConnector, Chunks>,
    h2c: Client<HttpConnector, Chunks>,
}

/// How much of an upload that was refused is read, so that the client has time to read the refusal before the connection closes.
const DRAINED_BYTES: usize = 16 << 20;
const DRAINED_FOR: Duration = Duration::from_secs(2);

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

    /// Answers a request: with the model server's answer, or with why there is none.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        match self.place(request).await {
            Ok(response) => response,
            Err(rejection) => refused(&rejection),
        }
    }

    async fn place(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Rejection> {
        let (parts, body) = request.into_parts();
        let (inference, chunks) = self.read(&parts, body).await.map_err(|rejection| self.front.reject(rejection))?;
        let draw = Draw::new(fastrand::u64(..));
        let decision = self.front.direct(&inference, None, Instant::now, draw)?;
        let chunks = match (decision.rewrite(&inference), &inference.model_span) {
            (Some(model), Some(span)) => rewrite(chunks, span, model),
            _ => chunks,
        };
        self.forward(&parts, &Chunks::new(chunks), decision).await.map_err(|rejection| self.front.reject(rejection))
    }

    async fn read(
        &self,
        parts: &http::request::Parts,
        mut body: Incoming,
    ) -> Result<(InferenceRequest, Vec<Bytes>), Rejection> {
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let head = RequestHead {
            path: parts.uri.path(),
            content_type: text(CONTENT_TYPE),
            content_length: text(CONTENT_LENGTH).and_then(|length| length.trim().parse().ok()),
        };
        let result = self.fill(Intake::new(&head, self.front.limits), &mut body).await;
        if result.is_err() {
            tokio::spawn(drain(body));
        }
        result
    }

    async fn fill(
        &self,
        intake: Result<Intake, request::Unreadable>,
        body: &mut Incoming,
    ) -> Result<(InferenceRequest, Vec<Bytes>), Rejection> {
        let Options { stall_timeout, body_timeout, .. } = self.options;
        let deadline = tokio::time::Instant::now() + body_timeout;
        let mut intake = intake?;
        loop {
            let stalled = tokio::time::Instant::now() + stall_timeout;
            match tokio::time::timeout_at(stalled.min(deadline), body.frame()).await {
                Err(_) if stalled > deadline => return Err(Rejection::TooSlow { limit: body_timeout }),
                Err(_) => return Err(Rejection::Stalled { waited: stall_timeout }),
                Ok(None) => return Ok(intake.finish()?),
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
        body: &Chunks,
        mut decision: Decision,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let client = match decision.app_protocol {
            AppProtocol::Http => &self.http1,
            AppProtocol::H2c => &self.h2c,
        };
        for choice in 0..decision.endpoints.len() {
            decision.move_to(choice);
            let address = decision.endpoints[choice].address;
            let request = to_model_server(parts, address, body.clone())?;
            match client.request(request).await {
                Ok(response) => {
                    let (mut parts, body) = response.into_parts();
                    headers::remove_hop_by_hop(&mut parts.headers);
                    return Ok(Response::from_parts(parts, Either::Left(Answer::new(body, decision.in_flight))));
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

fn to_model_server(
    parts: &http::request::Parts,
    address: std::net::SocketAddr,
    body: Chunks,
) -> Result<Request<Chunks>, Rejection> {
    let authority: Authority = address.to_string().parse().map_err(|_| Rejection::Unreachable { tried: 1 })?;
    let mut uri = Uri::default().into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    uri.path_and_query.clone_from(&parts.uri.clone().into_parts().path_and_query);
    if uri.path_and_query.is_none() {
        uri.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Rejection::Unreachable { tried: 1 })?;
    *request.headers_mut() = headers::forwarded(&parts.headers);
    Ok(request)
}

/// Our own answer.
pub(crate) fn refused(rejection: &Rejection) -> Response<ResponseBody> {
    let error = rejection.error_body();
    let mut response = Response::new(Either::Right(Full::new(error.body)));
    *response.status_mut() = error.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
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
