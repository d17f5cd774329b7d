//! Why a request was refused: one value, rendered as an HTTP error, a metric label and a log line.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use request::{Owned, OwnedKind, PartPath, Unreadable};
use routing::{Exceeded, ModelName, NoRoute, PoolName, Requirement};
use scheduling::{Exhausted, Filter};
use serde_json::json;

use crate::{Code, MediaRefusal, Reply};

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),

    #[error("the request head is ambiguous: {0}")]
    AmbiguousHead(&'static str),

    #[error("the request head is larger than {limit} bytes")]
    HeadTooLarge { limit: usize },

    #[error("the request has more than {limit} headers")]
    TooManyHeaders { limit: usize },

    #[error("nothing more of the body arrived for {} seconds", waited.as_secs())]
    Stalled { waited: Duration },

    #[error("the body was not complete after {} seconds", limit.as_secs())]
    TooSlow { limit: Duration },

    #[error("the body came at less than {} KiB a second while this picker holds nearly as much as it may", rate >> 10)]
    GivesWay { rate: u64 },

    #[error("the body does not fit in what this picker may hold at once, {limit} bytes; try again in a moment")]
    Overloaded { limit: u64 },

    #[error("nothing is served under this path")]
    UnknownPath,

    #[error("{0}")]
    WebSocket(&'static str),

    #[error("{no_route}{}", if *is_document { "; pages of a document are read as pictures" } else { "" })]
    NoRoute {
        no_route: NoRoute,
        /// The first part that nothing takes.
        part: Option<PartPath>,
        /// Whether that part is a document.
        is_document: bool,
        /// Whether the output that is asked for stands in a field, and not in the path.
        asks_by_field: bool,
    },

    #[error(transparent)]
    Media(Box<MediaRefusal>),

    #[error("{}", no_endpoints(model.as_deref(), pools, *need, *exhausted))]
    NoEndpoints { model: Option<String>, pools: Vec<String>, need: Requirement, exhausted: Exhausted },

    #[error("model {model:?} {exceeded}")]
    Exceeds {
        model: String,
        exceeded: Exceeded,
        /// The first item that is too much.
        at: Option<PartPath>,
    },

    #[error("every endpoint that could serve this is saturated, and {} may be shed", model.as_deref().unwrap_or("the request"))]
    Saturated { model: Option<String>, no_room: NoRoom },

    #[error("every endpoint that could serve this is full, and {waiting} requests wait already")]
    QueueFull { waiting: usize, no_room: NoRoom },

    #[error(
        "every endpoint that could serve this is full, and there is no memory for a body of this size to wait; try again in a moment"
    )]
    TooLargeToWait { no_room: NoRoom },

    #[error("every endpoint that could serve this is full, and the request made way for one of higher priority")]
    MadeWay { waited: Duration, no_room: NoRoom },

    #[error("every endpoint that could serve this was full for {} seconds", waited.as_secs())]
    WaitedTooLong { waited: Duration, no_room: NoRoom },

    #[error("no endpoint serves the model {model:?} now; add ?all=true to see its declared capabilities")]
    NotServedNow { model: String },

    #[error(
        "no model server knows the {} {:?}: it never existed, was deleted, or has expired", owned.kind.as_str(), owned.id
    )]
    UnknownOwned { owned: Owned },

    #[error("the model server that created the {0} {1:?} is gone, and so is the {0}", owned.kind.as_str(), owned.id)]
    LostOwned { owned: Owned },

    #[error("not every model server that may know the {} {:?} could be asked; try again", owned.kind.as_str(), owned.id)]
    SearchUnfinished { owned: Owned },

    #[error(
        "the {0} {1:?} was created in pool {pool}, whose model servers cannot serve this: use the model that created it, with input that it accepts",
        owned.kind.as_str(), owned.id
    )]
    OwnerCannotServe { owned: Owned, pool: String },

    #[error("this picker has no routing table yet: it has not heard from its controller")]
    NotSynced,

    #[error("there is no picker to ask: the one that --ask names cannot be reached, or does not answer")]
    NobodyToAsk,

    #[error("what a picker must know of the request's media takes more than {limit} bytes: send fewer items")]
    TooMuchToAsk { limit: usize },

    #[error("the gateway and the picker that it asks do not understand each other: upgrade the older one")]
    NotUnderstood,

    #[error(
        "this picker already has as many requests under way as it takes (--max-streams={limit}), or this gateway has half of them; try again in a moment"
    )]
    TooMany { limit: usize },

    #[error(
        "the gateway sends request bodies to the endpoint picker in mode {mode}; set request_body_mode to FULL_DUPLEX_STREAMED or BUFFERED"
    )]
    GatewayMode { mode: &'static str },

    #[error("the body ended early")]
    Incomplete,

    #[error("the model server closed the connection before its answer was complete; it may have processed the request")]
    BrokenOff,

    #[error("could not reach any of the {tried} endpoints tried")]
    Unreachable { tried: usize },

    #[error("the model server sent nothing for {} seconds; it may still be processing the request", waited.as_secs())]
    TimedOut { waited: Duration },
}

