//! What the gateway says of a request: its headers, and the subset it allows.

use http::StatusCode;
use prost_types::Value;
use prost_types::value::Kind;
use scheduling::Subset;

use crate::proto::{HeaderValue, HttpHeaders, Metadata};

/// The headers, as names and values.
pub(crate) fn all(headers: &HttpHeaders) -> impl Iterator<Item = (&str, &[u8])> {
    let all = headers.headers.iter().flat_map(|map| &map.headers);
    all.map(|header| (&*header.key, value(header)))
}

/// The status of a response.
pub(crate) fn status(headers: &HttpHeaders) -> Option<StatusCode> {
    let (_, status) = all(headers).find(|(name, _)| *name == ":status")?;
    StatusCode::from_bytes(status).ok()
}

/// Envoy fills `raw_value`, others `value`.
pub(crate) fn value(header: &HeaderValue) -> &[u8] {
    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
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
