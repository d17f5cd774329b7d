//! What a gateway says over ext_proc, in any order, whole or cut.
//!
//! A line is a message: its first byte says which, the rest is what it carries. Lines that are none of these are bytes of a message that
//! no Envoy sends.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use director::{BodyTimeouts, Director, RequestHandler};
use ext_proc::proto::processing_request::Request as Asked;
use ext_proc::proto::processing_response::Response as Answer;
use ext_proc::proto::{
    BodySendMode, HeaderMap, HeaderMutation, HeaderValue, HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest,
    ProcessingResponse, ProtocolConfiguration, body_mutation::Mutation,
};
use ext_proc::{ExtProc, Options};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use prost::Message as _;
use routing::{Capability, Endpoint, Modality, ModalitySet, Model, Pool, RoutingTable, Target};
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::Service;

/// A picker that lives as long as its thread, so that what one conversation leaves behind is felt by the next.
struct Picker {
    runtime: Runtime,
    handler: Arc<RequestHandler>,
}

/// What was said.
#[derive(Default)]
struct Said {
    frames: Vec<u8>,
    /// Of the request's body, from its headers to its end.
    body: Vec<u8>,
    begun: bool,
    ended: bool,
    /// The gateway keeps the body, and sends it at once.
    kept: bool,
}

/// Few, so that one that is not given back is missed at once.
const STREAMS: usize = 1;

const BUDGET: u64 = 1 << 20;

thread_local! {
    static PICKER: RefCell<Picker> = RefCell::new(Picker::new());
}

pub fn conversation(input: &[u8]) {
    PICKER.with_borrow(|picker| picker.hold(input));
}

fn now() -> Instant {
    Instant::now()
}

impl Picker {
    fn new() -> Self {
        let vision = Capability::new(ModalitySet::TEXT.with(Modality::Image), ModalitySet::TEXT);
        let targets = vec![Target::new("chat", "text", Capability::TEXT), Target::new("chat", "vision", vision)];
        let pool = |host: u8| {
            let endpoint = Endpoint::new(([10, 0, 0, host], 8000).into(), "".into());
            Arc::new(Pool { endpoints: [(Arc::from("pod"), endpoint)].into(), ..Pool::default() })
        };
        let table = RoutingTable {
            models: [("chat".into(), Arc::new(Model::new(targets)))].into(),
            pools: [("text".into(), pool(1)), ("vision".into(), pool(2))].into(),
            ..RoutingTable::default()
        };
        let director = Director::new(now());
        director.replace_table(1, Arc::new(table));
        let handler = RequestHandler::new(Arc::new(director), "serving");
        let handler = Arc::new(RequestHandler { budget: director::Budget::new(BUDGET), ..handler });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Self { runtime: runtime.expect("a runtime of one thread"), handler }
    }

    fn hold(&self, input: &[u8]) {
        let said = Said::of(input);
        let options = Options {
            fallbacks: false,
            ignore_subset: false,
            test_selection: false,
            body: BodyTimeouts { stall: Duration::from_mins(1), whole: Duration::from_mins(1) },
            max_streams: STREAMS,
        };
        let service = ExtProc::new(Arc::clone(&self.handler), options, TaskTracker::new()).service();
        // The first byte says how the stream is cut.
        let size = usize::from(input.first().copied().unwrap_or(1)) * 7 + 1;
        let pieces: Vec<_> = said.frames.chunks(size).map(Bytes::copy_from_slice).collect();
        for _ in 0..2 {
            let answers = self.runtime.block_on(ask(service.clone(), pieces.clone()));
            check(&answers, &said);
            assert_eq!(self.handler.budget.held(), 0, "a body is still held");
            assert_eq!(self.handler.director.in_flight(), 0, "a request is still counted");
        }
    }
}

/// All answers of a stream to its end.
async fn ask(
    mut service: impl Service<http::Request<Body>, Response = http::Response<Body>, Error: std::fmt::Debug>,
    pieces: Vec<Bytes>,
) -> Vec<ProcessingResponse> {
    let frames = pieces.into_iter().map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece)));
    let request = http::Request::post("/envoy.service.ext_proc.v3.ExternalProcessor/Process")
        .header("content-type", "application/grpc")
        .body(Body::new(StreamBody::new(futures::stream::iter(frames))))
        .expect("a sound request");
    let response = service.call(request).await.expect("a service answers");
    assert!(!response.headers().contains_key("grpc-status"), "a stream is refused: one that ended still counts");
    let mut body = pin!(response.into_body());
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { break };
        if let Some(data) = frame.data_ref() {
            all.extend_from_slice(data);
        }
    }
    let (mut answers, mut all) = (Vec::new(), Bytes::from(all));
    while all.len() >= 5 {
        all.advance(1);
        let length = all.get_u32() as usize;
        answers.push(ProcessingResponse::decode(all.split_to(length)).expect("an answer that can be read"));
    }
    answers
}

impl Said {
    fn of(input: &[u8]) -> Self {
        let mut said = Self::default();
        for line in input.split(|byte| *byte == b'\n') {
            let Some((kind, content)) = line.split_first() else { continue };
            if *kind == b'~' {
                // Announced, and not whole.
                said.frames.extend([&[0, 0, 0, 1, 0], content].concat());
                break;
            }
            let message = match message(*kind, content) {
                Some(message) => {
                    said.note(&message);
                    message.encode_to_vec()
                }
                None => content.to_vec(),
            };
            let length = u32::try_from(message.len()).expect("inputs are short");
            said.frames.push(0);
            said.frames.extend(length.to_be_bytes());
            said.frames.extend(message);
        }
        said
    }

