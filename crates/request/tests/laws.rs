//! Laws of reading: neither chunks nor key order matter, a slow and obvious reader agrees, and a rewrite changes the model alone.

use bytes::Bytes;
use proptest::prelude::*;
use request::{InferenceRequest, Limits, RequestHead, Scanner, Unreadable, splice};
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

fn scan_at(path: &str, content_type: Option<&str>, pieces: &[&[u8]]) -> Result<InferenceRequest, Unreadable> {
    let head = RequestHead { path, content_type, ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, Limits::default())?;
    for piece in pieces {
        scanner.feed(piece)?;
    }
    scanner.finish()
}

/// An item of Responses, and of which modality it is.
fn response_part() -> impl Strategy<Value = (Value, Modality)> {
    prop_oneof![
        text().prop_map(|text| (json!({"type": "input_text", "text": text}), Modality::Text)),
        text().prop_map(|url| (json!({"type": "input_image", "image_url": url, "detail": "auto"}), Modality::Image)),
        text().prop_map(|id| (json!({"file_id": id, "type": "input_image"}), Modality::Image)),
        Just((json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}), Modality::Audio)),
        Just((
            json!({"type": "input_file", "filename": "a", "file_data": "data:application/pdf;base64,AAAA"}),
            Modality::Image
        )),
        Just((
            json!({"type": "input_file", "filename": "a", "file_data": "data:text/plain;base64,AAAA"}),
            Modality::Text
        )),
    ]
}

/// A block of Anthropic's, however deep in results of tools.
fn block() -> impl Strategy<Value = (Value, ModalitySet)> {
    let source = prop_oneof![
        Just(json!({"type": "base64", "media_type": "image/png", "data": "AAAA"})),
        text().prop_map(|url| json!({"url": url, "type": "url"})),
        text().prop_map(|id| json!({"type": "file", "file_id": id})),
    ];
    let image = ModalitySet::of(&[Modality::Image]);
    let leaf = prop_oneof![
        text().prop_map(|text| (json!({"type": "text", "text": text}), ModalitySet::TEXT)),
        source.prop_map(move |source| (json!({"type": "image", "source": source}), image)),
        text().prop_map(|data| {
            let source = json!({"data": data, "media_type": "text/plain", "type": "text"});
            (json!({"type": "document", "source": source}), ModalitySet::TEXT)
        }),
        Just((json!({"type": "tool_use", "id": "t", "name": "n", "input": {"image_url": "x"}}), ModalitySet::EMPTY)),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        proptest::collection::vec(inner, 0..3).prop_map(|blocks| {
            let modalities = blocks.iter().fold(ModalitySet::EMPTY, |all, (_, set)| all.union(*set));
            let content: Vec<Value> = blocks.into_iter().map(|(block, _)| block).collect();
            (json!({"type": "tool_result", "tool_use_id": "t", "content": content}), modalities)
        })
    })
}

