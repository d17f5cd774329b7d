//! `/debug/explain` and `/debug/load`: what the picker would do with a request, and how busy its endpoints are, as JSON for tools.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, response::IntoResponse, response::Response};
use director::{Destination, Director, Explanation, Front, Rejection};
use request::RequestHead;
use routing::Draw;
use scheduling::Explained;
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes, for the admin port.
pub(crate) fn routes(front: Front) -> Router {
    let largest = usize::try_from(front.limits.max_body_bytes).unwrap_or(usize::MAX);
    Router::new()
        .route("/debug/explain", post(explain).layer(DefaultBodyLimit::max(largest)))
        .route("/debug/load", get(load))
        .with_state(front)
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
    State(front): State<Front>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Json<Value> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let head = RequestHead { path: &asked.path, content_type, ..RequestHead::default() };
    let read = || {
        let mut intake = front.intake(&head)?;
        intake.feed(body)?;
        Ok::<_, Rejection>(intake.finish()?.0)
    };
    let request = match read() {
        Ok(request) => request,
        Err(rejection) => return Json(json!({"refused": refused(&rejection)})),
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
}

fn refused(rejection: &Rejection) -> Value {
    json!({"status": rejection.status().as_u16(), "code": rejection.code().as_str(), "message": rejection.to_string()})
}

async fn load(State(front): State<Front>) -> Response {
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
