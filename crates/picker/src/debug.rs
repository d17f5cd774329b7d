//! `/debug/explain` and `/debug/load`: what the picker would do with a request, and how busy its endpoints are, as JSON for tools.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, response::IntoResponse, response::Response};
use director::{Explanation, KnownEndpoint, Rejection, RequestHandler};
use http_body_util::BodyExt as _;
use request::RequestHead;
use routing::Draw;
use scheduling::{Cost, Explained, Filter, Load, Scraped};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// How many requests are explained at once: it is not what a picker is for.
const AT_ONCE: usize = 2;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
struct Debug {
    handler: Arc<RequestHandler>,
    turns: Arc<Semaphore>,
}

/// The routes, for the admin port.
pub(crate) fn routes(handler: &RequestHandler) -> Router {
    let debug = Debug { handler: handler.unobserved(), turns: Arc::new(Semaphore::new(AT_ONCE)) };
    Router::new().route("/debug/explain", post(explain)).route("/debug/load", get(load)).with_state(debug)
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default = "chat")]
    path: String,
    /// Of an earlier answer, to see the same choice among equals again.
    draw: Option<u64>,
}

fn chat() -> String {
    "/v1/chat/completions".to_owned()
}

/// The body is a request as a client would send it. Nothing is sent anywhere, counted or kept.
async fn explain(
    State(Debug { handler, turns }): State<Debug>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Ok(_turn) = turns.try_acquire() else {
        return (StatusCode::TOO_MANY_REQUESTS, "too many requests are being explained; try again\n").into_response();
    };
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let head = RequestHead { path: &asked.path, content_type, ..RequestHead::default() };
    let draw = asked.draw.unwrap_or_else(|| fastrand::u64(..));
    let explained = match tokio::time::timeout(PATIENCE, read_and_explain(&handler, &head, body, draw)).await {
        Ok(Some(explained)) => explained,
        Ok(None) => return (StatusCode::BAD_REQUEST, "the body ended early\n").into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n").into_response(),
    };
    let Explanation { request, revision, outcome, waits, candidates } = match explained {
        Ok(explanation) => explanation,
        Err(rejection) => return Json(json!({"refused": refused(&rejection)})).into_response(),
    };
    let candidates: Vec<Value> = candidates
        .into_iter()
        .map(|one| {
            let (left_out_by, lacks, verdict) = match one.verdict {
                Explained::LeftOut { by } => (Some(by.as_str()), None, Value::Null),
                Explained::Costs { lacks, cost } => (None, lacks, in_parts(&cost)),
                Explained::Scored { lacks, score, parts } => {
                    let parts = parts.into_iter().map(|(scorer, part)| (scorer.as_str().to_owned(), json!(part)));
                    (None, lacks, json!({"score": score, "scores": parts.collect::<Value>()}))
                }
            };
            json!({
                "tier": one.tier, "pool": one.pool, "target": one.target, "endpoint": one.endpoint,
                "address": one.address.to_string(), "leftOutBy": left_out_by, "lacks": lacks.map(Filter::as_str),
                "costs": verdict,
            })
        })
        .collect();
    let goes_to = outcome.as_ref().ok().map(|plan| {
        let first = plan.first();
        let tokens = first.estimated_tokens();
        json!({
            "endpoint": &*first.endpoint().name, "address": first.address.to_string(), "pool": &**first.pool(),
            "target": first.target.as_deref(), "why": plan.why.to_string(),
            "estimatedTokens": {"all": tokens.all, "media": tokens.media},
            "then": plan.attempts[1..].iter().map(|attempt| attempt.endpoint().to_string()).collect::<Vec<_>>(),
        })
    });
    Json(json!({
        "model": request.model, "needs": request.requires.to_string(), "revision": revision, "draw": draw, "goesTo": goes_to, "waitsFirst": waits,
        "refused": outcome.as_ref().err().map(refused), "candidates": candidates,
    }))
    .into_response()
}

/// A cost in its parts: milliseconds, but for counts of requests and the pace.
fn in_parts(cost: &Cost) -> Value {
    let Cost { work, queued, unread, in_flight, pace } = *cost;
    json!({
        "total": cost.total(), "reading": work.reading, "encoding": work.encoding, "saved": work.saved, "displaced": work.displaced(),
        "asked": work.asked.prefix.max(work.asked.media),
        "queued": queued, "unread": unread, "inFlight": in_flight, "pace": pace,
    })
}

/// Reads a request as it comes, as the edges do; none where the body broke off.
async fn read_and_explain(
    handler: &Arc<RequestHandler>,
    head: &RequestHead<'_>,
    mut body: Body,
    draw: u64,
) -> Option<Result<Explanation, Rejection>> {
    let mut transaction = match handler.open(head) {
        Ok(transaction) => transaction,
        Err(rejection) => return Some(Err(rejection)),
    };
    while let Some(frame) = body.frame().await {
        if let Ok(chunk) = frame.ok()?.into_data()
            && let Err(rejection) = transaction.feed(&chunk)
        {
            return Some(Err(rejection));
        }
    }
    Some(transaction.explain(Instant::now(), Draw::new(draw)))
}

fn refused(rejection: &Rejection) -> Value {
    json!({"status": rejection.status().as_u16(), "code": rejection.code().as_str(), "message": rejection.to_string()})
}

async fn load(State(Debug { handler, .. }): State<Debug>) -> Response {
    let director = &handler.director;
    if director.table().is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no routing table yet\n").into_response();
    }
    let now = Instant::now();
    let rows: Vec<Value> = director.endpoints().iter().map(|endpoint| load_of(endpoint, now)).collect();
    Json(json!({"endpoints": rows, "waiting": director.waiting()})).into_response()
}

/// How busy an endpoint is.
pub(crate) fn load_of(KnownEndpoint { state, address, .. }: &KnownEndpoint, now: Instant) -> Value {
    let (id, load, health) = (state.id(), state.load(now), state.health(now));
    let Load { in_flight, queued, untold, pace, scraped, .. } = load;
    let known = scraped.is_some();
    let Scraped { waiting, running, kv_cache_usage } = scraped.unwrap_or_default();
    json!({
        "pool": &*id.pool, "endpoint": &*id.name, "address": address.to_string(), "inFlight": in_flight,
        "queuedMilliseconds": queued + untold, "pace": pace, "cachedTokens": state.cached_tokens(),
        "running": running, "waiting": waiting, "kvCacheUsage": kv_cache_usage, "known": known,
        "silentSeconds": state.silent_for(now).map(|silent| silent.as_secs()),
        "responsive": health.responsive, "answering": health.answering,
    })
}
