//! Conversations: what a gateway says (`>`) and what we answer (`<`), in `testdata/*.conversation`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use director::{DESTINATION, Director, MAX_HEAD};
use futures::FutureExt as _;
use prost_types::{ListValue, Struct, Value, value::Kind};
use request::Limits;
use routing::{Capability, Endpoint, ModalitySet, Model, Pool, RoutingTable, Target};

use super::*;
use crate::proto::processing_request::Request as Asked;
use crate::proto::processing_response::Response as Answer;
use crate::proto::{
    HeaderMap, HeaderMutation, HeaderValue, HttpTrailers, Metadata, ProtocolConfiguration, body_mutation::Mutation,
};

/// Model `chat`: text at 10.0.0.1:8000 as `llama`, text+image at 10.0.0.2:8000 and 10.0.0.3:8000 as `qwen`.
fn handler() -> Arc<RequestHandler> {
    let capability = |input: &str| Capability::new(ModalitySet::parse_list(input).unwrap(), ModalitySet::TEXT);
    let target = |name: &str, pool: &str, input| Target::new(name, pool, capability(input));
    let films = Target {
        capability: Capability::new(ModalitySet::TEXT, ModalitySet::of(&[routing::Modality::Video])),
        ..target("wan", "films", "text")
    };
    let model = Model {
        created: 1_700_000_000,
        ..Model::new(vec![target("llama", "text", "text"), target("qwen", "vision", "text,image"), films])
    };
    let pool = |hosts: &[u8]| Pool {
        endpoints: hosts
            .iter()
            .map(|host| (Arc::from(format!("pod-{host}")), Endpoint::new(([10, 0, 0, *host], 8000).into(), "".into())))
            .collect(),
        ..Pool::default()
    };
    let pools = [("text", [1].as_slice()), ("vision", &[2, 3]), ("films", &[4, 5])];
    let pools = pools.map(|(name, hosts)| (name.into(), Arc::new(pool(hosts)))).into();
    let director = Director::new(Instant::now());
    director.replace_table(
        1,
        Arc::new(RoutingTable { models: [("chat".into(), Arc::new(model))].into(), pools, ..RoutingTable::default() }),
    );
    let handler = RequestHandler::new(Arc::new(director), "serving");
    Arc::new(RequestHandler { limits: Limits { max_body_bytes: 1 << 20 }, ..handler })
}

#[test]
fn every_conversation_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10, "where are the conversations?");
    for file in files {
        let written = std::fs::read_to_string(&file).unwrap();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&file, held(&written)).unwrap();
            continue;
        }
        assert_eq!(held(&written), written, "{} (BLESS=1 writes down what is said now)", file.display());
    }
}

/// The conversation as it goes: comments and `>` lines as they are, after each of the latter what was answered.
fn held(written: &str) -> String {
    let handler = handler();
    let options = Options {
        fallbacks: written.contains("# fallbacks"),
        ignore_subset: written.contains("# subsets ignored"),
        test_selection: written.contains("# test selection"),
        max_streams: 1,
        body: director::BodyTimeouts { stall: Duration::MAX, whole: Duration::MAX },
    };
    let mut exchange = Exchange::new(Arc::clone(&handler), options, None);
    let (mut exchanges, mut rules) = (Vec::new(), Rules::default());
    let mut held = String::new();
    for line in written.lines().filter(|line| !line.starts_with('<')) {
        held += &format!("{line}\n");
        if line == "# another request" {
            exchanges.push(std::mem::replace(&mut exchange, Exchange::new(Arc::clone(&handler), options, None)));
            rules = Rules::default();
        }
        let Some(said) = line.strip_prefix("> ") else { continue };
        if said == "(nothing for 30 s)" {
            held +=
                &format!("< {}\n", shown(&exchange.give_up(Rejection::Stalled { waited: Duration::from_secs(30) })));
            continue;
        }
        let mut answers = exchange.on(message(said), Instant::now, Draw::new(1));
        // Whoever is asked around, nobody knows it.
        if let Some((step, _)) = exchange.unsettled() {
            let settled = handler.settle(step, None, None, Instant::now).now_or_never().expect("nobody is asked");
            answers.extend(exchange.settled(settled));
        }
        for answer in answers {
            rules.hold(&answer, options);
            held += &format!("< {}\n", shown(&answer));
        }
    }
    drop((exchange, exchanges));
    assert_eq!(handler.director.in_flight(), 0, "a request is still counted");
    assert_eq!(handler.budget.held(), 0, "a body is still held");
    held
}

