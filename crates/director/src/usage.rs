//! Tokens that an answer took, as its server counts them.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use routing::Modality;
use serde_json::Value;

/// What was said of it; none where it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the prompt, with those that were cached.
    pub input: Option<u64>,
    /// Of the prompt, those that a cache had.
    pub cached: Option<u64>,
    pub output: Option<u64>,
    input_by: [Option<u64>; Modality::ALL.len()],
    output_by: [Option<u64>; Modality::ALL.len()],
}

/// Finds it in an answer that streams by, whole or as events, and keeps nothing else of it. In an answer of several events the last word on
/// each number holds.
///
/// What a model writes is in strings, where its quotation marks are escaped, so it is not taken for the server's word. An object that a model
/// makes may be (Anthropic's `input` of a tool): a count for people is then wrong, and what a token is in bytes a little
/// ([`crate::density`]).
#[derive(Debug, Default)]
pub(crate) struct UsageReader {
    at: At,
    /// The end of what was read, in which the key may have begun.
    tail: Vec<u8>,
    usage: Usage,
}

#[derive(Debug, Default)]
enum At {
    /// Before the next key.
    #[default]
    Seeking,
    /// Behind the key, before its value.
    Value,
    Object(Object),
}

#[derive(Debug, Default)]
struct Object {
    bytes: Vec<u8>,
    depth: u32,
    in_string: bool,
    is_escaped: bool,
}

const KEY: &[u8] = b"\"usage\"";

/// What details of a count call each modality.
const NAMES: [(Modality, &str); 4] = [
    (Modality::Text, "text_tokens"),
    (Modality::Image, "image_tokens"),
    (Modality::Audio, "audio_tokens"),
    (Modality::Video, "video_tokens"),
];

/// A larger object is none of these: engines' are of some 200 bytes.
const MOST_BYTES: usize = 4 << 10;

/// A number above this is a mistake, or made up: no context is so long.
const MOST_TOKENS: u64 = 1 << 24;

impl UsageReader {
    /// Reads on.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));
        while !bytes.is_empty() {
            match &mut self.at {
                At::Seeking => {
                    let Some(behind) = self.behind_key(bytes, &FINDER) else { return };
                    self.tail.clear();
                    self.at = At::Value;
                    bytes = &bytes[behind..];
                }
                At::Value => {
                    self.at = match bytes[0] {
                        b' ' | b'\t' | b'\r' | b'\n' | b':' => At::Value,
                        b'{' => At::Object(Object::default()),
                        _ => At::Seeking,
                    };
                    // The brace is the object's.
                    bytes = &bytes[usize::from(matches!(self.at, At::Value))..];
                }
                At::Object(object) => {
                    let (taken, is_whole) = object.take(bytes);
                    bytes = &bytes[taken..];
                    if is_whole {
                        self.usage.note(&serde_json::from_slice(&object.bytes).unwrap_or_default());
                    }
                    if is_whole || object.bytes.len() >= MOST_BYTES {
                        self.at = At::Seeking;
                    }
                }
            }
        }
    }

    pub(crate) const fn usage(&self) -> Usage {
        self.usage
    }

    /// How far in these bytes the key ends, if it does; what may be its beginning is kept.
    fn behind_key(&mut self, bytes: &[u8], finder: &Finder<'_>) -> Option<usize> {
        let before = self.tail.len();
        if before > 0 {
            self.tail.extend_from_slice(&bytes[..bytes.len().min(KEY.len() - 1)]);
            if let Some(at) = finder.find(&self.tail) {
                return Some(at + KEY.len() - before);
            }
        }
        if let Some(at) = finder.find(bytes) {
            return Some(at + KEY.len());
        }
        if bytes.len() >= KEY.len() - 1 {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - (KEY.len() - 1)..]);
        } else {
            // All of them are in the tail already, where it was not empty.
            if before == 0 {
                self.tail.extend_from_slice(bytes);
            }
            let surplus = self.tail.len().saturating_sub(KEY.len() - 1);
            self.tail.drain(..surplus);
        }
        None
    }
}

impl Object {
    /// Takes as many of these bytes as are its own. Says how many, and whether it has ended.
    fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (at, byte) in bytes.iter().enumerate() {
            if self.is_escaped {
                self.is_escaped = false;
            } else if self.in_string {
                self.is_escaped = *byte == b'\\';
                self.in_string = *byte != b'"';
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' => self.depth += 1,
                    b'}' => self.depth -= 1,
                    _ => {}
                }
            }
            let is_whole = self.depth == 0;
            if is_whole || self.bytes.len() + at + 1 >= MOST_BYTES {
                self.bytes.extend_from_slice(&bytes[..=at]);
                return (at + 1, is_whole);
            }
        }
        self.bytes.extend_from_slice(bytes);
        (bytes.len(), false)
    }
}

impl Usage {
    /// Tokens of the prompt that are of this modality, where that was said.
    pub const fn input_of(&self, modality: Modality) -> Option<u64> {
        self.input_by[modality as usize]
    }

    /// Tokens of the answer that are of this modality, where that was said.
    pub const fn output_of(&self, modality: Modality) -> Option<u64> {
        self.output_by[modality as usize]
    }

