//! What only the model server that made it knows: videos and responses. Their names, in paths, in bodies, and in the answers that say
//! they were made.

use crate::Unreadable;
use crate::json::{Lexer, Sink, StringToken, ValueKind, Want};

/// Something that only its owner knows, the model server that made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owned {
    pub kind: OwnedKind,
    pub id: String,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnedKind {
    /// A video that is made as a job (`POST /v1/videos`).
    Video,
    /// What was said before, where a client names it instead of repeating it (`POST /v1/responses`).
    Response,
}

/// Reads the `id` of what an answer says was made, as it streams by: of a JSON object itself, or of the `response` in the first event of a
/// stream of events. Answers that are something else hold none.
#[derive(Debug)]
pub struct IdSeeker {
    lexer: Lexer,
    seeking: Seeking,
    begun: bool,
    broken: bool,
}

#[derive(Debug)]
struct Seeking {
    kind: OwnedKind,
    depth: usize,
    /// The value at hand is an id, if it is a string.
    at_id: bool,
    /// The value at hand is the response, if it is an object; or we are inside of it.
    at_response: bool,
    in_response: bool,
    id: Option<String>,
}

/// Longest id that is read; OpenAI's have some 50 bytes.
pub(crate) const MAX_ID: usize = 256;

impl Owned {
    /// Whether an id may be one: not empty, and no longer than those that are read.
    pub fn may_have(id: &str) -> bool {
        (1..=MAX_ID).contains(&id.len()) && !id.contains(char::is_control)
    }
}

impl OwnedKind {
    pub const ALL: [Self; 2] = [Self::Video, Self::Response];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Video => "job",
            Self::Response => "response",
        }
    }

    /// Below which path it is asked for.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Video => "/v1/videos",
            Self::Response => "/v1/responses",
        }
    }
}

impl IdSeeker {
    pub fn new(kind: OwnedKind) -> Self {
        let seeking = Seeking { kind, depth: 0, at_id: false, at_response: false, in_response: false, id: None };
        Self { lexer: Lexer::new(), seeking, begun: false, broken: false }
    }

    /// What it seeks the id of.
    pub fn kind(&self) -> OwnedKind {
        self.seeking.kind
    }

    pub fn feed(&mut self, chunk: &[u8]) {
        if self.broken || self.seeking.id.is_some() {
            return;
        }
        let mut json = chunk;
        if !self.begun {
            // Before its first object an event has words without braces; a list is nothing that was made.
            let Some(at) = chunk.iter().position(|byte| matches!(byte, b'{' | b'[')) else { return };
            self.begun = true;
            json = &chunk[at..];
        }
        self.broken = self.lexer.feed(json, &mut self.seeking).is_err();
    }

    /// What was found by now.
    pub fn found(&self) -> Option<Owned> {
        let id = self.seeking.id.clone()?;
        Some(Owned { kind: self.seeking.kind, id })
    }
}

impl Sink for Seeking {
    fn key(&mut self, key: &[u8], _: u64) -> Result<(), Unreadable> {
        self.at_id = key == b"id" && (self.depth == 1 || (self.depth == 2 && self.in_response));
        self.at_response = key == b"response" && self.depth == 1 && self.kind == OwnedKind::Response;
        Ok(())
    }

    fn begin(&mut self, kind: ValueKind) -> Result<Want, Unreadable> {
        match kind {
            ValueKind::Object | ValueKind::Array => {
                if self.depth == 0 && kind == ValueKind::Array {
                    return Err(Unreadable::NotAnObject);
                }
                self.in_response |= self.at_response && kind == ValueKind::Object;
                self.depth += 1;
                (self.at_id, self.at_response) = (false, false);
                Ok(Want::Nothing)
            }
            ValueKind::String if self.at_id => Ok(Want::Head(MAX_ID + 1)),
            _ => Ok(Want::Nothing),
        }
    }

    fn piece(&mut self, _: &[u8]) {}

    fn string(&mut self, string: &StringToken<'_>) -> Result<(), Unreadable> {
        if std::mem::take(&mut self.at_id) && self.id.is_none() && (1..=MAX_ID as u64).contains(&string.length) {
            self.id = std::str::from_utf8(string.kept).ok().map(str::to_owned);
        }
        Ok(())
    }

    fn end(&mut self, _: u64) -> Result<(), Unreadable> {
        self.depth -= 1;
        self.in_response &= self.depth > 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: OwnedKind, answer: &str, id: Option<&str>) {
        for size in [1, 5, 1000] {
            let mut seeker = IdSeeker::new(kind);
            answer.as_bytes().chunks(size).for_each(|chunk| seeker.feed(chunk));
            assert_eq!(seeker.found().map(|owned| owned.id).as_deref(), id, "{answer}");
        }
    }

    #[test]
    fn the_id_of_the_object_itself_is_found() {
        for (answer, id) in [
            (r#"{"object":"video","id":"video_1","x":{"id":"no"}}"#, Some("video_1")),
            (r#"{"x":{"id":"no"},"list":[{"id":"no"}],"id":"video_2"}"#, Some("video_2")),
            (r#"{"response":{"id":"no"}}"#, None),
            (r#"{"id":7}"#, None),
            (r#"{"id":""}"#, None),
            (r#"[{"id":"no"}]"#, None),
            ("RIFF....", None),
            ("", None),
        ] {
            check(OwnedKind::Video, answer, id);
        }
    }

    #[test]
    fn a_response_is_found_in_its_first_event_as_well() {
        let event = "event: response.created\ndata: {\"type\":\"response.created\",\"x\":{\"id\":\"no\"},\"response\":\
                     {\"tools\":[{\"id\":\"no\"}],\"id\":\"resp_1\",\"output\":[]}}\n\nevent: x\ndata: {\"id\":\"no\"}\n\n";
        check(OwnedKind::Response, event, Some("resp_1"));
        check(OwnedKind::Response, r#"{"id":"resp_2","output":[{"id":"msg_1"}]}"#, Some("resp_2"));
        check(OwnedKind::Response, "event: error\ndata: {\"message\":\"no\"}\n\ndata: {\"id\":\"no\"}\n\n", None);
    }
}
