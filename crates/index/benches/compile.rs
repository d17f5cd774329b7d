//! Compiling a whole cluster: `cargo bench -p index`.

use divan::Bencher;
use index::{Change, Event, Index};
use serde_json::json;

fn main() {
    divan::main();
}

/// `pools` pools of `pods` pods each, and `models` models spread over them.
fn cluster(pools: usize, pods: usize, models: usize) -> Index {
    let mut index = Index::default();
    for p in 0..pools {
        let pool = json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
            "metadata": {"name": format!("pool-{p}"), "namespace": "serving"},
            "spec": {"selector": {"matchLabels": {"app": format!("pool-{p}")}}, "targetPorts": [{"number": 8000}]}});
        index.observe(Event::Pool(Change::Applied(serde_json::from_value(pool).expect("a pool"))));
        for i in 0..pods {
            let pod = json!({"metadata": {"name": format!("pod-{p}-{i}"), "namespace": "serving", "labels": {"app": format!("pool-{p}")}},
                "status": {"podIP": format!("10.{}.{}.1", p, i), "conditions": [{"type": "Ready", "status": "True"}]}});
            index.observe(Event::Pod(Change::Applied(serde_json::from_value(pod).expect("a pod"))));
        }
    }
    for m in 0..models {
        let model = json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "InferenceModel",
            "metadata": {"name": format!("model-{m}"), "namespace": "serving"},
            "spec": {"modelName": format!("model-{m}"), "targetModels": [
                {"name": "text", "poolRef": {"name": format!("pool-{}", m % pools)}},
                {"name": "omni", "poolRef": {"name": format!("pool-{}", (m + 1) % pools)}, "modalities": {"input": ["Text", "Image"]}}]}});
        index.observe(Event::Model(Change::Applied(serde_json::from_value(model).expect("a model"))));
    }
    index
}

#[divan::bench]
fn compile_100_pools_100_pods_500_models(bencher: Bencher<'_, '_>) {
    let index = cluster(100, 100, 500);
    bencher.bench_local(|| index.compile());
}
