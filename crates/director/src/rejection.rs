//! Why a request was refused: one value, rendered as an HTTP error, a metric label and a log line.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use request::{PartPath, Unreadable};
use routing::{NoRoute, Requirement};
use scheduling::{Covers, Exhausted, InSubset};
use serde_json::json;

use crate::MediaRefusal;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),

    #[error("no more of the body came for {} seconds", waited.as_secs())]
    Stalled { waited: Duration },

    #[error("the body was not complete after {} seconds", limit.as_secs())]
    TooSlow { limit: Duration },

    #[error("{no_route}")]
    NoRoute {
        no_route: NoRoute,
        /// The first part that nothing takes.
        part: Option<PartPath>,
    },

    #[error(transparent)]
    Media(MediaRefusal),

    #[error("{}", no_endpoints(model.as_deref(), pools, *need, *exhausted))]
    NoEndpoints { model: Option<String>, pools: Vec<String>, need: Requirement, exhausted: Exhausted },

    #[error("every endpoint that could take this is saturated, and {} is sheddable", model.as_deref().unwrap_or("the request"))]
    Saturated { model: Option<String>, pools: Vec<String> },

    #[error("this picker has no routing table yet: it has not heard from its controller")]
    NotSynced,

    #[error("the body broke off before its end")]
    Incomplete,

    #[error("the endpoint broke off before it answered; it may have worked on the request")]
    BrokenOff,

    #[error("none of the endpoints tried for this ({tried}) could be reached")]
    Unreachable { tried: usize },
}

/// An error as OpenAI's clients read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    /// JSON.
    pub body: Bytes,
}

impl Rejection {
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Unreadable(Unreadable::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable(Unreadable::ContentType(_)) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Stalled { .. } | Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoute { no_route: NoRoute::UnknownModel { .. } | NoRoute::NothingServed, .. } => {
                StatusCode::NOT_FOUND
            }
            Self::Unreadable(_) | Self::NoRoute { .. } | Self::Media(_) | Self::Incomplete => StatusCode::BAD_REQUEST,
            Self::BrokenOff => StatusCode::BAD_GATEWAY,
            Self::Saturated { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NoEndpoints { .. } | Self::NotSynced | Self::Unreachable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A stable word: the `code` of the error and the label of the metric.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(Unreadable::TooLarge { .. }) => "request_too_large",
            Self::Unreadable(Unreadable::ContentType(_)) => "unsupported_content_type",
            Self::Unreadable(_) | Self::Incomplete => "invalid_body",
            Self::Stalled { .. } => "body_stalled",
            Self::TooSlow { .. } => "body_too_slow",
            Self::NoRoute { no_route: NoRoute::UnknownModel { .. }, .. } => "model_not_found",
            Self::NoRoute { no_route: NoRoute::Uncovered { .. }, .. } => "unsupported_modality",
            Self::NoRoute { no_route: NoRoute::NoModelNamed, .. } => "model_required",
            Self::NoRoute { no_route: NoRoute::NothingServed, .. } => "nothing_served",
            Self::Media(refusal) => refusal.cause.code(),
            Self::NoEndpoints { .. } => "no_endpoint",
            Self::Saturated { .. } => "saturated",
            Self::NotSynced => "not_ready",
            Self::Unreachable { .. } => "endpoint_unreachable",
            Self::BrokenOff => "endpoint_broke_off",
        }
    }

    /// Whether the client is at fault; else it is the servers.
    pub fn is_clients_fault(&self) -> bool {
        self.status().is_client_error() && self.status() != StatusCode::TOO_MANY_REQUESTS
    }

    /// When to try again, where trying again may help.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoEndpoints { .. } | Self::NotSynced | Self::Unreachable { .. } => Some(Duration::from_secs(5)),
            Self::Saturated { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// The field at fault.
    pub fn param(&self) -> Option<String> {
        match self {
            Self::Unreadable(unreadable) => unreadable.param().map(str::to_owned),
            Self::NoRoute { no_route: NoRoute::UnknownModel { .. } | NoRoute::NoModelNamed, .. } => {
                Some("model".into())
            }
            Self::NoRoute { no_route: NoRoute::Uncovered { missing, .. }, part } => match part {
                Some(part) => Some(part.to_string()),
                None if missing.input.is_empty() && !missing.output.is_empty() => Some("modalities".into()),
                None => Some("model".into()),
            },
            Self::Media(refusal) => Some(refusal.at.to_string()),
            _ => None,
        }
    }

    /// The error in OpenAI's shape: <https://platform.openai.com/docs/guides/error-codes>.
    pub fn error_body(&self) -> ErrorBody {
        let kind = match self.status() {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let error =
            json!({"error": {"message": self.to_string(), "type": kind, "param": self.param(), "code": self.reason()}});
        ErrorBody { status: self.status(), retry_after: self.retry_after(), body: Bytes::from(error.to_string()) }
    }
}

fn no_endpoints(model: Option<&str>, pools: &[String], need: Requirement, exhausted: Exhausted) -> String {
    let what = model.map_or_else(|| "this request".to_owned(), |model| format!("model {model:?}"));
    let place = match pools {
        [] => String::new(),
        [pool] => format!(" in pool {pool}"),
        pools => format!(" in pools {}", pools.join(", ")),
    };
    match exhausted {
        Exhausted::Filtered(Covers::NAME) => {
            format!("no ready endpoint for {what}{place} takes {} now", need.input.in_words())
        }
        Exhausted::Filtered(InSubset::NAME) => format!("no endpoint that the gateway allows can take {what}{place}"),
        Exhausted::Filtered(_) | Exhausted::NoEndpoints => format!("no endpoint is ready for {what}{place}"),
    }
}
