//! What is sent: text as people write it, and media.

use bytes::Bytes;
use serde_json::{Value, json};

/// One kind of request.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) name: &'static str,
    pub(super) content: Bytes,
    /// How many at once.
    pub(super) connections: usize,
    /// How many make up a measurement.
    pub(super) requests: usize,
}

/// With an escape every 20 bytes and something beyond ASCII every 25.
const PROSE: &str = "## What we know\n\nThe \"quick\" answer is no — not yet. Zoë’s team in Łódź measured it twice:\n\n\
    - with one café’s Wi‑Fi, 40 °C outside, the router \"just died\";\n- at home it took 3½ hours…\n\nSo, “what next?” you may ask. \
    First:\tread the manual; then write to \"support\" and say that François sent you.\n\n> He said: \"it’s the cable\".\n\n";

const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAHAAAABU";
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEA";
const MP4: &str = "AAAAIGZ0eXBpc29tAAACAGlzb21pc28y";

pub(super) fn all() -> Vec<Body> {
    let picture = |size| vec![text("What is this?"), url("image_url", "image/png", PNG, size)];
    let films = vec![
        text("What is said?"),
        json!({"type": "input_audio", "input_audio": {"data": base64(WAV, 7 << 20), "format": "wav"}}),
        url("video_url", "video/mp4", MP4, 14 << 20),
    ];
    [
        ("1 KB text", vec![text(&prose(900))], 8, 2000),
        ("228 KB text", vec![text(&prose(220_000))], 8, 300),
        ("225 KB, a picture", picture(225 << 10), 8, 300),
        ("2.1 MB, a picture", picture(2100 << 10), 4, 60),
        ("21 MB, audio and video", films, 2, 8),
    ]
    .map(|(name, content, connections, requests)| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": content}]});
        Body { name, content: body.to_string().into(), connections, requests }
    })
    .into()
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn prose(size: usize) -> String {
    PROSE.repeat(size / PROSE.len() + 1)
}

fn url(kind: &str, media_type: &str, beginning: &str, size: usize) -> Value {
    json!({"type": kind, kind: {"url": format!("data:{media_type};base64,{}", base64(beginning, size))}})
}

/// Base64 of this size that no two parts of are alike.
fn base64(beginning: &str, size: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = fastrand::Rng::with_seed(1);
    let rest = (beginning.len()..size / 4 * 4).map(|_| char::from(LETTERS[random.usize(..64)]));
    beginning.chars().chain(rest).collect()
}
