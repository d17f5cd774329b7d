//! What a request carries, read as vLLM reads it (`vllm/entrypoints/chat_utils.py`) and not as the picker does: a picker that misreads
//! must be seen to.

use routing::{Modality, ModalitySet, Requirement};
use serde_json::Value;

/// A request as a model server sees it.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) model: Option<String>,
    pub(crate) requires: Requirement,
    pub(crate) stream: bool,
}

/// Keys of a part that hold media, in the order in which vLLM looks for them.
const MEDIA_KEYS: [(&str, Modality); 7] = [
    ("image_url", Modality::Image),
    ("image_embeds", Modality::Image),
    ("input_image", Modality::Image),
    ("audio_url", Modality::Audio),
    ("input_audio", Modality::Audio),
    ("audio_embeds", Modality::Audio),
    ("video_url", Modality::Video),
];

pub(crate) fn read(path: &str, body: &Value) -> Reading {
    let parts = body["messages"].as_array().into_iter().flatten().flat_map(|message| match &message["content"] {
        Value::Array(parts) => parts.iter().map(modality_of_part).collect(),
        Value::String(_) => vec![Modality::Text],
        _ => Vec::new(),
    });
    let words = body["modalities"].as_array().into_iter().flatten().filter_map(|word| word.as_str()?.parse().ok());
    let output = match path {
        "/v1/embeddings" => ModalitySet::of(&[Modality::Embedding]),
        _ if body["modalities"].is_array() => words.collect(),
        _ => ModalitySet::TEXT,
    };
    let prompt = ["prompt", "input"].iter().any(|key| !body[*key].is_null());
    let input = parts.chain(prompt.then_some(Modality::Text)).collect();
    Reading {
        model: body["model"].as_str().map(str::to_owned),
        requires: Requirement { input, output },
        stream: body["stream"] == true,
    }
}

fn modality_of_part(part: &Value) -> Modality {
    let by_key = || {
        MEDIA_KEYS.iter().find(|(key, _)| part.get(*key).is_some()).map_or(Modality::Text, |(_, modality)| *modality)
    };
    match part["type"].as_str() {
        Some(word) if part["uuid"].is_null() => {
            MEDIA_KEYS.iter().find(|(key, _)| *key == word).map_or(Modality::Text, |(_, modality)| *modality)
        }
        _ => by_key(),
    }
}
