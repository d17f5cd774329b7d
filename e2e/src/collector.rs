//! A real OpenTelemetry collector, which passes on to this program what it was told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{Client, Port, Process, eventually};

/// The collector. It ends with its handle.
#[derive(Debug)]
pub struct Collector {
    pub process: Process,
    pub grpc: Port,
    pub http: Port,
    told: Arc<Mutex<Told>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Told {
    spans: Vec<Span>,
    /// All of it, as it came.
    text: String,
}

/// A span as the collector passed it on.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty where it has none.
    pub parent: String,
    /// 2 is a server's, 3 a client's (opentelemetry-proto, `SpanKind`).
    pub kind: u64,
    /// In nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    /// Of the process that told it, which the span's own come after.
    pub attributes: BTreeMap<String, String>,
    pub events: Vec<String>,
    pub is_error: bool,
}

impl Collector {
    pub async fn start(folder: &Path) -> Result<Self> {
        let program = crate::tools::collector()?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let here = listener.local_addr().context("listening")?;
        let told: Arc<Mutex<Told>> = Arc::default();
        let task = tokio::spawn(listen(listener, Arc::clone(&told)));
        // It cannot say which ports it was given.
        let (grpc, http) = (Port::hold()?, Port::hold()?);
        let config = json!({
            "receivers": {"otlp": {"protocols": {
                "grpc": {"endpoint": grpc.to_string()}, "http": {"endpoint": http.to_string()}}}},
            "exporters": {"otlp_http": {
                "endpoint": format!("http://{here}"), "encoding": "json", "compression": "none",
                // Each as it comes.
                "sending_queue": {"batch": Value::Null}}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_http"]}}},
        });
        let process = Process::start(folder, "collector", &program, &[format!("--config=yaml:{config}")], &[])?;
        eventually("the collector listens", async || {
            let answer = Client::new(http.address()).get("/").await.with_context(|| process.tail())?;
            ensure!(answer.status == 404, "{}", answer.shown());
            Ok(())
        })
        .await?;
        Ok(Self { process, grpc, http, told, task })
    }

    /// The spans that it was told of so far.
    pub fn spans(&self) -> Vec<Span> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).spans.clone()
    }

    /// All that it was told, as text.
    pub fn text(&self) -> String {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, told: Arc<Mutex<Told>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let told = Arc::clone(&told);
        let serve = service_fn(move |request| take(request, Arc::clone(&told)));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
        tokio::spawn(async move { drop(connection.await) });
    }
}

async fn take(request: Request<Incoming>, told: Arc<Mutex<Told>>) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Ok(body) = request.into_body().collect().await {
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.spans.extend(spans(&serde_json::from_str(&text).unwrap_or_default()));
        told.text += &text;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The spans of an `ExportTraceServiceRequest`.
fn spans(request: &Value) -> Vec<Span> {
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for resource in all(&request["resourceSpans"]) {
        let shared = attributes(&resource["resource"]["attributes"]);
        for span in all(&resource["scopeSpans"]).iter().flat_map(|scope| all(&scope["spans"])) {
            let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
            let mut attributes_of_all = shared.clone();
            attributes_of_all.extend(attributes(&span["attributes"]));
            found.push(Span {
                name: text("name"),
                trace: text("traceId"),
                id: text("spanId"),
                parent: text("parentSpanId"),
                kind: span["kind"].as_u64().unwrap_or_default(),
                start: text("startTimeUnixNano").parse().unwrap_or_default(),
                end: text("endTimeUnixNano").parse().unwrap_or_default(),
                attributes: attributes_of_all,
                events: all(&span["events"]).iter().map(|event| event["name"].to_string()).collect(),
                is_error: span["status"]["code"] == 2,
            });
        }
    }
    found
}

fn attributes(listed: &Value) -> BTreeMap<String, String> {
    let shown = |value: &Value| {
        let value = value.as_object().and_then(|value| value.values().next()).unwrap_or(&Value::Null);
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    let listed = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    listed.iter().map(|one| (one["key"].as_str().unwrap_or_default().to_owned(), shown(&one["value"]))).collect()
}
