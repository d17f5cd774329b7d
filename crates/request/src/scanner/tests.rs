use super::*;

mod fields;
mod forms;
mod prompts;

const CHAT: RequestHead<'static> = RequestHead {
    method: "POST",
    path: "/v1/chat/completions",
    authority: None,
    content_type: None,
    content_encoding: None,
    content_length: None,
    objective: None,
    fairness: None,
    session: None,
};

fn scan_at(path: &str, body: &[u8]) -> Result<InferenceRequest, Unreadable> {
    let mut scanner = Scanner::new(&RequestHead { path, ..RequestHead::default() }, Limits::default())?;
    scanner.feed(body)?;
    scanner.finish()
}

/// `chat: text+image → text; image messages[0].content[1]`: model, requirement, media with their places.
fn shown(request: &InferenceRequest) -> String {
    let media: Vec<String> = request.media.iter().map(|item| format!("{} {}", item.modality, item.at)).collect();
    let model = request.model.as_deref().unwrap_or("-");
    let stream = if request.stream { " (stream)" } else { "" };
    format!("{model}: {}{stream}; {}", request.requires, media.join(", ")).trim_end_matches("; ").to_owned()
}

#[track_caller]
fn check(path: &str, body: &str, expected: &str) {
    let request = scan_at(path, body.as_bytes());
    assert_eq!(request.as_ref().map_or_else(ToString::to_string, shown), expected, "{body}");
}

#[track_caller]
fn chat(body: &str, expected: &str) {
    check("/v1/chat/completions", body, expected);
}

/// A user message with this content, then the check.
#[track_caller]
fn content(content: &str, expected: &str) {
    chat(&format!(r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}]}}"#), expected);
}

