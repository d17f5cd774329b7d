//! A model server that reads what it is sent and answers the same to everybody: it costs those in front of it as little as can be.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Begins to serve at this address of the machine.
pub(super) async fn start(address: &str) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0)).await.with_context(|| format!("listening at {address}"))?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    Ok(address)
}

/// What routers ask at their start they find in it as well.
const ANSWER: &str = r#"{"id":"1","object":"chat.completion","model_path":"m","data":[{"id":"m","object":"model"}],"choices":[{"index":0,"message":{"role":"assistant","content":"Yes."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

const METRICS: &str = "vllm:num_requests_running{model_name=\"m\"} 0\nvllm:num_requests_waiting{model_name=\"m\"} 0\n\
    vllm:kv_cache_usage_perc{model_name=\"m\"} 0\n";

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let asks_for_metrics = request.uri().path() == "/metrics";
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let (kind, content) = if asks_for_metrics { ("text/plain", METRICS) } else { ("application/json", ANSWER) };
    let mut response = Response::new(Full::new(Bytes::from_static(content.as_bytes())));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    Ok(response)
}
