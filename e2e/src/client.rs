//! A client of the gateway, as plain as can be.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Sends requests to one address.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, http: hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.into()).await
    }

    /// A chat request.
    pub async fn chat(&self, body: &Value) -> Result<Answer> {
        self.post("/v1/chat/completions", body.to_string()).await
    }

    /// A chat request over a connection of its own, that a simulated server takes ten minutes over. Its client hangs up when this is dropped.
    pub async fn held_chat(&self, body: &Value) -> Result<TcpStream> {
        let body = body.to_string();
        let mut client = TcpStream::connect(self.address).await?;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nx-sim-latency-ms: 600000\r\n\r\n{body}",
            body.len()
        );
        client.write_all(head.as_bytes()).await?;
        Ok(client)
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).context("building a request")?;
        let response = self.http.request(request).await.with_context(|| format!("asking {}", self.address))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.context("reading the answer")?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The sum of these lines, of metrics in Prometheus's text format.
    pub fn sum(&self, is_counted: impl Fn(&str) -> bool) -> Result<f64> {
        let text = self.text();
        let number = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        let counted = text.lines().filter(|line| is_counted(line));
        counted.map(|line| number(line).with_context(|| format!("no number: {line}"))).sum()
    }

    /// The pod that answered, by its own word.
    pub fn server(&self) -> Option<String> {
        self.json()["sim"]["server"].as_str().map(str::to_owned)
    }

    /// `<status> <pod>`, or `<status> <code>: <message>`.
    pub fn shown(&self) -> String {
        match self.server() {
            Some(server) => format!("{} {server}", self.status),
            None => {
                let json = self.json();
                let part = |key: &str| json["error"][key].as_str().unwrap_or("?").to_owned();
                if json["error"].is_object() {
                    format!("{} {}: {}", self.status, part("code"), part("message"))
                } else {
                    format!("{} {}", self.status, self.text())
                }
            }
        }
    }
}
