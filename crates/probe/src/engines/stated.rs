//! What some servers say of each model in their list, in one of a few shapes.

use routing::{FoundModel, Known, Modality, ModalitySet, Operation, OperationSet};
use serde_json::Value;

use crate::listing::Listed;
use crate::mounted::Mounted;

/// What a server of a language model may have; which of them, nobody says.
const CHATS: [Operation; 5] = [
    Operation::ChatCompletions,
    Operation::Completions,
    Operation::Responses,
    Operation::Messages,
    Operation::Tokenize,
];

/// What one entry says.
pub(super) fn model(entry: &Listed, mounted: Option<&Mounted>) -> FoundModel {
    let mut model = super::listed(entry);
    if let Some(mounted) = mounted {
        model.operations = Some(mounted.operations).filter(|operations| !operations.is_empty());
    }
    let json = &entry.entry;
    let nested = &json["architecture"];
    if let Some(input) = modalities(&nested["input_modalities"]).or_else(|| modalities(&json["input_modalities"])) {
        model.input = input;
    }
    if let Some(output) = modalities(&nested["output_modalities"]).or_else(|| modalities(&json["output_modalities"])) {
        model.output = output;
    }
    let kind = ["task", "model_type", "type"].into_iter().find_map(|key| task(json[key].as_str()?));
    let Some((input, operations)) = kind.or_else(|| of_abilities(json)) else { return model };
    model.input = Known::exactly(input);
    if operations.contains(Operation::Transcriptions) {
        // A prompt may stand beside the sound.
        let all_but_text = ModalitySet::ALL.difference(ModalitySet::TEXT);
        model.input = Known::new(ModalitySet::of(&[Modality::Audio]), all_but_text);
    }
    model.operations = Some(operations);
    model.output = Known::exactly(operations.gives());
    model
}

/// A list of words; those that name no modality say something that is not asked here.
fn modalities(list: &Value) -> Option<Known> {
    let words = list.as_array()?.iter().filter_map(Value::as_str);
    // OpenRouter's words for what comes out.
    let known = words.filter_map(|word| match word {
        "embeddings" => Some(Modality::Embedding),
        "speech" => Some(Modality::Audio),
        "transcription" => Some(Modality::Text),
        word => word.parse().ok(),
    });
    let known: ModalitySet = known.collect();
    (!known.is_empty()).then(|| Known::exactly(known))
}

/// What a server for one task takes: Speaches' `task`, Xinference's `model_type`, LM Studio's `type`.
fn task(word: &str) -> Option<(ModalitySet, OperationSet)> {
    use Operation::{Embeddings, Pooling, Rerank, Score, Speech, Transcriptions, Translations};
    if word == "vlm" {
        let input = ModalitySet::of(&[Modality::Text, Modality::Image]);
        return Some((input, CHATS.into_iter().collect()));
    }
    let (input, operations): (_, &[Operation]) = match word {
        "llm" => (Modality::Text, &CHATS),
        "automatic-speech-recognition" => (Modality::Audio, &[Transcriptions, Translations]),
        "text-to-speech" => (Modality::Text, &[Speech]),
        "embedding" | "embeddings" | "feature-extraction" | "sentence-similarity" => {
            (Modality::Text, &[Embeddings, Pooling])
        }
        "rerank" | "reranker" | "text-ranking" => (Modality::Text, &[Rerank, Score]),
        _ => return None,
    };
    Some((ModalitySet::of(&[input]), operations.iter().copied().collect()))
}

/// Xinference's `model_ability` of language models, and Infinity's `capabilities`.
fn of_abilities(entry: &Value) -> Option<(ModalitySet, OperationSet)> {
    use Operation::{ChatCompletions, Classify, Completions, Embeddings, Rerank};
    let list = entry["model_ability"].as_array().or_else(|| entry["capabilities"].as_array())?;
    let has = |word: &str| list.iter().any(|ability| ability == word);
    let of = |words: &[(&str, Modality)]| -> ModalitySet {
        words.iter().filter(|(word, _)| has(word)).map(|(_, modality)| *modality).collect()
    };
    let input = of(&[
        ("chat", Modality::Text),
        ("generate", Modality::Text),
        ("vision", Modality::Image),
        ("audio", Modality::Audio),
        ("video", Modality::Video),
        ("embed", Modality::Text),
        ("rerank", Modality::Text),
        ("classify", Modality::Text),
        ("image_embed", Modality::Image),
        ("audio_embed", Modality::Audio),
    ]);
    let operations: OperationSet = [
        ("chat", ChatCompletions),
        ("generate", Completions),
        ("embed", Embeddings),
        ("image_embed", Embeddings),
        ("audio_embed", Embeddings),
        ("rerank", Rerank),
        ("classify", Classify),
    ]
    .into_iter()
    .filter(|(word, _)| has(word))
    .map(|(_, operation)| operation)
    .collect();
    (!input.is_empty() && !operations.is_empty()).then_some((input, operations))
}
