//! What a picker's admin port says to those who ask it for a person.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// No more of what is no answer is shown.
const SHOWN: usize = 512;

/// Asks; the answer is JSON.
pub async fn over_http(request: Request<Full<Bytes>>) -> Result<Value> {
    json_of(Client::builder(TokioExecutor::new()).build_http().request(request).await?).await
}

/// What an answer says.
///
/// # Errors
/// Where it is one of failure, with its words, or no JSON.
pub async fn json_of(response: Response<Incoming>) -> Result<Value> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).trim());
    serde_json::from_slice(&body).context("the answer is not JSON")
}
