//! One question after the other, each bounded in time and size.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use daemon::Client;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::connect::HttpInfo;
use routing::ERROR_MESSAGES;
use serde_json::Value;
use tokio::time::Instant;

use crate::{Failure, Server, clean};

/// How much one answer may say. What vLLM says of its paths are 400 KB.
const MAX_BYTES: usize = 4 << 20;

/// How long one answer may take. They take milliseconds, and a second where vLLM describes its paths for the first time: one that hangs must not
/// keep what the others say.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Puts questions to one server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) client: &'a Client,
    pub(crate) server: &'a Server,
    pub(crate) key: Option<&'a HeaderValue>,
    /// When all of it has to be done.
    pub(crate) until: Instant,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Null where it is no JSON.
    pub(crate) json: Value,
    /// Empty where it is JSON.
    pub(crate) text: String,
    content_type: String,
    /// Our end of the connection that it came over, which tells connections apart.
    pub(crate) connection: Option<SocketAddr>,
}

impl Asker<'_> {
    pub(crate) async fn get(&self, path: &'static str) -> Result<Answer, Failure> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &'static str, body: &Value) -> Result<Answer, Failure> {
        self.ask(Method::POST, path, Bytes::from(body.to_string())).await
    }

    async fn ask(&self, method: Method, path: &'static str, body: Bytes) -> Result<Answer, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.server.uri(path);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = self.key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        let began = Instant::now();
        let until = self.until.min(began + MAX_WAIT);
        let answered = tokio::time::timeout_at(until, self.answer(path, request)).await;
        answered.unwrap_or_else(|_| Err(Failure::Slow { path, after: round(began.elapsed()) }))
    }

    async fn answer(&self, path: &'static str, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let response = self.client.request(request).await.map_err(|error| {
            let why = innermost(&error);
            if error.is_connect() { Failure::Unreachable(why) } else { Failure::BrokeOff { path, why } }
        })?;
        let status = response.status();
        let connection = response.extensions().get::<HttpInfo>().map(HttpInfo::local_addr);
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().chars().take(64).collect();
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Failure::TooMuch { path, limit: MAX_BYTES }
            } else {
                Failure::BrokeOff { path, why: innermost(error.as_ref()) }
            }
        })?;
        let body = body.to_bytes();
        let (json, text) = match serde_json::from_slice(&body) {
            Ok(json) => (json, String::new()),
            Err(_) => (Value::Null, String::from_utf8_lossy(&body).into_owned()),
        };
        Ok(Answer { status, json, text, content_type, connection })
    }
}

/// What is at the bottom of an error, in words: around it stands which part of a client met it.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let deepest = std::iter::successors(Some(error), |error| error.source()).last().map(ToString::to_string);
    let text = deepest.unwrap_or_default();
    let text = text.split(" (os error").next().unwrap_or_default();
    clean(text, 120).to_lowercase()
}

/// As it is said: a wait of less than a second is one.
fn round(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs().max(1))
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        self.status == StatusCode::OK
    }

    /// The message of an error; of an answer of a shape that is none nothing.
    pub(crate) fn error(&self) -> &str {
        ERROR_MESSAGES.iter().find_map(|place| self.json.pointer(place)?.as_str()).unwrap_or_default()
    }

    /// What it is, where it is not what was expected.
    pub(crate) fn in_words(&self) -> String {
        let Self { status, json, content_type, .. } = self;
        let status = status.as_u16();
        match (json, self.error()) {
            (Value::Null, _) if (300..400).contains(&status) => format!("status {status}, a redirect"),
            (Value::Null, _) if content_type.starts_with("text/html") => format!("status {status} and HTML"),
            (Value::Null, _) => format!("status {status} and no JSON"),
            (_, "") => format!("status {status} and JSON of another shape"),
            (_, message) => format!("status {status}: {}", clean(message, 120)),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(status: u16, json: Value) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap(),
            json,
            text: String::new(),
            content_type: "application/json".into(),
            connection: None,
        }
    }
}
