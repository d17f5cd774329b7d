//! What a request carries, read as vLLM reads it (`vllm/entrypoints/chat_utils.py`) and not as the picker does: a picker that misreads
//! must be seen to.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use routing::{Modality, ModalitySet, Operation, Requirement};
use serde_json::{Map, Value};

/// A request as a model server sees it.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) model: Option<String>,
    pub(crate) requires: Requirement,
    pub(crate) stream: bool,
    /// `previous_response_id`.
    pub(crate) previous: Option<String>,
    /// Names and sizes of uploaded files.
    pub(crate) files: Vec<String>,
    /// Media items of messages, in their order.
    pub(crate) items: Vec<Item>,
    /// Characters of text, which are taken for tokens: so do the tiny models that this is held against.
    pub(crate) text: usize,
}

/// A media item of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) modality: Modality,
    /// Whether its URL is of a scheme that vLLM does not know.
    pub(crate) leads_nowhere: bool,
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

/// Reads a body by its type.
pub(crate) async fn read(operation: Operation, headers: &HeaderMap, body: &Bytes) -> Result<Reading, String> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.starts_with("multipart/") {
        return read_form(operation, content_type, body).await;
    }
    let json: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(read_json(operation, &json))
}

fn read_json(operation: Operation, body: &Value) -> Reading {
    let words = body["modalities"].as_array().into_iter().flatten().filter_map(|word| word.as_str()?.parse().ok());
    let output = match operation {
        Operation::Embeddings | Operation::Pooling => ModalitySet::of(&[Modality::Embedding]),
        Operation::Speech => ModalitySet::of(&[Modality::Audio]),
        Operation::ImageGenerations | Operation::ImageEdits => ModalitySet::of(&[Modality::Image]),
        Operation::Videos => ModalitySet::of(&[Modality::Video]),
        Operation::Classify | Operation::Score | Operation::Rerank | Operation::Tokenize => ModalitySet::EMPTY,
        _ if body["modalities"].is_array() => words.collect(),
        _ => ModalitySet::TEXT,
    };
    let mut input = ModalitySet::EMPTY;
    for message in body["messages"].as_array().into_iter().flatten() {
        input = input.union(of_content(&message["content"]));
    }
    for key in ["prompt", "text", "query", "text_1", "input_ids", "system", "instructions"] {
        if !body[key].is_null() {
            input = input.with(Modality::Text);
        }
    }
    for key in ["documents", "text_2"] {
        input = input.union(of_documents(&body[key]));
    }
    input = input.union(match operation {
        Operation::Responses => of_items(&body["input"]),
        _ => of_documents(&body["input"]),
    });
    for (key, modality) in [
        ("image_data", Modality::Image),
        ("audio_data", Modality::Audio),
        ("video_data", Modality::Video),
        ("ref_audio", Modality::Audio),
        ("images", Modality::Image),
        ("input_reference", Modality::Image),
    ] {
        if !body[key].is_null() {
            input = input.with(modality);
        }
    }
    Reading {
        model: body["model"].as_str().map(str::to_owned),
        requires: Requirement::new(operation, input, output),
        stream: body["stream"] == true,
        previous: body["previous_response_id"].as_str().map(str::to_owned),
        files: Vec::new(),
        items: items(&body["messages"]),
        text: characters(&body["messages"]) + characters(&body["prompt"]),
    }
}

/// The media of messages.
fn items(messages: &Value) -> Vec<Item> {
    let parts = messages.as_array().into_iter().flatten().filter_map(|message| message["content"].as_array()).flatten();
    let item = |part: &Value| {
        let modality = of_part(part).iter().find(|modality| *modality != Modality::Text)?;
        let url = ["image_url", "audio_url", "video_url"].into_iter().find_map(|key| part[key]["url"].as_str());
        let is_known =
            |url: &str| ["http://", "https://", "data:", "file:"].iter().any(|scheme| url.starts_with(scheme));
        Some(Item { modality, leads_nowhere: url.is_some_and(|url| !is_known(url)) })
    };
    parts.filter_map(item).collect()
}

