//! An answer that the picker gives itself: why a request was refused, or which models there are.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use routing::{ModalitySet, Model, Offer};
use serde_json::{Value, json};

use crate::snapshot::Snapshot;

/// The header that says why a request was not sent on, in llm-d's words (llm-d-router, `pkg/epp/util/request/headers.go`).
pub const DROPPED_REASON: &str = "x-llm-d-request-dropped-reason";

/// An answer in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    /// The methods that a path takes.
    pub allow: Option<String>,
    /// Why the request was not sent on: one of [`Self::DROPPED`].
    pub dropped: Option<&'static str>,
    pub body: Bytes,
}

impl Reply {
    pub const DROPPED: [&'static str; 4] =
        ["rejected-saturated", "rejected-ttl-expired", "rejected-no-endpoints", "evicted-priority"];

    fn ok(body: Bytes) -> Self {
        Self { status: StatusCode::OK, retry_after: None, allow: None, dropped: None, body }
    }

    /// The list of models. With `all` also those that nobody serves now, with what they are declared to take.
    pub(crate) fn models(snapshot: &Snapshot, all: bool, owner: &str) -> Self {
        Self::ok(snapshot.list(all, owner))
    }

    /// One model; none when it is not declared, or not served now and not asked for all the same.
    pub(crate) fn model(snapshot: &Snapshot, name: &str, all: bool, owner: &str) -> Option<Self> {
        let model = snapshot.table.models.get(name)?;
        model_value(snapshot, name, model, all, owner).map(|model| Self::ok(model.to_string().into()))
    }

    /// One that nobody declares; none where no endpoint was found to serve it either.
    pub(crate) fn found(snapshot: &Snapshot, name: &str, owner: &str) -> Option<Self> {
        let offer = snapshot.found().get(name)?;
        Some(Self::ok(entry(name, owner, 0, true, *offer).to_string().into()))
    }
}

/// In OpenAI's shape, with the `architecture` that OpenRouter and llama.cpp say modalities by.
pub(crate) fn list_of_models(snapshot: &Snapshot, all: bool, owner: &str) -> Bytes {
    let models = &snapshot.table.models;
    let data: Vec<Value> =
        models.iter().filter_map(|(name, model)| model_value(snapshot, name, model, all, owner)).collect();
    let mut list = json!({"object": "list", "data": data});
    // Where nobody declares any, what was found is served by its name.
    if models.is_empty() && snapshot.table.pools.len() == 1 {
        let found = snapshot.found().iter().map(|(name, offer)| entry(name, owner, 0, true, *offer));
        list["data"] = found.collect();
    } else if models.is_empty() {
        list["message"] =
            "no InferenceModel is declared, and without one requests cannot be routed to one of several pools".into();
    }
    list.to_string().into()
}

fn model_value(snapshot: &Snapshot, name: &str, model: &Model, all: bool, owner: &str) -> Option<Value> {
    let on_offer = snapshot.on_offer(model);
    let shown = on_offer.or(all.then(|| model.offered()))?;
    Some(entry(
        name,
        owner,
        model.created,
        on_offer.is_some(),
        Offer { capability: shown, limits: snapshot.limits(model), is_adapter: false },
    ))
}

/// In the shape that OpenRouter's list has.
fn entry(name: &str, owner: &str, created: i64, available: bool, offer: Offer) -> Value {
    let Offer { capability: shown, limits, .. } = offer;
    let words = |set: ModalitySet| set.iter().map(routing::Modality::as_str).collect::<Vec<_>>();
    let (input, output) = (words(shown.input), words(shown.output));
    let mut entry = json!({
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": owner,
        "available": available,
        "architecture": {
            "modality": format!("{}->{}", input.join("+"), output.join("+")),
            "input_modalities": input,
            "output_modalities": output,
        },
    });
    if let Some(context) = limits.context() {
        entry["context_length"] = context.into();
    }
    entry
}
