//! The messages that an exchange answers with.

use bytes::Bytes;
use director::{DESTINATION, DROPPED_REASON, Head, HeaderChanges, Reply};
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use crate::proto::processing_response::Response as Answer;
use crate::proto::{
    BodyMutation, BodyResponse, CommonResponse, HeaderAppendAction, HeaderMutation, HeaderValue, HeaderValueOption,
    HeadersResponse, HttpStatus, ImmediateResponse, ProcessingResponse, StreamedBodyResponse, TrailersResponse,
    body_mutation,
};

/// Largest piece of a body in one message. Some gateways refuse more than 64 KiB; llm-d keeps to the same number.
const MAX_PIECE: usize = 62_000;

/// What of the request's head changes. `content_length` is what it is set to.
pub(super) fn request_changes(
    destination: &str,
    content_length: Option<usize>,
    changes: &HeaderChanges,
    head: &Head,
) -> CommonResponse {
    let all = head.set(destination, content_length, changes);
    let set_headers = all.iter().map(|(name, value)| set(name, value)).collect();
    let mutation = HeaderMutation { set_headers, remove_headers: head.removed.clone() };
    CommonResponse { header_mutation: Some(mutation), clear_route_cache: true, ..CommonResponse::default() }
}

pub(super) fn request_headers(changes: CommonResponse, destination: &str) -> ProcessingResponse {
    ProcessingResponse {
        dynamic_metadata: Some(destination_metadata(destination)),
        ..of(Answer::RequestHeaders(HeadersResponse { response: Some(changes) }))
    }
}

/// To a gateway that keeps the body: what it sends on instead, if not what it has.
pub(super) fn whole_request_body(
    changes: CommonResponse,
    destination: &str,
    instead: Option<Bytes>,
) -> ProcessingResponse {
    let body_mutation = instead.map(|body| BodyMutation { mutation: Some(body_mutation::Mutation::Body(body)) });
    let response = CommonResponse { body_mutation, ..changes };
    ProcessingResponse {
        dynamic_metadata: Some(destination_metadata(destination)),
        ..of(Answer::RequestBody(BodyResponse { response: Some(response) }))
    }
}

/// A nod to the headers, for gateways that send the body only then.
pub(super) fn body_please() -> ProcessingResponse {
    of(Answer::RequestHeaders(HeadersResponse { response: Some(CommonResponse::default()) }))
}

/// The chunks in pieces, the end flag on the last if the body ends here. A body of nothing is one empty piece.
pub(super) fn request_body(chunks: &[Bytes], ends: bool, answers: &mut Vec<ProcessingResponse>) {
    let mut pieces = pieces(chunks).peekable();
    if pieces.peek().is_none() && ends {
        answers.push(of(Answer::RequestBody(streamed(Bytes::new(), true))));
    }
    while let Some(piece) = pieces.next() {
        let last = ends && pieces.peek().is_none();
        answers.push(of(Answer::RequestBody(streamed(piece, last))));
    }
}

pub(super) fn request_trailers() -> ProcessingResponse {
    of(Answer::RequestTrailers(TrailersResponse::default()))
}

/// `served` is told to the client of a conformance suite (Gateway API Inference Extension, `conformance/`).
pub(super) fn response_headers(served: Option<&str>) -> ProcessingResponse {
    let header_mutation = served.map(|served| HeaderMutation {
        set_headers: vec![set("x-conformance-test-served-endpoint", served)],
        remove_headers: Vec::new(),
    });
    let response = CommonResponse { header_mutation, ..CommonResponse::default() };
    of(Answer::ResponseHeaders(HeadersResponse { response: Some(response) }))
}

/// The same bytes back: gateways take nothing else in full duplex.
pub(super) fn response_body(body: &Bytes, ends: bool) -> Vec<ProcessingResponse> {
    let mut answers: Vec<ProcessingResponse> = Vec::new();
    let mut pieces = pieces(std::slice::from_ref(body)).peekable();
    if pieces.peek().is_none() {
        answers.push(of(Answer::ResponseBody(streamed(Bytes::new(), ends))));
    }
    while let Some(piece) = pieces.next() {
        let last = ends && pieces.peek().is_none();
        answers.push(of(Answer::ResponseBody(streamed(piece, last))));
    }
    answers
}

pub(super) fn untouched_response_body() -> ProcessingResponse {
    of(Answer::ResponseBody(BodyResponse { response: Some(CommonResponse::default()) }))
}

pub(super) fn response_trailers() -> ProcessingResponse {
    of(Answer::ResponseTrailers(TrailersResponse::default()))
}

/// The gateway answers the client with this; `details` go to its access log.
pub(super) fn reply(reply: Reply, details: &str) -> ProcessingResponse {
    let mut set_headers = vec![set("content-type", "application/json")];
    set_headers.extend(reply.dropped.map(|why| set(DROPPED_REASON, why)));
    set_headers.extend(reply.retry_after.map(|after| set("retry-after", &after.as_secs().to_string())));
    set_headers.extend(reply.allow.map(|methods| set("allow", &methods)));
    immediate(i32::from(reply.status.as_u16()), set_headers, reply.body, details)
}

fn immediate(code: i32, set_headers: Vec<HeaderValueOption>, body: Bytes, details: &str) -> ProcessingResponse {
    of(Answer::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus { code }),
        headers: Some(HeaderMutation { set_headers, remove_headers: Vec::new() }),
        body,
        details: details.to_owned(),
    }))
}

fn pieces(chunks: &[Bytes]) -> impl Iterator<Item = Bytes> {
    chunks.iter().flat_map(|chunk| {
        (0..chunk.len()).step_by(MAX_PIECE).map(|at| chunk.slice(at..chunk.len().min(at + MAX_PIECE)))
    })
}

fn streamed(body: Bytes, end_of_stream: bool) -> BodyResponse {
    let streamed = StreamedBodyResponse { body, end_of_stream };
    let mutation = BodyMutation { mutation: Some(body_mutation::Mutation::StreamedResponse(streamed)) };
    BodyResponse { response: Some(CommonResponse { body_mutation: Some(mutation), ..CommonResponse::default() }) }
}

fn set(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            value: String::new(),
            raw_value: Bytes::copy_from_slice(value.as_bytes()),
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

fn destination_metadata(destination: &str) -> Struct {
    nested("envoy.lb", nested(DESTINATION, destination))
}

fn nested(key: &str, value: impl IntoValue) -> Struct {
    Struct { fields: [(key.to_owned(), value.into_value())].into() }
}

trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for &str {
    fn into_value(self) -> Value {
        Value { kind: Some(Kind::StringValue(self.to_owned())) }
    }
}

impl IntoValue for Struct {
    fn into_value(self) -> Value {
        Value { kind: Some(Kind::StructValue(self)) }
    }
}

fn of(response: Answer) -> ProcessingResponse {
    ProcessingResponse { response: Some(response), dynamic_metadata: None }
}
