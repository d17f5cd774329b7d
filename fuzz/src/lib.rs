//! What must hold of any bytes: each function takes some and panics when something does not hold.
//!
//! `libfuzzer/` runs them under cargo-fuzz, guided by coverage; `main.rs` runs them on the stable toolchain, by mutating the corpus.

#![expect(clippy::missing_panics_doc, reason = "to panic is how they say that something does not hold")]

mod conversation;
mod mutate;

use std::ops::Range;

use base64::Engine as _;
use bytes::Bytes;
use h2_authority::{MAX_HELD, Mender};
use media::{ByteReader, Probe, Spelling, TextReader};
use request::{
    Field, InferenceRequest, Limits, MediaItem, RequestHead, Scanner, Shape, Splice, Unreadable, UnsafeFeatureAt,
    UuidAt, splice,
};
use routing::UnsafeFeature;
use serde_json::Value;

pub use conversation::conversation;
pub use mutate::Mutator;

/// A name, and what must hold.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// Every target; its corpus is in the folder of its name.
pub const TARGETS: [Target; 9] = [
    Target { name: "chat", run: chat },
    Target { name: "closed", run: closed },
    Target { name: "responses", run: responses },
    Target { name: "anthropic", run: anthropic },
    Target { name: "form", run: form },
    Target { name: "data_url", run: data_url },
    Target { name: "header", run: header },
    Target { name: "http2", run: http2 },
    Target { name: "conversation", run: conversation },
];

pub fn chat(body: &[u8]) {
    json("/v1/chat/completions", body);
    json("/v1/embeddings", body);
}

/// Engines' own interfaces.
pub fn closed(body: &[u8]) {
    for (path, shape) in [
        ("/generate", Shape::Generate),
        ("/v1/videos", Shape::Videos),
        ("/v1/images/edits", Shape::ImageEdits),
        ("/v1/audio/speech", Shape::Speech),
        ("/score", Shape::Score),
        ("/classify", Shape::Classify),
    ] {
        json(path, body);
        let Ok(request) = scan(path, None, [body]) else { continue };
        let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(body) else { continue };
        let is_unlisted = |found: &UnsafeFeatureAt| found.feature == UnsafeFeature::UnlistedFields;
        let known = |name: &str| Field::all().iter().any(|field| field.name == name && field.is_of(shape));
        let unknown = fields.iter().any(|(name, value)| !known(name) && holds_something(value));
        assert!(!unknown || request.unsafe_features.iter().any(is_unlisted), "a field that nobody knows passed unseen");
    }
}

/// Whether there is more in a value than what clients send that do not use a field.
fn holds_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => all.iter().any(holds_something),
        Value::Object(fields) => !fields.is_empty(),
    }
}

pub fn responses(body: &[u8]) {
    json("/v1/responses", body);
}

pub fn anthropic(body: &[u8]) {
    json("/v1/messages", body);
}

/// The first byte of the input says how it is cut.
fn pieces(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let size = usize::from(input.first().copied().unwrap_or(1) % 17) + 1;
    input.chunks(size)
}

fn scan<'b>(
    path: &str,
    content_type: Option<&str>,
    pieces: impl IntoIterator<Item = &'b [u8]>,
) -> Result<InferenceRequest, Unreadable> {
    let head = RequestHead { path, content_type, ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, Limits::default())?;
    for piece in pieces {
        scanner.feed(piece)?;
    }
    scanner.finish()
}

fn json(path: &str, body: &[u8]) {
    let whole = scan(path, None, [body]);
    assert_eq!(scan(path, None, pieces(body)), whole, "how a body is cut changes what is read");
    let Ok(request) = whole else { return };
    // serde_json alone refuses numbers that are too large for it.
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    assert!(value.is_object(), "something other than an object was taken");
    let named = value["model"].as_str().filter(|name| !name.is_empty());
    assert_eq!(request.model.as_deref(), named, "the model is another to serde_json");
    // TensorRT-LLM has a word of its own for it, and what makes vectors has none.
    let streams = |word: &str| {
        let shape = Shape::of_operation(request.resource.operation());
        let known = |field: &&Field| field.name == word && shape.is_some_and(|shape| field.is_of(shape));
        Field::all().iter().any(|field| known(&field)) && value[word] == true
    };
    let streams = streams("stream") || streams("streaming");
    assert_eq!(request.stream, streams, "streaming is another to serde_json");
    renamed(path, None, body, &request);
    media_named(path, body, &request);
}

