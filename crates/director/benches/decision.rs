//! One request over 100 models and 400 endpoints, and over 5,000 models and 10,000 endpoints: `cargo bench -p director`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use director::{Bound, Director, HeldBody, RequestHandler, Step};
use divan::Bencher;
use request::{RequestHead, splice};
use routing::{
    Capability, Draw, Endpoint, Found, FoundModel, Known, Modality, ModalitySet, Model, Pool, RoutingTable, Target,
};

fn main() {
    divan::main();
}

fn table() -> RoutingTable {
    let vision = Capability::new(ModalitySet::TEXT.with(Modality::Image), ModalitySet::TEXT);
    let target = |pool: &str, capability| Target::new("m", pool, capability);
    let model = |i: u32| {
        let targets = vec![target("text", Capability::TEXT), target("vision", vision)];
        let model = Model::new(targets);
        (format!("model-{i}").into(), Arc::new(model))
    };
    let endpoint = |i: u8| {
        (
            Arc::from(format!("pod-{i}")),
            Endpoint { capability: Some(vision), ..Endpoint::new(SocketAddr::from(([10, 0, 0, i], 8000)), "".into()) },
        )
    };
    let pool = |hosts: u8| Arc::new(Pool { endpoints: (0..hosts).map(endpoint).collect(), ..Pool::default() });
    RoutingTable {
        models: (0..100).map(model).collect(),
        pools: BTreeMap::from([("text".into(), pool(200)), ("vision".into(), pool(200))]),
        ..RoutingTable::default()
    }
}

/// 5,000 models, and 50 pools of 200 endpoints.
fn large_table() -> RoutingTable {
    let model = |i: u32| {
        let model = Model::new(vec![Target::new("m", format!("pool-{}", i % 50), Capability::ANY)]);
        (format!("model-{i}").into(), Arc::new(model))
    };
    let endpoint = |p: u8, i: u8| {
        let address = SocketAddr::from(([10, 0, p, i], 8000));
        (Arc::from(format!("pod-{p}-{i}")), Endpoint::new(address, "".into()))
    };
    let pool = |p: u8| {
        let endpoints = (0..200).map(|i| endpoint(p, i)).collect();
        (format!("pool-{p}").into(), Arc::new(Pool { endpoints, ..Pool::default() }))
    };
    RoutingTable {
        models: (0..5000).map(model).collect(),
        pools: (0..50).map(pool).collect(),
        ..RoutingTable::default()
    }
}

