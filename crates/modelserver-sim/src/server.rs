//! The server: chat, completions, embeddings, health, models, metrics.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::BodyExt as _;
use routing::Modality;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, Serving};
use crate::reading::{self, Reading};
use crate::{ModelSpec, refusal};

/// What a simulated server is.
#[derive(Debug, Clone)]
pub struct Options {
    pub name: String,
    pub models: Vec<ModelSpec>,
    pub latency: Duration,
    pub slots: usize,
}

/// A simulated model server.
#[derive(Debug, Clone)]
pub struct Sim(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// Lets one request take longer than the others; for tests that need it under way.
const LATENCY_HEADER: &str = "x-sim-latency-ms";

/// Who answered; the same stands in the answer's `sim.server`.
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

impl Sim {
    pub fn new(options: Options) -> Self {
        let slots = Arc::new(Semaphore::new(options.slots.max(1)));
        Self(Arc::new(Inner { options, slots, metrics: Arc::default() }))
    }

    /// Serves until `stop` is cancelled and the requests under way are done.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        let serve = axum::serve(listener, self.router()).with_graceful_shutdown(stop.cancelled_owned());
        serve.await.context("the model server simulator failed")
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/health", get(async || ""))
            .route("/metrics", get(metrics))
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(generate))
            .route("/v1/completions", post(generate))
            .route("/v1/embeddings", post(generate))
            .fallback(async || (axum::http::StatusCode::NOT_FOUND, Json(json!({"detail": "Not Found"}))))
            .with_state(self)
    }

    fn latency(&self, headers: &HeaderMap) -> Duration {
        let asked =
            headers.get(LATENCY_HEADER).and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
        asked.map_or(self.0.options.latency, Duration::from_millis)
    }
}

/// A fingerprint of a body, to see whether it arrived as it was sent.
pub fn digest<'b>(chunks: impl IntoIterator<Item = &'b [u8]>) -> String {
    let mut hasher = DefaultHasher::new();
    chunks.into_iter().for_each(|chunk| hasher.write(chunk));
    format!("{:016x}", hasher.finish())
}

async fn metrics(State(Sim(sim)): State<Sim>) -> String {
    let model = sim.options.models.first().map_or("", |model| &*model.name);
    sim.metrics.text(model, sim.options.slots)
}

async fn models(State(Sim(sim)): State<Sim>) -> Json<Value> {
    let model = |model: &ModelSpec| json!({"id": model.name, "object": "model", "created": 0, "owned_by": "vllm", "root": model.name, "parent": null});
    Json(json!({"object": "list", "data": sim.options.models.iter().map(model).collect::<Vec<_>>()}))
}

async fn generate(State(sim): State<Sim>, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let mut serving = Serving::arrived(&sim.0.metrics);
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return serving.refuse(refusal::bad_json(&error)),
    };
    let request = match serde_json::from_slice(&body) {
        Ok(json) => reading::read(uri.path(), &json),
        Err(error) => return serving.refuse(refusal::bad_json(&error)),
    };
    let model = match refusal::admit(&sim.0.options.models, &request) {
        Ok(model) => model.name.clone(),
        Err(refused) => return serving.refuse(refused),
    };
    let latency = sim.latency(&headers);
    let slots = Arc::clone(&sim.0.slots);
    let slot = slots.acquire_owned().await.expect("nobody closes the semaphore");
    serving.start(slot);
    let (name, size) = (&sim.0.options.name, body.len());
    let facts =
        json!({"server": name, "requires": request.requires.to_string(), "bytes": size, "digest": digest([&*body])});
    let said = format!("{name} took {}", request.requires.input);
    let mut response = if request.stream {
        stream(&model, &said, latency, &facts, serving)
    } else {
        tokio::time::sleep(latency).await;
        serving.finish();
        Json(answer(uri.path(), &request, &model, &said, &facts)).into_response()
    };
    if let Ok(name) = name.parse() {
        response.headers_mut().insert(SERVED_BY, name);
    }
    response
}

fn answer(path: &str, request: &Reading, model: &str, said: &str, facts: &Value) -> Value {
    let usage = json!({"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12});
    let mut answer = match path {
        "/v1/embeddings" => {
            json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2, 0.3]}]})
        }
        "/v1/completions" => {
            json!({"object": "text_completion", "choices": [{"index": 0, "text": said, "finish_reason": "stop"}]})
        }
        _ => {
            let mut message = json!({"role": "assistant", "content": said});
            if request.requires.output.contains(Modality::Audio) {
                message["audio"] = json!({"id": "audio-sim", "data": "UklGRg==", "transcript": said, "expires_at": 0});
            }
            json!({"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        }
    };
    answer["id"] = json!("sim-0");
    answer["created"] = json!(0);
    answer["model"] = json!(model);
    answer["usage"] = usage;
    answer["sim"] = facts.clone();
    answer
}

/// Server-sent events: a word at a time, the latency spread over them, then `[DONE]`.
fn stream(model: &str, said: &str, latency: Duration, facts: &Value, serving: Serving) -> Response {
    let event = |delta: Value, finish: Option<&str>| {
        let chunk = json!({"id": "sim-0", "object": "chat.completion.chunk", "created": 0, "model": model, "sim": facts,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
        format!("data: {chunk}\n\n")
    };
    let mut events: Vec<String> = said.split_inclusive(' ').map(|word| event(json!({"content": word}), None)).collect();
    events.push(event(json!({}), Some("stop")));
    events.push("data: [DONE]\n\n".to_owned());
    let pause = latency / u32::try_from(events.len()).unwrap_or(u32::MAX);
    let words = futures::stream::unfold((events.into_iter(), serving), move |(mut events, mut serving)| async move {
        let Some(event) = events.next() else {
            serving.finish();
            return None;
        };
        tokio::time::sleep(pause).await;
        Some((Ok::<_, Infallible>(Bytes::from(event)), (events, serving)))
    });
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], Body::from_stream(words)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use axum::http::Request;
    use tower::ServiceExt as _;

    async fn ask(model: &str, body: &str) -> (u16, Value) {
        let options =
            Options { name: "sim-a".into(), models: vec![model.parse().unwrap()], latency: Duration::ZERO, slots: 2 };
        let request = Request::post("/v1/chat/completions").body(Body::from(body.to_owned())).unwrap();
        let response = Sim::new(options).router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap())
    }

    const AUDIO: &str = r#"{"model":"m","messages":[{"content":[{"input_audio":{"data":"AA"}}]}]}"#;

    #[tokio::test]
    async fn it_names_itself_and_what_it_got() {
        let (status, answer) = ask("m=text", r#"{"model":"m","messages":[{"content":"hi"}]}"#).await;
        assert_eq!(
            (status, &answer["sim"]["server"], &answer["choices"][0]["message"]["content"]),
            (200, &json!("sim-a"), &json!("sim-a took text"))
        );
    }

    #[tokio::test]
    async fn it_refuses_in_vllms_words() {
        let (status, answer) = ask("m=text", AUDIO).await;
        assert_eq!((status, &answer["error"]["message"]), (400, &json!("m is not a multimodal model")));
        let (status, answer) = ask("m=text,image", AUDIO).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("audio")));
        assert_eq!(answer["error"]["message"], "At most 0 audio(s) may be provided in one prompt. (parameter=audio)");
        let (status, answer) = ask("n=text", AUDIO).await;
        assert_eq!(
            (status, &answer["error"]["message"]),
            (404, &json!("The model `m` does not exist. Valid aliases: n."))
        );
    }
}
