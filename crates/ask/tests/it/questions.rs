//! Whatever is read of a request arrives as it was read.

use std::time::Duration;

use ask::{Answer, Dialect, Question};
use request::{InferenceRequest, Limits, RequestHead, Scanner, UuidAt};

use crate::conversation::World;

fn read(path: &str, content_type: &str, body: &str) -> InferenceRequest {
    let head =
        RequestHead { path, content_type: Some(content_type), objective: Some("batch"), ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, Limits::default()).unwrap();
    scanner.feed(body.as_bytes()).unwrap();
    scanner.finish().unwrap()
}

/// A request of each kind that is told apart: media of every source with what is known of them, names, faults, files, ids, forms.
fn requests() -> Vec<(&'static str, InferenceRequest)> {
    let json = |path: &'static str, body: &str| (path, read(path, "application/json", body));
    let pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
    let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nw\r\n--b\r\ncontent-disposition: form-data; \
                name=\"file\"; filename=\"a.wav\"\r\ncontent-type: audio/wav\r\n\r\nRIFF....WAVEfmt \r\n--b--\r\n";
    vec![
        json(
            "/v1/chat/completions",
            r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"<|image_pad|> hi"}]}"#,
        ),
        json(
            "/v1/chat/completions",
            &format!(
                r#"{{"model":"m","modalities":["text","audio"],"messages":[{{"role":"user","content":[
                    {{"type":"image_url","image_url":{{"url":"data:image/png;base64,{pixel}"}},"uuid":"mine"}},
                    {{"type":"image_url","image_url":{{"url":"https://example.com/a.png?X-Amz-Date=1"}}}},
                    {{"type":"image_url","image_url":{{"url":"file:///etc/passwd"}}}},
                    {{"type":"video_url","video_url":{{"url":"http://10.0.0.1/v.mp4"}}}},
                    {{"type":"input_audio","input_audio":{{"data":"!!!","format":"wav"}}}},
                    {{"type":"file","file":{{"file_data":"data:application/pdf;base64,JVBERi0x","filename":"a.pdf"}}}}
                ]}}],"mm_processor_kwargs":{{"a":1}}}}"#
            ),
        ),
        json("/v1/responses", r#"{"model":"m","input":"and?","previous_response_id":"resp_1"}"#),
        json("/v1/embeddings", r#"{"model":"e","input":["a","b"]}"#),
        ("/v1/audio/transcriptions", read("/v1/audio/transcriptions", "multipart/form-data; boundary=b", form)),
        ("/v1/models?all=true", read_without_body("/v1/models?all=true")),
        ("/v1/models/a/b", read_without_body("/v1/models/a/b")),
        ("/v1/videos/video_1/content", read_without_body("/v1/videos/video_1/content")),
        ("/v1/mine?x=1", read("/v1/mine?x=1", "text/plain", "whatever")),
    ]
}

fn read_without_body(path: &str) -> InferenceRequest {
    let head = RequestHead { method: "GET", path, ..RequestHead::default() };
    Scanner::new(&head, Limits::default()).unwrap().finish().unwrap()
}

fn question(path: &str, request: InferenceRequest) -> Question {
    Question {
        request,
        path: path.to_owned(),
        pool: Some("p".to_owned()),
        caller: Some(b"caller".to_vec()),
        authorization: Some("Bearer x".to_owned()),
        dialect: Dialect::Anthropic,
    }
}

#[test]
fn what_was_read_arrives_as_it_was_read() {
    for (path, request) in requests() {
        let arrived = Question::decoded(&question(path, request.clone()).encoded()).unwrap();
        assert_eq!(arrived.request, request, "{path}");
        assert_eq!((arrived.pool.as_deref(), arrived.dialect), (Some("p"), Dialect::Anthropic));
    }
}