    fn note(&mut self, message: &ProcessingRequest) {
        match &message.request {
            Some(Asked::RequestHeaders(headers)) if !self.begun => {
                (self.begun, self.ended) = (true, headers.end_of_stream);
                let modes = message.protocol_config.as_ref();
                self.kept = modes.is_some_and(|modes| modes.request_body_mode() == BodySendMode::Buffered);
            }
            Some(Asked::RequestBody(body)) if self.begun && !self.ended => {
                self.body.extend_from_slice(&body.body);
                self.ended = body.end_of_stream || self.kept;
            }
            Some(Asked::RequestTrailers(_)) => self.ended = self.begun,
            _ => {}
        }
    }
}

fn message(kind: u8, content: &[u8]) -> Option<ProcessingRequest> {
    let end_of_stream = kind.is_ascii_uppercase();
    let headers = || HttpHeaders { headers: Some(HeaderMap { headers: pairs(content) }), end_of_stream };
    let body = || HttpBody { body: Bytes::copy_from_slice(content), end_of_stream };
    let mut message = ProcessingRequest::default();
    message.request = Some(match kind.to_ascii_lowercase() {
        b'h' => Asked::RequestHeaders(headers()),
        b'b' => Asked::RequestBody(body()),
        b't' => Asked::RequestTrailers(HttpTrailers::default()),
        b'r' => Asked::ResponseHeaders(headers()),
        b's' => Asked::ResponseBody(body()),
        b'u' => Asked::ResponseTrailers(HttpTrailers::default()),
        // Headers of a gateway that says in which modes it sends bodies.
        b'm' => {
            let mode = |at: usize| content.get(at).map_or(0, |byte| i32::from(byte % 6));
            message.protocol_config =
                Some(ProtocolConfiguration { request_body_mode: mode(0), response_body_mode: mode(1) });
            Asked::RequestHeaders(HttpHeaders {
                headers: Some(HeaderMap { headers: pairs(content.get(2..).unwrap_or_default()) }),
                end_of_stream,
            })
        }
        _ => return None,
    });
    Some(message)
}

/// `name=value` with semicolons between.
fn pairs(content: &[u8]) -> Vec<HeaderValue> {
    let pair = |pair: &[u8]| {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (key, value) = (&pair[..at], pair.get(at + 1..).unwrap_or_default());
        HeaderValue {
            key: String::from_utf8_lossy(key).into_owned(),
            value: String::new(),
            raw_value: Bytes::copy_from_slice(value),
        }
    };
    content.split(|byte| *byte == b';').filter(|one| !one.is_empty()).map(pair).collect()
}

/// What gateways rely on (docs/gateways.md).
fn check(answers: &[ProcessingResponse], said: &Said) {
    let (mut nodded, mut placed, mut over, mut ended) = (false, false, false, false);
    let mut body = Vec::new();
    for answer in answers {
        let answer = answer.response.as_ref().expect("an answer says something");
        let of_response =
            matches!(answer, Answer::ResponseHeaders(_) | Answer::ResponseBody(_) | Answer::ResponseTrailers(_));
        assert!(!over || of_response, "something is said of the request after the last word");
        match answer {
            Answer::ImmediateResponse(_) => over = true,
            Answer::RequestHeaders(headers) => {
                assert!(!placed && !nodded, "headers are answered twice");
                match headers.response.clone().unwrap_or_default().header_mutation {
                    Some(mutation) => placed = has_destination(&mutation),
                    None => nodded = said.kept,
                }
                assert!(placed || nodded, "a request without a destination");
            }
            Answer::RequestBody(part) => {
                assert!((placed && !ended) || nodded, "a body before its headers, or after its end");
                let common = part.response.clone().unwrap_or_default();
                let mutation = common.body_mutation.and_then(|mutation| mutation.mutation);
                match (common.header_mutation, mutation) {
                    (None, Some(Mutation::StreamedResponse(part))) => {
                        body.extend_from_slice(&part.body);
                        ended = part.end_of_stream;
                    }
                    (Some(mutation), None) if nodded => {
                        assert!(!placed && has_destination(&mutation), "a request without a destination");
                        (placed, ended) = (true, true);
                        body.clone_from(&said.body);
                    }
                    other => unreachable!("a body that gateways do not take: {other:?}"),
                }
            }
            Answer::RequestTrailers(_) => assert!(placed, "trailers before headers"),
            Answer::ResponseHeaders(_) | Answer::ResponseBody(_) | Answer::ResponseTrailers(_) => {}
        }
    }
    if placed && !over {
        assert_eq!(body, said.body, "the body is another");
    }
}

fn has_destination(mutation: &HeaderMutation) -> bool {
    let mut set = mutation.set_headers.iter().filter_map(|option| option.header.as_ref());
    let to = set.find(|header| header.key == "x-gateway-destination-endpoint");
    to.is_some_and(|to| String::from_utf8_lossy(&to.raw_value).parse::<SocketAddr>().is_ok())
}
