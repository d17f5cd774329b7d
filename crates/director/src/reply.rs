//! An answer that the picker gives itself: why a request was refused, or which models there are.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use routing::{ModalitySet, Model, RoutingTable};
use serde_json::{Value, json};

/// An answer in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    /// The methods that a path takes.
    pub allow: Option<String>,
    pub body: Bytes,
}

impl Reply {
    fn ok(body: &Value) -> Self {
        Self { status: StatusCode::OK, retry_after: None, allow: None, body: Bytes::from(body.to_string()) }
    }

    /// The list of models, in OpenAI's shape with the `architecture` that OpenRouter and llama.cpp say modalities by. With `all` also
    /// those that nobody serves now, with what they are declared to take.
    pub(crate) fn models(table: &RoutingTable, all: bool, owner: &str) -> Self {
        let models = table.models.iter().filter_map(|(name, model)| model_value(table, name, model, all, owner));
        Self::ok(&json!({"object": "list", "data": models.collect::<Vec<_>>()}))
    }

    /// One model; none when it is not declared, or not served now and not asked for all the same.
    pub(crate) fn model(table: &RoutingTable, name: &str, all: bool, owner: &str) -> Option<Self> {
        let model = table.models.get(name)?;
        model_value(table, name, model, all, owner).map(|model| Self::ok(&model))
    }
}

fn model_value(table: &RoutingTable, name: &str, model: &Model, all: bool, owner: &str) -> Option<Value> {
    let on_offer = table.model_on_offer(model);
    let shown = on_offer.or(all.then(|| model.offered()))?;
    let words = |set: ModalitySet| set.iter().map(routing::Modality::as_str).collect::<Vec<_>>();
    let (input, output) = (words(shown.input), words(shown.output));
    Some(json!({
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": owner,
        "available": on_offer.is_some(),
        "architecture": {
            "modality": format!("{}->{}", input.join("+"), output.join("+")),
            "input_modalities": input,
            "output_modalities": output,
        },
    }))
}
