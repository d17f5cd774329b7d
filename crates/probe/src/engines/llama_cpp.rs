//! llama.cpp's server: of one model, which answers to any name, or of several, which it loads when they are asked for.

use routing::{Found, FoundModel, Known, Modality, Operation, OperationSet};
use serde_json::{Value, json};

use crate::asker::{Answer, Asker};
use crate::listing::{Listing, tokens};
use crate::words;

/// None where it does not say more than its list.
pub(super) async fn look(asker: &Asker<'_>, listing: &Listing) -> Option<Found> {
    let props = asker.get("/props").await.ok().filter(Answer::is_ok)?.json;
    let mut found =
        Found { engine: Some("llama.cpp".into()), version: words(&props["build_info"]), ..Found::default() };
    if props["role"] == "router" {
        // To ask for what a model can do, it would have to be loaded.
        found.models = listing.models.iter().map(|entry| super::stated::model(entry, None)).collect();
        return Some(found);
    }
    found.any_name = true;
    let is_off = async |path| asker.post(path, &json!({})).await.is_ok_and(|answer| answer.status == 501);
    let (no_embeddings, no_rerank) = (is_off("/v1/embeddings").await, is_off("/v1/rerank").await);
    let (input, operations) = (input(&props["modalities"]), operations(&props["modalities"], no_embeddings, no_rerank));
    if input.has(Modality::Video).is_none() {
        found.doubts.push("whether it takes video: this release of llama.cpp does not say".into());
    }
    let context = tokens(&props["default_generation_settings"]["n_ctx"]);
    found.models = listing
        .models
        .iter()
        .map(|entry| {
            let model = super::listed(entry);
            let limits = context.map_or(model.limits, |tokens| model.limits.with_context(tokens));
            let output = Known::exactly(operations.gives());
            FoundModel { input, output, operations: Some(operations), limits, ..model }
        })
        .collect();
    Some(found)
}

fn input(modalities: &Value) -> Known {
    let text = Known::NOTHING.with(Modality::Text, true).with(Modality::Embedding, false);
    if modalities["vision"] == false {
        // What sees nothing sees no film.
        let audio = modalities["audio"].as_bool();
        return audio
            .map_or(text, |audio| text.with(Modality::Audio, audio))
            .with(Modality::Image, false)
            .with(Modality::Video, false);
    }
    [("vision", Modality::Image), ("audio", Modality::Audio), ("video", Modality::Video)]
        .into_iter()
        .fold(text, |known, (flag, modality)| modalities[flag].as_bool().map_or(known, |has| known.with(modality, has)))
}

/// All its paths are mounted; what its model cannot do is answered with 501.
fn operations(modalities: &Value, no_embeddings: bool, no_rerank: bool) -> OperationSet {
    use Operation::{ChatCompletions, Completions, Embeddings, Messages, Rerank, Responses, Tokenize, Transcriptions};
    let always: OperationSet = [ChatCompletions, Completions, Responses, Messages, Tokenize].into_iter().collect();
    let some = [(Embeddings, !no_embeddings), (Rerank, !no_rerank), (Transcriptions, modalities["audio"] == true)];
    some.into_iter().filter(|(_, has)| *has).fold(always, |all, (operation, _)| all.with(operation))
}

#[cfg(test)]
mod tests {
    use routing::ModalitySet;

    use super::*;

    #[test]
    fn what_sees_nothing_sees_no_film() {
        let takes = |modalities: Value| input(&modalities).yes().to_string();
        assert_eq!(takes(json!({"vision": true, "audio": false})), "text+image");
        assert_eq!(takes(json!({"vision": true, "video": true, "audio": true})), "text+image+audio+video");
        assert_eq!(input(&json!({"vision": true})).has(Modality::Video), None);
        assert_eq!(input(&json!({"vision": false, "audio": false})), Known::exactly(ModalitySet::TEXT));
    }
}
