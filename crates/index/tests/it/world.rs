//! Objects as sentences.

use std::sync::Arc;

use index::{Change, Event, Index, ObjectKey, ServerKey};
use routing::{Found, FoundModel, Known, ModalitySet, ModelName, Uid};
use serde_json::{Value, json};

pub(crate) fn pool(name: &str) -> Event {
    pool_of(json!({"metadata": {"name": name, "generation": 1}, "spec": {
        "selector": {"matchLabels": {"app": name}}, "targetPorts": [{"number": 8000}],
        "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
    }}))
}

pub(crate) fn pool_of(mut object: Value) -> Event {
    with_namespace(&mut object);
    object["apiVersion"] = json!("inference.networking.k8s.io/v1");
    object["kind"] = json!("InferencePool");
    Event::Pool(Change::Applied(serde_json::from_value(object).expect("a pool")))
}

/// `created` orders objects by age, in seconds.
#[expect(clippy::needless_pass_by_value, reason = "stories read better with the spec written in place")]
pub(crate) fn model(name: &str, created: i64, spec: Value) -> Event {
    let time = format!("2026-01-01T00:00:{created:02}Z");
    let mut object = json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "InferenceModel", "spec": spec,
        "metadata": {"name": name, "generation": 1, "creationTimestamp": time}});
    with_namespace(&mut object);
    Event::Model(Change::Applied(serde_json::from_value(object).expect("a model")))
}

/// A ready pod labelled `app: <app>`.
pub(crate) fn pod(name: &str, app: &str, ip: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "serving", "labels": {"app": app}}, "status": {
        "podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
}

pub(crate) fn pod_event(pod: &Value) -> Event {
    Event::Pod(Change::Applied(serde_json::from_value(pod.clone()).expect("a pod")))
}

/// That the server of a pod was asked, and lists these models, of text.
pub(crate) fn found(pod: &str, models: &[&str]) -> Event {
    let text = || FoundModel { input: Known::exactly(ModalitySet::TEXT), ..FoundModel::default() };
    let models = models.iter().map(|name| (ModelName::from(*name), text())).collect();
    let found = Found { engine: Some("vLLM".into()), models, ..Found::default() };
    Event::Found(ServerKey { pod: key(pod), uid: Uid::NONE, port: 8000 }, Arc::new(found))
}

pub(crate) fn service(name: &str, port: i32) -> Event {
    let object = json!({"metadata": {"name": name, "namespace": "serving"}, "spec": {"ports": [{"port": port}]}});
    Event::Service(Change::Applied(serde_json::from_value(object).expect("a Service")))
}

pub(crate) fn template(name: &str, replicas: i32) -> Event {
    let object = json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "PickerTemplate",
        "metadata": {"name": name, "namespace": "serving"}, "spec": {"replicas": replicas}});
    Event::Template(Change::Applied(serde_json::from_value(object).expect("a template")))
}

pub(crate) fn rewrite(name: &str, created: i64, spec: &Value) -> Event {
    let object = json!({"apiVersion": "llm-d.ai/v1alpha2", "kind": "InferenceModelRewrite", "spec": spec,
        "metadata": {"name": name, "namespace": "serving", "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")}});
    Event::Rewrite(Change::Applied(serde_json::from_value(object).expect("a rewrite")))
}

pub(crate) fn objective(name: &str, pool: &str, priority: i32) -> Event {
    let object = json!({"apiVersion": "llm-d.ai/v1alpha2", "kind": "InferenceObjective",
        "metadata": {"name": name, "namespace": "serving"}, "spec": {"poolRef": {"name": pool}, "priority": priority}});
    Event::Objective(Change::Applied(serde_json::from_value(object).expect("an objective")))
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("serving", name)
}

pub(crate) fn index(events: impl IntoIterator<Item = Event>) -> Index {
    let mut index = Index::default();
    for event in events {
        let _ = index.observe(event);
    }
    index
}

/// `Accepted=True ResolvedRefs=False/PoolNotFound`, and the message of `of`.
pub(crate) fn said(verdicts: &[index::Verdict], of: &str) -> String {
    let verdict = verdicts.iter().find(|verdict| verdict.type_ == of).expect("said");
    format!("{} {}: {}", if verdict.holds { "True" } else { "False" }, verdict.reason, verdict.message)
}

fn with_namespace(object: &mut Value) {
    if object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!("serving");
    }
}