#[test]
fn text_comes_as_a_string_or_as_parts() {
    content(r#""hi""#, "m: text → text");
    content(r#"[{"type":"text","text":"hi"}]"#, "m: text → text");
    content(r#"["bare", {"text":"no type"}]"#, "m: text → text");
    content("null", "m: - → text");
    content("[]", "m: - → text");
}

#[test]
fn every_shape_of_an_image_is_one() {
    for part in [
        r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}"#,
        r#"{"type":"image_url","image_url":"https://example.com/a.png"}"#,
        r#"{"image_url":{"url":"https://example.com/a.png","detail":"low"}}"#,
        r#"{"image_url":{"detail":"low","url":"x"},"type":"image_url"}"#,
        r#"{"type":"image_url","image_url":null,"uuid":"cat"}"#,
        r#"{"image_url":null,"uuid":"cat"}"#,
        r#"{"type":"input_image","image_url":"x"}"#,
        r#"{"type":"image_embeds","image_embeds":{"a":"b"}}"#,
        r#"{"type":"image","image":"x"}"#,
        r#"{"type":"image_pil","image_pil":"x"}"#,
        r#"{"\u0074ype":"image\u005furl","image_url":"x"}"#,
        r#"{"type":"text","image_url":"x","uuid":"cat"}"#,
    ] {
        content(&format!("[{part}]"), "m: image → text; image messages[0].content[0]");
    }
}

#[test]
fn audio_and_video_are_told_apart() {
    content(
        r#"["see", {"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}, {"type":"video_url","video_url":{"url":"x"}}, {"audio_url":"y"}]"#,
        "m: text+audio+video → text; audio messages[0].content[1], video messages[0].content[2], audio messages[0].content[3]",
    );
}

#[test]
fn media_counts_in_every_role_and_turn() {
    chat(
        r#"{"messages":[{"role":"system","content":"s"},{"role":"tool","content":[{"type":"image_url","image_url":{"url":"x"}}]},{"role":"user","content":"go"}],"model":"late"}"#,
        "late: text+image → text; image messages[1].content[0]",
    );
}

#[test]
fn a_type_wins_over_a_stray_key_and_an_unknown_type_does_not() {
    content(r#"[{"type":"text","text":"a","image_url":"x"}]"#, "m: text → text");
    content(r#"[{"type":"hologram","image_url":"x"}]"#, "m: image → text; image messages[0].content[0]");
    content(r#"[{"type":"tool_use","input":{"image_url":"x"}}]"#, "m: - → text");
}

#[test]
fn words_that_look_like_fields_elsewhere_mean_nothing() {
    chat(
        r#"{"model":"m","tools":[{"model":"no","messages":[{"content":[{"type":"image_url","image_url":"x"}]}]}],"messages":[{"content":"a","tool_calls":[{"content":[{"image_url":"x"}]}]}],"metadata":{"model":"no","stream":true}}"#,
        "m: text → text",
    );
}

#[test]
fn outputs_are_read_from_modalities() {
    chat(r#"{"model":"m","modalities":["text","audio"],"messages":[{"content":"a"}]}"#, "m: text → text+audio");
    chat(r#"{"model":"m","modalities":null,"messages":[{"content":"a"}]}"#, "m: text → text");
    chat(
        r#"{"model":"m","modalities":["smell"]}"#,
        r#"unknown modality "smell"; expected text, image, audio, video or embedding"#,
    );
    chat(r#"{"model":"m","modalities":"text"}"#, "modalities must be a list of strings");
}

#[test]
fn completions_and_what_gives_vectors_or_scores() {
    check("/v1/completions", r#"{"model":"m","prompt":["a","b"],"stream":true}"#, "m: text → text (stream)");
    check("/v1/completions", r#"{"model":"m","prompt":[1,2]}"#, "m: text → text");
    check("/v1/embeddings", r#"{"model":"m","input":"a"}"#, "m: text → embedding");
    check("/v1/embeddings", r#"{"model":"m","input":[[1,2],[3]]}"#, "m: text → embedding");
    check(
        "/v1/embeddings",
        r#"{"model":"m","messages":[{"content":[{"type":"image_url","image_url":"x"}]}]}"#,
        "m: image → embedding; image messages[0].content[0]",
    );
    check(
        "/v1/embeddings",
        r#"{"model":"m","messages":[[{"content":"a"}],[{"content":[{"type":"image_url","image_url":"x"}]}]]}"#,
        "m: text+image → embedding; image messages[1][0].content[0]",
    );
    check(
        "/v1/embeddings",
        r#"{"model":"m","input":[{"text":"a","image":"https://x/a.png"},{"video":"https://x/a.mp4"}]}"#,
        "m: text+image+video → embedding; image input[0].image, video input[1].video",
    );
    check("/pooling", r#"{"model":"m","input":"a"}"#, "m: text → embedding");
    check("/classify", r#"{"model":"m","input":["a"]}"#, "m: text → -");
    check(
        "/v1/rerank",
        r#"{"model":"m","query":"q","documents":["a",{"content":[{"image_url":{"url":"x"}}]},{"text":"b"}]}"#,
        "m: text+image → -; image documents[1].content[0]",
    );
    check("/v1/rerank", r#"{"query":"no model"}"#, "-: text → -");
    check(
        "/score",
        r#"{"model":"m","text_1":"a","text_2":{"content":[{"type":"video_url","video_url":{"url":"x"}}]}}"#,
        "m: text+video → -; video text_2.content[0]",
    );
    check(
        "/tokenize",
        r#"{"model":"m","messages":[{"content":[{"type":"input_audio","input_audio":{"data":"AAAA"}}]}]}"#,
        "m: audio → -; audio messages[0].content[0]",
    );
    check("/health", "", "-: - → -");
}

#[test]
fn responses() {
    let responses = |input: &str, expected: &str| {
        check("/v1/responses", &format!(r#"{{"model":"m","input":{input}}}"#), expected);
    };
    responses(r#""hi""#, "m: text → text");
    responses(
        r#"[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"https://x/y.png","detail":"low"}]}]"#,
        "m: text+image → text; image input[0].content[1]",
    );
    responses(
        r#"[{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"x"}]}]"#,
        "m: image → text; image input[0].output[0]",
    );
    responses(
        r#"[{"type":"computer_call_output","output":{"type":"computer_screenshot","image_url":"x"}}]"#,
        "m: image → text; image input[0].output",
    );
    responses(
        r#"[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}]"#,
        "m: audio → text; audio input[0].content[0]",
    );
    responses(
        r#"[{"role":"user","content":[{"type":"input_file","file_data":"data:application/pdf;base64,AAAA","filename":"a.pdf"}]}]"#,
        "m: image → text; image input[0].content[0]",
    );
    responses(
        r#"[{"role":"user","content":[{"type":"input_file","file_data":"data:text/plain;base64,AAAA","filename":"a.txt"}]}]"#,
        "m: text → text",
    );
    responses(
        r#"[{"role":"user","content":[{"type":"input_image","file_id":"file-1"}]}]"#,
        "m: image → text; image input[0].content[0]",
    );
}

#[test]
fn anthropics_messages() {
    let messages = |content: &str, expected: &str| {
        let body = format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":{content}}}]}}"#);
        check("/v1/messages", &body, expected);
        check("/v1/messages/count_tokens", &body, expected);
    };
    messages(r#""hi""#, "m: text → text");
    messages(
        r#"[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},{"type":"text","text":"what?"}]"#,
        "m: text+image → text; image messages[0].content[0]",
    );
    messages(
        r#"[{"source":{"url":"https://x/a.png","type":"url"},"type":"image"}]"#,
        "m: image → text; image messages[0].content[0]",
    );
    messages(
        r#"[{"type":"document","source":{"data":"JVBERi0xLjQ=","media_type":"application/pdf","type":"base64"}}]"#,
        "m: image → text; image messages[0].content[0]",
    );
    messages(
        r#"[{"type":"document","source":{"data":"plain words","media_type":"text/plain","type":"text"}}]"#,
        "m: text → text",
    );
    messages(
        r#"[{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}}]"#,
        "m: image → text; image messages[0].content[0].source.content[0]",
    );
    messages(
        r#"[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"a"},{"type":"image","source":{"type":"base64","media_type":"image/jpeg","data":"AAAA"}}]}]"#,
        "m: text+image → text; image messages[0].content[0].content[1]",
    );
    messages(
        r#"[{"type":"image","uuid":"u","source":{"type":"base64","media_type":"text/plain","data":"AAAA"}}]"#,
        "m: image → text; image messages[0].content[0]",
    );
    check("/v1/messages", r#"{"model":"m","system":[{"type":"text","text":"s"}],"messages":[]}"#, "m: text → text");
}

#[test]
fn what_makes_sound_pictures_and_videos() {
    check("/v1/audio/speech", r#"{"model":"m","input":"hi","voice":"alloy"}"#, "m: text → audio");
    check(
        "/v1/audio/speech",
        r#"{"model":"m","input":"hi","ref_audio":"data:audio/wav;base64,AAAA"}"#,
        "m: text+audio → audio; audio ref_audio",
    );
    check("/v1/images/generations", r#"{"model":"m","prompt":"a cat"}"#, "m: text → image");
    check(
        "/v1/images/edits",
        r#"{"model":"m","prompt":"a","images":[{"image_url":"https://x/a.png"},{"file_id":"f"}]}"#,
        "m: text+image → image; image images[0], image images[1]",
    );
    check("/v1/videos", r#"{"model":"m","prompt":"waves"}"#, "m: text → video");
    check(
        "/v1/videos",
        r#"{"model":"m","prompt":"waves","input_reference":{"image_url":"data:image/png;base64,AAAA"}}"#,
        "m: text+image → video; image input_reference",
    );
    let realtime = RequestHead { method: "GET", path: "/v1/realtime?model=a%2Fb", ..CHAT };
    let request = Scanner::new(&realtime, Limits::default()).unwrap().finish().unwrap();
    assert_eq!(shown(&request), "a/b: audio → -");
}

#[test]
fn sglangs_generate() {
    check("/generate", r#"{"text":"hi","sampling_params":{}}"#, "-: text → text");
    check(
        "/generate",
        r#"{"input_ids":[1],"image_data":["https://x/a.png",["data:image/png;base64,AAAA"]],"audio_data":"https://x/a.wav"}"#,
        "-: text+image+audio → text; image image_data[0], image image_data[1][0], audio audio_data",
    );
}

#[test]
fn dangers_are_found_with_their_places() {
    let unsafe_features = |path: &str, body: &str| {
        let request = scan_at(path, body.as_bytes()).unwrap();
        let all: Vec<String> =
            request.unsafe_features.iter().map(|at| format!("{} {}", at.feature.as_str(), at.at)).collect();
        all.join(", ")
    };
    let chat = "/v1/chat/completions";
    let part = |part: &str| format!(r#"{{"model":"m","messages":[{{"content":["a",{part}]}}]}}"#);
    assert_eq!(
        unsafe_features(chat, r#"{"model":"m","mm_processor_kwargs":{"a":1},"media_io_kwargs":null}"#),
        "ProcessorArguments mm_processor_kwargs"
    );
    assert_eq!(
        unsafe_features("/tokenize", r#"{"media_io_kwargs":{"video":{}}}"#),
        "ProcessorArguments media_io_kwargs"
    );
    assert_eq!(
        unsafe_features(chat, &part(r#"{"type":"image_embeds","image_embeds":"AAAA"}"#)),
        "Embeds messages[0].content[1]"
    );
    assert_eq!(unsafe_features(chat, &part(r#"{"image_embeds":{"a":"AAAA"}}"#)), "Embeds messages[0].content[1]");
    assert_eq!(
        unsafe_features(chat, &part(r#"{"type":"prompt_embeds","prompt_embeds":"AAAA"}"#)),
        "Embeds messages[0].content[1].prompt_embeds"
    );
    assert_eq!(
        unsafe_features(chat, &part(r#"{"type":"prompt_embeds","data":"AAAA"}"#)),
        "Embeds messages[0].content[1]"
    );
    assert_eq!(
        unsafe_features(chat, &part(r#"{"type":"video_embeds","video_embeds":"AAAA"}"#)),
        "Embeds messages[0].content[1]"
    );
    assert_eq!(
        unsafe_features(chat, r#"{"model":"m","kv_transfer_params":{"remote_host":"x"}}"#),
        "EngineInternals kv_transfer_params"
    );
    assert_eq!(unsafe_features("/v1/videos", r#"{"model":"m","lora":{"local_path":"/x"}}"#), "EngineInternals lora");
    assert_eq!(unsafe_features("/v1/completions", r#"{"model":"m","prompt_embeds":"AAAA"}"#), "Embeds prompt_embeds");
    assert_eq!(
        unsafe_features(chat, &part(r#"{"image_url":{"url":"file:///etc/passwd"}}"#)),
        "FileURLs messages[0].content[1]"
    );
    assert_eq!(
        unsafe_features(chat, &part(r#"{"video_url":{"url":"data:video/jpeg;base64,AAAA,AAAA"}}"#)),
        "FrameLists messages[0].content[1]"
    );
    assert_eq!(
        unsafe_features(chat, &part(r#"{"video_url":{"url":"https://x/y","fps":1000}}"#)),
        "ProcessorArguments messages[0].content[1].video_url.fps"
    );
    assert_eq!(
        unsafe_features("/inference/v1/generate", r#"{"token_ids":[1],"features":{"mm_hashes":{}}}"#),
        "EngineInternals features"
    );
    assert_eq!(unsafe_features(chat, &part(r#"{"image_url":{"url":"https://x/y.png"}}"#)), "");
    assert_eq!(unsafe_features(chat, r#"{"model":"m","mm_processor_kwargs":{},"media_io_kwargs":null}"#), "");
}

#[test]
fn placeholders_are_found_in_text_and_nowhere_else() {
    let found =
        |body: &str| scan_at("/v1/chat/completions", body.as_bytes()).unwrap().placeholders.unsafe_for(None, |_| 0);
    assert_eq!(found(r#"{"messages":[{"content":"a <|image_pad|> b"}]}"#), Some("<|image_pad|>"));
    assert_eq!(found(r#"{"messages":[{"content":"a \u003c|image_pad|\u003e b"}]}"#), Some("<|image_pad|>"));
    assert_eq!(
        found(r#"{"messages":[{"content":[{"type":"text","text":"<|vision_start|>"}]}]}"#),
        Some("<|vision_start|>")
    );
    // Parts of a message run into each other in the prompt.
    assert_eq!(found(r#"{"messages":[{"content":["<|image_","pad|>"]}]}"#), Some("<|image_pad|>"));
    assert_eq!(found(r#"{"messages":[{"content":"<|image_"},{"content":"pad|>"}],"user":"<|image_pad|>"}"#), None);
    let cached = r#""cache_control":{"type":"ephemeral"}"#;
    let split =
        format!(r#"{{"messages":[{{"content":[{{"text":"<|image_",{cached}}},{{{cached},"text":"pad|>"}}]}}]}}"#);
    assert_eq!(found(&split), Some("<|image_pad|>"));
    // What templates write beside the texts.
    for beside in [
        r#""messages":[{"role":"<|image_pad|>","content":"a"}]"#,
        r#""messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\"a\":\"<|image_pad|>\"}"}}]}]"#,
        r#""messages":[{"content":[{"type":"refusal","refusal":"<|image_pad|>"}]}]"#,
        r#""tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"<|image_pad|>":{}}}}}]"#,
        r#""tools":[{"type":"function","type":"x","function":{"description":"<|image_pad|>"}}]"#,
        r#""chat_template_kwargs":{"system":"<|image_pad|>"}"#,
        r#""documents":[{"title":"<|image_pad|>"}]"#,
    ] {
        assert_eq!(found(&format!("{{{beside}}}")), Some("<|image_pad|>"), "{beside}");
    }
    assert_eq!(found(r#"{"metadata":{"a":"<|image_pad|>"},"stop":["<|image_pad|>"]}"#), None);
}

#[test]
fn a_name_is_unescaped_and_its_place_remembered() {
    let body = r#"{ "model" : "a\"b\n\ud83d\ude00\u00e9", "messages": [] }"#;
    let request = scan_at("/v1/chat/completions", body.as_bytes()).unwrap();
    assert_eq!(request.model.as_deref(), Some("a\"b\n😀é"));
    let span = request.model_span.unwrap().range;
    let literal = &body[usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap()];
    assert_eq!(literal, r#""a\"b\n\ud83d\ude00\u00e9""#);
}

#[test]
fn bad_json_is_refused_with_its_place() {
    for (body, expected) in [
        ("", "the body is empty"),
        ("hello", "the body is not valid JSON: expected a value at byte 0"),
        ("[1]", "the body must be a JSON object"),
        (r#"{"a":1,}"#, "the body is not valid JSON: expected a key at byte 7"),
        (r#"{"a" 1}"#, "the body is not valid JSON: expected a colon after a key at byte 5"),
        (r#"{"a":01}"#, "the body is not valid JSON: expected a comma or a closing bracket at byte 6"),
        (r#"{"a":-}"#, "the body is not valid JSON: malformed number at byte 6"),
        (r#"{"a":1.}"#, "the body is not valid JSON: malformed number at byte 7"),
        (r#"{"a":NaN}"#, "the body is not valid JSON: expected a value at byte 5"),
        (r#"{"a":nul}"#, "the body is not valid JSON: expected true, false or null at byte 8"),
        (r#"{"a":"\x"}"#, "the body is not valid JSON: invalid escape at byte 7"),
        (r#"{"a":[1}"#, "the body is not valid JSON: expected a comma or a closing bracket at byte 7"),
        ("{\"a\":\"\n\"}", "the body is not valid JSON: unescaped control character in a string at byte 6"),
        (r#"{"a":1} x"#, "the body is not valid JSON: trailing characters at byte 8"),
        (r#"{"a":"#, "the body ends in the middle of a JSON value, after 5 bytes"),
        (r#"{"a":"b"#, "the body ends in the middle of a JSON value, after 7 bytes"),
        (r#"{"a":[1,2"#, "the body ends in the middle of a JSON value, after 9 bytes"),
        (r#"{"model":7}"#, "model must be a string"),
        (r#"{"model":"a","model":"b"}"#, r#"duplicate field "model" at byte 13"#),
        (r#"{"model":"a","mod\u0065l":"b"}"#, r#"duplicate field "model" at byte 13"#),
        (r#"{"messages":[],"messages":[]}"#, r#"duplicate field "messages" at byte 15"#),
    ] {
        chat(body, expected);
    }
}

#[test]
fn wrong_utf8_is_refused_wherever_it_is_cut() {
    for bad in [&b"\xff"[..], b"\xc3", b"\xc3\x28", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"a\xc3\xa9\x80"] {
        let body = [br#"{"a":""#, bad, br#""}"#].concat();
        for cut in 0..body.len() {
            let mut scanner = Scanner::new(&CHAT, Limits::default()).unwrap();
            let result = scanner.feed(&body[..cut]).and_then(|()| scanner.feed(&body[cut..]));
            assert!(matches!(result, Err(Unreadable::NotUtf8 { .. })), "{bad:?} cut at {cut}: {result:?}");
        }
    }
}

#[test]
fn a_depth_bomb_is_refused_early() {
    let bomb = [br#"{"a":"#.to_vec(), vec![b'['; 1 << 20]].concat();
    let error = scan_at("/v1/chat/completions", &bomb).unwrap_err();
    assert_eq!(error, Unreadable::TooDeep { at: 132, limit: 128 });
}

#[test]
fn sizes_are_bounded() {
    let limits = Limits { max_body_bytes: 10 };
    let head = RequestHead { content_length: Some(11), ..CHAT };
    assert_eq!(Scanner::new(&head, limits).unwrap_err(), Unreadable::TooLarge { limit: 10 });
    let mut scanner = Scanner::new(&CHAT, limits).unwrap();
    assert_eq!(scanner.feed(b"{         "), Ok(()));
    assert_eq!(scanner.feed(b"}"), Err(Unreadable::TooLarge { limit: 10 }));

    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(1025));
    chat(&long, "model is longer than 1024 bytes");
    let many = vec![r#"{"image_url":"x"}"#; 4097].join(",");
    content(&format!("[{many}]"), "the request carries more than 4096 media items");
}

#[test]
fn a_body_of_another_length_than_announced_is_refused() {
    let head = RequestHead { content_length: Some(9), ..CHAT };
    let mut scanner = Scanner::new(&head, Limits::default()).unwrap();
    scanner.feed(b"{}").unwrap();
    assert_eq!(scanner.finish().unwrap_err(), Unreadable::LengthMismatch { declared: 9, actual: 2 });
}

#[test]
fn only_what_is_surely_not_json_is_refused_by_its_type() {
    let head = |content_type| RequestHead { content_type: Some(content_type), ..CHAT };
    for good in
        ["application/json", "application/json; charset=utf-8", "application/x-www-form-urlencoded", "text/plain", ""]
    {
        assert!(Scanner::new(&head(good), Limits::default()).is_ok(), "{good}");
    }
    for bad in ["multipart/form-data; boundary=x", "text/html"] {
        let error = Scanner::new(&head(bad), Limits::default()).unwrap_err();
        assert!(matches!(error, Unreadable::ContentType { .. }), "{bad}: {error}");
    }
}

#[test]
fn heads_are_refused_before_any_body() {
    let head = CHAT;
    let refused = |head: RequestHead<'_>| Scanner::new(&head, Limits::default()).unwrap_err().to_string();
    assert_eq!(refused(RequestHead { method: "GET", ..head }), "this path accepts POST only");
    assert_eq!(refused(RequestHead { method: "POST", path: "/v1/models", ..head }), "this path accepts GET, HEAD only");
    assert_eq!(
        refused(RequestHead { content_encoding: Some("gzip"), ..head }),
        r#"content-encoding "gzip" is not supported; send the body uncompressed"#
    );
    for authority in ["evil.com/x", "evil.com?x", "a@b", "a#b", "a b", "a\\b", "é"] {
        assert!(
            refused(RequestHead { authority: Some(authority), ..head }).starts_with("the host header"),
            "{authority}"
        );
    }
    assert!(
        Scanner::new(
            &RequestHead { authority: Some("[::1]:80"), content_encoding: Some("identity"), ..head },
            Limits::default()
        )
        .is_ok()
    );
    let polyglot =
        RequestHead { path: "/v1/images/edits", content_type: Some("application/x-www-form-urlencoded"), ..head };
    assert!(refused(polyglot).starts_with(r#"content type "application/x-www-form-urlencoded""#));
    let json = RequestHead { path: "/v1/audio/transcriptions", content_type: Some("application/json"), ..head };
    assert_eq!(refused(json), r#"content type "application/json" is not supported here; send multipart/form-data"#);
}

#[test]
fn sources_and_urls_are_told() {
    use media::UrlFault;
    use routing::MediaSource::{Inline, Url};
    for (url, source, host) in [
        ("data:image/png;base64,AAAA", Inline, None),
        ("https://Img.Example.com:8443/a.png?x", Url, Some(Ok("img.example.com"))),
        ("https://good.com@evil.com/x", Url, Some(Err(UrlFault::UserInfo))),
        (r"https://good.com\\evil.com/x", Url, Some(Err(UrlFault::OddCharacter))),
        ("                http://169.254.169.254/x", Url, Some(Err(UrlFault::Unclear))),
        (r"ht\t\t\ttp://169.254.169.254/x", Url, Some(Err(UrlFault::Unclear))),
        ("https:/x", Url, Some(Err(UrlFault::Host))),
        ("file:///etc/passwd", Url, Some(Err(UrlFault::File))),
        ("/etc/passwd", Url, Some(Err(UrlFault::Unclear))),
    ] {
        let body = format!(r#"{{"messages":[{{"content":[{{"image_url":{{"url":"{url}"}}}}]}}]}}"#);
        let request = scan_at("/v1/chat/completions", body.as_bytes()).unwrap();
        let found = request.media[0].url.as_ref().map(|url| url.as_ref().map(|url| &*url.host).map_err(|fault| *fault));
        assert_eq!((request.media[0].source, found), (source, host), "{url}");
    }
}

#[test]
fn of_several_strings_in_one_part_none_is_taken_and_tensors_come_in_several() {
    use media::UrlFault;
    let image = |part: &str| {
        let body = format!(r#"{{"messages":[{{"content":[{part}]}}]}}"#);
        let request = scan_at("/v1/chat/completions", body.as_bytes()).unwrap();
        assert_eq!(request.media.len(), 1, "{part}");
        request.media[0].clone()
    };
    let decoy = format!("data:image/png;base64,{}", "A".repeat(100));
    for part in [
        format!(r#"{{"image_url":{{"url":"https://example.com/","data":"{decoy}"}}}}"#),
        format!(r#"{{"image_url":{{"url":"https://example.com/"}},"image":"{decoy}"}}"#),
        format!(r#"{{"image_url":{{"x":"{decoy}","url":"data:image/png;base64,AAAA"}}}}"#),
        format!(r#"{{"image_url":[{{"deep":["{decoy}","https://example.com/"]}}]}}"#),
        r#"{"image_url":"http://a.example.com/","image":"http://b.example.com/"}"#.to_owned(),
    ] {
        assert_eq!(image(&part).url, Some(Err(UrlFault::Several)), "{part}");
    }
    let embeds = image(r#"{"type":"image_embeds","image_embeds":{"image_embeds":"AAAAAAAA","image_grid_thw":"AAAA"}}"#);
    assert_eq!((embeds.bytes, embeds.url), (12, None));
}

/// vLLM makes a name of anything (`str`), and of another client's it makes the same.
#[test]
fn a_uuid_that_is_no_string_is_refused() {
    for uuid in ["5", "true", "[\"x\"]", "{}"] {
        content(&format!(r#"[{{"type":"image_url","image_url":null,"uuid":{uuid}}}]"#), "uuid must be a string");
    }
    content(r#"[{"type":"text","text":"x","uuid":null,"image_url":"x"}]"#, "m: text → text");
}
