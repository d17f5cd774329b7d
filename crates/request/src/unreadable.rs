//! Why a request could not be read.

/// Why a request could not be read. Positions are byte offsets into the body; no variant carries a piece of it but a word of `modalities`, of 64 characters at most.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("the body is larger than the limit of {limit} bytes")]
    TooLarge { limit: u64 },

    #[error("content-length is {declared}, but the body has {actual} bytes")]
    LengthMismatch { declared: u64, actual: u64 },

    #[error("content type {found:?} is not supported here; send {expected}")]
    ContentType { found: String, expected: &'static str },

    #[error("content-encoding {0:?} is not supported; send the body uncompressed")]
    ContentEncoding(String),

    #[error(
        "the path is ambiguous; send it without empty or dot segments, a trailing slash, backslashes and control characters"
    )]
    OddPath,

    #[error("the host header is not a valid host and port")]
    OddHost,

    #[error("this path accepts {} only", allowed.join(", "))]
    Method { allowed: &'static [&'static str] },

    #[error("the form is not valid: {what} at byte {at}")]
    Form { at: u64, what: &'static str },

    #[error("the body is empty")]
    Empty,

    #[error("the body is not valid JSON: {what} at byte {at}")]
    Malformed { at: u64, what: &'static str },

    #[error("the body ends in the middle of a JSON value, after {at} bytes")]
    Truncated { at: u64 },

    #[error("the body is not valid UTF-8 at byte {at}")]
    NotUtf8 { at: u64 },

    #[error("the body is nested more than {limit} levels deep at byte {at}")]
    TooDeep { at: u64, limit: usize },

    #[error("duplicate field {field:?} at byte {at}")]
    DuplicateField { field: &'static str, at: u64 },

    #[error("the body must be a JSON object")]
    NotAnObject,

    #[error("{field} must be {expected}")]
    WrongType { field: &'static str, expected: &'static str },

    #[error("{field} is longer than {limit} bytes")]
    FieldTooLong { field: &'static str, limit: usize },

    #[error("{0}")]
    UnknownModality(#[from] routing::UnknownModality),

    #[error("the request carries more than {limit} media items")]
    TooManyItems { limit: usize },
}

impl Unreadable {
    /// The field at fault, where one is known: the `param` of an OpenAI error.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::DuplicateField { field, .. } | Self::WrongType { field, .. } | Self::FieldTooLong { field, .. } => {
                Some(field)
            }
            Self::UnknownModality(_) => Some("modalities"),
            _ => None,
        }
    }
}