/// What gateways make of an answer that is not as they want it stands in docs/gateways.md: another pod in silence, an empty body, 500. So these
/// hold of every answer in every conversation.
#[derive(Default)]
struct Rules {
    headers_answered: bool,
    decided: bool,
    bodies_ended: usize,
}

impl Rules {
    fn hold(&mut self, answer: &ProcessingResponse, options: Options) {
        match answer.response.as_ref().unwrap() {
            Answer::RequestHeaders(headers) => {
                assert!(!self.headers_answered, "headers are answered once");
                self.headers_answered = true;
                // A nod: the decision comes with the body.
                let Some(mutation) = headers.response.clone().unwrap().header_mutation else { return };
                self.destination(&mutation, answer, options);
            }
            Answer::RequestBody(body) => {
                assert!(self.headers_answered, "headers are answered before bodies");
                let common = body.response.clone().unwrap();
                let mutation = common.body_mutation.and_then(|mutation| mutation.mutation);
                if let Some(head) = &common.header_mutation {
                    assert!(!matches!(mutation, Some(Mutation::StreamedResponse(_))), "streamed after the headers");
                    self.destination(head, answer, options);
                    return;
                }
                let Some(Mutation::StreamedResponse(streamed)) = mutation else {
                    panic!("a body that is not streamed")
                };
                self.bodies_ended += usize::from(streamed.end_of_stream);
                assert!(self.bodies_ended <= 1, "a body ends once");
                assert!(streamed.body.len() <= 64 << 10, "a piece larger than gateways take");
            }
            _ => {}
        }
    }

    fn destination(&mut self, mutation: &HeaderMutation, answer: &ProcessingResponse, options: Options) {
        assert!(!std::mem::replace(&mut self.decided, true), "it is decided once");
        let destination = mutation.set_headers.iter().find_map(|option| {
            let header = option.header.as_ref().filter(|header| header.key == DESTINATION)?;
            Some(String::from_utf8_lossy(headers::value(header)).into_owned())
        });
        let destination = destination.expect("the destination stands in a header");
        assert_eq!(Some(&destination), metadata_of(answer).as_ref(), "header and metadata are equal");
        let addresses: Vec<_> = destination.split(',').map(str::parse::<SocketAddr>).collect();
        assert!(addresses.iter().all(Result::is_ok), "{destination} is not all addresses");
        assert!(addresses.len() == 1 || options.fallbacks, "a list, which nobody asked for");
    }
}

/// Reads `request-headers end | name: value | …`, `request-body end {…}`, and the like.
fn message(said: &str) -> ProcessingRequest {
    let (kind, rest) = said.split_once(' ').unwrap_or((said, ""));
    let (end_of_stream, rest) = match rest.strip_prefix("end") {
        Some(rest) => (true, rest.trim_start()),
        None => (false, rest),
    };
    let mut message = ProcessingRequest::default();
    let mut headers = Vec::new();
    for item in rest.split(" | ").filter(|_| kind.ends_with("headers")) {
        match item.split_once(": ") {
            Some(("modes", modes)) => message.protocol_config = Some(self::modes(modes)),
            Some(("subset", list)) => message.metadata_context = Some(self::subset(list)),
            Some(("served", address)) => message.metadata_context = Some(self::served(address)),
            Some((key, value)) => headers.push(HeaderValue {
                key: key.into(),
                raw_value: Bytes::copy_from_slice(value.as_bytes()),
                value: String::new(),
            }),
            None => {}
        }
    }
    let headers = HttpHeaders { headers: Some(HeaderMap { headers }), end_of_stream };
    let body =
        if let Some(size) = rest.strip_prefix("filler ") { " ".repeat(size.parse().unwrap()) } else { rest.to_owned() };
    let body = HttpBody { body: body.into(), end_of_stream };
    message.request = Some(match kind {
        "request-headers" => Asked::RequestHeaders(headers),
        "request-body" => Asked::RequestBody(body),
        "request-trailers" => Asked::RequestTrailers(HttpTrailers::default()),
        "response-headers" => Asked::ResponseHeaders(headers),
        "response-body" => Asked::ResponseBody(body),
        "response-trailers" => Asked::ResponseTrailers(HttpTrailers::default()),
        other => unreachable!("{other} is nothing a gateway says"),
    });
    message
}

fn modes(modes: &str) -> ProtocolConfiguration {
    let mode = |name| BodySendMode::from_str_name(name).unwrap().into();
    let (request, response) = modes.split_once(' ').unwrap();
    ProtocolConfiguration { request_body_mode: mode(request), response_body_mode: mode(response) }
}

fn subset(list: &str) -> Metadata {
    let values = list.split(' ').filter(|item| !item.is_empty() && *item != "nobody").map(string).collect();
    let list = Value { kind: Some(Kind::ListValue(ListValue { values })) };
    metadata("envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset", list)
}