/// Of all texts in it.
fn characters(of: &Value) -> usize {
    match of {
        Value::String(text) => text.chars().count(),
        Value::Array(all) => all.iter().map(characters).sum(),
        Value::Object(_) => characters(&of["content"]) + characters(&of["text"]),
        _ => 0,
    }
}

fn of_content(content: &Value) -> ModalitySet {
    match content {
        Value::Array(parts) => parts.iter().fold(ModalitySet::EMPTY, |all, part| all.union(of_part(part))),
        Value::String(_) => ModalitySet::TEXT,
        _ => ModalitySet::EMPTY,
    }
}

fn of_part(part: &Value) -> ModalitySet {
    let by_key = || {
        MEDIA_KEYS.iter().find(|(key, _)| part.get(*key).is_some()).map_or(Modality::Text, |(_, modality)| *modality)
    };
    ModalitySet::of(&[match part["type"].as_str() {
        Some("tool_result") => return of_content(&part["content"]),
        Some("document") if part["source"]["type"] == "text" => Modality::Text,
        // Anthropic's, and files, whose pages are looked at.
        Some("image" | "document" | "input_file" | "file") => Modality::Image,
        Some(word) if part["uuid"].is_null() => {
            MEDIA_KEYS.iter().find(|(key, _)| *key == word).map_or(Modality::Text, |(_, modality)| *modality)
        }
        _ => by_key(),
    }])
}

/// The items of Responses.
fn of_items(input: &Value) -> ModalitySet {
    let of_item = |item: &Value| of_content(&item["content"]).union(of_content(&item["output"]));
    match input {
        Value::Array(items) => items.iter().fold(ModalitySet::EMPTY, |all, item| all.union(of_item(item))),
        Value::String(_) => ModalitySet::TEXT,
        _ => ModalitySet::EMPTY,
    }
}

fn of_documents(documents: &Value) -> ModalitySet {
    let has = |object: &Map<String, Value>, key: &str, modality| {
        if object.contains_key(key) { ModalitySet::of(&[modality]) } else { ModalitySet::EMPTY }
    };
    match documents {
        Value::Array(all) => all.iter().fold(ModalitySet::EMPTY, |set, one| set.union(of_documents(one))),
        Value::String(_) | Value::Number(_) => ModalitySet::TEXT,
        Value::Object(object) => of_content(&documents["content"])
            .union(has(object, "text", Modality::Text))
            .union(has(object, "image", Modality::Image))
            .union(has(object, "video", Modality::Video)),
        _ => ModalitySet::EMPTY,
    }
}

async fn read_form(operation: Operation, content_type: &str, body: &Bytes) -> Result<Reading, String> {
    let boundary = multer::parse_boundary(content_type).map_err(|error| error.to_string())?;
    let stream = futures::stream::once(std::future::ready(Ok::<_, std::io::Error>(body.clone())));
    let mut form = multer::Multipart::new(stream, boundary);
    let output = match operation {
        Operation::ImageEdits => ModalitySet::of(&[Modality::Image]),
        Operation::Videos => ModalitySet::of(&[Modality::Video]),
        _ => ModalitySet::TEXT,
    };
    let mut reading = Reading {
        model: None,
        requires: Requirement::new(operation, ModalitySet::EMPTY, output),
        stream: false,
        previous: None,
        files: Vec::new(),
        items: Vec::new(),
        text: 0,
    };
    while let Some(field) = form.next_field().await.map_err(|error| error.to_string())? {
        let (name, file) = (field.name().unwrap_or_default().to_owned(), field.file_name().is_some());
        let bytes = field.bytes().await.map_err(|error| error.to_string())?;
        let input = &mut reading.requires.input;
        match (&*name, file) {
            ("model", _) => reading.model = String::from_utf8(bytes.to_vec()).ok(),
            ("stream", _) => reading.stream = bytes.eq_ignore_ascii_case(b"true"),
            ("prompt", _) if operation != Operation::Transcriptions && operation != Operation::Translations => {
                *input = input.with(Modality::Text);
            }
            (_, true) => {
                let modality = if name == "file" { Modality::Audio } else { Modality::Image };
                *input = input.with(modality);
                reading.files.push(format!("{name} {}", bytes.len()));
            }
            _ => {}
        }
    }
    Ok(reading)
}
