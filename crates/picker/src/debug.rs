//! `/debug/explain` and `/debug/load`: what the picker would do with a request, and how busy its endpoints are, as JSON for tools.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, response::IntoResponse, response::Response};
use director::{Destination, Director, Explanation, Front, Rejection};
use http_body_util::BodyExt as _;
use request::{InferenceRequest, RequestHead};
use routing::Draw;
use scheduling::Explained;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// How many requests are explained at once. They are held by the same budget as the traffic, and must leave it nearly all.
const AT_ONCE: usize = 2;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
struct Debug {
    front: Front,
    turns: Arc<Semaphore>,
}

/// The routes, for the admin port.
pub(crate) fn routes(front: Front) -> Router {
    let debug = Debug { front, turns: Arc::new(Semaphore::new(AT_ONCE)) };
    Router::new().route("/debug/explain", post(explain)).route("/debug/load", get(load)).with_state(debug)
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default = "chat")]
    path: String,
}

fn chat() -> String {
    "/v1/chat/completions".to_owned()
}

/// The body is a request as a client would send it. Nothing is sent anywhere, counted or kept.
async fn explain(
    State(Debug { front, turns }): State<Debug>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Ok(_turn) = turns.try_acquire() else {
        return (StatusCode::TOO_MANY_REQUESTS, "other requests are being explained; ask again\n").into_response();
    };
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let head = RequestHead { path: &asked.path, content_type, ..RequestHead::default() };
    let read = tokio::time::timeout(PATIENCE, read(&front, &head, body)).await;
    let request = match read {
        Ok(Ok(Some(request))) => request,
        Ok(Ok(None)) => return (StatusCode::BAD_REQUEST, "the body broke off\n").into_response(),
        Ok(Err(rejection)) => return Json(json!({"refused": refused(&rejection)})).into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n").into_response(),
    };
    // The draw is of no secret: who asks again may see another of equals.
    let draw = Draw::new(fastrand::u64(..));
    let Explanation { need, revision, outcome, candidates } = front.director.explain(&request, Instant::now(), draw);
    let candidates: Vec<Value> = candidates
        .into_iter()
        .map(|one| {
            let (left_out_by, score, scores) = match one.verdict {
                Explained::LeftOut { by } => (Some(by), None, Value::Null),
                Explained::Scored { score, parts } => {
                    (None, Some(score), parts.into_iter().map(|(name, part)| (name.to_owned(), json!(part))).collect())
                }
            };
            json!({
                "tier": one.tier, "pool": one.pool, "target": one.target, "endpoint": one.endpoint,
                "address": one.address.to_string(), "leftOutBy": left_out_by, "score": score, "scores": scores,
            })
        })
        .collect();
    let goes_to = outcome.as_ref().ok().map(|Destination { endpoint, address, pool, target, why }| {
        json!({"endpoint": endpoint, "address": address.to_string(), "pool": pool, "target": target, "why": why})
    });
    Json(json!({
        "model": request.model, "needs": need.to_string(), "revision": revision, "goesTo": goes_to,
        "refused": outcome.as_ref().err().map(refused), "candidates": candidates,
    }))
    .into_response()
}

/// Reads a request as it comes, as the edges do; none where the body broke off.
async fn read(front: &Front, head: &RequestHead<'_>, mut body: Body) -> Result<Option<InferenceRequest>, Rejection> {
    let mut intake = front.intake(head)?;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ok(None) };
        if let Ok(chunk) = frame.into_data() {
            intake.feed(chunk)?;
        }
    }
    Ok(Some(intake.finish()?.0))
}

fn refused(rejection: &Rejection) -> Value {
    json!({"status": rejection.status().as_u16(), "code": rejection.code().as_str(), "message": rejection.to_string()})
}

async fn load(State(Debug { front, .. }): State<Debug>) -> Response {
    let Some((_, table)) = front.director.table() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "no routing table yet\n").into_response();
    };
    let director: &Arc<Director> = &front.director;
    let rows: Vec<Value> = table
        .pools
        .iter()
        .flat_map(|(pool, endpoints)| endpoints.endpoints.iter().map(move |(name, endpoint)| (pool, name, endpoint)))
        .map(|(pool, name, endpoint)| {
            let load = director.board().load(endpoint.address);
            json!({
                "pool": &**pool, "endpoint": &**name, "address": endpoint.address.to_string(), "inFlight": load.in_flight,
                "running": load.running, "waiting": load.waiting, "kvCacheUsage": load.kv_cache_usage,
                "silentSeconds": load.silent_since.map(|since| since.elapsed().as_secs()), "known": load.scraped_at.is_some(),
            })
        })
        .collect();
    Json(json!({"endpoints": rows})).into_response()
}
