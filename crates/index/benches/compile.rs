//! How long the compiler takes for a large cluster, as a whole and after one pod changed: `cargo bench -p index`.

use api::{InferenceModel, InferencePool};
use divan::Bencher;
use index::{Change, Event, Index};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

fn main() {
    divan::main();
}

/// A cluster of `pools` pools with ten pods and five models each, so many pools to a namespace.
fn cluster(pools: usize, to_a_namespace: usize) -> Index {
    let namespace = |pool: usize| format!("ns{}", pool / to_a_namespace);
    let pool = |number: usize| -> InferencePool {
        let value: Value = json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
            "metadata": {"name": format!("pool{number}"), "namespace": namespace(number)},
            "spec": {"selector": {"matchLabels": {"pool": number.to_string()}}, "targetPorts": [{"number": 8000}],
                "endpointPickerRef": {"name": "picker", "port": {"number": 9002}}}});
        serde_json::from_value(value).expect("a pool")
    };
    let model = |number: usize| -> InferenceModel {
        let pool = number / 5;
        serde_json::from_value(json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "InferenceModel",
            "metadata": {"name": format!("m{number}"), "namespace": namespace(pool)},
            "spec": {"modelName": format!("m{number}"), "poolRef": {"name": format!("pool{pool}")}, "modalities": {"input": ["Text", "Image"]}}}))
        .expect("a model")
    };
    let mut index = Index::default();
    let _ = index.observe(Event::Pool(Change::Relisted((0..pools).map(pool).collect())));
    let _ = index.observe(Event::Model(Change::Relisted((0..pools * 5).map(model).collect())));
    let _ = index.observe(Event::Pod(Change::Relisted(
        (0..pools * 10).map(|number| pod(number, &namespace(number / 10), true)).collect(),
    )));
    index
}

fn pod(number: usize, namespace: &str, ready: bool) -> Pod {
    let pool = number / 10;
    let ip = format!("10.{}.{}.{}", number / 62_500, number / 250 % 250, number % 250 + 1);
    serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod{number}"), "namespace": namespace, "labels": {"pool": pool.to_string()}},
        "status": {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}}))
    .expect("a pod")
}

#[divan::bench(args = [100, 1000, 3000])]
fn everything(bencher: Bencher<'_, '_>, pools: usize) {
    let index = cluster(pools, 10);
    bencher.bench_local(|| index.compile());
}

#[divan::bench(args = [100, 1000])]
fn everything_in_one_namespace(bencher: Bencher<'_, '_>, pools: usize) {
    let index = cluster(pools, pools);
    bencher.bench_local(|| index.compile());
}

#[divan::bench(args = [100, 1000, 3000])]
fn after_one_pod_changed(bencher: Bencher<'_, '_>, pools: usize) {
    one_pod_changes(bencher, cluster(pools, 10));
}

#[divan::bench(args = [100, 1000, 3000])]
fn after_one_pod_changed_in_one_namespace(bencher: Bencher<'_, '_>, pools: usize) {
    one_pod_changes(bencher, cluster(pools, pools));
}

fn one_pod_changes(bencher: Bencher<'_, '_>, mut index: Index) {
    let mut ready = false;
    let mut compiled = index.compile();
    bencher.bench_local(|| {
        ready = !ready;
        let stale = index.observe(Event::Pod(Change::Applied(pod(7, "ns0", ready))));
        compiled = index.compile_again(&compiled, &stale);
    });
}