/// The shape of errors that a client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// <https://platform.openai.com/docs/guides/error-codes>
    OpenAi,
    /// <https://docs.anthropic.com/en/api/errors>
    Anthropic,
}

impl Dialect {
    /// What is spoken under a path.
    pub fn of_path(path: &str) -> Self {
        if request::Resource::is_anthropic(path) { Self::Anthropic } else { Self::OpenAi }
    }
}

/// What is known of a request that found no room, for those who count and for those who try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom {
    /// The model that is asked for, where the table or a server lists it.
    pub model: Option<ModelName>,
    /// The first of its route.
    pub pool: Option<PoolName>,
    pub priority: i32,
    /// Whether a model is asked for something.
    pub is_inference: bool,
    /// When there should be some.
    pub retry_after: Duration,
}

impl Rejection {
    /// The model that was asked for, where it is one that is declared; a client's own words are none.
    pub fn declared_model(&self) -> Option<&str> {
        match self {
            Self::NoRoute { no_route: NoRoute::Uncovered { model, .. }, .. } => Some(model),
            _ => self.no_room()?.model.as_deref(),
        }
    }

    pub const fn code(&self) -> Code {
        match self {
            Self::Unreadable(unreadable) => code_of(unreadable),
            Self::AmbiguousHead(_) => Code::InvalidRequest,
            Self::HeadTooLarge { .. } | Self::TooManyHeaders { .. } => Code::HeadTooLarge,
            Self::Incomplete => Code::InvalidBody,
            Self::Stalled { .. } => Code::BodyStalled,
            Self::TooSlow { .. } | Self::GivesWay { .. } => Code::BodyTooSlow,
            Self::Overloaded { .. } | Self::TooMany { .. } => Code::Overloaded,
            Self::TooMuchToAsk { .. } => Code::RequestTooLarge,
            Self::UnknownPath => Code::UnknownPath,
            Self::WebSocket(_) => Code::WebSocketNotHere,
            Self::NoRoute { no_route, .. } => match no_route {
                NoRoute::UnknownModel { .. } | NoRoute::Undeclared { .. } => Code::ModelNotFound,
                NoRoute::Uncovered { missing, .. } if missing.operation.is_some() => Code::UnsupportedOperation,
                NoRoute::Uncovered { .. } => Code::UnsupportedModality,
                NoRoute::NoModelNamed => Code::ModelRequired,
                NoRoute::NothingServed => Code::NothingServed,
                NoRoute::OutOfScope { .. } | NoRoute::PoolOutOfScope { .. } => Code::ModelElsewhere,
            },
            Self::Media(refusal) => refusal.cause.code(),
            Self::NoEndpoints { .. } => Code::NoEndpoint,
            Self::Exceeds { exceeded: Exceeded::Items { .. }, .. } => Code::TooManyMediaItems,
            Self::Exceeds { exceeded: Exceeded::Context { .. }, .. } => Code::ContextLengthExceeded,
            Self::Saturated { .. } => Code::Saturated,
            Self::QueueFull { .. } | Self::TooLargeToWait { .. } | Self::MadeWay { .. } => Code::QueueFull,
            Self::WaitedTooLong { .. } => Code::QueueTimeout,
            Self::UnknownOwned { owned } | Self::LostOwned { owned } | Self::OwnerCannotServe { owned, .. } => {
                match owned.kind {
                    OwnedKind::Video => Code::JobNotFound,
                    OwnedKind::Response => Code::ResponseNotFound,
                }
            }
            Self::SearchUnfinished { .. } => Code::SearchUnfinished,
            Self::NotServedNow { .. } => Code::ModelNotFound,
            Self::NotSynced | Self::NobodyToAsk | Self::NotUnderstood => Code::NotReady,
            Self::GatewayMode { .. } => Code::GatewayMisconfigured,
            Self::Unreachable { .. } => Code::EndpointUnreachable,
            Self::TimedOut { .. } => Code::EndpointTimedOut,
            Self::BrokenOff => Code::EndpointBrokeOff,
        }
    }

    pub const fn status(&self) -> StatusCode {
        self.code().status()
    }

