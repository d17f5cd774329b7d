//! Hugging Face's servers, of one model each: TGI for text that is generated, TEI for embeddings and ranks. Both say what they are at `/info`.

use routing::{Found, FoundModel, Known, Modality, ModalitySet, Operation};
use serde_json::Value;

use crate::asker::{Answer, Asker};
use crate::listing::{Listing, tokens};
use crate::{Probed, words};

/// None where it is neither.
pub(super) async fn look(asker: &Asker<'_>, listing: &Listing) -> Option<Probed> {
    let info = asker.get("/info").await.ok().filter(Answer::is_ok)?.json;
    let name = words(&info["model_id"])?;
    let (engine, mut model) =
        if info["router"].is_string() { ("TGI", generates(&info)) } else { ("TEI", embeds(&info["model_type"])?) };
    let length = ["max_total_tokens", "max_input_length"].into_iter().find_map(|key| tokens(&info[key]));
    model.limits = length.map_or(model.limits, |tokens| model.limits.with_context(tokens));
    let is_unknown = model.input.has(Modality::Image).is_none();
    let doubts = is_unknown.then(|| "whether it takes images: model_pipeline_tag is not set".to_owned());
    let mut models = super::models(listing, |_| model.clone());
    if models.is_empty() {
        models.insert(name.into(), model);
    }
    // TGI reads the name and passes over it.
    let found = Found { engine: Some(engine.into()), version: words(&info["version"]), models, any_name: true };
    Some(Probed { found, doubts: doubts.into_iter().collect(), ..Probed::default() })
}

fn generates(info: &Value) -> FoundModel {
    let operations = [Operation::ChatCompletions, Operation::Completions, Operation::Generate].into_iter().collect();
    let input = match info["model_pipeline_tag"].as_str() {
        Some("image-text-to-text") => Known::exactly(ModalitySet::of(&[Modality::Text, Modality::Image])),
        Some(_) => Known::exactly(ModalitySet::TEXT),
        None => Known::new(ModalitySet::TEXT, ModalitySet::of(&[Modality::Audio, Modality::Video])),
    };
    let output = Known::exactly(ModalitySet::TEXT);
    FoundModel { operations: Some(operations), input, output, ..FoundModel::default() }
}

/// By the one key of an object such as `{"embedding": {"pooling": "cls"}}`.
fn embeds(model_type: &Value) -> Option<FoundModel> {
    let word = model_type.as_object()?.keys().next()?;
    let operation = match word.as_str() {
        "embedding" => Operation::Embeddings,
        "reranker" => Operation::Rerank,
        _ => return None,
    };
    let (input, output) = (Known::exactly(ModalitySet::TEXT), Known::exactly(operation.gives()));
    let operations = [operation].into_iter().collect();
    Some(FoundModel { operations: Some(operations), input, output, ..FoundModel::default() })
}
