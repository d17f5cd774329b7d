//! The scanner beside `serde_json::Value` on bodies of 1 KB to 20 MB, whole and in 64 KiB chunks: `cargo bench -p request`.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use request::{InferenceRequest, Limits, RequestHead, Scanner};

fn main() {
    divan::main();
}

const SIZES: [usize; 4] = [1 << 10, 200 << 10, 2 << 20, 20 << 20];

/// A chat request of about `size` bytes: text at 1 KB, else one picture in base64, with the model at the end.
fn body(size: usize) -> Vec<u8> {
    let content = if size <= 1 << 10 {
        format!(r#"[{{"type":"text","text":"{}"}}]"#, "The quick brown fox. ".repeat(size / 25))
    } else {
        format!(
            r#"[{{"type":"text","text":"what?"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}]"#,
            "iVBORw0KGgo".repeat(size / 11)
        )
    };
    format!(r#"{{"messages":[{{"role":"user","content":{content}}}],"model":"qwen","stream":true}}"#).into_bytes()
}

fn scan(body: &[u8], chunk: usize) -> InferenceRequest {
    let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, Limits::default()).expect("within limits");
    for chunk in body.chunks(chunk) {
        scanner.feed(chunk).expect("valid");
    }
    scanner.finish().expect("valid")
}

#[divan::bench(args = SIZES)]
fn scanner_whole(bencher: Bencher<'_, '_>, size: usize) {
    let body = body(size);
    bencher.counter(BytesCount::new(body.len())).bench_local(|| scan(black_box(&body), usize::MAX));
}

#[divan::bench(args = SIZES)]
fn scanner_64_kib_chunks(bencher: Bencher<'_, '_>, size: usize) {
    let body = body(size);
    bencher.counter(BytesCount::new(body.len())).bench_local(|| scan(black_box(&body), 64 << 10));
}

#[divan::bench(args = SIZES)]
fn serde_json_value(bencher: Bencher<'_, '_>, size: usize) {
    let body = body(size);
    bencher
        .counter(BytesCount::new(body.len()))
        .bench_local(|| serde_json::from_slice::<serde_json::Value>(black_box(&body)).expect("valid"));
}
