//! The server: every operation, health, models, metrics.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http_body_util::BodyExt as _;
use routing::Operation;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::jobs::Jobs;
use crate::metrics::{Metrics, Serving};
use crate::responses::Responses;
use crate::{ModelSpec, reading, refusal};

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
    /// Those that it has now.
    models: Mutex<Arc<[ModelSpec]>>,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    jobs: Jobs,
    responses: Responses,
}

/// Where vLLM, vLLM-Omni and SGLang serve each operation.
const PATHS: [(&str, Operation); 24] = [
    ("/v1/chat/completions", Operation::ChatCompletions),
    ("/v1/completions", Operation::Completions),
    ("/v1/responses", Operation::Responses),
    ("/v1/messages", Operation::Messages),
    ("/v1/messages/count_tokens", Operation::Messages),
    ("/v1/embeddings", Operation::Embeddings),
    ("/pooling", Operation::Pooling),
    ("/classify", Operation::Classify),
    ("/score", Operation::Score),
    ("/v1/score", Operation::Score),
    ("/rerank", Operation::Rerank),
    ("/v1/rerank", Operation::Rerank),
    ("/v2/rerank", Operation::Rerank),
    ("/v1/audio/transcriptions", Operation::Transcriptions),
    ("/v1/audio/translations", Operation::Translations),
    ("/v1/audio/speech", Operation::Speech),
    ("/v1/images/generations", Operation::ImageGenerations),
    ("/v1/images/edits", Operation::ImageEdits),
    ("/v1/videos", Operation::Videos),
    ("/tokenize", Operation::Tokenize),
    ("/detokenize", Operation::Tokenize),
    ("/v1/videos/sync", Operation::Videos),
    ("/inference/v1/generate", Operation::Generate),
    ("/generate", Operation::Generate),
];

/// The release of vLLM that it is held against.
const VERSION: &str = "0.32.0";

/// Where its models are replaced; for tests in which a server becomes another without a sign.
const MODELS: &str = "/sim/models";

/// Lets one request take longer than the others; for tests that need it under way.
const LATENCY_HEADER: &str = "x-sim-latency-ms";

/// How many requests were started before this one.
const PLACE: HeaderName = HeaderName::from_static("x-sim-place");

/// Who answered; the same stands in the answer's `sim.server`.
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

impl Sim {
    pub fn new(options: Options) -> Self {
        let slots = Arc::new(Semaphore::new(options.slots.max(1)));
        Self(Arc::new(Inner {
            models: Mutex::new(options.models.clone().into()),
            options,
            slots,
            metrics: Arc::default(),
            jobs: Jobs::default(),
            responses: Responses::default(),
        }))
    }