/// A rewrite changes the model and nothing else.
fn renamed(path: &str, content_type: Option<&str>, body: &[u8], request: &InferenceRequest) {
    let Some(span) = &request.model_span else { return };
    let rewritten = splice(pieces(body).map(Bytes::copy_from_slice), &[span.renamed("an \"other\" name")]).concat();
    let again = scan(path, content_type, [&*rewritten]).expect("a rewritten body can be read");
    let mut changed = InferenceRequest {
        model: Some("an \"other\" name".into()),
        model_span: again.model_span.clone(),
        bytes: again.bytes,
        ..request.clone()
    };
    // What stands after the model has moved, and is the same.
    for (before, after) in changed.media.iter_mut().zip(&again.media) {
        assert_eq!(uuid_in(body, before), uuid_in(&rewritten, after));
        before.uuid.clone_from(&after.uuid);
    }
    assert_eq!(again, changed, "a rewrite changed more than the model");
}

/// Names for media that have none change nothing but what the media are called.
fn media_named(path: &str, body: &[u8], request: &InferenceRequest) {
    let names: Vec<Splice> = request.media.iter().filter_map(|item| item.named("ours")).collect();
    if names.is_empty() {
        return;
    }
    let rewritten = splice(pieces(body).map(Bytes::copy_from_slice), &names).concat();
    let again = scan(path, None, [&*rewritten]).expect("a body with names can be read");
    let mut changed = InferenceRequest { bytes: again.bytes, ..request.clone() };
    if let Some((before, after)) = changed.model_span.as_mut().zip(again.model_span.as_ref()) {
        assert_eq!(text_at(body, &before.range), text_at(&rewritten, &after.range));
        before.clone_from(after);
    }
    for (before, after) in changed.media.iter_mut().zip(&again.media) {
        let expected = if before.named("ours").is_some() { Some(&b"\"ours\""[..]) } else { uuid_in(body, before) };
        assert_eq!(uuid_in(&rewritten, after), expected);
        before.uuid.clone_from(&after.uuid);
        before.identity = after.identity;
    }
    assert_eq!(again, changed, "a name changed more than what an item is called");
}

/// The client's own name for an item.
fn uuid_in<'b>(body: &'b [u8], item: &MediaItem) -> Option<&'b [u8]> {
    match &item.uuid {
        Some(UuidAt::Given(range)) => Some(text_at(body, range)),
        _ => None,
    }
}

fn text_at<'b>(body: &'b [u8], range: &Range<u64>) -> &'b [u8] {
    let place = |at: u64| usize::try_from(at).expect("bodies here are small");
    &body[place(range.start)..place(range.end)]
}

/// Forms with the boundary `x`.
pub fn form(body: &[u8]) {
    let kind = Some("multipart/form-data; boundary=x");
    for path in ["/v1/audio/transcriptions", "/v1/images/edits", "/v1/videos"] {
        let whole = scan(path, kind, [body]);
        assert_eq!(scan(path, kind, pieces(body)), whole, "how a form is cut changes what is read");
        let Ok(request) = whole else { continue };
        // Another reader may refuse more or less; where it reads all of it, it must read the same model.
        if let Some(fields) = by_multer(body) {
            let models = fields.iter().filter(|(name, value)| name == "model" && !value.is_empty());
            let models: Vec<&Vec<u8>> = models.map(|(_, value)| value).collect();
            let read: Vec<Vec<u8>> = request.model.iter().map(|model| model.clone().into_bytes()).collect();
            assert_eq!(models, read.iter().collect::<Vec<_>>(), "the model is another to multer");
        }
        renamed(path, kind, body, &request);
    }
}

