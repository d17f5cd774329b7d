//! Text as people send it, beside JSON libraries on the same bytes in the same run, and beside what no reader can do without: validating
//! the bytes and copying them once. Prints a table of ratios: `cargo bench -p request --bench text`, with `-- tool` of those kinds alone.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints what it times"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use request::{Limits, RequestHead, Scanner};
use serde::Deserialize;
use serde_json::json;

#[path = "shared/typed.rs"]
mod typed;

use typed::Chat;

/// Written as people and models write: quotation marks, dashes, names with accents, lists, now and then code.
const PROSE: &str = "## What we know\n\nThe \"quick\" answer is no — not yet. Zoë’s team in Łódź measured it twice:\n\n\
    - with one café’s Wi‑Fi, 40 °C outside, the router \"just died\";\n- at home it took 3½ hours…\n\nSo, “what next?” you may ask. \
    First:\tread the manual; then write to \"support\" and say that François sent you.\n\n> He said: \"it’s the cable\".\n\n";

const CHINESE: &str = "我们先看一下这个问题：模型服务器的负载均衡为什么会失败？\n第一，请求里有图片；第二，服务器只支持文本。\
    因此，路由器必须先读懂请求，再选择“正确”的服务器。以上就是全部内容，谢谢大家！\n";

const CODE: &str = concat!(include_str!("../src/json.rs"), include_str!("../src/reading.rs"));

type Make = fn(usize) -> String;

/// Reads a body, with room for a copy of it.
type Reader = fn(&[u8], &mut Vec<u8>);

const KINDS: [(&str, Make); 9] = [
    ("prose", |size| chat(&[fill(PROSE, size)])),
    ("code", |size| chat(&[fill(CODE, size)])),
    ("Chinese", |size| chat(&[fill(CHINESE, size)])),
    ("Chinese as \\uXXXX", |size| ascii(&chat(&[fill(CHINESE, size / 2)]))),
    ("JSON in a string", |size| {
        let rows: Vec<_> =
            (0..size / 60).map(|row| json!({"id": row, "name": "Zoë", "tags": ["a", "b"], "ok": true})).collect();
        chat(&[serde_json::to_string(&rows).expect("valid")])
    }),
    ("tool calls", tool_calls),
    ("200 turns", |size| {
        let turns: Vec<_> = (0..200).map(|turn| fill(PROSE, size / 200 / 2 + turn * size / 40_000)).collect();
        chat(&turns)
    }),
    ("prose and pictures", |size| with_picture(&fill(PROSE, size / 2), size / 2)),
    // As PHP's `json_encode` writes it by default.
    ("picture with \\/", |size| with_picture("what?", size).replace('/', "\\/")),
];

const SIZES: [usize; 4] = [1 << 10, 32 << 10, 256 << 10, 20 << 20];

