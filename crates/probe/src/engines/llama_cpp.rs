//! llama.cpp's server: of one model, which answers to any name, or of several, which it loads when they are asked for.

use routing::{Found, FoundModel, Known, Modality, ModalitySet, Operation, OperationSet};
use serde_json::{Value, json};

use crate::asker::{Answer, Asker};
use crate::listing::{Listing, tokens};
use crate::{Probed, words};

/// None where it does not say more than its list.
pub(super) async fn look(asker: &Asker<'_>, listing: &Listing) -> Option<Probed> {
    let props = asker.get("/props").await.ok().filter(Answer::is_ok)?.json;
    let (engine, version) = (Some("llama.cpp".to_owned()), words(&props["build_info"]));
    if props["role"] == "router" {
        // To ask for what a model can do, it would have to be loaded.
        let models = super::models(listing, |entry| super::stated::model(entry, None));
        return Some(Probed { found: Found { engine, version, models, any_name: false }, ..Probed::default() });
    }
    let is_off = async |path| asker.post(path, &json!({})).await.is_ok_and(|answer| answer.status == 501);
    let (no_embeddings, no_rerank) = (is_off("/v1/embeddings").await, is_off("/v1/rerank").await);
    let (input, operations) = (input(&props["modalities"]), operations(&props["modalities"], no_embeddings, no_rerank));
    let context = tokens(&props["default_generation_settings"]["n_ctx"]);
    let models = super::models(listing, |entry| {
        let model = super::listed(entry);
        let limits = context.map_or(model.limits, |tokens| model.limits.with_context(tokens));
        let output = Known::exactly(operations.gives());
        FoundModel { input, output, operations: Some(operations), limits, ..model }
    });
    let is_unknown = input.has(Modality::Video).is_none();
    let doubts = is_unknown.then(|| "whether it takes video: this release of llama.cpp does not say".to_owned());
    let doubts = doubts.into_iter().collect();
    Some(Probed { found: Found { engine, version, models, any_name: true }, doubts, ..Probed::default() })
}

fn input(modalities: &Value) -> Known {
    let text = Known::new(ModalitySet::TEXT, ModalitySet::of(&[Modality::Embedding]));
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
