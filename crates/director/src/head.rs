//! A request's head as gateways show it: the headers that matter.

use std::borrow::Cow;

use request::{FAIRNESS_HEADERS, RequestHead, SESSION_HEADERS};

use crate::{HeaderChanges, Rejection, TraceParent};

/// The header and the metadata key that name the destination (Endpoint Picker Protocol, proposal 004 of the Gateway API Inference
/// Extension).
pub const DESTINATION: &str = "x-gateway-destination-endpoint";

/// Largest head of a request that is read, in bytes; nginx and Envoy take 60 KiB or less.
pub const MAX_HEAD: usize = 64 << 10;

/// The headers that matter, of a request that came by a gateway.
#[derive(Debug, Default)]
pub struct Head {
    pub method: String,
    pub path: String,
    authority: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    pub content_length: Option<u64>,
    /// What the client authorizes by: OpenAI's way, Anthropic's, and Azure's.
    credentials: [Vec<String>; 3],
    objective: Option<String>,
    /// By its older name, which counts where the newer is not given.
    objective_alias: Option<String>,
    /// What it says of the trace that it belongs to.
    traceparent: Vec<String>,
    tracestate: Vec<String>,
    /// The session that it names, and the place of the header among [`SESSION_HEADERS`].
    session: Option<(usize, String)>,
    /// The same of [`FAIRNESS_HEADERS`].
    fairness: Option<(usize, String)>,
    /// The pool that the gateway's route leads to, where it says so.
    pub pool: Option<String>,
    /// Endpoints that a conformance suite's client selects, where it may.
    pub test_selection: Option<String>,
    /// Whether the client wants a WebSocket.
    pub asks_for_websocket: bool,
    /// The names of the client's headers that do not go out.
    pub removed: Vec<String>,
    /// Whether a header is there twice that one reader would take the first of, another the last.
    ambiguous: bool,
    size: usize,
}

impl Head {
    /// Names may be in any case. Of a head that is too large no more is read.
    pub fn read<'h>(headers: impl Iterator<Item = (&'h str, &'h [u8])>) -> Self {
        let mut head = Self::default();
        for (name, value) in headers {
            head.size += name.len() + value.len();
            if head.size > MAX_HEAD {
                break;
            }
            // The destination is overwritten, which removes a client's own as well.
            if HeaderChanges::removes(name) && !name.eq_ignore_ascii_case(DESTINATION) {
                head.removed.push(name.to_owned());
            }
            let text = || String::from_utf8_lossy(value).into_owned();
            // As HTTP/2 has them, and Envoy of any client.
            let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
            let name = if is_lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) };
            match &*name {
                ":method" => head.method = text(),
                ":path" => head.path = text(),
                ":authority" | "host" => head.authority = Some(text()),
                "content-type" => head.ambiguous |= head.content_type.replace(text()).is_some(),
                // SGLang's own word for the same (srt/entrypoints/http_request_decompression.py).
                "content-encoding" | "x-body-compressed" => {
                    head.ambiguous |= head.content_encoding.replace(text()).is_some();
                }
                "authorization" => head.credentials[0].push(text()),
                "x-api-key" => head.credentials[1].push(text()),
                "api-key" => head.credentials[2].push(text()),
                // The first one counts, as with the reference picker.
                "test-epp-endpoint-selection" if head.test_selection.is_none() => head.test_selection = Some(text()),
                "x-llm-d-inference-objective" => head.objective = Some(text()),
                "x-gateway-inference-objective" => head.objective_alias = Some(text()),
                "x-envoy-decorator-operation" => head.pool = pool_of_operation(&text()),
                "traceparent" => head.traceparent.push(text()),
                "tracestate" => head.tracestate.push(text()),
                "upgrade" => head.asks_for_websocket = text().trim().eq_ignore_ascii_case("websocket"),
                "content-length" => head.content_length = text().trim().parse().ok(),
                name => {
                    for (names, said) in
                        [(&SESSION_HEADERS[..], &mut head.session), (&FAIRNESS_HEADERS[..], &mut head.fairness)]
                    {
                        if let Some(place) = names.iter().position(|known| *known == name)
                            && said.as_ref().is_none_or(|(known, _)| place < *known)
                        {
                            *said = Some((place, text()));
                        }
                    }
                }
            }
        }
        head
    }

    /// Fails where nobody can know what the head means, or should keep it.
    pub fn check(&self) -> Result<(), Rejection> {
        if self.size > MAX_HEAD {
            return Err(Rejection::HeadTooLarge { limit: MAX_HEAD });
        }
        if self.ambiguous { Err(Rejection::AmbiguousHead("duplicate header")) } else { Ok(()) }
    }

    /// What is set in the head on its way out; `content_length` is the body's, where that is said at all. Beside it goes what
    /// [`Self::removed`] names.
    pub fn set<'h>(
        &self,
        destination: &str,
        content_length: Option<usize>,
        changes: &'h HeaderChanges,
    ) -> Vec<(&'h str, String)> {
        let mut set = vec![(DESTINATION, destination.to_owned())];
        set.extend(content_length.map(|length| ("content-length", length.to_string())));
        set.extend(
            changes.set.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?.to_owned()))),
        );
        set.extend(request::without_slash(&self.path).map(|path| (":path", path)));
        set
    }

    /// What the client authorizes by.
    pub fn caller(&self) -> Option<Vec<u8>> {
        crate::caller(self.credentials.iter().flatten().map(String::as_bytes))
    }

    pub fn trace(&self) -> TraceParent<'_> {
        TraceParent::of(self.traceparent.iter().map(String::as_str), self.tracestate.iter().map(String::as_str))
    }

    pub fn authorization(&self) -> Option<&str> {
        self.credentials[0].first().map(String::as_str)
    }

    pub fn of_request(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            path: &self.path,
            authority: self.authority.as_deref(),
            content_type: self.content_type.as_deref(),
            content_encoding: self.content_encoding.as_deref(),
            content_length: self.content_length,
            objective: self.objective.as_deref().or(self.objective_alias.as_deref()),
            session: self.session.as_ref().map(|(_, session)| session.as_str()),
            fairness: self.fairness.as_ref().map(|(_, fairness)| fairness.as_str()),
        }
    }
}

/// The pool in the operation that Istio names: the host of its route, which is the Service that it makes for the pool, as in
/// `vision-ip-88fe38b6.serving.svc.cluster.local:54321/*` (istio `pilot/pkg/model/inference_pool.go`: the name, `-ip-`, and eight hex
/// digits). A client that makes one up binds itself alone.
fn pool_of_operation(operation: &str) -> Option<String> {
    let service = operation.split('.').next()?;
    let (pool, hash) = service.rsplit_once("-ip-")?;
    let is_hash = hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hash && !pool.is_empty()).then(|| pool.to_owned())
}