/// With a picture, which one of the pools takes, or with a text of 1 KB, which both do.
fn body(with_a_picture: bool) -> String {
    if with_a_picture {
        return r#"{"model":"model-50","messages":[{"content":["what?",{"image_url":"https://example.com/x"}]}]}"#
            .into();
    }
    let text = "How many angels dance on a pin? ".repeat(30);
    format!(r#"{{"model":"model-50","messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

#[expect(clippy::disallowed_methods, reason = "a bench is an edge")]
fn clock() -> Instant {
    Instant::now()
}

fn handler(table: RoutingTable) -> Arc<RequestHandler> {
    let director = Director::new(clock());
    director.replace_table(1, Arc::new(table));
    Arc::new(RequestHandler::new(Arc::new(director), "serving"))
}

fn run(bencher: Bencher<'_, '_>, table: RoutingTable, body: &str) {
    let handler = handler(table);
    let body = Bytes::copy_from_slice(body.as_bytes());
    let head = RequestHead {
        method: "POST",
        path: "/v1/chat/completions",
        content_type: Some("application/json"),
        ..RequestHead::default()
    };
    let mut seed = 0;
    bencher.bench_local(|| {
        seed += 1;
        let mut transaction = handler.open(&head).expect("sound");
        let mut kept = HeldBody::open(&handler.budget, 64 << 10, None).expect("room");
        kept.push(body.clone()).expect("room");
        transaction.feed(&body).expect("valid");
        let Ok(Step::Dispatch(dispatch)) = transaction.finish(Bound::default(), None, clock, Draw::new(seed)) else {
            unreachable!("it has an endpoint")
        };
        let (chunks, reservation) = kept.finish();
        (splice(chunks, &dispatch.plan.first().splices), reservation, dispatch)
    });
}

/// A whole life up to its dispatch: opened, read, decided, and the model's name written.
#[divan::bench]
fn request_with_a_picture(bencher: Bencher<'_, '_>) {
    run(bencher, table(), &body(true));
}

#[divan::bench]
fn request_of_1_kb(bencher: Bencher<'_, '_>) {
    run(bencher, table(), &body(false));
}

/// The same endpoints, each of which was asked, and lists the model and 15 others: what that adds to a decision.
#[divan::bench]
fn request_of_1_kb_where_endpoints_were_asked(bencher: Bencher<'_, '_>) {
    let mut table = table();
    for pool in table.pools.values_mut() {
        for endpoint in Arc::make_mut(pool).endpoints.values_mut() {
            let text = FoundModel { input: Known::NOTHING.with(Modality::Text, true), ..FoundModel::default() };
            let names = (0..15).map(|number| format!("other-{number}")).chain(["m".to_owned()]);
            let models = names.map(|name| (name.into(), text.clone())).collect();
            endpoint.found = Some(Arc::new(Found { models, ..Found::default() }));
        }
    }
    run(bencher, table, &body(false));
}

#[divan::bench]
fn request_of_1_kb_in_a_large_table(bencher: Bencher<'_, '_>) {
    run(bencher, large_table(), &body(false));
}

/// A decision alone, over endpoints that all have read the first half of a prompt. Of a conversation of a hundred turns with a picture in every tenth.
mod of_a_prompt_that_all_know {
    use super::{
        Arc, Bencher, Bound, Draw, Endpoint, Model, Pool, RequestHead, RoutingTable, SocketAddr, Step, Target, clock,
        handler,
    };
    use director::RequestHandler;
    use request::InferenceRequest;
    use routing::Capability;
    use scheduling::Subset;

    fn pool(endpoints: u8) -> RoutingTable {
        let address = |i: u8| SocketAddr::from(([10, 0, 0, i], 8000));
        let endpoint = |i| (Arc::from(format!("pod-{i}")), Endpoint::new(address(i), "".into()));
        let pool = Pool { endpoints: (0..endpoints).map(endpoint).collect(), ..Pool::default() };
        let model = Model::new(vec![Target::new("m", "pool", Capability::ANY)]);
        let mut table = RoutingTable::default();
        table.models.insert("m".into(), Arc::new(model));
        table.pools.insert("pool".into(), Arc::new(pool));
        table
    }

    fn request(handler: &Arc<RequestHandler>, bytes: usize) -> InferenceRequest {
        let turn = |number: usize| {
            let picture = format!(r#",{{"type":"image_url","image_url":{{"url":"https://example.com/{number}"}}}}"#);
            let picture = if number.is_multiple_of(10) { &*picture } else { "" };
            let text = format!("turn {number} ").repeat(bytes / 100 / 8);
            format!(r#"{{"role":"user","content":[{{"type":"text","text":"{text}"}}{picture}]}}"#)
        };
        let turns: Vec<String> = (0..100).map(turn).collect();
        let body = format!(r#"{{"model":"m","stream":true,"messages":[{}]}}"#, turns.join(","));
        let head = RequestHead { method: "POST", path: "/v1/chat/completions", ..RequestHead::default() };
        let mut transaction = handler.open(&head).expect("sound");
        transaction.feed(body.as_bytes()).expect("valid");
        transaction.read().expect("whole")
    }

    fn run(bencher: Bencher<'_, '_>, endpoints: u8, bytes: usize) {
        let handler = handler(pool(endpoints));
        let request = request(&handler, bytes);
        let decide = |request: InferenceRequest, bound: Bound, seed| match handler.decide(
            request,
            bound,
            None,
            clock,
            Draw::new(seed),
        ) {
            Ok(Step::Dispatch(dispatch)) => dispatch,
            _ => unreachable!("it has an endpoint"),
        };
        let mut half = request.clone();
        half.prompt.pieces.truncate(request.prompt.pieces.len() / 2);
        for known in handler.director.endpoints() {
            let bound = Bound { subset: Some(Subset::parse([&*known.address.to_string()])), pool: None };
            let mut attempt = decide(half.clone(), bound, 1).attempt;
            attempt.head(http::StatusCode::OK, clock());
            attempt.ended(clock());
        }
        let mut seed = 0;
        bencher.with_inputs(|| request.clone()).bench_local_values(|request| {
            seed += 1;
            decide(request, Bound::default(), seed)
        });
    }

    #[divan::bench]
    fn tokens_100_000_over_200_endpoints(bencher: Bencher<'_, '_>) {
        run(bencher, 200, 400_000);
    }

    /// What the reference picker takes 674 ms and 13 GB for (llm-d-router#2390).
    #[divan::bench]
    fn tokens_240_000_over_96_endpoints(bencher: Bencher<'_, '_>) {
        run(bencher, 96, 960_000);
    }
}

/// What any stranger may ask of a large table, as often as they like. Each from its head to its answer.
mod of_a_large_table {
    use super::{Bencher, Bound, Draw, RequestHead, clock, handler, large_table};

    fn ask(bencher: Bencher<'_, '_>, method: &'static str, path: &'static str, body: &str) {
        let handler = handler(large_table());
        let head = RequestHead { method, path, content_type: Some("application/json"), ..RequestHead::default() };
        bencher.bench_local(|| {
            let mut transaction = handler.open(&head).expect("sound");
            transaction.feed(body.as_bytes()).expect("valid");
            transaction.finish(Bound::default(), None, clock, Draw::new(1))
        });
    }

    #[divan::bench]
    fn the_list_of_models(bencher: Bencher<'_, '_>) {
        ask(bencher, "GET", "/v1/models", "");
    }

    #[divan::bench]
    fn a_model_that_is_not_there(bencher: Bencher<'_, '_>) {
        ask(bencher, "POST", "/v1/chat/completions", r#"{"model":"model-50x","messages":[]}"#);
    }

    #[divan::bench]
    fn a_job_that_nobody_made(bencher: Bencher<'_, '_>) {
        ask(bencher, "GET", "/v1/videos/video_123", "");
    }
}
