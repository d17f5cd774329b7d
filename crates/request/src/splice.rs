//! Replaces ranges of a body, and nothing else: the model's name is one.

use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;

use crate::findings::{MediaItem, ModelSpan, NameEncoding, UuidAt};

/// A range of a body, and what stands there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    pub range: Range<u64>,
    pub with: Bytes,
}

impl Splice {
    /// A JSON string in this place, where one stands with its quotes.
    pub fn json_string(range: Range<u64>, text: &str) -> Self {
        Self { range, with: json_string(text).into() }
    }

    /// Another field, whose value is a string, before the bracket in this place, by which an object ends that has fields.
    fn json_field(bracket: u64, name: &str, text: &str) -> Self {
        Self { range: bracket..bracket, with: format!(",{}:{}", json_string(name), json_string(text)).into() }
    }
}

impl MediaItem {
    /// This name beside it, where it could have one and the client gave none.
    pub fn named(&self, name: &str) -> Option<Splice> {
        match self.uuid {
            Some(UuidAt::Missing(bracket)) => Some(Splice::json_field(bracket, "uuid", name)),
            _ => None,
        }
    }
}

impl ModelSpan {
    /// Another name in this place, written as the place wants it.
    pub fn renamed(&self, model: &str) -> Splice {
        let with = match self.encoding {
            NameEncoding::Json => json_string(model),
            NameEncoding::Form => form_value(model),
        };
        Splice { range: self.range.clone(), with: with.into() }
    }
}

/// The same chunks with each range replaced. Splices come in the order of the body and do not overlap. Chunks that none touches are passed
/// on as they are, without a copy.
pub fn splice(chunks: impl IntoIterator<Item = Bytes>, splices: &[Splice]) -> Vec<Bytes> {
    let mut splices = splices.iter().peekable();
    let mut out = Vec::new();
    let mut start = 0;
    for chunk in chunks {
        let end = start + chunk.len() as u64;
        // Up to here the chunk has passed.
        let mut passed = 0;
        while let Some(Splice { range, with }) = splices.peek().filter(|splice| splice.range.start < end) {
            let (before, after) = (within(&chunk, range.start, start), within(&chunk, range.end, start));
            out.extend((before > passed).then(|| chunk.slice(passed..before)));
            passed = after;
            // What begins in one chunk may end in the next: it stands where it begins.
            if range.start >= start {
                out.push(with.clone());
            }
            if range.end > end {
                break;
            }
            splices.next();
        }
        if passed == 0 {
            out.push(chunk);
        } else if passed < chunk.len() {
            out.push(chunk.slice(passed..));
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

    fn at(range: Range<u64>, with: &'static str) -> Splice {
        Splice { range, with: Bytes::from_static(with.as_bytes()) }
    }

    #[test]
    fn ranges_change_and_nothing_else_wherever_chunks_are_cut() {
        let body = r#"{"model":"a","uuid":"mine","x":1}"#;
        let splices = [at(9..12, "\"llama\""), at(20..26, "\"theirs\"")];
        let expected = r#"{"model":"llama","uuid":"theirs","x":1}"#;
        for size in 1..=body.len() {
            let chunks = body.as_bytes().chunks(size).map(Bytes::copy_from_slice);
            assert_eq!(splice(chunks, &splices).concat(), expected.as_bytes(), "in chunks of {size}");
        }
    }

    #[test]
    fn a_field_is_added_where_an_object_ends() {
        let body = r#"{"a":[{"x":1},{"y":2 } ]}"#;
        let splices = [Splice::json_field(12, "z", "\""), Splice::json_field(21, "z", "3")];
        let expected = r#"{"a":[{"x":1,"z":"\""},{"y":2 ,"z":"3"} ]}"#;
        for size in 1..=body.len() {
            let chunks = body.as_bytes().chunks(size).map(Bytes::copy_from_slice);
            assert_eq!(splice(chunks, &splices).concat(), expected.as_bytes(), "in chunks of {size}");
        }
    }

    #[test]
    fn a_range_may_begin_and_end_the_body_and_become_nothing() {
        for size in 1..=4 {
            let chunks = b"abcd".chunks(size).map(Bytes::copy_from_slice);
            assert_eq!(splice(chunks, &[at(0..1, "X"), at(1..2, ""), at(3..4, "YZ")]).concat(), b"XcYZ");
        }
    }

    #[test]
    fn a_name_with_quotes_and_newlines_is_escaped() {
        let span = ModelSpan { range: 9..12, encoding: NameEncoding::Json };
        assert_eq!(&*span.renamed("q\"\\\n").with, br#""q\"\\\u000a""#);
        let span = ModelSpan { range: 9..12, encoding: NameEncoding::Form };
        assert_eq!(&*span.renamed("q\r\n--b").with, b"q  --b");
    }

    #[test]
    fn untouched_chunks_are_not_copied() {
        let image = Bytes::from(vec![b'A'; 1000]);
        let out = splice([Bytes::from_static(b"\"a\""), image.clone()], &[at(0..3, "\"b\"")]);
        assert_eq!(out[1].as_ptr(), image.as_ptr());
    }
}
