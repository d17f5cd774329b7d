//! What it costs to follow a request, from its head to the end of its answer: `cargo bench -p traces`.
//!
//! Spans are made, and dropped where they would be sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use director::{Bound, Director, RequestHandler, Step, TraceParent, Tracer};
use divan::Bencher;
use http::StatusCode;
use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor};
use request::RequestHead;
use routing::{Capability, Draw, Endpoint, Model, Pool, RoutingTable, Target};
use traces::Traces;

fn main() {
    divan::main();
}

const BODY: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"Is it far to the sea?"}]}"#;
const ANSWER: &[u8] = br#"{"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":4}}"#;
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Debug)]
struct Nowhere;

impl SpanProcessor for Nowhere {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        divan::black_box_drop(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn tracer(sampler: Sampler) -> Arc<dyn Tracer> {
    Traces::of(SdkTracerProvider::builder().with_sampler(sampler).with_span_processor(Nowhere).build()).tracer()
}

fn handler(tracer: Option<Arc<dyn Tracer>>) -> Arc<RequestHandler> {
    let director = Arc::new(Director::new(Instant::now()));
    let endpoint =
        |i: u8| (Arc::from(format!("pod-{i}")), Endpoint::new(SocketAddr::from(([10, 0, 0, i], 8000)), "".into()));
    let pool = Arc::new(Pool { endpoints: (0..4).map(endpoint).collect(), ..Pool::default() });
    let table = RoutingTable {
        models: BTreeMap::from([("m".into(), Arc::new(Model::new(vec![Target::new("m", "p", Capability::TEXT)])))]),
        pools: BTreeMap::from([("p".into(), pool)]),
        ..RoutingTable::default()
    };
    director.replace_table(1, Arc::new(table));
    Arc::new(RequestHandler { tracer, ..RequestHandler::new(director, "bench") })
}

fn whole_life(bencher: Bencher<'_, '_>, tracer: Option<Arc<dyn Tracer>>) {
    let handler = handler(tracer);
    let head = RequestHead {
        method: "POST",
        path: "/v1/chat/completions",
        content_type: Some("application/json"),
        content_length: Some(BODY.len() as u64),
        ..RequestHead::default()
    };
    bencher.bench_local(|| {
        let trace = handler.follow("POST", || TraceParent::of([PARENT], None), Instant::now);
        let mut transaction = handler.open(&head).expect("a path that is served").traced(trace);
        transaction.feed(BODY).expect("JSON");
        let Ok(Step::Dispatch(mut dispatch)) = transaction.finish(Bound::default(), None, Instant::now, Draw::new(1))
        else {
            unreachable!("one endpoint takes it")
        };
        let said = dispatch.attempt.traceparent();
        dispatch.attempt.head(StatusCode::OK, Instant::now());
        dispatch.attempt.body(ANSWER, Instant::now);
        dispatch.attempt.ended(Instant::now());
        said
    });
}

#[divan::bench]
fn by_nobody(bencher: Bencher<'_, '_>) {
    whole_life(bencher, None);
}

#[divan::bench]
fn and_not_told_of(bencher: Bencher<'_, '_>) {
    whole_life(bencher, Some(tracer(Sampler::AlwaysOff)));
}

#[divan::bench]
fn and_told_of(bencher: Bencher<'_, '_>) {
    whole_life(bencher, Some(tracer(Sampler::AlwaysOn)));
}
