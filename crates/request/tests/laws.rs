//! Laws of reading: neither chunks nor key order matter, a slow and obvious reader agrees, and a rewrite changes the model alone.

use bytes::Bytes;
use proptest::prelude::*;
use request::{InferenceRequest, Limits, RequestHead, Scanner, Unreadable, rewrite};
use routing::{Modality, ModalitySet};
use serde_json::{Map, Value, json};

fn scan(chunks: &[&[u8]]) -> Result<InferenceRequest, Unreadable> {
    let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, Limits::default())?;
    for chunk in chunks {
        scanner.feed(chunk)?;
    }
    scanner.finish()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,20}", ".{0,10}", Just("é😀\"\\\n\u{0}".to_owned())]
}

fn part() -> impl Strategy<Value = Value> {
    let media = prop_oneof![Just("image_url"), Just("video_url"), Just("audio_url"), Just("input_audio")];
    prop_oneof![
        text().prop_map(|text| json!({"type": "text", "text": text})),
        text().prop_map(Value::String),
        (media.clone(), text()).prop_map(|(key, url)| json!({"type": key, key: {"url": url, "detail": "low"}})),
        (media.clone(), text()).prop_map(|(key, url)| json!({key: url})),
        (media, text()).prop_map(|(key, uuid)| json!({"type": key, key: null, "uuid": uuid})),
    ]
}

fn body() -> impl Strategy<Value = Value> {
    let content =
        prop_oneof![text().prop_map(Value::String), proptest::collection::vec(part(), 0..5).prop_map(Value::Array)];
    let message =
        content.prop_map(|content| json!({"role": "user", "content": content, "name": [1, -2.5e3, {"a": null}]}));
    (text(), proptest::collection::vec(message, 0..4), any::<bool>()).prop_map(
        |(model, messages, stream)| json!({"model": model, "messages": messages, "stream": stream, "x": {"model": 1}}),
    )
}

/// The slow and obvious reader.
fn obvious(body: &Value) -> (Option<String>, bool, ModalitySet) {
    let mut input = ModalitySet::EMPTY;
    for message in body["messages"].as_array().into_iter().flatten() {
        match &message["content"] {
            Value::String(_) => input = input.with(Modality::Text),
            Value::Array(parts) => {
                for part in parts {
                    let has = |key: &str| part.get(key).is_some();
                    let modality = if has("image_url") {
                        Modality::Image
                    } else if has("video_url") {
                        Modality::Video
                    } else if has("audio_url") || has("input_audio") {
                        Modality::Audio
                    } else {
                        Modality::Text
                    };
                    input = input.with(modality);
                }
            }
            _ => {}
        }
    }
    (body["model"].as_str().map(str::to_owned), body["stream"] == true, input)
}

fn with_reversed_keys(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: Vec<String> = map
                .iter()
                .rev()
                .map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), with_reversed_keys(value)))
                .collect();
            format!("{{{}}}", fields.join(" ,\n"))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(with_reversed_keys).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_result(body in body(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let bytes = body.to_string().into_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut start = 0;
        for cut in cuts {
            chunks.push(&bytes[start..cut]);
            start = cut;
        }
        chunks.push(&bytes[start..]);
        prop_assert_eq!(scan(&chunks), scan(&[&bytes]));
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(scan(&single), scan(&[&bytes]));
    }

    #[test]
    fn a_slow_and_obvious_reader_agrees_in_any_key_order(body in body()) {
        let (model, stream, input) = obvious(&body);
        for text in [body.to_string(), with_reversed_keys(&body)] {
            let request = scan(&[text.as_bytes()]).expect("valid");
            prop_assert_eq!(&request.model, &model);
            prop_assert_eq!(request.stream, stream);
            prop_assert_eq!(request.requires.input, input);
        }
    }

    #[test]
    fn what_is_taken_is_json_and_what_is_json_is_taken(text in r#"[\[\]{}:,"\\a-c0-2eE.+\-nulltrue \t]{0,24}"#) {
        let ours = scan(&[text.as_bytes()]);
        match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(_)) => prop_assert!(ours.is_ok(), "{:?}", ours),
            Ok(_) => prop_assert_eq!(ours, Err(Unreadable::NotAnObject)),
            // serde_json also refuses numbers out of range; nothing here is that long.
            Err(_) => prop_assert!(ours.is_err(), "{} was taken", text),
        }
    }

    #[test]
    fn garbage_never_panics(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5)) {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let _ = scan(&chunks);
    }

    #[test]
    fn a_rewrite_changes_the_model_and_nothing_else(body in body(), target in text(), cut in any::<prop::sample::Index>()) {
        let bytes = body.to_string().into_bytes();
        let span = scan(&[&bytes]).expect("valid").model_span.expect("named");
        let cut = cut.index(bytes.len() + 1);
        let chunks = [Bytes::copy_from_slice(&bytes[..cut]), Bytes::copy_from_slice(&bytes[cut..])];
        let rewritten = rewrite(chunks, &span, &target).concat();
        let mut expected: Map<String, Value> = body.as_object().expect("an object").clone();
        expected.insert("model".into(), target.into());
        prop_assert_eq!(serde_json::from_slice::<Value>(&rewritten).expect("JSON"), Value::Object(expected));
    }
}