    /// Serves until `stop` is cancelled and the requests under way are done.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        let serve = axum::serve(listener, self.router()).with_graceful_shutdown(stop.cancelled_owned());
        serve.await.context("the model server simulator failed")
    }

    pub(crate) fn router(self) -> Router {
        let mut router = Router::new()
            .route("/health", get(async || ""))
            .route("/metrics", get(metrics))
            .route("/v1/models", get(models))
            .route("/version", get(async || Json(json!({"version": VERSION}))))
            .route("/openapi.json", get(mounted))
            .route(MODELS, put(replace_models))
            .route("/v1/realtime", get(realtime))
            .route("/v1/videos/{id}", get(show_job).delete(delete_job))
            .route("/v1/videos/{id}/content", get(job_content))
            .route("/v1/responses/{id}", get(show_response));
        for (path, operation) in self.mounted() {
            let serve = move |sim, uri, headers, body| generate(operation, sim, uri, headers, body);
            router = router.route(path, post(serve));
        }
        router
            .fallback(async || refusal::not_mounted())
            .method_not_allowed_fallback(async || refusal::not_allowed())
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(self)
    }

    /// What some model of this server is for: vLLM mounts no path but those.
    fn mounted(&self) -> impl Iterator<Item = (&'static str, Operation)> {
        let models = &self.0.options.models;
        PATHS.into_iter().filter(|(_, one)| models.iter().any(|model| model.capability.operations.contains(*one)))
    }

    fn models(&self) -> Arc<[ModelSpec]> {
        Arc::clone(&self.0.models.lock().unwrap_or_else(PoisonError::into_inner))
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

async fn metrics(State(sim): State<Sim>) -> String {
    let models = sim.models();
    let model = models.first().map_or("", |model| &*model.name);
    sim.0.metrics.text(model, sim.0.options.slots)
}

/// It has these from now on, in the words of `--model`, and goes on as if nothing had been.
async fn replace_models(State(sim): State<Sim>, Json(models): Json<Vec<String>>) -> Response {
    match models.iter().map(|model| model.parse()).collect::<Result<Arc<[ModelSpec]>, String>>() {
        Ok(models) => {
            *sim.0.models.lock().unwrap_or_else(PoisonError::into_inner) = models;
            StatusCode::NO_CONTENT.into_response()
        }
        Err(why) => (StatusCode::BAD_REQUEST, why).into_response(),
    }
}

/// What FastAPI says of itself: every path, with its methods.
async fn mounted(State(sim): State<Sim>) -> Json<Value> {
    let paths: Map<String, Value> = sim.mounted().map(|(path, _)| (path.to_owned(), json!({"post": {}}))).collect();
    Json(json!({"openapi": "3.1.0", "info": {"title": "FastAPI", "version": "0.1.0"}, "paths": paths}))
}

async fn models(State(sim): State<Sim>) -> Json<Value> {
    let model = |model: &ModelSpec| json!({"id": model.name, "object": "model", "created": 0, "owned_by": "vllm", "root": model.name, "parent": null, "max_model_len": model.limits.context()});
    Json(json!({"object": "list", "data": sim.models().iter().map(model).collect::<Vec<_>>()}))
}

async fn generate(operation: Operation, State(sim): State<Sim>, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let mut serving = Serving::arrived(&sim.0.metrics);
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return serving.refuse(refusal::bad_json(&error)),
    };
    let request = match reading::read(operation, &headers, &body).await {
        Ok(request) => request,
        Err(error) => return serving.refuse(refusal::bad_json(&error)),
    };
    let models = sim.models();
    let model = match refusal::admit(&models, &request) {
        Ok(model) => model,
        Err(refused) => return serving.refuse(refused),
    };
    if let Err(refused) = refusal::within_limits(model, &request) {
        return serving.refuse(refused);
    }
    let model = model.name.clone();
    if let Some(previous) = request.previous.as_deref().filter(|previous| !sim.0.responses.know(previous)) {
        return serving.refuse(crate::responses::unknown(previous));
    }
    let latency = sim.latency(&headers);
    let slots = Arc::clone(&sim.0.slots);
    let slot = slots.acquire_owned().await.expect("nobody closes the semaphore");
    let place = serving.start(slot);
    let (name, size) = (&sim.0.options.name, body.len());
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    let facts = json!({"server": name, "requires": request.requires.to_string(), "bytes": size, "files": request.files,
        "digest": digest([&*body]), "headers": names, "traceparent": traceparent});
    let said = format!("{name} took {}", request.requires.input);
    let id = if operation == Operation::Responses { sim.0.responses.make(name) } else { String::new() };
    let answer = Answer {
        id: &id,
        operation,
        counts_only: uri.path().ends_with("/count_tokens"),
        gives_audio: Answer::gives(request.requires.output),
        model: &model,
        said: &said,
        facts: &facts,
    };
    let mut response = if request.stream && operation != Operation::Speech {
        stream(answer.events(), latency, serving)
    } else {
        tokio::time::sleep(latency).await;
        serving.finish();
        if answer.is_binary() {
            ([(header::CONTENT_TYPE, "audio/wav")], crate::answer::wav()).into_response()
        } else if operation == Operation::Videos {
            let mut job = sim.0.jobs.make(name, &model);
            job["sim"] = facts;
            Json(job).into_response()
        } else {
            Json(answer.json()).into_response()
        }
    };
    if let Ok(name) = name.parse() {
        response.headers_mut().insert(SERVED_BY, name);
    }
    response.headers_mut().insert(PLACE, place.into());
    response
}

/// Server-sent events, the latency spread over them.
fn stream(events: Vec<String>, latency: Duration, serving: Serving) -> Response {
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

async fn show_job(State(Sim(sim)): State<Sim>, Path(id): Path<String>) -> Response {
    sim.jobs.show(&id)
}

async fn show_response(State(Sim(sim)): State<Sim>, Path(id): Path<String>) -> Response {
    sim.responses.show(&id)
}

async fn delete_job(State(Sim(sim)): State<Sim>, Path(id): Path<String>) -> Response {
    sim.jobs.delete(&id)
}

async fn job_content(State(Sim(sim)): State<Sim>, Path(id): Path<String>) -> Response {
    sim.jobs.content(&id)
}

async fn realtime(
    State(Sim(sim)): State<Sim>,
    Query(query): Query<BTreeMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let model = query.get("model").cloned().unwrap_or_default();
    let name = sim.options.name.clone();
    upgrade.on_upgrade(move |socket| crate::realtime::talk(socket, name, model))
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