/// As Istio says it, with what we answered before.
fn served(address: &str) -> Metadata {
    let mut metadata = metadata("envoy.lb", "x-gateway-destination-endpoint-served", string(address));
    let lb = metadata.filter_metadata.get_mut("envoy.lb").unwrap();
    lb.fields.insert(DESTINATION.into(), string("10.0.0.1:8000"));
    metadata
}

fn string(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

fn metadata(namespace: &str, key: &str, value: Value) -> Metadata {
    let fields = [(key.into(), value)].into();
    Metadata { filter_metadata: [(namespace.into(), Struct { fields })].into() }
}

fn shown(answer: &ProcessingResponse) -> String {
    let shown = match answer.response.as_ref().unwrap() {
        Answer::RequestHeaders(headers) => {
            let common = headers.response.clone().unwrap();
            match common.header_mutation {
                Some(mutation) => format!("request-headers {}", self::mutation(&mutation)),
                None => "request-headers untouched".into(),
            }
        }
        Answer::ResponseHeaders(headers) => {
            let mutation = headers.response.clone().unwrap().header_mutation.unwrap_or_default();
            format!("response-headers {}", self::mutation(&mutation)).trim_end().to_owned()
        }
        Answer::RequestBody(body) => format!("request-body{}", self::body(body)),
        Answer::ResponseBody(body) => format!("response-body{}", self::body(body)),
        Answer::RequestTrailers(_) => "request-trailers".into(),
        Answer::ResponseTrailers(_) => "response-trailers".into(),
        Answer::ImmediateResponse(immediate) => {
            let headers = mutation(&immediate.headers.clone().unwrap_or_default());
            format!(
                "immediate {} {headers} | {}",
                immediate.status.unwrap().code,
                String::from_utf8_lossy(&immediate.body)
            )
        }
    };
    let metadata = metadata_of(answer).map(|to| format!(" | metadata {to}"));
    format!("{shown}{}", metadata.unwrap_or_default())
}

/// The destination as metadata.
fn metadata_of(answer: &ProcessingResponse) -> Option<String> {
    let metadata = answer.dynamic_metadata.as_ref()?;
    let Some(Kind::StructValue(lb)) = metadata.fields["envoy.lb"].kind.clone() else { panic!("no struct") };
    let Some(Kind::StringValue(to)) = lb.fields[DESTINATION].kind.clone() else { panic!("no string") };
    Some(to)
}

fn mutation(mutation: &HeaderMutation) -> String {
    let set = mutation.set_headers.iter().map(|option| {
        assert_eq!(option.append_action, 2, "headers are overwritten, never appended");
        let header = option.header.as_ref().unwrap();
        format!("{}: {}", header.key, String::from_utf8_lossy(&header.raw_value))
    });
    let removed = mutation.remove_headers.iter().map(|name| format!("-{name}"));
    set.chain(removed).collect::<Vec<_>>().join(" | ")
}

fn body(body: &crate::proto::BodyResponse) -> String {
    let common = body.response.clone().unwrap();
    let head = common.header_mutation.map(|head| format!(" | {}", mutation(&head))).unwrap_or_default();
    match common.body_mutation.and_then(|mutation| mutation.mutation) {
        None => format!(" untouched{head}"),
        Some(Mutation::Body(body)) => format!(" {}{head}", String::from_utf8_lossy(&body)),
        Some(Mutation::StreamedResponse(streamed)) => {
            let end = if streamed.end_of_stream { " end" } else { "" };
            match streamed.body.len() {
                0 => end.to_owned(),
                size if size > 200 => format!("{end} ({size} bytes)"),
                _ => format!("{end} {}", String::from_utf8_lossy(&streamed.body)),
            }
        }
        Some(other) => format!(" {other:?}"),
    }
}

#[test]
fn a_head_that_is_too_large_is_refused_before_it_is_kept() {
    let options = Options {
        fallbacks: false,
        ignore_subset: false,
        test_selection: false,
        max_streams: 1,
        body: director::BodyTimeouts { stall: Duration::MAX, whole: Duration::MAX },
    };
    let mut exchange = Exchange::new(handler(), options, None);
    let head = format!(
        "request-headers :method: POST | :path: /v1/chat/completions | authorization: {}",
        "x".repeat(MAX_HEAD)
    );
    let answers = exchange.on(message(&head), Instant::now, Draw::new(1));
    assert!(shown(&answers[0]).contains("request_head_too_large"), "{}", shown(&answers[0]));
    assert!(exchange.is_answered());
}
