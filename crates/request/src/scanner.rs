//! The reader of one request: fed chunks, keeps no body.

use routing::{Operation, Requirement};

use crate::findings::{Findings, MAX_ITEMS, MAX_MODEL, MediaItem, ModelSpan, UnsafeFeatureAt};
use crate::form::FormReader;
use crate::form_reading::FormReading;
use crate::json::Lexer;
use crate::owned::MAX_ID;
use crate::path::{self, Resource};
use crate::placeholders::Placeholders;
use crate::prompt::{self, Prompt};
use crate::reading::Reading;
use crate::{Owned, Unreadable};

/// What is known of a request before its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestHead<'a> {
    /// `POST` when empty.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The host the client asked for: `:authority`, or `host`.
    pub authority: Option<&'a str>,
    pub content_type: Option<&'a str>,
    pub content_encoding: Option<&'a str>,
    /// What `content-length` announces.
    pub content_length: Option<u64>,
    /// The objective that the request is for, by whose priority it is treated: `x-llm-d-inference-objective`.
    pub objective: Option<&'a str>,
    /// The session that the client says it belongs to: one of [`SESSION_HEADERS`].
    pub session: Option<&'a str>,
    /// With whose requests it takes turns where there is not enough for all: one of [`FAIRNESS_HEADERS`].
    pub fairness: Option<&'a str>,
}

/// Headers that say with whose requests one takes turns, of which the first that is there counts: llm-d's, and what it was called before.
pub const FAIRNESS_HEADERS: [&str; 2] = ["x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id"];

/// Headers by which clients name a session, of which the first that is there counts: of llm-d's and vLLM's routers, of Claude Code, of Codex, and of
/// Dynamo.
pub const SESSION_HEADERS: [&str; 6] = [
    "x-session-id",
    "x-session-token",
    "x-session-affinity",
    "x-claude-code-session-id",
    "session-id",
    "x-dynamo-session-id",
];

/// What a reader takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body.
    pub max_body_bytes: u64,
}

/// Reads one request's body as it streams by.
#[derive(Debug)]
pub struct Scanner {
    resource: Resource,
    limits: Limits,
    declared: Option<u64>,
    objective: Option<String>,
    session: Option<u64>,
    flow: Option<u64>,
    is_batch: bool,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Json(Box<(Lexer, Reading)>),
    Form(Box<(FormReader, FormReading)>),
    /// Passed as it is, if at all.
    Opaque {
        bytes: u64,
        model: Option<String>,
    },
}

/// What routing needs to know of a request: names, ids, hosts and numbers, and nothing of its texts or media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceRequest {
    pub resource: Resource,
    /// None when the request names none.
    pub model: Option<String>,
    pub requires: Requirement,
    /// In the order of the body.
    pub media: Vec<MediaItem>,
    /// What engines should not be asked by strangers; the first of each kind.
    pub unsafe_features: Vec<UnsafeFeatureAt>,
    /// Models' own words for media that its text holds.
    pub placeholders: Placeholders,
    /// Whether a field (`modalities`) says what the answer is to be.
    pub names_output: bool,
    /// Whether the client asked for a stream of events.
    pub stream: bool,
    /// What it follows, that only its owner knows (`previous_response_id`).
    pub follows: Option<Owned>,
    /// Where the model's name stands in the body.
    pub model_span: Option<ModelSpan>,
    /// Size of the body.
    pub bytes: u64,
    /// The objective that its head names.
    pub objective: Option<String>,
    /// With whose requests it takes turns, as its head says: a hash.
    pub flow: Option<u64>,
    /// Whether it is several chats in one (vLLM's `/chat/completions/batch`).
    pub is_batch: bool,
    pub prompt: Prompt,
}

/// Longest name of an objective.
const MAX_OBJECTIVE_BYTES: usize = 253;

// === impl InferenceRequest ===