fn main() {
    let readers: [(&str, Reader); 5] = [
        ("scanner", |body, _| scan(body)),
        ("serde_json", |body, _| drop(black_box(serde_json::from_slice::<Chat<'_>>(body).expect("valid")))),
        ("sonic-rs", |body, _| drop(black_box(sonic_rs::from_slice::<Chat<'_>>(body).expect("valid")))),
        // It writes into what it reads, so that it needs a copy.
        ("simd-json", |body, copy| {
            copy.clear();
            copy.extend_from_slice(body);
            drop(black_box(simd_json::from_slice::<OwnedChat>(copy).expect("valid")));
        }),
        ("simdutf8 + copy", |body, copy| {
            copy.clear();
            copy.extend_from_slice(simdutf8::basic::from_utf8(body).expect("valid").as_bytes());
        }),
    ];
    let mut table = format!("{:<20}{:>9}{:>12}", "GB/s", "bytes", "escaped by");
    for (name, _) in &readers {
        _ = write!(table, "{name:>17}");
    }
    println!("{table}{:>14}{:>10}", "× serde_json", "of copy");
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (kind, make) in KINDS.iter().filter(|(kind, _)| only.as_ref().is_none_or(|only| kind.contains(&**only))) {
        for size in SIZES {
            let body = make(size).into_bytes();
            let mut copy = Vec::with_capacity(body.len());
            let mut best = [Duration::MAX; 5];
            // In turns, so that whatever else the machine does meets all alike.
            let rounds = (400 << 20) / body.len() / readers.len();
            for _ in 0..rounds.clamp(5, 3000) {
                for ((_, reader), best) in readers.iter().zip(&mut best) {
                    let start = Instant::now();
                    reader(black_box(&body), &mut copy);
                    *best = start.elapsed().min(*best);
                }
            }
            let speed = best.map(|best| body.len() as f64 / best.as_secs_f64() / 1e9);
            let escapes = memchr::memchr_iter(b'\\', &body).count().max(1);
            print!("{kind:<20}{:>9}{:>12}", body.len(), body.len() / escapes);
            for speed in speed {
                print!("{speed:>17.2}");
            }
            println!("{:>14.1}{:>10.2}", speed[0] / speed[1], speed[0] / speed[4]);
        }
    }
}

fn scan(body: &[u8]) {
    let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, Limits::default()).expect("within limits");
    body.chunks(64 << 10).for_each(|chunk| scanner.feed(chunk).expect("valid"));
    drop(black_box(scanner.finish().expect("valid")));
}

/// The sample again and again, up to about this size.
fn fill(sample: &str, size: usize) -> String {
    let mut text = sample.repeat(size / sample.len() + 1);
    text.truncate((0..=size).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
    text
}

fn chat(texts: &[String]) -> String {
    let messages: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(turn, text)| {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            json!({"role": role, "content": [{"type": "text", "text": text}]})
        })
        .collect();
    json!({"model": "qwen", "messages": messages, "stream": true}).to_string()
}

fn with_picture(text: &str, size: usize) -> String {
    let base64 = "CIADHz7qCIADHz7qCIA/Hz7qCIADHz7qCIADHz7qCIADHz7qCIADHz7qCIADHz7q";
    let data = format!("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAHAAAABU{}", base64.repeat(size / base64.len()));
    let parts = json!([{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": data}}]);
    json!({"model": "qwen", "messages": [{"role": "user", "content": parts}], "stream": true}).to_string()
}

/// Calls with arguments of about 200 bytes, each with its answer.
fn tool_calls(size: usize) -> String {
    let messages: Vec<_> = (0..=size / 500)
        .flat_map(|turn| {
            let arguments =
                json!({"path": format!("src/part_{turn}.rs"), "old": "let a = \"b\";\n", "new": "let a = \"c\";\n"});
            let call = json!({"id": format!("call_{turn}"), "type": "function",
                "function": {"name": "edit", "arguments": arguments.to_string()}});
            let answer = json!({"ok": true, "lines": turn, "diff": "@@ -1 +1 @@\n-let a = \"b\";\n+let a = \"c\";\n"});
            [
                json!({"role": "assistant", "content": [], "tool_calls": [call]}),
                json!({"role": "tool", "tool_call_id": format!("call_{turn}"),
                    "content": [{"type": "text", "text": answer.to_string()}]}),
            ]
        })
        .collect();
    json!({"model": "qwen", "messages": messages, "stream": true}).to_string()
}

/// As Python's `json.dumps` writes it by default.
fn ascii(json: &str) -> String {
    json.encode_utf16().fold(String::new(), |mut text, unit| {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => text.push(char::from(byte)),
            _ => _ = write!(text, "\\u{unit:04x}"),
        }
        text
    })
}

/// The same without borrowing, which simd-json's interface does not offer for what it unescapes in place.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what is read is what is timed")]
struct OwnedChat {
    model: String,
    #[serde(default)]
    stream: bool,
    messages: Vec<OwnedMessage>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what is read is what is timed")]
struct OwnedMessage {
    role: String,
    content: Vec<OwnedPart>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what is read is what is timed")]
struct OwnedPart {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    image_url: Option<OwnedUrl>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what is read is what is timed")]
struct OwnedUrl {
    url: String,
}
