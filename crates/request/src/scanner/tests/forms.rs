//! Forms.

use super::*;

fn scan_form(path: &str, parts: &[(&str, &[u8])]) -> Result<InferenceRequest, Unreadable> {
    let mut body = Vec::new();
    for (disposition, content) in parts {
        let head = format!("--xyz\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
        body.extend([head.as_bytes(), content, b"\r\n"].concat());
    }
    body.extend(b"--xyz--\r\n");
    let head = RequestHead { path, content_type: Some("multipart/form-data; boundary=xyz"), ..CHAT };
    let mut results = Vec::new();
    for piece in [usize::MAX, 1, 7, 64] {
        let mut scanner = Scanner::new(&head, Limits::default())?;
        results.push(body.chunks(piece).try_for_each(|piece| scanner.feed(piece)).and_then(|()| scanner.finish()));
    }
    assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
    let request = results.swap_remove(0)?;
    if let Some(span) = &request.model_span {
        let place = usize::try_from(span.range.start).unwrap()..usize::try_from(span.range.end).unwrap();
        assert_eq!(body[place], *request.model.as_deref().unwrap().as_bytes());
    }
    Ok(request)
}

#[track_caller]
fn form(path: &str, parts: &[(&str, &[u8])], expected: &str) {
    let request = scan_form(path, parts);
    assert_eq!(request.as_ref().map_or_else(ToString::to_string, shown), expected, "{path}");
}

#[test]
fn forms_are_read_with_the_model_before_or_after_the_file() {
    let wav = include_bytes!("../../../../media/testdata/tone.wav");
    let transcriptions = "/v1/audio/transcriptions";
    let file: (&str, &[u8]) = (r#"name="file"; filename="a.wav""#, wav);
    let model: (&str, &[u8]) = (r#"name="model""#, b"whisper");
    form(transcriptions, &[file, model], "whisper: audio → text; audio file");
    form(transcriptions, &[model, (r#"name="stream""#, b"true"), file], "whisper: audio → text (stream); audio file");
    form("/v1/audio/translations", &[model, file], "whisper: audio → text; audio file");
    let item = scan_form(transcriptions, &[file, model]).unwrap().media.remove(0);
    assert_eq!((item.bytes, item.facts.milliseconds), (wav.len() as u64, Some(250)));

    let png: (&str, &[u8]) =
        (r#"name="image[]"; filename="a.png""#, include_bytes!("../../../../media/testdata/picture.png"));
    let prompt: (&str, &[u8]) = (r#"name="prompt""#, b"a hat");
    form(
        "/v1/images/edits",
        &[png, png, (r#"name="mask"; filename="m.png""#, b"x"), prompt, model],
        "whisper: text+image → image; image image[], image image[], image mask",
    );
    form("/v1/images/edits", &[("name=image", b"https://x/a.png"), prompt], "-: text+image → image; image image");
    let clip: (&str, &[u8]) =
        (r#"name="input_reference"; filename="a""#, include_bytes!("../../../../media/testdata/clip.mp4"));
    form("/v1/videos", &[clip, prompt, model], "whisper: text+video → video; video input_reference");
    form("/v1/videos", &[prompt, model], "whisper: text → video");
}

#[test]
fn the_same_file_is_the_same_in_a_form_and_in_json() {
    use base64::Engine as _;
    let png = include_bytes!("../../../../media/testdata/picture.png");
    let upload = scan_form("/v1/images/edits", &[(r#"name="image"; filename="a.png""#, png)]).unwrap();
    let url = format!("data:image/png;base64,{}", base64::prelude::BASE64_STANDARD.encode(png));
    let body = format!(r#"{{"messages":[{{"content":[{{"image_url":{{"url":"{url}"}}}}]}}]}}"#);
    let chat = scan_at("/v1/chat/completions", body.as_bytes()).unwrap();
    assert_eq!(upload.media[0].identity, chat.media[0].identity);
    assert_eq!(chat.media[0].facts.size, Some((112, 84)));
}

#[test]
fn a_form_that_names_a_thing_twice_is_refused() {
    let model: (&str, &[u8]) = (r#"name="model""#, b"m");
    let file: (&str, &[u8]) = (r#"name="file"; filename="a.wav""#, b"x");
    let path = "/v1/audio/transcriptions";
    assert!(matches!(scan_form(path, &[model, model]), Err(Unreadable::DuplicateField { field: "model", .. })));
    assert!(matches!(scan_form(path, &[file, model, file]), Err(Unreadable::DuplicateField { field: "file", .. })));
    assert_eq!(
        scan_form(path, &[(r#"name="model""#, &[b'm'; 1025])]),
        Err(Unreadable::FieldTooLong { field: "model", limit: 1024 })
    );
}

#[test]
fn fields_of_forms_are_known_or_found() {
    let videos = "/v1/videos";
    let found = |path: &str, name: &str, value: &str| {
        let request = scan_form(path, &[(&format!("name=\"{name}\""), value.as_bytes())]).unwrap();
        let urls = request.media.iter().filter_map(|item| item.url.as_ref());
        let urls = urls.map(|url| url.as_ref().map_or("?".to_owned(), |url| url.host.clone()));
        let features = request.unsafe_features.iter().map(|at| format!("{} {}", at.feature.as_str(), at.at));
        features.chain(urls).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(found(videos, "brand_new", "x"), "UnlistedFields brand_new");
    assert_eq!(found(videos, "brand_new", ""), "");
    assert_eq!(found(videos, "profile", "false"), "");
    assert_eq!(found(videos, "profile", "true"), "EngineInternals profile");
    assert_eq!(found(videos, "output_path", "/etc/x"), "EngineInternals output_path");
    assert_eq!(found(videos, "seconds", "4"), "");
    assert_eq!(found(videos, "reference_url", "http://169.254.169.254/"), "169.254.169.254");
    assert_eq!(found(videos, "video_url", "http://169.254.169.254/"), "169.254.169.254");
    assert_eq!(found(videos, "input_reference[image_url]", "http://169.254.169.254/"), "169.254.169.254");
    let json = r#" {"image_url": "https://a.example.com/x"}"#;
    assert_eq!(found(videos, "image_reference", json), "a.example.com");
    assert_eq!(found(videos, "image_reference", &format!("[{json},{json}]")), "a.example.com, a.example.com");
    assert_eq!(found(videos, "audio_reference", r#"{"audio_url":"http://10.0.0.1/"}"#), "10.0.0.1");
    let bag = r#"{"reference_url":"http://10.0.0.1/","output_path":"/x","num_frames":9}"#;
    assert_eq!(found(videos, "extra_body", bag), "EngineInternals extra_body.output_path, 10.0.0.1");
    assert_eq!(found(videos, "profile", "0"), "EngineInternals profile", "nought is a number to an engine");
    let typed = scan_form(videos, &[("name=extra_body", br#"{"prompt":"<|image_pad|>"}"#)]).unwrap();
    assert!(!typed.placeholders.is_empty(), "a text in a form's JSON is a text");
    assert_eq!(found("/v1/audio/transcriptions", "timestamp_granularities[]", "word"), "");
    assert_eq!(found("/v1/audio/transcriptions", "language", "en"), "");
    assert_eq!(found("/v1/audio/transcriptions", "model[a]", "x"), "UnlistedFields model[a]");
    assert!(scan_form(videos, &[("name=extra_body", b"{\"a\":")]).is_err());
}

#[test]
fn a_model_is_a_word_and_comes_once() {
    let transcriptions = "/v1/audio/transcriptions";
    let model: (&str, &[u8]) = ("name=model", b"whisper");
    let twice = "duplicate field \"model\"";
    for other in [("name=model", &b""[..]), ("name=model", b"other"), ("name=model; filename=x", b"other")] {
        for parts in [[model, other], [other, model]] {
            let error = scan_form(transcriptions, &parts).unwrap_err().to_string();
            assert!(error.contains("model"), "{error} instead of {twice}");
        }
    }
}