impl InferenceRequest {
    /// Whether its names are as short, and its media as few, as [`Scanner`] leaves them: what somebody else has read may not be.
    pub fn is_bounded(&self) -> bool {
        let asked = match &self.resource {
            Resource::Model { id, .. } => id.len() <= MAX_MODEL,
            Resource::Owned(what) | Resource::Cancel(what) => what.id.len() <= MAX_ID,
            Resource::Operation(_) | Resource::Models { .. } | Resource::Administrative | Resource::Unknown => true,
        };
        asked
            && self.media.len() <= MAX_ITEMS
            && self.prompt.pieces.len() <= Prompt::MOST_PIECES
            && self.model.as_ref().is_none_or(|model| model.len() <= MAX_MODEL)
            && self.follows.as_ref().is_none_or(|owned| owned.id.len() <= MAX_ID)
            && self.objective.as_ref().is_none_or(|objective| objective.len() <= MAX_OBJECTIVE_BYTES)
    }
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
    /// A reader for a request with this head. Fails at once for what its head alone forbids: an odd path or host, a wrong method, a body
    /// that is announced too large, or in an encoding or of a type that is not read here.
    pub fn new(head: &RequestHead<'_>, limits: Limits) -> Result<Self, Unreadable> {
        Self::with_key(head, limits, 0)
    }

    /// The same, that tells texts apart by hashes with this key: see [`crate::Prompt`].
    pub fn with_key(head: &RequestHead<'_>, limits: Limits, key: u64) -> Result<Self, Unreadable> {
        if head.authority.is_some_and(|authority| !is_sound_authority(authority)) {
            return Err(Unreadable::OddHost);
        }
        let resource = Resource::of_path(head.path)?;
        match &resource {
            Resource::Model { id, .. } if id.len() > MAX_MODEL => {
                return Err(Unreadable::FieldTooLong { field: "model", limit: MAX_MODEL });
            }
            Resource::Owned(what) | Resource::Cancel(what) if what.id.len() > MAX_ID => {
                return Err(Unreadable::FieldTooLong { field: "id", limit: MAX_ID });
            }
            _ => {}
        }
        let methods = resource.methods();
        if !methods.is_empty() && !methods.contains(if head.method.is_empty() { &"POST" } else { &head.method }) {
            return Err(Unreadable::Method { allowed: methods });
        }
        if head.content_length.is_some_and(|length| length > limits.max_body_bytes) {
            return Err(Unreadable::TooLarge { limit: limits.max_body_bytes });
        }
        let encoding = head.content_encoding.map(str::trim).filter(|encoding| !encoding.is_empty());
        if let Some(encoding) = encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return Err(Unreadable::ContentEncoding(encoding.chars().take(64).collect()));
        }
        let body = body_of(&resource, head, key)?;
        // Names of objects have 253 bytes at most; a longer one names none.
        let objective = head.objective.filter(|name| name.len() <= MAX_OBJECTIVE_BYTES).map(str::to_owned);
        let hash = |name: Option<&str>| name.filter(|name| !name.is_empty()).map(|name| prompt::hash_of(key, name));
        let (session, flow) = (hash(head.session), hash(head.fairness));
        let path = head.path.split('?').next().unwrap_or_default();
        let is_batch = path.trim_end_matches('/').ends_with("/batch");
        Ok(Self { resource, limits, declared: head.content_length, objective, session, flow, is_batch, body })
    }

    /// What the path asks for.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Takes the next chunk of the body. After an error the scanner is of no more use.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Unreadable> {
        if self.position() + chunk.len() as u64 > self.limits.max_body_bytes {
            return Err(Unreadable::TooLarge { limit: self.limits.max_body_bytes });
        }
        match &mut self.body {
            Body::Json(json) => json.0.feed(chunk, &mut json.1),
            Body::Form(form) => form.0.feed(chunk, &mut form.1),
            Body::Opaque { bytes, .. } => {
                *bytes += chunk.len() as u64;
                Ok(())
            }
        }
    }

    fn position(&self) -> u64 {
        match &self.body {
            Body::Json(json) => json.0.position(),
            Body::Form(form) => form.0.position(),
            Body::Opaque { bytes, .. } => *bytes,
        }
    }

    /// The body has ended, or there was none.
    pub fn finish(self) -> Result<InferenceRequest, Unreadable> {
        let bytes = self.position();
        if let Some(declared) = self.declared.filter(|declared| *declared != bytes) {
            return Err(Unreadable::LengthMismatch { declared, actual: bytes });
        }
        let findings = match self.body {
            Body::Json(mut json) => {
                json.0.finish()?;
                json.1.findings
            }
            Body::Form(form) => {
                form.0.finish()?;
                form.1.findings
            }
            Body::Opaque { model, .. } => Findings { model, ..Findings::new(0) },
        };
        let requires = findings.requires(self.resource.operation());
        let names_output = findings.output.is_some();
        let Findings { model, model_span, stream, follows, media, unsafe_features, seeker, aside, prompt, .. } =
            findings;
        let (resource, placeholders) = (self.resource, seeker.found().and(aside.found()));
        let objective = self.objective;
        Ok(InferenceRequest {
            resource,
            model,
            requires,
            media,
            unsafe_features,
            placeholders,
            names_output,
            stream,
            follows,
            model_span,
            bytes,
            objective,
            flow: self.flow,
            is_batch: self.is_batch,
            prompt: Prompt { session: self.session, ..prompt.finish() },
        })
    }
}

