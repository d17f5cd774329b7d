//! What the gateway says of a request: the headers that matter, and the subset it allows.

use director::HeaderChanges;
use http::StatusCode;
use prost_types::Value;
use prost_types::value::Kind;
use request::RequestHead;
use scheduling::Subset;

use super::DESTINATION;
use crate::proto::{HeaderValue, HttpHeaders, Metadata};

/// The headers that matter.
#[derive(Debug, Default)]
pub(crate) struct Head {
    method: String,
    pub(crate) path: String,
    authority: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    pub(crate) content_length: Option<u64>,
    /// What the client authorizes by: OpenAI's way, Anthropic's, and Azure's.
    credentials: [Vec<String>; 3],
    objective: Option<String>,
    /// By its older name, which counts where the newer is not given.
    objective_alias: Option<String>,
    /// The pool that the gateway's route leads to, where it says so.
    pub(crate) pool: Option<String>,
    /// Endpoints that a conformance suite's client selects, where it may.
    pub(crate) test_selection: Option<String>,
    /// The names of the client's headers that do not go out.
    pub(crate) removed: Vec<String>,
    /// Whether a header is there twice that one reader would take the first of, another the last.
    pub(crate) ambiguous: bool,
}

impl Head {
    pub(crate) fn read(headers: &HttpHeaders) -> Self {
        let mut head = Self::default();
        for header in headers.headers.iter().flat_map(|map| &map.headers) {
            // The destination is overwritten, which removes a client's own as well.
            if HeaderChanges::removes(&header.key) && !header.key.eq_ignore_ascii_case(DESTINATION) {
                head.removed.push(header.key.clone());
            }
            match header.key.to_ascii_lowercase().as_str() {
                ":method" => head.method = text(header),
                ":path" => head.path = text(header),
                ":authority" | "host" => head.authority = Some(text(header)),
                "content-type" => head.ambiguous |= head.content_type.replace(text(header)).is_some(),
                // SGLang's own word for the same (srt/entrypoints/http_request_decompression.py).
                "content-encoding" | "x-body-compressed" => {
                    head.ambiguous |= head.content_encoding.replace(text(header)).is_some();
                }
                "authorization" => head.credentials[0].push(text(header)),
                "x-api-key" => head.credentials[1].push(text(header)),
                "api-key" => head.credentials[2].push(text(header)),
                // The first one counts, as with the reference picker.
                "test-epp-endpoint-selection" if head.test_selection.is_none() => {
                    head.test_selection = Some(text(header));
                }
                "x-llm-d-inference-objective" => head.objective = Some(text(header)),
                "x-gateway-inference-objective" => head.objective_alias = Some(text(header)),
                "x-envoy-decorator-operation" => head.pool = pool_of_operation(&text(header)),
                "content-length" => head.content_length = text(header).trim().parse().ok(),
                _ => {}
            }
        }
        head
    }

    /// What the client authorizes by.
    pub(crate) fn caller(&self) -> Option<Vec<u8>> {
        director::caller(self.credentials.iter().flatten().map(String::as_bytes))
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.credentials[0].first().map(String::as_str)
    }

    pub(crate) fn of_request(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            path: &self.path,
            authority: self.authority.as_deref(),
            content_type: self.content_type.as_deref(),
            content_encoding: self.content_encoding.as_deref(),
            content_length: self.content_length,
            objective: self.objective.as_deref().or(self.objective_alias.as_deref()),
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

/// How many bytes of a head there are.
pub(crate) fn size(headers: &HttpHeaders) -> usize {
    let all = headers.headers.iter().flat_map(|map| &map.headers);
    all.map(|header| header.key.len() + header.value.len() + header.raw_value.len()).sum()
}

/// The status of a response.
pub(crate) fn status(headers: &HttpHeaders) -> Option<StatusCode> {
    let mut all = headers.headers.iter().flat_map(|map| &map.headers);
    StatusCode::from_bytes(text(all.find(|header| header.key == ":status")?).as_bytes()).ok()
}

/// Envoy fills `raw_value`, others `value`.
pub(crate) fn text(header: &HeaderValue) -> String {
    if header.raw_value.is_empty() {
        header.value.clone()
    } else {
        String::from_utf8_lossy(&header.raw_value).into_owned()
    }
}

/// The addresses that the gateway allows, if it says so: a list of strings, or one string with commas. A hint in any other form
/// allows nothing: better no answer than one the gateway forbade.
pub(crate) fn subset(metadata: &Metadata) -> Option<Subset> {
    let value = field(metadata, "envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset")?;
    let items: Vec<&str> = match &value.kind {
        Some(Kind::ListValue(list)) => list.values.iter().filter_map(string).collect(),
        _ => string(value).into_iter().collect(),
    };
    Some(Subset::parse(items))
}

/// The address that the gateway says it sent the request to, if it says so.
pub(crate) fn served(metadata: &Metadata) -> Option<&str> {
    field(metadata, "envoy.lb", "x-gateway-destination-endpoint-served").and_then(string)
}

fn field<'m>(metadata: &'m Metadata, namespace: &str, key: &str) -> Option<&'m Value> {
    metadata.filter_metadata.get(namespace)?.fields.get(key)
}

fn string(value: &Value) -> Option<&str> {
    match &value.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}
