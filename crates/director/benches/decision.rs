//! One decision over 100 models and 200 endpoints: `cargo bench -p director`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use director::{Bound, Budget, Director, Intake};
use divan::Bencher;
use request::{InferenceRequest, Limits, RequestHead};
use routing::{
    Capability, Criticality, Draw, Endpoint, MediaPolicy, Modality, ModalitySet, Model, Pool, RoutingTable, Target,
};

fn main() {
    divan::main();
}

fn table() -> RoutingTable {
    let vision = Capability::new(ModalitySet::TEXT.with(Modality::Image), ModalitySet::TEXT);
    let target =
        |pool: &str, capability| Target { name: "m".into(), pool: pool.into(), capability, family: None, weight: 1 };
    let model = |i: u32| {
        let targets = vec![target("text", Capability::TEXT), target("vision", vision)];
        let model = Model { criticality: Criticality::Standard, created: 0, targets, media: MediaPolicy::default() };
        (Arc::from(format!("model-{i}")), Arc::new(model))
    };
    let endpoint = |i: u8| {
        (
            Arc::from(format!("pod-{i}")),
            Endpoint { address: SocketAddr::from(([10, 0, 0, i], 8000)), capability: Some(vision) },
        )
    };
    let pool = |hosts: u8| Arc::new(Pool { endpoints: (0..hosts).map(endpoint).collect(), ..Pool::default() });
    RoutingTable {
        models: (0..100).map(model).collect(),
        pools: BTreeMap::from([("text".into(), pool(200)), ("vision".into(), pool(200))]),
        elsewhere: BTreeMap::new(),
    }
}

fn request() -> InferenceRequest {
    let body = r#"{"model":"model-50","messages":[{"content":["what?",{"image_url":"https://example.com/x"}]}]}"#;
    let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
    let mut intake = Intake::new(&head, Limits::default(), &Budget::new(Budget::DEFAULT_BYTES)).expect("within limits");
    intake.feed(body.into()).expect("valid");
    intake.finish().expect("valid").0
}

#[expect(clippy::disallowed_methods, reason = "a bench is an edge")]
#[divan::bench]
fn decision_100_models_200_endpoints(bencher: Bencher<'_, '_>) {
    let now = Instant::now();
    let director = Director::new(now);
    director.replace_table(1, Arc::new(table()));
    let request = request();
    let mut seed = 0;
    bencher.bench_local(|| {
        seed += 1;
        director.direct(&request, Bound::default(), now, Draw::new(seed))
    });
}