    /// When to try again, where trying again may help.
    pub fn retry_after(&self) -> Option<Duration> {
        self.no_room().map(|no_room| no_room.retry_after).or_else(|| self.code().retry_after())
    }

    /// Of a request that found no room.
    pub fn no_room(&self) -> Option<&NoRoom> {
        match self {
            Self::Saturated { no_room, .. }
            | Self::QueueFull { no_room, .. }
            | Self::TooLargeToWait { no_room }
            | Self::MadeWay { no_room, .. }
            | Self::WaitedTooLong { no_room, .. } => Some(no_room),
            _ => None,
        }
    }

    /// The word for [`crate::DROPPED_REASON`].
    fn dropped(&self) -> Option<&'static str> {
        match self {
            Self::Saturated { .. } | Self::QueueFull { .. } | Self::TooLargeToWait { .. } => Some("rejected-saturated"),
            Self::MadeWay { .. } => Some("evicted-priority"),
            Self::WaitedTooLong { .. } => Some("rejected-ttl-expired"),
            Self::NoEndpoints { .. } => Some("rejected-no-endpoints"),
            _ => None,
        }
    }

    /// The field at fault.
    pub fn param(&self) -> Option<String> {
        match self {
            Self::Unreadable(unreadable) => unreadable.param().map(str::to_owned),
            Self::NoRoute {
                no_route: NoRoute::UnknownModel { .. } | NoRoute::Undeclared { .. } | NoRoute::NoModelNamed,
                ..
            } => Some("model".into()),
            Self::NoRoute { no_route: NoRoute::Uncovered { missing, .. }, part, asks_by_field, .. } => match part {
                Some(part) => Some(part.to_string()),
                None if missing.operation.is_none() && missing.input.is_empty() && *asks_by_field => {
                    Some("modalities".into())
                }
                None => Some("model".into()),
            },
            Self::Media(refusal) => refusal.at.as_ref().map(ToString::to_string),
            Self::Exceeds { exceeded: Exceeded::Items { .. }, at, .. } => at.as_ref().map(ToString::to_string),
            Self::Exceeds { exceeded: Exceeded::Context { .. }, .. } => Some("messages".into()),
            _ => None,
        }
    }

    /// The answer that says it.
    pub fn reply(&self, dialect: Dialect) -> Reply {
        let (code, message) = (self.code(), self.to_string());
        let body = match dialect {
            Dialect::OpenAi => json!({
                "error": {"message": message, "type": code.openai_type(), "param": self.param(), "code": code.as_str()},
            }),
            // Its clients look at `type` and `message`; what else we know stands beside them.
            Dialect::Anthropic => json!({
                "type": "error",
                "error": {"type": code.anthropic_type(), "message": message, "param": self.param(), "code": code.as_str()},
            }),
        };
        let allow = match self {
            Self::Unreadable(Unreadable::Method { allowed }) => Some(allowed.join(", ")),
            _ => None,
        };
        let (retry_after, dropped) = (self.retry_after(), self.dropped());
        Reply { status: code.status(), retry_after, allow, dropped, body: Bytes::from(body.to_string()) }
    }
}

const fn code_of(unreadable: &Unreadable) -> Code {
    match unreadable {
        Unreadable::TooLarge { .. } => Code::RequestTooLarge,
        Unreadable::ContentType { .. } => Code::UnsupportedContentType,
        Unreadable::ContentEncoding(_) => Code::UnsupportedContentEncoding,
        Unreadable::OddPath => Code::InvalidPath,
        Unreadable::OddHost => Code::InvalidHost,
        Unreadable::Method { .. } => Code::MethodNotAllowed,
        Unreadable::LengthMismatch { .. }
        | Unreadable::Empty
        | Unreadable::Malformed { .. }
        | Unreadable::Form { .. }
        | Unreadable::Truncated { .. }
        | Unreadable::NotUtf8 { .. }
        | Unreadable::TooDeep { .. }
        | Unreadable::DuplicateField { .. }
        | Unreadable::NotAnObject
        | Unreadable::WrongType { .. }
        | Unreadable::FieldTooLong { .. }
        | Unreadable::UnknownModality(_)
        | Unreadable::TooManyItems { .. } => Code::InvalidBody,
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
        Exhausted::Filtered(Filter::Capability) => {
            format!("no ready endpoint for {what}{place} accepts {}", need.input.in_words())
        }
        Exhausted::Filtered(Filter::Subset) => format!("no endpoint that the gateway allows can serve {what}{place}"),
        Exhausted::Filtered(_) | Exhausted::NoEndpoints => format!("no endpoint is ready for {what}{place}"),
    }
}