fn by_multer(body: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    futures::executor::block_on(async {
        let stream = futures::stream::once(std::future::ready(Ok::<_, std::io::Error>(Bytes::copy_from_slice(body))));
        let mut form = multer::Multipart::new(stream, "x");
        let mut fields = Vec::new();
        while let Some(field) = form.next_field().await.ok()? {
            let name = field.name().unwrap_or_default().to_owned();
            fields.push((name, field.bytes().await.ok()?.to_vec()));
        }
        Some(fields)
    })
}

/// Texts in the places of URLs and of data.
pub fn data_url(text: &[u8]) {
    let mut reader = TextReader::default();
    for spelling in [Spelling::Url, Spelling::Data] {
        let mut read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            reader.start(spelling);
            pieces.for_each(|piece| reader.feed(piece));
            reader.finish()
        };
        let whole = read(&mut std::iter::once(text));
        assert_eq!(read(&mut pieces(text)), whole, "how a text is cut changes what is read");
        assert_eq!(whole.bytes, text.len() as u64);
        // The decoder agrees with a library that is told to forgive as much.
        if let Some(content) = text.strip_prefix(b"data:;base64,") {
            let dense: Vec<u8> = content.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let mode = base64::engine::DecodePaddingMode::Indifferent;
            let config = base64::engine::GeneralPurposeConfig::new()
                .with_decode_padding_mode(mode)
                .with_decode_allow_trailing_bits(true);
            let library = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, config);
            match library.decode(&dense) {
                Ok(bytes) => {
                    let mut reader = ByteReader::default();
                    reader.feed(&bytes);
                    let (identity, facts) = reader.finish();
                    assert_eq!(whole.facts, facts, "the bytes are others to the library");
                    assert_eq!(whole.identity, Some(identity).filter(|_| !bytes.is_empty()));
                }
                Err(_) => assert!(whole.undecodable, "the library decodes nothing of this"),
            }
        }
    }
}

/// Headers of media.
pub fn header(bytes: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut probe = Probe::default();
        pieces.for_each(|piece| probe.feed(piece));
        probe.finish()
    };
    let whole = read(&mut std::iter::once(bytes));
    assert_eq!(read(&mut pieces(bytes)), whole, "how a file is cut changes what is read");
    assert_eq!(whole.bytes, bytes.len() as u64);
    if let Some(format) = whole.format {
        for family in routing::Family::ALL {
            let _ = media::tokens::estimate(family, format.modality(), &whole);
        }
    }
}

/// What clients of an HTTP/2 server send.
pub fn http2(bytes: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut mender, mut out, mut held) = (Mender::default(), Vec::new(), Vec::new());
        let (mut wanted, mut replaced) = (0, 0);
        for piece in pieces {
            held.extend_from_slice(piece);
            if held.len() >= wanted {
                let passed = mender.pass(&mut held);
                out.extend(held.drain(..passed.bytes));
                assert!(held.is_empty() || held.len() < passed.wanted, "what is wanted is there and held all the same");
                assert!(passed.wanted <= MAX_HELD + 9, "{} bytes would be held", passed.wanted);
                (wanted, replaced) = (passed.wanted, replaced + passed.mended);
            }
        }
        (out, held, replaced)
    };
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes].concat();
    let whole = read(&mut std::iter::once(&*bytes));
    assert_eq!(read(&mut pieces(&bytes)), whole, "how a connection is cut changes what is read");
    assert_eq!(read(&mut bytes.chunks(usize::from(bytes[bytes.len() - 1]) + 1)), whole, "how it is cut changes it");
    let (out, held, replaced) = whole;
    assert_eq!(out.len() + held.len(), bytes.len(), "bytes were lost");
    assert_eq!(replaced > 0, out != bytes[..out.len()], "something was changed in silence");
    assert_eq!(read(&mut std::iter::once(&*out)).2, 0, "what was mended is to be mended again");
}
