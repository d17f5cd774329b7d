//! WebSockets (RFC 6455): the model server is asked for one, and then bytes flow both ways until either side ends.

use std::time::{Duration, Instant};

use bytes::Bytes;
use director::{Attempt, Dispatch, Plan, Rejection, RunningAttempt};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Either, Empty, Full, Limited};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::Options;
use crate::body::ResponseBody;
use crate::forwarding;

/// How long a model server may take to agree.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most of a refusal that is passed on.
const MAX_REFUSAL: usize = 64 << 10;

/// Whether a request asks for a WebSocket.
pub(crate) fn is_asked_for(parts: &http::request::Parts) -> bool {
    let is = |name: &HeaderName, word: &str| {
        let mut values = parts.headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(word)))
    };
    let has = |name: &HeaderName| parts.headers.contains_key(name);
    // As narrow as the guard is: what it does not take for an upgrade goes on as HTTP.
    parts.version == Version::HTTP_11
        && parts.uri.path().contains("/realtime")
        && is(&CONNECTION, "upgrade")
        && parts.headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && has(&SEC_WEBSOCKET_KEY)
        && has(&SEC_WEBSOCKET_VERSION)
        && !has(&CONTENT_LENGTH)
}

/// Asks for another model: the parameter `model` of the query is what names it.
fn rename(parts: &mut http::request::Parts, target: &str) -> Result<(), Rejection> {
    let query = parts.uri.query().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !request::is_parameter(pair, "model"));
    let mut renamed = format!("{}?model=", parts.uri.path());
    for byte in target.bytes() {
        // RFC 3986, section 2.3.
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            renamed.push(char::from(byte));
        } else {
            renamed += &format!("%{byte:02X}");
        }
    }
    pairs.for_each(|pair| renamed.extend(["&", pair]));
    parts.uri = renamed.parse().map_err(|_| Rejection::Unreadable(request::Unreadable::OddPath))?;
    Ok(())
}

/// Connects a client to the first endpoint that can be reached.
pub(crate) async fn connect(
    parts: &mut http::request::Parts,
    Dispatch { plan, mut attempt }: Dispatch,
    options: &Options,
    under_way: TaskTrackerToken,
) -> Result<Response<ResponseBody>, Rejection> {
    let asked = parts.uri.clone();
    let client = hyper::upgrade::on(http::Request::from_parts(clone_for_upgrade(parts), ()));
    loop {
        let Attempt { address, target, .. } = attempt.of(&plan);
        if let Some(target) = target {
            parts.uri.clone_from(&asked);
            rename(parts, target).map_err(|rejection| plan.failed(rejection))?;
        }
        let Ok(Ok(stream)) = tokio::time::timeout(options.connect_timeout, TcpStream::connect(address)).await else {
            tracing::warn!(endpoint = %address, "endpoint unreachable");
            let next = plan.next_after(&attempt, Instant::now());
            attempt.unreachable(Instant::now());
            let Some(next) = next else {
                return Err(plan.failed(Rejection::Unreachable { tried: plan.attempts.len() }));
            };
            attempt = next;
            continue;
        };
        let shaken = shake_hands(stream, parts, &plan, &attempt);
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shaken).await;
        let Some(response) = shaken.ok().and_then(Result::ok) else {
            attempt.broke_off(Instant::now());
            return Err(plan.failed(Rejection::BrokenOff));
        };
        attempt.head(response.status(), Instant::now());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(switched(response, client, attempt, under_way));
        }
        return match passed_on(response).await {
            Some(response) => {
                attempt.ended(Instant::now());
                Ok(response)
            }
            None => {
                attempt.broke_off(Instant::now());
                Err(plan.failed(Rejection::BrokenOff))
            }
        };
    }
}

/// What of a request the upgrade hangs on: hyper keeps it in the extensions.
fn clone_for_upgrade(parts: &mut http::request::Parts) -> http::request::Parts {
    let (mut fresh, ()) = http::Request::new(()).into_parts();
    fresh.extensions = std::mem::take(&mut parts.extensions);
    fresh
}

async fn shake_hands(
    stream: TcpStream,
    parts: &http::request::Parts,
    plan: &Plan,
    attempt: &RunningAttempt,
) -> Result<Response<hyper::body::Incoming>, ()> {
    // Events are small, and each is waited for.
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(drop)?;
    tokio::spawn(connection.with_upgrades());
    let mut request = forwarding::to_model_server(parts, plan, attempt, Empty::<Bytes>::new()).map_err(drop)?;
    // A client of one connection names path and host by itself.
    let path = request.uri().path_and_query().cloned().ok_or(())?;
    *request.uri_mut() = path.into();
    let headers = request.headers_mut();
    headers.insert(http::header::HOST, HeaderValue::from_str(&attempt.of(plan).address.to_string()).map_err(drop)?);
    agree(headers);
    sender.send_request(request).await.map_err(drop)
}

/// Upgrades end at each hop, so each hop says so anew.
fn agree(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Tells the client, and lets bytes flow once its side is switched as well.
fn switched(
    mut response: Response<hyper::body::Incoming>,
    client: OnUpgrade,
    attempt: RunningAttempt,
    under_way: TaskTrackerToken,
) -> Response<ResponseBody> {
    let server = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        if let (Ok(client), Ok(server)) = (client.await, server.await) {
            let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
            let (mut from_server, mut to_server) = tokio::io::split(TokioIo::new(server));
            // Either side's end, however it comes, is the end of both.
            tokio::select! {
                _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
            }
            let _ = tokio::join!(to_client.shutdown(), to_server.shutdown());
        }
        attempt.ended(Instant::now());
        drop(under_way);
    });
    let mut answer = Response::new(Either::Right(Full::default()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = response.headers().clone();
    forwarding::remove_hop_by_hop(answer.headers_mut());
    agree(answer.headers_mut());
    answer
}

/// A model server's refusal is the client's answer.
async fn passed_on(response: Response<hyper::body::Incoming>) -> Option<Response<ResponseBody>> {
    let (mut parts, body) = response.into_parts();
    forwarding::remove_hop_by_hop(&mut parts.headers);
    parts.headers.remove(http::header::CONTENT_LENGTH);
    let body = tokio::time::timeout(HANDSHAKE_TIMEOUT, Limited::new(body, MAX_REFUSAL).collect()).await;
    let body = body.ok().and_then(Result::ok)?;
    Some(Response::from_parts(parts, Either::Right(Full::new(body.to_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_a_query_is_replaced_and_the_rest_stays() {
        let (mut parts, ()) = http::Request::get("/v1/realtime?a=1&model=chat&intent=x").body(()).unwrap().into_parts();
        rename(&mut parts, "Qwen/omni 7b").unwrap();
        assert_eq!(parts.uri, "/v1/realtime?model=Qwen%2Fomni%207b&a=1&intent=x");
    }
}