    /// What a whole answer says of it.
    pub fn of(answer: &[u8]) -> Self {
        let mut reader = UsageReader::default();
        reader.feed(answer);
        reader.usage()
    }

    /// OpenAI's shapes (chat, completions and embeddings; responses, pictures and transcriptions) and Anthropic's.
    fn note(&mut self, said: &Value) {
        let number = |value: &Value| value.as_u64().filter(|number| *number <= MOST_TOKENS);
        let first = |names: &[&str]| names.iter().find_map(|name| number(&said[*name]));
        let details = |names: &[&str]| names.iter().map(|name| &said[*name]).find(|details| details.is_object());
        let input = details(&["prompt_tokens_details", "input_tokens_details", "input_token_details"]);
        let output = details(&["completion_tokens_details", "output_tokens_details", "output_token_details"]);
        // Anthropic counts what a cache had, and what was put into one, beside the rest.
        let beside = ["cache_read_input_tokens", "cache_creation_input_tokens"].into_iter();
        let beside: u64 = beside.filter_map(|name| number(&said[name])).sum();
        self.input = first(&["prompt_tokens", "input_tokens"]).map(|tokens| tokens + beside).or(self.input);
        self.output = first(&["completion_tokens", "output_tokens"]).or(self.output);
        let cached = input.and_then(|input| number(&input["cached_tokens"]));
        self.cached = cached.or_else(|| first(&["cache_read_input_tokens"])).or(self.cached);
        for (modality, name) in NAMES {
            let at = modality as usize;
            self.input_by[at] = input.and_then(|input| number(&input[name])).or(self.input_by[at]);
            self.output_by[at] = output.and_then(|output| number(&output[name])).or(self.output_by[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of an answer, however it is cut.
    fn read(answer: &str) -> Usage {
        let whole = |cut: usize| {
            let mut reader = UsageReader::default();
            answer.as_bytes().chunks(cut).for_each(|chunk| reader.feed(chunk));
            reader.usage()
        };
        let usage = whole(answer.len());
        for cut in 1..answer.len().min(40) {
            assert_eq!(whole(cut), usage, "{cut} bytes at a time: {answer}");
        }
        usage
    }

    fn of(input: u64, output: u64, cached: Option<u64>) -> Usage {
        Usage { input: Some(input), output: Some(output), cached, ..Usage::default() }
    }

    #[test]
    fn usage_is_read_in_every_shape() {
        for (answer, is) in [
            (
                r#"{"id":"c","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3,"prompt_tokens_details":null}}"#,
                of(9, 3, None),
            ),
            (
                r#"{ "usage" : { "prompt_tokens" : 9, "completion_tokens" : 3, "prompt_tokens_details" : {"cached_tokens": 4} } }"#,
                of(9, 3, Some(4)),
            ),
            (
                "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n",
                of(7, 5, None),
            ),
            (
                "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":11,\"cache_read_input_tokens\":6,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":20}}\n\n",
                of(17, 20, Some(6)),
            ),
            (
                r#"{"type":"response.completed","response":{"usage":{"input_tokens":2,"input_tokens_details":{"cached_tokens":0},"output_tokens":1}}}"#,
                of(2, 1, Some(0)),
            ),
        ] {
            assert_eq!(read(answer), is, "{answer}");
        }
    }

    #[test]
    fn modalities_are_told_apart_where_the_server_does() {
        let usage = read(
            r#"{"usage":{"input_tokens":60,"output_tokens":4160,"input_tokens_details":{"text_tokens":10,"image_tokens":50},"output_tokens_details":{"image_tokens":4160}}}"#,
        );
        assert_eq!((usage.input_of(Modality::Text), usage.input_of(Modality::Image)), (Some(10), Some(50)));
        assert_eq!((usage.output_of(Modality::Image), usage.output_of(Modality::Audio)), (Some(4160), None));
    }

    #[test]
    fn what_a_model_writes_and_what_is_no_usage_is_none() {
        for answer in [
            r#"{"choices":[{"message":{"content":"{\"usage\":{\"prompt_tokens\":9}}"}}]}"#,
            r#"{"usage":null}"#,
            r#"{"usage":7}"#,
            r#"{"usage":{"prompt_tokens":"many","completion_tokens":-1}}"#,
            r#"{"usage":{"prompt_tokens":99999999999}}"#,
            r#"{"usage":{"seconds":3,"type":"duration"}}"#,
            r#"{"usage":{"prompt_tokens":9"#,
            "\"usage",
            "",
        ] {
            if !answer.is_empty() {
                assert_eq!(read(answer), Usage::default(), "{answer}");
            }
        }
        let long = format!(
            r#"{{"usage":{{"a":"{}","prompt_tokens":1}},"usage":{{"prompt_tokens":2}}}}"#,
            "x".repeat(MOST_BYTES)
        );
        assert_eq!(read(&long).input, Some(2), "what is too long is passed over");
        let braces = read(r#"{"usage":{"a":"}\"}","prompt_tokens":3}}"#);
        assert_eq!(braces.input, Some(3));
    }
}