/// How the body of such a request is read.
fn body_of(resource: &Resource, head: &RequestHead<'_>, key: u64) -> Result<Body, Unreadable> {
    let (_, query) = head.path.split_once('?').unwrap_or_default();
    let opaque = |model| Body::Opaque { bytes: 0, model };
    let operation = match resource {
        Resource::Operation(Operation::Realtime) => {
            let mut models = path::parameters(query, "model");
            let model = models.next().filter(|model| !model.is_empty());
            // One reader takes the first, another the last.
            return if models.next().is_none() {
                Ok(opaque(model))
            } else {
                Err(Unreadable::DuplicateField { field: "model", at: 0 })
            };
        }
        Resource::Operation(operation) => *operation,
        _ => return Ok(opaque(None)),
    };
    let content_type = head.content_type.unwrap_or_default();
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let wrong_type =
        || Unreadable::ContentType { found: kind.chars().take(64).collect(), expected: expected_type(operation) };
    if kind == "multipart/form-data" {
        if !takes_forms(operation) {
            return Err(wrong_type());
        }
        return Ok(Body::Form(Box::new((FormReader::new(content_type)?, FormReading::new(operation, key)))));
    }
    // Where forms are taken, a body under that name is one to the server.
    let is_other_form = takes_forms(operation) && kind == "application/x-www-form-urlencoded";
    if !takes_json(operation) || !may_be_json(&kind) || is_other_form {
        return Err(wrong_type());
    }
    Ok(Body::Json(Box::new((Lexer::new(), Reading::new(operation, key)))))
}

const fn takes_forms(operation: Operation) -> bool {
    matches!(operation, Operation::Transcriptions | Operation::Translations | Operation::ImageEdits | Operation::Videos)
}

const fn takes_json(operation: Operation) -> bool {
    !matches!(operation, Operation::Transcriptions | Operation::Translations)
}

const fn expected_type(operation: Operation) -> &'static str {
    match (takes_json(operation), takes_forms(operation)) {
        (true, true) => "application/json or multipart/form-data",
        (_, true) => "multipart/form-data",
        _ => "application/json",
    }
}

/// Many clients send JSON under another name or none (curl says `x-www-form-urlencoded`), so only what is surely something else is refused.
fn may_be_json(kind: &str) -> bool {
    kind.is_empty()
        || kind.ends_with("json")
        || matches!(kind, "application/x-www-form-urlencoded" | "text/plain" | "application/octet-stream" | "*/*")
}

/// A host and perhaps a port (RFC 3986, section 3.2, without a user). Some frameworks build URLs from it, and are led astray by more
/// (CVE-2026-48746).
fn is_sound_authority(authority: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]!$&'()*+,;=%".contains(&byte);
    authority.len() <= 512 && authority.bytes().all(sound)
}

#[cfg(test)]
mod tests;
