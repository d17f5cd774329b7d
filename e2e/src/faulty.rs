//! An API server that misbehaves: a proxy before the real one, which refuses, stalls or breaks off as a test says.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream::unfold;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::Cluster;

/// What goes wrong. Every change breaks off what streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every request is answered with this status, as API servers put it.
    Status(u16),
    /// Those alone whose path holds this.
    StatusOf(&'static str, u16),
    /// Watches are told that what they go on from is compacted; everything else works.
    Expired,
    /// Requests are taken and never answered.
    Silence,
    /// Those alone whose path holds this.
    SilenceOf(&'static str),
}

/// The proxy. It ends with its handle.
#[derive(Debug)]
pub struct FaultyApi {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    task: tokio::task::JoinHandle<()>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;

impl FaultyApi {
    /// Starts one that has the rights of our controller.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let client = cluster.controllers_client().await?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let address = listener.local_addr().context("listening")?;
        let (fault, now) = watch::channel(Fault::None);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (client, now) = (client.clone(), now.clone());
                let serve = service_fn(move |request| answer(client.clone(), now.clone(), request));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
                // A connection that breaks is what this is for.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Ok(Self { address, fault, task })
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// A kubeconfig that leads here, written to `folder`.
    pub fn kubeconfig(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join("faulty.kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "faulty",
            "clusters": [{"name": "faulty", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "faulty", "context": {"cluster": "faulty", "user": "nobody"}}],
        });
        std::fs::write(&path, config.to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for FaultyApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    client: Client,
    mut now: watch::Receiver<Fault>,
    request: Request<Incoming>,
) -> Result<Response<Body>, BoxError> {
    let watching = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let fault = *now.borrow_and_update();
    match fault {
        Fault::Status(status) => return refusal(status, "TooManyRequests"),
        // By a status, or, as API servers do it, by an event.
        Fault::Expired if watching && fastrand::bool() => return refusal(410, "Expired"),
        Fault::Expired if watching => {
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"});
            let event = json!({"type": "ERROR", "object": status}).to_string() + "\n";
            let body = Full::new(Bytes::from(event)).map_err(|never| match never {}).boxed_unsync();
            return Ok(Response::builder().header("content-type", "application/json").body(body)?);
        }
        Fault::StatusOf(path, status) if request.uri().path().contains(path) => {
            return refusal(status, "InternalError");
        }
        Fault::SilenceOf(path) if request.uri().path().contains(path) => return std::future::pending().await,
        Fault::None | Fault::Expired | Fault::StatusOf(..) | Fault::SilenceOf(_) => {}
        Fault::Silence => return std::future::pending().await,
    }
    let (mut parts, body) = request.into_parts();
    parts.headers.remove("host");
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    parts.uri = path;
    let body = body.collect().await?.to_bytes();
    let response = client.send(Request::from_parts(parts, body.to_vec().into())).await?;
    let (mut parts, body) = response.into_parts();
    parts.headers.remove("transfer-encoding");
    let frames = unfold((body, now), async |(mut body, mut now)| {
        let frame = tokio::select! {
            frame = body.frame() => frame?.map_err(BoxError::from),
            _ = now.changed() => Err(BoxError::from("the line is cut")),
        };
        Some((frame.map(|frame| Frame::data(frame.into_data().unwrap_or_default())), (body, now)))
    });
    Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()))
}

fn refusal(code: u16, reason: &str) -> Result<Response<Body>, BoxError> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": "the test says so"});
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {}).boxed_unsync();
    let response = Response::builder().status(code).header("content-type", "application/json");
    Ok(response.header("retry-after", "1").body(body)?)
}
