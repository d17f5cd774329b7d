//! The reader of one request: fed chunks, keeps no body.

use std::ops::Range;

use routing::Requirement;

use crate::json::Lexer;
use crate::reading::{MediaItem, Reading};
use crate::{Operation, Unreadable};

/// What is known of a request before its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestHead<'a> {
    /// Path and query.
    pub path: &'a str,
    pub content_type: Option<&'a str>,
    /// What `content-length` announces.
    pub content_length: Option<u64>,
}

/// What a reader takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body.
    pub max_body_bytes: u64,
}

/// Reads one request's body as it streams by.
#[derive(Debug)]
pub struct Scanner {
    operation: Operation,
    limits: Limits,
    declared: Option<u64>,
    lexer: Lexer,
    reading: Reading,
}

/// What routing needs to know of a request; about 200 bytes, and no piece of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceRequest {
    pub operation: Operation,
    /// None when the request names none.
    pub model: Option<String>,
    pub requires: Requirement,
    /// In the order of the body.
    pub media: Vec<MediaItem>,
    /// Whether the client asked for a stream of events.
    pub stream: bool,
    /// Where the model's name stands in the body, quotes included.
    pub model_span: Option<Range<u64>>,
    /// Size of the body.
    pub bytes: u64,
}

// === impl Limits ===

impl Limits {
    /// 64 MiB: twice the largest request that a public API takes today (Anthropic's 32 MB), and llm-d's choice as well.
    pub const DEFAULT_MAX_BODY_BYTES: u64 = 64 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_body_bytes: Self::DEFAULT_MAX_BODY_BYTES }
    }
}

// === impl Scanner ===

impl Scanner {
    /// A reader for a request with this head. Fails at once for a body that is announced too large, or as something other than JSON.
    pub fn new(head: &RequestHead<'_>, limits: Limits) -> Result<Self, Unreadable> {
        if head.content_length.is_some_and(|length| length > limits.max_body_bytes) {
            return Err(Unreadable::TooLarge { limit: limits.max_body_bytes });
        }
        if let Some(kind) = head.content_type.filter(|kind| !may_be_json(kind)) {
            return Err(Unreadable::ContentType(kind.chars().take(64).collect()));
        }
        let operation = Operation::of_path(head.path);
        Ok(Self {
            operation,
            limits,
            declared: head.content_length,
            lexer: Lexer::new(),
            reading: Reading::new(operation),
        })
    }

    /// Takes the next chunk of the body. After an error the scanner is of no more use.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Unreadable> {
        if self.lexer.position() + chunk.len() as u64 > self.limits.max_body_bytes {
            return Err(Unreadable::TooLarge { limit: self.limits.max_body_bytes });
        }
        self.lexer.feed(chunk, &mut self.reading)
    }

    /// The body has ended, or there was none.
    pub fn finish(mut self) -> Result<InferenceRequest, Unreadable> {
        let bytes = self.lexer.position();
        if let Some(declared) = self.declared.filter(|declared| *declared != bytes) {
            return Err(Unreadable::LengthMismatch { declared, actual: bytes });
        }
        // Only what is known to need a body must have one: `GET /health` does not, and nor does `POST /sleep`.
        if bytes > 0 || self.operation != Operation::Other {
            self.lexer.finish()?;
        }
        let requires = self.reading.requires();
        let Reading { model, model_span, stream, media, .. } = self.reading;
        Ok(InferenceRequest { operation: self.operation, model, requires, media, stream, model_span, bytes })
    }
}

/// Many clients send JSON under another name or none (curl says `x-www-form-urlencoded`), so only what is surely something else is refused.
fn may_be_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.is_empty()
        || kind.ends_with("json")
        || matches!(&*kind, "application/x-www-form-urlencoded" | "text/plain" | "application/octet-stream" | "*/*")
}

#[cfg(test)]
mod tests;
