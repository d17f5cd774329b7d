//! The scanner on every kind of path and bodies of 1 KB to 20 MB, beside JSON libraries and beside hashing the bytes alone:
//! `cargo bench -p request`.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use request::{InferenceRequest, Limits, RequestHead, Scanner};

#[path = "shared/typed.rs"]
mod typed;

use typed::Chat;

fn main() {
    divan::main();
}

const SIZES: [usize; 4] = [1 << 10, 200 << 10, 2 << 20, 20 << 20];

/// Base64 that begins as a picture does.
fn base64(size: usize) -> String {
    format!("iVBORw0KGgoAAAANSUhEUgAAAHAAAABU{}", "CIAADHz7".repeat(size / 8))
}

/// A request of about `size` bytes: text at 1 KB, else one picture, with the model at the end.
fn body(path: &str, size: usize) -> Vec<u8> {
    let text = "The quick brown fox. ".repeat(size.min(1 << 10) / 25);
    let data = if size > 1 << 10 { base64(size) } else { String::new() };
    let url = format!("data:image/png;base64,{data}");
    let small = data.is_empty();
    let fields = match path {
        "/v1/responses" if small => {
            format!(r#""input":[{{"role":"user","content":[{{"type":"input_text","text":"{text}"}}]}}]"#)
        }
        "/v1/responses" => {
            format!(r#""input":[{{"role":"user","content":[{{"type":"input_image","image_url":"{url}"}}]}}]"#)
        }
        "/v1/messages" if small => {
            format!(r#""messages":[{{"role":"user","content":[{{"type":"text","text":"{text}"}}]}}]"#)
        }
        "/v1/messages" => format!(
            r#""messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{data}"}}}}]}}]"#
        ),
        "/v1/embeddings" if small => format!(r#""input":"{text}""#),
        "/v1/embeddings" => format!(r#""input":[{{"image":"{url}"}}]"#),
        "/v1/audio/transcriptions" => {
            let file = if small { text.into_bytes() } else { vec![7; size] };
            let head = b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";
            let tail = b"\r\n--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--x--\r\n";
            return [&head[..], &file, tail].concat();
        }
        _ if small => format!(r#""messages":[{{"role":"user","content":[{{"type":"text","text":"{text}"}}]}}]"#),
        _ => format!(
            r#""messages":[{{"role":"user","content":[{{"type":"text","text":"what?"}},{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}]"#
        ),
    };
    format!(r#"{{{fields},"model":"qwen","stream":true}}"#).into_bytes()
}

fn scan(path: &str, body: &[u8]) -> InferenceRequest {
    let form = path.contains("audio").then_some("multipart/form-data; boundary=x");
    let head = RequestHead { path, content_type: form, ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, Limits::default()).expect("within limits");
    for chunk in body.chunks(64 << 10) {
        scanner.feed(chunk).expect("valid");
    }
    scanner.finish().expect("valid")
}

fn bench(bencher: Bencher<'_, '_>, path: &'static str, size: usize) {
    let body = body(path, size);
    bencher.counter(BytesCount::new(body.len())).bench_local(|| scan(path, black_box(&body)));
}

#[divan::bench(args = SIZES)]
fn a_chat_completions(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, "/v1/chat/completions", size);
}

#[divan::bench(args = SIZES)]
fn b_responses(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, "/v1/responses", size);
}

#[divan::bench(args = SIZES)]
fn c_messages(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, "/v1/messages", size);
}

#[divan::bench(args = SIZES)]
fn d_embeddings(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, "/v1/embeddings", size);
}

#[divan::bench(args = SIZES)]
fn e_transcriptions(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, "/v1/audio/transcriptions", size);
}

/// The same bytes hashed as they are, with the same hash, and nothing read.
#[divan::bench(args = SIZES)]
fn f_hashing_the_bytes_alone(bencher: Bencher<'_, '_>, size: usize) {
    let body = body("/v1/chat/completions", size);
    bencher.counter(BytesCount::new(body.len())).bench_local(|| blake3::hash(black_box(&body)));
}

/// Typed, of one shape alone, and nothing hashed.
#[divan::bench(args = SIZES)]
fn g_serde_json_typed(bencher: Bencher<'_, '_>, size: usize) {
    let body = body("/v1/chat/completions", size);
    bencher
        .counter(BytesCount::new(body.len()))
        .bench_local(|| serde_json::from_slice::<Chat<'_>>(black_box(&body)).expect("valid").stream);
}

/// What the scanner does, by libraries: read the typed shape, decode the picture, hash it.
#[divan::bench(args = SIZES)]
fn i_libraries_for_the_same_task(bencher: Bencher<'_, '_>, size: usize) {
    use base64::Engine as _;
    let body = body("/v1/chat/completions", size);
    let mut buffer = vec![0; size + 1024];
    bencher.counter(BytesCount::new(body.len())).bench_local(|| {
        let chat = serde_json::from_slice::<Chat<'_>>(black_box(&body)).expect("valid");
        let data = picture_of(&chat).as_bytes();
        let engine = base64::prelude::BASE64_STANDARD_NO_PAD;
        let length = engine.decode_slice(&data[..data.len() / 4 * 4], &mut buffer).expect("base64");
        blake3::hash(&buffer[..length])
    });
}

fn picture_of<'c>(chat: &'c Chat<'_>) -> &'c str {
    let mut parts = chat.messages.iter().flat_map(|message| &message.content);
    let url = parts.find_map(|part| part.image_url.as_ref()).map_or("", |url| &*url.url);
    url.split_once(',').map_or("", |(_, data)| data)
}

/// As most routers read it, and nothing hashed.
#[divan::bench(args = SIZES)]
fn h_serde_json_value(bencher: Bencher<'_, '_>, size: usize) {
    let body = body("/v1/chat/completions", size);
    bencher
        .counter(BytesCount::new(body.len()))
        .bench_local(|| serde_json::from_slice::<serde_json::Value>(black_box(&body)).expect("valid"));
}