/// Parts of a form in an order nobody thought of.
fn form() -> impl Strategy<Value = (Vec<u8>, Option<String>, ModalitySet)> {
    let name = "[a-z0-9./-]{1,20}";
    let file = proptest::collection::vec(any::<u8>(), 0..200);
    let others = proptest::collection::vec(("[a-z]{1,8}_x", "[ -~]{0,20}"), 0..3);
    (name, file, others, any::<bool>(), any::<bool>()).prop_map(|(model, file, others, named, model_first)| {
        let part = |head: &str, content: &[u8]| {
            [b"--b0undary\r\nContent-Disposition: form-data; ", head.as_bytes(), b"\r\n\r\n", content, b"\r\n"].concat()
        };
        let mut parts = vec![part("name=\"file\"; filename=\"a.wav\"", &file)];
        if named {
            let place = if model_first { 0 } else { parts.len() };
            parts.insert(place, part("name=\"model\"", model.as_bytes()));
        }
        parts.extend(others.iter().map(|(name, value)| part(&format!("name={name}"), value.as_bytes())));
        parts.push(b"--b0undary--\r\n".to_vec());
        (parts.concat(), named.then_some(model), ModalitySet::of(&[Modality::Audio]))
    })
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
    // An empty name is none.
    let model = body["model"].as_str().filter(|name| !name.is_empty());
    (model.map(str::to_owned), body["stream"] == true, input)
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
    fn the_parts_of_responses_count_as_what_they_are_in_any_key_order(
        parts in proptest::collection::vec(response_part(), 0..5),
        in_a_result in any::<bool>(),
    ) {
        let expected: ModalitySet = parts.iter().map(|(_, modality)| *modality).collect();
        let parts: Vec<Value> = parts.into_iter().map(|(part, _)| part).collect();
        let item = if in_a_result {
            json!({"type": "function_call_output", "call_id": "c", "output": parts})
        } else {
            json!({"role": "user", "content": parts})
        };
        let body = json!({"model": "m", "input": [item], "metadata": {"input_image": "no"}});
        for text in [body.to_string(), with_reversed_keys(&body)] {
            let request = scan_at("/v1/responses", None, &[text.as_bytes()]).expect("valid");
            prop_assert_eq!(request.requires.input, expected, "{}", text);
        }
    }

    #[test]
    fn anthropics_blocks_count_as_what_they_are_however_deep(blocks in proptest::collection::vec(block(), 0..4)) {
        let expected = blocks.iter().fold(ModalitySet::EMPTY, |all, (_, set)| all.union(*set));
        let content: Vec<Value> = blocks.into_iter().map(|(block, _)| block).collect();
        let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}]});
        for text in [body.to_string(), with_reversed_keys(&body)] {
            let request = scan_at("/v1/messages", None, &[text.as_bytes()]).expect("valid");
            prop_assert_eq!(request.requires.input, expected, "{}", text);
        }
    }

    #[test]
    fn a_form_is_read_alike_however_it_is_cut_and_a_rewrite_changes_its_model_alone(
        (body, model, input) in form(),
        size in 1..300_usize,
    ) {
        let kind = Some("multipart/form-data; boundary=b0undary");
        let path = "/v1/audio/transcriptions";
        let whole = scan_at(path, kind, &[&body]).expect("valid");
        let pieces: Vec<&[u8]> = body.chunks(size).collect();
        let cut = scan_at(path, kind, &pieces);
        prop_assert_eq!(cut.as_ref(), Ok(&whole));
        prop_assert_eq!((&whole.model, whole.requires.input), (&model, input));
        if let Some(span) = &whole.model_span {
            let rewritten = splice(pieces.into_iter().map(Bytes::copy_from_slice), &[span.renamed("other")]).concat();
            let old = [b"\r\n\r\n", model.expect("named").as_bytes(), b"\r\n--b0undary"].concat();
            let place = usize::try_from(span.range.start).expect("small") - 4;
            prop_assert_eq!(&body[place..place + old.len()], &old[..]);
            let expected = [&body[..place + 4], b"other", &body[place + old.len() - 12..]].concat();
            prop_assert_eq!(rewritten, expected);
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
        let span = scan(&[&bytes]).expect("valid").model_span;
        prop_assert_eq!(span.is_none(), body["model"] == "");
        let Some(span) = span else { return Ok(()) };
        let cut = cut.index(bytes.len() + 1);
        let chunks = [Bytes::copy_from_slice(&bytes[..cut]), Bytes::copy_from_slice(&bytes[cut..])];
        let rewritten = splice(chunks, &[span.renamed(&target)]).concat();
        let mut expected: Map<String, Value> = body.as_object().expect("an object").clone();
        expected.insert("model".into(), target.into());
        prop_assert_eq!(serde_json::from_slice::<Value>(&rewritten).expect("JSON"), Value::Object(expected));
    }
}
