//! Replaces the model's name in a body, and nothing else.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::findings::{ModelSpan, NameEncoding};

/// The same chunks with the bytes of `span` replaced by `model`, written as its place wants it. Chunks that the span does not touch are
/// passed on as they are, without a copy.
pub fn rewrite(chunks: impl IntoIterator<Item = Bytes>, span: &ModelSpan, model: &str) -> Vec<Bytes> {
    let mut replacement = Some(Bytes::from(match span.encoding {
        NameEncoding::Json => json_string(model),
        NameEncoding::Form => form_value(model),
    }));
    let span = &span.range;
    let mut start = 0;
    let mut out = Vec::new();
    for chunk in chunks {
        let end = start + chunk.len() as u64;
        if end <= span.start || start >= span.end {
            out.push(chunk);
        } else {
            let before = within(&chunk, span.start, start);
            let after = within(&chunk, span.end, start);
            out.extend((before > 0).then(|| chunk.slice(..before)));
            out.extend(replacement.take());
            out.extend((after < chunk.len()).then(|| chunk.slice(after..)));
        }
        start = end;
    }
    out
}

/// `position` in the body as a place in a chunk that begins at `start`, kept within it.
fn within(chunk: &Bytes, position: u64, start: u64) -> usize {
    usize::try_from(position.saturating_sub(start)).unwrap_or(usize::MAX).min(chunk.len())
}

/// A part ends at a line end and the boundary, so no line may end in it. Names that hold one are none that a table lets in.
fn form_value(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => _ = write!(json, "\\u{:04x}", u32::from(control)),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chunks: &[&str], range: std::ops::Range<u64>, model: &str, expected: &str) {
        let span = ModelSpan { range, encoding: NameEncoding::Json };
        let out = rewrite(chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk.as_bytes())), &span, model);
        assert_eq!(out.concat(), expected.as_bytes());
    }

    #[test]
    fn the_models_bytes_change_and_nothing_else_wherever_chunks_are_cut() {
        check(&[r#"{"model":"a","x":1}"#], 9..12, "llama", r#"{"model":"llama","x":1}"#);
        check(&[r#"{"model":"#, r#""a""#, r#","x":1}"#], 9..12, "llama", r#"{"model":"llama","x":1}"#);
        check(&[r#"{"model":""#, "a", r#"","x":1}"#], 9..12, "b", r#"{"model":"b","x":1}"#);
    }

    #[test]
    fn a_name_with_quotes_and_newlines_is_escaped() {
        check(&[r#"{"model":"a"}"#], 9..12, "q\"\\\n", r#"{"model":"q\"\\\u000a"}"#);
    }

    #[test]
    fn untouched_chunks_are_not_copied() {
        let image = Bytes::from(vec![b'A'; 1000]);
        let out = rewrite(
            [Bytes::from_static(b"\"a\""), image.clone()],
            &ModelSpan { range: 0..3, encoding: NameEncoding::Json },
            "b",
        );
        assert_eq!(out[1].as_ptr(), image.as_ptr());
    }
}
