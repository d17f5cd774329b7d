use super::*;

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
    content(r#"[{"type":"file","file":{"file_id":"f"}}]"#, "m: - → text");
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
        r#""smell" is no modality; known are text, image, audio, video and embedding"#,
    );
    chat(r#"{"model":"m","modalities":"text"}"#, "modalities must be a list of words");
}

#[test]
fn other_operations() {
    check("/v1/completions", r#"{"model":"m","prompt":["a","b"],"stream":true}"#, "m: text → text (stream)");
    check("/v1/embeddings", r#"{"model":"m","input":"a"}"#, "m: text → embedding");
    check(
        "/v1/embeddings",
        r#"{"model":"m","messages":[{"content":[{"type":"image_url","image_url":"x"}]}]}"#,
        "m: image → embedding; image messages[0].content[0]",
    );
    check("/v1/rerank", r#"{"model":"m","messages":[{"content":[{"image_url":"x"}]}]}"#, "m: - → -");
    check("/v1/rerank", r#"{"query":"no model"}"#, "-: - → -");
    check("/health", "", "-: - → -");
}

#[test]
fn a_name_is_unescaped_and_its_place_remembered() {
    let body = r#"{ "model" : "a\"b\n\ud83d\ude00\u00e9", "messages": [] }"#;
    let request = scan_at("/v1/chat/completions", body.as_bytes()).unwrap();
    assert_eq!(request.model.as_deref(), Some("a\"b\n😀é"));
    let span = request.model_span.unwrap();
    let literal = &body[usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap()];
    assert_eq!(literal, r#""a\"b\n\ud83d\ude00\u00e9""#);
}

#[test]
fn bad_json_is_refused_with_its_place() {
    for (body, expected) in [
        ("", "the body is empty; a JSON object is expected"),
        ("hello", "the body is not valid JSON: something that starts no value at byte 0"),
        ("[1]", "the body must be a JSON object"),
        (r#"{"a":1,}"#, "the body is not valid JSON: something other than a key at byte 7"),
        (r#"{"a" 1}"#, "the body is not valid JSON: a key without a colon after it at byte 5"),
        (r#"{"a":01}"#, "the body is not valid JSON: something other than a comma or an end at byte 6"),
        (r#"{"a":-}"#, "the body is not valid JSON: a number that is none at byte 6"),
        (r#"{"a":1.}"#, "the body is not valid JSON: a number that is none at byte 7"),
        (r#"{"a":NaN}"#, "the body is not valid JSON: something that starts no value at byte 5"),
        (r#"{"a":nul}"#, "the body is not valid JSON: a word other than true, false and null at byte 8"),
        (r#"{"a":"\x"}"#, "the body is not valid JSON: an escape that is none at byte 7"),
        (r#"{"a":[1}"#, "the body is not valid JSON: something other than a comma or an end at byte 7"),
        ("{\"a\":\"\n\"}", "the body is not valid JSON: a control character in a string at byte 6"),
        (r#"{"a":1} x"#, "the body is not valid JSON: more after the end at byte 8"),
        (r#"{"a":"#, "the body ends in the middle of a JSON value, after 5 bytes"),
        (r#"{"a":"b"#, "the body ends in the middle of a JSON value, after 7 bytes"),
        (r#"{"a":[1,2"#, "the body ends in the middle of a JSON value, after 9 bytes"),
        (r#"{"model":7}"#, "model must be a string"),
        (r#"{"model":"a","model":"b"}"#, r#"the field "model" is given twice, the second time at byte 13"#),
        (r#"{"model":"a","mod\u0065l":"b"}"#, r#"the field "model" is given twice, the second time at byte 13"#),
        (r#"{"messages":[],"messages":[]}"#, r#"the field "messages" is given twice, the second time at byte 15"#),
    ] {
        chat(body, expected);
    }
}

#[test]
fn wrong_utf8_is_refused_wherever_it_is_cut() {
    for bad in [&b"\xff"[..], b"\xc3", b"\xc3\x28", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"a\xc3\xa9\x80"] {
        let body = [br#"{"a":""#, bad, br#""}"#].concat();
        for cut in 0..body.len() {
            let mut scanner = Scanner::new(&RequestHead::default(), Limits::default()).unwrap();
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
    let head = RequestHead { content_length: Some(11), ..RequestHead::default() };
    assert_eq!(Scanner::new(&head, limits).unwrap_err(), Unreadable::TooLarge { limit: 10 });
    let mut scanner = Scanner::new(&RequestHead::default(), limits).unwrap();
    assert_eq!(scanner.feed(b"{         "), Ok(()));
    assert_eq!(scanner.feed(b"}"), Err(Unreadable::TooLarge { limit: 10 }));

    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(1025));
    chat(&long, "model is longer than 1024 bytes");
    let many = vec![r#"{"image_url":"x"}"#; 4097].join(",");
    content(&format!("[{many}]"), "the request carries more than 4096 media items");
}

#[test]
fn a_body_of_another_length_than_announced_is_refused() {
    let head = RequestHead { content_length: Some(9), ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, Limits::default()).unwrap();
    scanner.feed(b"{}").unwrap();
    assert_eq!(scanner.finish().unwrap_err(), Unreadable::LengthMismatch { declared: 9, actual: 2 });
}

#[test]
fn only_what_is_surely_not_json_is_refused_by_its_type() {
    let head = |content_type| RequestHead { content_type: Some(content_type), ..RequestHead::default() };
    for good in
        ["application/json", "application/json; charset=utf-8", "application/x-www-form-urlencoded", "text/plain", ""]
    {
        assert!(Scanner::new(&head(good), Limits::default()).is_ok(), "{good}");
    }
    let error = Scanner::new(&head("multipart/form-data; boundary=x"), Limits::default()).unwrap_err();
    assert_eq!(error, Unreadable::ContentType("multipart/form-data; boundary=x".into()));
}

#[test]
fn sources_and_hosts_are_told() {
    use crate::Host;
    use routing::MediaSource::{Inline, Url};
    for (url, source, host) in [
        ("data:image/png;base64,AAAA", Inline, Host::None),
        ("AAAA", Inline, Host::None),
        ("https://Img.Example.com:8443/a.png?x", Url, Host::Named("img.example.com".into())),
        ("http://[fd00::1]:80/x", Url, Host::Named("fd00::1".into())),
        ("https://good.com@evil.com/x", Url, Host::Unclear),
        (r"https://good.com\\evil.com/x", Url, Host::Unclear),
        ("                http://169.254.169.254/x", Url, Host::Unclear),
        (r"ht\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\ttp://169.254.169.254/x", Url, Host::Unclear),
        ("DATA:image/png;base64,AAAA", Inline, Host::None),
        ("https:/x", Url, Host::Unclear),
        ("file:///etc/passwd", Url, Host::Unclear),
    ] {
        let body = format!(r#"{{"messages":[{{"content":[{{"image_url":{{"url":"{url}"}}}}]}}]}}"#);
        let request = scan_at("/v1/chat/completions", body.as_bytes()).unwrap();
        assert_eq!((request.media[0].source, &request.media[0].host), (source, &host), "{url}");
    }
}

#[test]
fn of_several_fields_of_one_modality_the_worst_counts() {
    use crate::Host;
    use routing::MediaSource::Url;
    let image = |part: &str| {
        let body = format!(r#"{{"messages":[{{"content":[{part}]}}]}}"#);
        let request = scan_at("/v1/chat/completions", body.as_bytes()).unwrap();
        assert_eq!(request.media.len(), 1, "{part}");
        (request.media[0].source, request.media[0].host.clone(), request.media[0].bytes)
    };
    let metadata = Host::Named("169.254.169.254".into());
    let decoy = "A".repeat(100);
    for part in [
        format!(r#"{{"image_url":{{"url":"http://169.254.169.254/","data":"{decoy}"}}}}"#),
        format!(r#"{{"image_url":{{"url":"http://169.254.169.254/"}},"image":"data:{decoy}"}}"#),
        format!(r#"{{"image_url":{{"data":"{decoy}","url":"http://169.254.169.254/"}}}}"#),
        format!(r#"{{"image_url":[{{"deep":["{decoy}","http://169.254.169.254/"]}}]}}"#),
    ] {
        let (source, host, bytes) = image(&part);
        assert_eq!((source, &host), (Url, &metadata), "{part}");
        assert!(bytes > 100, "{part}");
    }
    let two = image(r#"{"image_url":"http://a.example.com/","image":"http://b.example.com/"}"#);
    assert_eq!((two.0, two.1), (Url, Host::Unclear));
    let embeds = image(r#"{"type":"image_embeds","image_embeds":{"image_embeds":"AAAAAAAA","image_grid_thw":"AAAA"}}"#);
    assert_eq!(embeds.2, 12);
}

#[test]
fn a_uuid_that_is_no_string_is_one_all_the_same() {
    content(
        r#"[{"type":"text","text":"x","uuid":5,"image_url":"x"}]"#,
        "m: image → text; image messages[0].content[0]",
    );
    content(r#"[{"type":"text","text":"x","uuid":null,"image_url":"x"}]"#, "m: text → text");
}
