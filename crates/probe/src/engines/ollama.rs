//! Ollama: many models, each of which says what it can do without being loaded.

use std::collections::BTreeMap;

use futures::future;
use futures::stream::{self, StreamExt as _};
use routing::{Found, FoundModel, Known, Modality, ModalitySet, ModelName, Operation, OperationSet};
use serde_json::{Value, json};

use crate::asker::{Answer, Asker};
use crate::listing::{Listed, Listing, tokens};
use crate::{Probed, words};

/// How many models are asked for at once.
const AT_ONCE: usize = 8;

/// None where it is none. SGLang and LocalAI answer to paths of Ollama's as well, and have another list, or another page of their own.
pub(super) async fn look(asker: &Asker<'_>, listing: &Listing) -> Option<Probed> {
    let version = asker.get("/api/version").await.ok().filter(Answer::is_ok)?;
    let version = words(&version.json["version"])?;
    let (tags, local_ai) = future::join(asker.get("/api/tags"), asker.get("/.well-known/localai.json")).await;
    let tags = tags.ok().filter(Answer::is_ok)?.json;
    let is_another = tags["models"][0]["details"]["format"] == "sglang" || local_ai.is_ok_and(|answer| answer.is_ok());
    if is_another || !tags["models"].is_array() {
        return None;
    }
    let mut shows = Vec::new();
    for entry in &listing.models {
        shows.push(show(asker, entry));
    }
    let models: Vec<FoundModel> = stream::iter(shows).buffered(AT_ONCE).collect().await;
    let names = listing.models.iter().map(|entry| entry.name.clone());
    let mut models: BTreeMap<ModelName, FoundModel> = names.zip(models).collect();
    // It answers to a name without its tag as well, where that is the usual one.
    let untagged =
        |(name, model): (&ModelName, &FoundModel)| Some((name.strip_suffix(":latest")?.into(), model.clone()));
    let untagged: Vec<(ModelName, FoundModel)> = models.iter().filter_map(untagged).collect();
    models.extend(untagged);
    let untold = models.iter().filter(|(_, model)| model.operations.is_none());
    let doubts = super::few(untold.map(|(name, _)| format!("what {name} takes: /api/show does not say")).collect());
    let found = Found { engine: Some("Ollama".into()), version: Some(version), models, any_name: false };
    Some(Probed { found, doubts, ..Probed::default() })
}

async fn show(asker: &Asker<'_>, entry: &Listed) -> FoundModel {
    let show = asker.post("/api/show", &json!({"model": &*entry.name})).await.ok().filter(Answer::is_ok);
    model(entry, show.map(|answer| answer.json).as_ref())
}

fn model(entry: &Listed, show: Option<&Value>) -> FoundModel {
    let mut model = super::listed(entry);
    let Some(show) = show else { return model };
    let architecture = show["model_info"]["general.architecture"].as_str().unwrap_or_default();
    if let Some(length) = tokens(&show["model_info"][format!("{architecture}.context_length")]) {
        model.limits = model.limits.with_context(length);
    }
    let Some(capabilities) = show["capabilities"].as_array() else { return model };
    let can = |word: &str| capabilities.iter().any(|capability| capability == word);
    // `image` is a picture that comes out.
    let input = [(Modality::Text, true), (Modality::Image, can("vision")), (Modality::Audio, can("audio"))];
    let input: ModalitySet = input.into_iter().filter(|(_, is)| *is).map(|(modality, _)| modality).collect();
    let operations = operations(can);
    model.input = Known::exactly(input);
    model.output = Known::exactly(operations.gives());
    model.operations = Some(operations);
    model
}

fn operations(can: impl Fn(&str) -> bool) -> OperationSet {
    use Operation::{
        ChatCompletions, Completions, Embeddings, ImageEdits, ImageGenerations, Messages, Responses, Transcriptions,
    };
    let all: [(&str, &[Operation]); 4] = [
        ("completion", &[ChatCompletions, Completions, Responses, Messages, Embeddings]),
        ("embedding", &[Embeddings]),
        ("audio", &[Transcriptions]),
        ("image", &[ImageGenerations, ImageEdits]),
    ];
    all.into_iter().filter(|(word, _)| can(word)).flat_map(|(_, operations)| operations).copied().collect()
}