#[test]
fn what_a_client_authorizes_by_goes_out_only_where_a_decision_hangs_on_it() {
    for (path, request) in requests() {
        let (names_media, owned) =
            (request.media.iter().any(|item| matches!(item.uuid, Some(UuidAt::Given(_)))), !path.contains("chat"));
        let owned = owned && (path.contains("responses") || path.contains("video"));
        let is_known = request.resource != request::Resource::Unknown;
        let arrived = Question::decoded(&question(path, request).encoded()).unwrap();
        assert_eq!(arrived.caller.is_some(), names_media, "{path}");
        assert_eq!(arrived.authorization.is_some(), owned, "{path}");
        assert_eq!(arrived.path.is_empty(), is_known, "{path}");
    }
}

#[test]
fn a_name_has_its_place_within_the_body() {
    let body = r#"{"model":"m","messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}"#;
    let mut scanner =
        Scanner::new(&RequestHead { path: "/v1/chat/completions", ..RequestHead::default() }, Limits::default())
            .unwrap();
    scanner.feed(body.as_bytes()).unwrap();
    let mut request = scanner.finish().unwrap();
    assert!(matches!(request.media[0].uuid, Some(UuidAt::Missing(_))));
    request.media[0].uuid = Some(UuidAt::Missing(request.bytes - 1));
    let encoded = |request: &InferenceRequest| question("/v1/chat/completions", request.clone()).encoded();
    assert_eq!(Question::decoded(&encoded(&request)).unwrap().request, request);
    request.media[0].uuid = Some(UuidAt::Missing(request.bytes));
    assert_eq!(
        Question::decoded(&encoded(&request)).unwrap_err().to_string(),
        "a place for a uuid is out of its bounds"
    );
}

#[test]
fn a_question_about_text_is_small() {
    let (path, request) = requests().swap_remove(3);
    assert!(question(path, request).encoded().len() < 200);
}

#[test]
fn what_is_not_understood_is_refused_and_never_lost() {
    let (path, request) = requests().swap_remove(1);
    let good = question(path, request).encoded();
    // A word of this build is one of a newer build, with another letter in it.
    for word in ["chat completions", "image", "inline", "FileURLs", "file", "PNG", "URL"] {
        // As a string of protobuf begins.
        let there = [&[u8::try_from(word.len()).unwrap()][..], word.as_bytes()].concat();
        let place = good.windows(there.len()).position(|window| window == there).expect(word);
        let mut changed = good.clone();
        changed[place + 1] = b'~';
        let why = Question::decoded(&changed).unwrap_err().to_string();
        assert!(why.contains('~') && why.contains("newer"), "{word}: {why}");
    }
}

#[tokio::test]
async fn names_that_no_reader_would_let_pass_are_refused() {
    let world = World::start().await;
    let mut request = read("/v1/embeddings", "application/json", r#"{"model":"e","input":"a"}"#);
    request.model = Some("x".repeat(100_000));
    let answer = world.answer(question("/v1/embeddings", request)).await;
    let Ok(Answer::Reply(reply, code)) = answer else { panic!("{answer:?}") };
    assert_eq!((reply.status.as_u16(), &*code), (503, "not_ready"));
    assert!(reply.body.len() < 1000 && reply.retry_after > Some(Duration::ZERO));
}

#[tokio::test]
async fn what_is_too_much_to_ask_is_refused_where_it_would_be_asked() {
    let world = World::start().await;
    let host = vec!["x".repeat(60); 4].join(".");
    let part = format!(r#"{{"type":"image_url","image_url":{{"url":"https://{host}.example/a.png"}}}}"#);
    let parts = vec![part; 4096].join(",");
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{parts}]}}]}}"#);
    let request = read("/v1/chat/completions", "application/json", &body);
    let refused = world.answer(question("/v1/chat/completions", request)).await.unwrap_err();
    assert_eq!(refused.status().as_u16(), 413);
    // The stream goes on.
    let small = read("/v1/chat/completions", "application/json", r#"{"model":"m","messages":[]}"#);
    assert!(matches!(world.answer(question("/v1/chat/completions", small)).await, Ok(Answer::Dispatch(_))));
}
