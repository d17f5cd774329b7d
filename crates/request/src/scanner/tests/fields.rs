//! Fields: known, or refused, or harmless.

use super::*;
use crate::{UuidAt, splice};

/// The features that a request asks for, with their places.
fn unsafe_features(path: &str, body: &str) -> String {
    let request = scan_at(path, body.as_bytes()).unwrap();
    let all: Vec<String> =
        request.unsafe_features.iter().map(|at| format!("{} {}", at.feature.as_str(), at.at)).collect();
    all.join(", ")
}

/// Every host that an engine would be sent to, and `?` for what is no sound URL.
fn hosts(request: &InferenceRequest) -> String {
    let urls = request.media.iter().filter_map(|item| item.url.as_ref());
    urls.map(|url| url.as_ref().map_or("?", |url| &*url.host)).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn fetches(path: &str, body: &str, expected: &str) {
    assert_eq!(hosts(&scan_at(path, body.as_bytes()).unwrap()), expected, "{body}");
}

const INSIDE: &str = "http://169.254.169.254/x";

#[test]
fn a_field_of_an_engines_own_interface_that_nobody_knows_is_found_and_elsewhere_it_is_not() {
    for path in [
        "/generate",
        "/inference/v1/generate",
        "/v1/videos",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/audio/speech",
        "/pooling",
        "/score",
        "/v1/rerank",
        "/classify",
    ] {
        assert_eq!(unsafe_features(path, r#"{"model":"m","brand_new":"x"}"#), "UnlistedFields brand_new", "{path}");
        let empty = r#"{"model":"m","brand_new":null,"other":"","third":[],"fourth":{},"fifth":false}"#;
        assert_eq!(unsafe_features(path, empty), "", "{path}: what is empty is not there");
        let deep = r#"{"model":"m","brand_new":[{"a":{}}]}"#;
        assert_eq!(unsafe_features(path, deep), "UnlistedFields brand_new", "{path}");
    }
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"] {
        assert_eq!(unsafe_features(path, r#"{"model":"m","brand_new":"x","user":"u","seed":1}"#), "", "{path}");
    }
    let odd = format!(r#"{{"model":"m","{}\u001b[31m":1}}"#, "x".repeat(80));
    assert_eq!(unsafe_features("/score", &odd), format!("UnlistedFields {}", "x".repeat(64)), "a name is cut");
    assert_eq!(unsafe_features("/score", r#"{"model":"m","\u001b[31m":1}"#), "UnlistedFields ?[31m");
}

#[test]
fn what_honest_clients_send_is_known() {
    assert_eq!(
        unsafe_features(
            "/generate",
            r#"{"text":"a","sampling_params":{"temperature":0,"max_new_tokens":9,"stop":["x"],"regex":"a+","ignore_eos":true},"stream":true,"return_logprob":false}"#
        ),
        ""
    );
    assert_eq!(
        unsafe_features(
            "/v1/images/generations",
            r#"{"model":"m","prompt":"a","n":1,"size":"1024x1024","response_format":"b64_json","quality":"high","seed":7,"user":"u","negative_prompt":"b"}"#
        ),
        ""
    );
    assert_eq!(
        unsafe_features(
            "/v1/audio/speech",
            r#"{"model":"m","input":"a","voice":"alloy","response_format":"mp3","speed":1.0,"instructions":"x"}"#
        ),
        ""
    );
    assert_eq!(
        unsafe_features(
            "/v1/videos",
            r#"{"model":"m","prompt":"a","seconds":"4","size":"1280x720","fps":16,"num_frames":81}"#
        ),
        ""
    );
    assert_eq!(
        unsafe_features(
            "/v1/rerank",
            r#"{"model":"m","query":"a","documents":["b"],"top_n":1,"return_documents":true}"#
        ),
        ""
    );
}

#[test]
fn what_engines_tell_each_other_is_found_however_deep() {
    let chat = "/v1/chat/completions";
    for (path, body, expected) in [
        (
            "/inference/v1/generate",
            r#"{"token_ids":[1],"sampling_params":{"extra_args":{"kv_transfer_params":{"remote_host":"x"}}}}"#,
            "EngineInternals sampling_params.extra_args.kv_transfer_params",
        ),
        (
            chat,
            r#"{"model":"m","vllm_xargs":{"kv_transfer_params":"x"}}"#,
            "EngineInternals vllm_xargs.kv_transfer_params",
        ),
        (chat, r#"{"model":"m","made_up":[{"a":{"bootstrap_host":"x"}}]}"#, "EngineInternals [0].bootstrap_host"),
        (chat, r#"{"model":"m","bootstrap_host":"x"}"#, "EngineInternals bootstrap_host"),
        (chat, r#"{"model":"m","bootstrap_room":7}"#, "EngineInternals bootstrap_room"),
        ("/generate", r#"{"text":"a","bootstrap_port":[1]}"#, "EngineInternals bootstrap_port[0]"),
        (chat, r#"{"model":"m","custom_logit_processor":"gASV"}"#, "EngineInternals custom_logit_processor"),
        (chat, r#"{"model":"m","lora_path":"/x"}"#, "EngineInternals lora_path"),
        (
            chat,
            r#"{"model":"m","chat_template_kwargs":{"chat_template":"{{ x }}"}}"#,
            "EngineInternals chat_template_kwargs.chat_template",
        ),
        ("/v1/videos", r#"{"prompt":"a","output_path":"/etc/x"}"#, "EngineInternals output_path"),
        ("/v1/videos", r#"{"prompt":"a","extra_body":{"output_path":"/x"}}"#, "EngineInternals extra_body.output_path"),
        ("/v1/videos", r#"{"prompt":"a","extra_body":"{}"}"#, "EngineInternals extra_body"),
        ("/v1/videos", r#"{"prompt":"a","extra_body":{"model":"other"}}"#, "EngineInternals extra_body.model"),
        ("/v1/videos", r#"{"prompt":"a","extra_body":{"brand_new":1}}"#, "UnlistedFields extra_body.brand_new"),
        ("/generate", r#"{"text":"a","mm_hashes":["x"]}"#, "SharedUUIDs mm_hashes[0]"),
    ] {
        assert_eq!(unsafe_features(path, body), expected, "{body}");
    }
    let schema = r#"{"model":"m","tools":[{"function":{"parameters":{"properties":{"kv_transfer_params":{}}}}}]}"#;
    assert_eq!(unsafe_features(chat, schema), "", "a tool may call its arguments as it likes");
    assert_eq!(unsafe_features(chat, r#"{"model":"m","kv_transfer_params":null,"bootstrap_host":""}"#), "");
}

#[test]
fn no_url_passes_unseen() {
    let url = INSIDE;
    for (path, body) in [
        ("/inference/v1/generate", format!(r#"{{"content_parts":[{{"type":"image_url","url":"{url}"}}]}}"#)),
        ("/inference/v1/generate", format!(r#"{{"content_parts":[{{"url":"{url}","type":"video_url","uuid":"x"}}]}}"#)),
        (
            "/inference/v1/generate",
            format!(r#"{{"content_parts":[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}"#),
        ),
        ("/v1/videos", format!(r#"{{"prompt":"a","reference_url":"{url}"}}"#)),
        ("/v1/videos", format!(r#"{{"prompt":"a","extra_body":{{"reference_url":"{url}"}}}}"#)),
        ("/v1/videos", format!(r#"{{"prompt":"a","audio_reference":{{"audio_url":"{url}"}}}}"#)),
        ("/v1/audio/speech", format!(r#"{{"input":"a","ref_audio_2":"{url}"}}"#)),
        ("/v1/audio/speech", format!(r#"{{"input":"a","references":[{{"audio_path":"{url}"}}]}}"#)),
        ("/classify", format!(r#"{{"image_data":["{url}"]}}"#)),
        ("/v2/embed", format!(r#"{{"images":["{url}"]}}"#)),
        ("/v1/completions", format!(r#"{{"prompt":{{"prompt_string":"a","multimodal_data":["{url}"]}}}}"#)),
        ("/v1/chat/completions/batch", format!(r#"{{"messages":[[{{"content":[{{"image_url":"{url}"}}]}}]]}}"#)),
        ("/v1/chat/completions", format!(r#"{{"messages":[{{"images":[{{"image_url":{{"url":"{url}"}}}}]}}]}}"#)),
    ] {
        let request = scan_at(path, body.as_bytes()).unwrap();
        let seen = hosts(&request);
        assert!(matches!(&*seen, "169.254.169.254" | "?"), "{body}: {seen:?}");
        assert!(request.unsafe_features.is_empty(), "{body}: {:?}", request.unsafe_features);
    }
    let frames = r#"{"content_parts":[{"type":"video_url","url":"data:video/jpeg;base64,AAAA"}]}"#;
    assert_eq!(unsafe_features("/inference/v1/generate", frames), "FrameLists content_parts[0]");
    let file = r#"{"content_parts":[{"type":"image_url","url":"file:///etc/passwd"}]}"#;
    assert_eq!(unsafe_features("/inference/v1/generate", file), "FileURLs content_parts[0]");
    for (kind, modality) in [("image_url", "image"), ("audio_url", "audio"), ("video_url", "video")] {
        for uuid in ["", r#","uuid":"x""#] {
            let body = format!(r#"{{"content_parts":[{{"type":"{kind}","url":"https://a.example/b"{uuid}}}]}}"#);
            check("/inference/v1/generate", &body, &format!("-: {modality} → text; {modality} content_parts[0]"));
        }
    }
}

#[test]
fn a_string_beside_a_url_is_a_word_unless_it_could_be_fetched() {
    let part = |object: &str| format!(r#"{{"model":"m","messages":[{{"content":[{{"image_url":{object}}}]}}]}}"#);
    let chat = "/v1/chat/completions";
    for beside in [
        r#""content_hash":"sha256:0123""#,
        r#""mime_type":"image/png""#,
        r#""file_name":"a.png""#,
        r#""id":"img_1""#,
        r#""uuid":"u""#,
        r#""cache_control":{"type":"ephemeral"}"#,
        r#""video_metadata":{"start":"1s","tags":["a","b"]}"#,
        r#""alt":"as told on https://b.example.com/""#,
    ] {
        fetches(chat, &part(&format!(r#"{{"url":"https://a.example.com/x",{beside}}}"#)), "a.example.com");
        fetches(chat, &part(&format!(r#"{{{beside},"url":"https://a.example.com/x"}}"#)), "a.example.com");
    }
    for beside in [
        r#""other":"http://169.254.169.254/""#,
        r#""other":{"deep":["FILE:/etc/passwd"]}"#,
        r#""other":"/etc/passwd""#,
        r#""path":"~/x""#,
        r#""other":"data:image/png;base64,AAAA""#,
        r#""data":"AAAA""#,
        r#""uri":"https://b.example.com/""#,
        // What Python's readers of URLs leave out.
        r#""other":"ht\ntp://169.254.169.254/""#,
        r#""other":"\u0001http://169.254.169.254/""#,
        r#""other":"<URL:http://169.254.169.254/>""#,
        r#""other":"                            http://169.254.169.254/""#,
    ] {
        fetches(chat, &part(&format!(r#"{{"url":"https://a.example.com/x",{beside}}}"#)), "?");
    }
    fetches(chat, &part(r#"{"other":"http://169.254.169.254/"}"#), "?");
    let audio = r#"{"model":"m","messages":[{"content":[{"input_audio":{"data":"AAAA","format":"wav","id":"a1"}}]}]}"#;
    chat_request(audio, "m: audio → text; audio messages[0].content[0]");
}

#[track_caller]
fn chat_request(body: &str, expected: &str) {
    check("/v1/chat/completions", body, expected);
}

#[test]
fn what_engines_paste_into_a_url_is_a_word() {
    let audio = |format: &str| {
        format!(
            r#"{{"model":"m","messages":[{{"content":[{{"input_audio":{{"data":"AAAA","format":"{format}"}}}}]}}]}}"#
        )
    };
    chat_request(&audio("wav"), "m: audio → text; audio messages[0].content[0]");
    chat_request(&audio("x-m4a"), "m: audio → text; audio messages[0].content[0]");
    for pasted in ["wav;base64,AAAA", "wav,AAAA", "a b", "../x", &"x".repeat(65)] {
        chat_request(&audio(pasted), "format must be a short word, such as wav");
    }
    let listed = r#"{"model":"m","messages":[{"content":[{"input_audio":{"data":"AAAA","format":["wav"]}}]}]}"#;
    chat_request(listed, "format must be a short word, such as wav");
    let source = |media_type: &str| {
        format!(
            r#"{{"model":"m","messages":[{{"content":[{{"type":"image","source":{{"type":"base64","media_type":"{media_type}","data":"AAAA"}}}}]}}]}}"#
        )
    };
    check("/v1/messages", &source("image/png"), "m: image → text; image messages[0].content[0]");
    let long = format!("image/{}", "x".repeat(59));
    for pasted in ["image/png;base64,AAAA", "image/png, x", "image/png/x", &long] {
        check("/v1/messages", &source(pasted), "media_type must be a media type, such as image/png");
    }
}

#[test]
fn what_stands_where_a_text_or_a_picture_should_is_no_text_and_no_picture() {
    let picture = |value: &str| format!(r#"{{"model":"m","messages":[{{"content":[{{"image_url":{value}}}]}}]}}"#);
    for (path, body, expected) in [
        ("/generate", r#"{"text":{"a":"/etc/passwd"}}"#, "UnlistedFields text"),
        (
            "/v1/completions",
            r#"{"model":"m","prompt":{"bootstrap_host":"x"}}"#,
            "EngineInternals prompt.bootstrap_host",
        ),
        ("/v1/rerank", r#"{"model":"m","documents":[{"text":"a","other":"b"}]}"#, "UnlistedFields documents[0].other"),
        ("/v1/chat/completions", &picture("[[0.5,1]]"), "Embeds messages[0].content[0].image_url[0][0]"),
        ("/v1/chat/completions", &picture(r#"{"data":[0.5]}"#), "Embeds messages[0].content[0].image_url.data[0]"),
        ("/v1/chat/completions", &picture(r#"{"url":"https://a.example.com/x","width":7}"#), ""),
    ] {
        assert_eq!(unsafe_features(path, body), expected, "{body}");
    }
}

#[test]
fn no_key_hides_a_placeholder_behind_its_length() {
    let with_key =
        |key: &str| format!(r#"{{"model":"m","messages":[{{"role":"user","content":"a","x":{{"{key}":1}}}}]}}"#);
    let chat = |key: &str| scan_at("/v1/chat/completions", with_key(key).as_bytes());
    let long = format!("{}<|image_pad|>", "x".repeat(200));
    assert!(!chat(&long).unwrap().placeholders.is_empty());
    let longer = format!("{}<|image_pad|>", "x".repeat(300));
    assert!(chat(&longer).unwrap_err().to_string().starts_with("key "), "{}", chat(&longer).unwrap_err());
}

#[test]
fn an_empty_name_is_a_name_to_an_engine() {
    let body = r#"{"model":"m","messages":[{"content":[{"type":"image_url","image_url":null,"uuid":""}]}]}"#;
    let request = scan_at("/v1/chat/completions", body.as_bytes()).unwrap();
    let Some(UuidAt::Given(at)) = request.media[0].uuid.clone() else { panic!("so that it is made the client's own") };
    assert_eq!(&body[usize::try_from(at.start).unwrap()..usize::try_from(at.end).unwrap()], r#""""#);
}

#[test]
fn a_name_is_put_beside_media_that_have_none_where_an_engine_takes_one() {
    let picture = r#""image_url":{"url":"data:image/png;base64,AAAA"}"#;
    for (path, part, expected) in [
        (CHAT.path, format!(r#"{{"type":"image_url",{picture}}}"#), true),
        (CHAT.path, format!(r#"{{{picture},"x":[{{"uuid":"no"}}],"type":"image_url" }}"#), true),
        (CHAT.path, r#"{"input_audio":{"data":"AAAA","format":"wav"},"type":"input_audio"}"#.into(), true),
        (CHAT.path, r#"{"type":"video_url","video_url":{"url":"https://a.example/b.mp4"},"x":{}}"#.into(), true),
        (CHAT.path, r#"{"type":"audio_url","audio_url":{"url":"https://a.example/b.wav"}}"#.into(), true),
        // It has one, or says that it has none: two fields of one name are read by each engine in its own way.
        (CHAT.path, format!(r#"{{"type":"image_url",{picture},"uuid":null}}"#), false),
        (CHAT.path, format!(r#"{{"uuid":"x",{picture}}}"#), false),
        // Beside a name vLLM takes the first of these fields, be it null.
        (CHAT.path, format!(r#"{{"type":"image_url",{picture},"image_pil":null}}"#), false),
        (
            CHAT.path,
            r#"{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"},"prompt_embeds":false}"#.into(),
            false,
        ),
        // Without a name it is refused, and must be with one.
        (CHAT.path, format!("{{{picture}}}"), false),
        (CHAT.path, format!(r#"{{"type":"image",{picture}}}"#), false),
        (CHAT.path, r#"{"type":"image_url","image_url":"data:image/png;base64,AAAA"}"#.into(), false),
        (CHAT.path, r#"{"type":"image_url","image_url":null,"image":"data:image/png;base64,AAAA"}"#.into(), false),
        (CHAT.path, r#"{"type":"image_url","image_url":{"image":"data:image/png;base64,AAAA"}}"#.into(), false),
        (CHAT.path, r#"{"type":"input_audio","input_audio":{"url":"data:audio/wav;base64,AAAA"}}"#.into(), false),
        (CHAT.path, r#"{"type":"audio_url","input_audio":{"data":"AAAA","format":"wav"}}"#.into(), false),
        // Beside a name vLLM knows neither these fields nor the type.
        (CHAT.path, r#"{"type":"image","image":"data:image/png;base64,AAAA"}"#.into(), false),
        (CHAT.path, format!(r#"{{"type":"other",{picture}}}"#), false),
        (CHAT.path, format!(r#"{{"type":"video_url",{picture}}}"#), false),
        (CHAT.path, format!(r#"{{{picture},"video_url":null}}"#), false),
        (CHAT.path, r#"{"type":"file","file":{"file_id":"f"}}"#.into(), false),
        (CHAT.path, r#"{"image_embeds":"AAAA"}"#.into(), false),
        // Other APIs have no such field.
        ("/v1/responses", r#"{"type":"input_image","image_url":"data:image/png;base64,AAAA"}"#.into(), false),
    ] {
        let field = if path == CHAT.path { "messages" } else { "input" };
        let body = format!(r#"{{"model":"m","{field}":[{{"role":"user","content":[{part}]}}]}}"#);
        let request = scan_at(path, body.as_bytes()).unwrap();
        let missing = request.media.iter().find_map(|item| item.named("ours"));
        assert_eq!(missing.is_some(), expected, "{part}");
        let Some(name) = missing else { continue };
        let named = splice([bytes::Bytes::from(body.clone())], &[name]).concat();
        let [before, after] =
            [body.as_bytes(), &named].map(|body| serde_json::from_slice::<serde_json::Value>(body).unwrap());
        let mut expected = before;
        expected["messages"][0]["content"][0]["uuid"] = "ours".into();
        assert_eq!(after, expected);
    }
}

#[test]
fn documents_are_what_engines_make_of_them() {
    let file = |kind: &str| {
        format!(
            r#"{{"model":"m","messages":[{{"content":[{{"type":"file","file":{{"file_data":"data:{kind};base64,AAAA","filename":"a"}}}}]}}]}}"#
        )
    };
    for kind in [
        "text/markdown",
        "application/json",
        "application/xml",
        "application/yaml",
        "application/x-yaml",
        "application/ld+json",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/msword",
    ] {
        chat_request(&file(kind), "m: text → text");
    }
    for kind in ["application/pdf", "application/octet-stream", "application/zip"] {
        chat_request(&file(kind), "m: image → text; image messages[0].content[0]");
    }
    let document = |content: &str| {
        format!(
            r#"{{"model":"m","messages":[{{"content":[{{"type":"document","source":{{"type":"content","content":{content}}}}}]}}]}}"#
        )
    };
    check("/v1/messages", &document(r#""words""#), "m: text → text");
    check("/v1/messages", &document(r#"[{"type":"text","text":"words"}]"#), "m: text → text");
    // SGLang's rerankers take parts of content, with and without pictures.
    let rerank = |documents: &str| format!(r#"{{"model":"m","query":"a","documents":[{documents}]}}"#);
    check("/v1/rerank", &rerank(r#"[{"type":"text","text":"b"}]"#), "m: text → -");
    check(
        "/v1/rerank",
        &rerank(r#"[{"type":"image_url","image_url":{"url":"https://a.example.com/x"}}]"#),
        "m: text+image → -; image documents[0][0].image_url",
    );
}

#[test]
fn pictures_of_earlier_answers_count() {
    chat_request(
        r#"{"model":"m","messages":[{"role":"assistant","content":"here","images":[{"type":"image_url","image_url":{"url":"https://a.example.com/x"}}]}]}"#,
        "m: text+image → text; image messages[0].images[0]",
    );
    let picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    check(
        "/v1/responses",
        &format!(r#"{{"model":"m","input":[{{"type":"image_generation_call","id":"i","result":"{picture}"}}]}}"#),
        "m: image → text; image input[0].result",
    );
    check("/v1/responses", r#"{"model":"m","input":[{"type":"mcp_call","result":"some words"}]}"#, "m: text → text");
}

#[test]
fn a_byte_order_mark_is_ignored() {
    let body = b"\xef\xbb\xbf{\"model\":\"m\",\"messages\":[]}";
    for piece in [usize::MAX, 1, 2, 3] {
        let mut scanner = Scanner::new(&CHAT, Limits::default()).unwrap();
        body.chunks(piece).try_for_each(|piece| scanner.feed(piece)).unwrap();
        let request = scanner.finish().unwrap();
        assert_eq!((shown(&request), request.model_span.unwrap().range), ("m: - → text".into(), 12..15));
    }
    for broken in [&b"\xef{}"[..], b"\xef\xbb{}", b"\xef\xbb\xbf\xef\xbb\xbf{}", b"{\xef\xbb\xbf}", b" \xef\xbb\xbf{}"]
    {
        assert!(scan_at("/v1/chat/completions", broken).is_err(), "{broken:?}");
    }
}

#[test]
fn paths_of_every_engine_are_read() {
    let body = r#"{"model":"m","prompt":"a"}"#;
    for (path, expected) in [
        ("/v2/embed", "m: - → embedding"),
        ("/generative_scoring", "m: - → -"),
        ("/v1/audio/speech/batch", "m: - → audio"),
        ("/v1/audio/generate", "m: - → audio"),
        ("/v1/images/variations", "m: text → image"),
        ("/v1/completions/", "m: text → text"),
    ] {
        check(path, body, expected);
    }
    let head = RequestHead { method: "GET", path: "/models?all=true", ..CHAT };
    let request = Scanner::new(&head, Limits::default()).unwrap().finish().unwrap();
    assert_eq!(request.resource, Resource::Models { all: true });
}

#[test]
fn a_realtime_session_names_one_model() {
    let model = |query: &str| {
        let head = RequestHead { method: "GET", path: &format!("/v1/realtime{query}"), ..CHAT };
        Scanner::new(&head, Limits::default()).map(|scanner| scanner.finish().unwrap().model)
    };
    assert_eq!(model("?model=a"), Ok(Some("a".into())));
    assert_eq!(model(""), Ok(None));
    for twice in ["?model=a&model=b", "?model=a&%6dodel=b", "?model=&model=b"] {
        assert_eq!(model(twice), Err(Unreadable::DuplicateField { field: "model", at: 0 }), "{twice}");
    }
}
