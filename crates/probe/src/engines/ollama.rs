//! Ollama: many models, each of which says what it can do without being loaded.

use std::collections::BTreeMap;

use futures::future;
use futures::stream::{self, StreamExt as _};
use http::StatusCode;
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
    let routes = Routes::of(asker, &version).await;
    let mut shows = Vec::new();
    for entry in &listing.models {
        shows.push(show(asker, entry, routes));
    }
    let models: Vec<FoundModel> = stream::iter(shows).buffered(AT_ONCE).collect().await;
    let names = listing.models.iter().map(|entry| entry.name.clone());
    let mut models: BTreeMap<ModelName, FoundModel> = names.zip(models).collect();
    let untold = models.iter().filter(|(_, model)| model.operations.is_none());
    let mut doubts: Vec<String> =
        untold.map(|(name, _)| format!("what {name} takes: /api/show does not say")).collect();
    let of_unknown_length =
        models.iter().filter(|(_, model)| model.operations.is_some() && model.limits.context().is_none());
    doubts.extend(of_unknown_length.map(|(name, _)| {
        format!(
            "the context length of {name}: its Modelfile has no num_ctx, and Ollama chooses one when it loads the model"
        )
    }));
    let doubts = super::few(doubts);
    // It answers to a name without its tag as well, where that is the usual one.
    let untagged =
        |(name, model): (&ModelName, &FoundModel)| Some((name.strip_suffix(":latest")?.into(), model.clone()));
    let untagged: Vec<(ModelName, FoundModel)> = models.iter().filter_map(untagged).collect();
    models.extend(untagged);
    let found = Found { engine: Some("Ollama".into()), version: Some(version), models, any_name: false };
    Some(Probed { found, doubts, ..Probed::default() })
}

/// What of it is not the same in every release.
#[derive(Debug, Clone, Copy)]
struct Routes {
    /// Before 0.30, models that complete make embeddings as well; llama.cpp, which does it since then, refuses with 501.
    embeds_by_all: bool,
    /// There until 0.32.5.
    images: bool,
    /// There since 0.20.
    transcriptions: bool,
}

impl Routes {
    async fn of(asker: &Asker<'_>, version: &str) -> Self {
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
        let embeds_by_all = matches!((numbers.next(), numbers.next()), (Some(Some(0)), Some(Some(1..30))));
        // Where they are, what has no model in it is refused with 400.
        let (images, transcriptions) =
            future::join(is_there(asker, "/v1/images/generations"), is_there(asker, "/v1/audio/transcriptions")).await;
        Self { embeds_by_all, images, transcriptions }
    }

    fn has(self, operation: Operation) -> bool {
        match operation {
            Operation::ImageGenerations | Operation::ImageEdits => self.images,
            Operation::Transcriptions => self.transcriptions,
            _ => true,
        }
    }
}

/// One that does not say so is not known to be missing.
async fn is_there(asker: &Asker<'_>, path: &'static str) -> bool {
    asker.post(path, &json!({})).await.map_or(true, |answer| answer.status != StatusCode::NOT_FOUND)
}

async fn show(asker: &Asker<'_>, entry: &Listed, routes: Routes) -> FoundModel {
    let show = asker.post("/api/show", &json!({"model": &*entry.name})).await.ok().filter(Answer::is_ok);
    model(entry, show.map(|answer| answer.json).as_ref(), routes)
}

fn model(entry: &Listed, show: Option<&Value>, routes: Routes) -> FoundModel {
    let mut model = super::listed(entry);
    let Some(show) = show else { return model };
    if let Some(length) = context(show) {
        model.limits = model.limits.with_context(length);
    }
    let Some(capabilities) = show["capabilities"].as_array() else { return model };
    let can = |word: &str| capabilities.iter().any(|capability| capability == word);
    // Any encoder beside a model makes `vision` of it, also one that takes sound alone.
    let encoder = &show["projector_info"];
    let only_hears = encoder["clip.has_audio_encoder"] == true && encoder["clip.has_vision_encoder"] != true;
    // `image` is a picture that comes out.
    let sees = can("vision") && !only_hears;
    let input = [(Modality::Text, true), (Modality::Image, sees), (Modality::Audio, can("audio"))];
    let input: ModalitySet = input.into_iter().filter(|(_, is)| *is).map(|(modality, _)| modality).collect();
    let operations: OperationSet = operations(can, routes).collect();
    model.input = Known::exactly(input);
    model.output = Known::exactly(operations.gives());
    model.operations = Some(operations);
    model
}

/// What its Modelfile has it served with, which is less than what the model was trained for. Where that says nothing, Ollama chooses it by the memory
/// of its GPU, or as a request asks, and cuts what is longer, often without a word. What `/api/ps` says of a loaded model is of the last request.
fn context(show: &Value) -> Option<u32> {
    let architecture = show["model_info"]["general.architecture"].as_str().unwrap_or_default();
    let trained = tokens(&show["model_info"][format!("{architecture}.context_length")]);
    let mut parameters = show["parameters"].as_str().unwrap_or_default().lines();
    let own = parameters.find_map(|line| line.strip_prefix("num_ctx")?.trim().parse().ok());
    let served = own.filter(|length| *length > 0)?;
    Some(trained.map_or(served, |trained| trained.min(served)))
}

fn operations(can: impl Fn(&str) -> bool, routes: Routes) -> impl Iterator<Item = Operation> {
    use Operation::{
        ChatCompletions, Completions, Embeddings, ImageEdits, ImageGenerations, Messages, Responses, Transcriptions,
    };
    let all: [(bool, &[Operation]); 4] = [
        (can("completion"), &[ChatCompletions, Completions, Responses, Messages]),
        (can("embedding") || can("completion") && routes.embeds_by_all, &[Embeddings]),
        (can("audio"), &[Transcriptions]),
        (can("image"), &[ImageGenerations, ImageEdits]),
    ];
    let there = all.into_iter().filter(|(is, _)| *is).flat_map(|(_, operations)| operations).copied();
    there.filter(move |operation| routes.has(*operation))
}
