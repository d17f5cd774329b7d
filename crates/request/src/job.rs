//! The name of a job, found in the answer that says it was made.

use crate::Unreadable;
use crate::json::{Kind, Lexer, Sink, StringToken, Want};

/// Reads the `id` of a JSON object as it streams by. Answers that are something else hold none.
#[derive(Debug)]
pub struct JobSeeker {
    lexer: Lexer,
    seeking: Seeking,
    broken: bool,
}

#[derive(Debug, Default)]
struct Seeking {
    depth: usize,
    at_id: bool,
    id: Option<String>,
}

/// Longest name of a job; OpenAI's have some 40 bytes.
const MAX_ID: usize = 256;

impl Default for JobSeeker {
    fn default() -> Self {
        Self { lexer: Lexer::new(), seeking: Seeking::default(), broken: false }
    }
}

impl JobSeeker {
    pub fn feed(&mut self, chunk: &[u8]) {
        if !self.broken && self.seeking.id.is_none() {
            self.broken = self.lexer.feed(chunk, &mut self.seeking).is_err();
        }
    }

    /// The answer has ended.
    pub fn finish(self) -> Option<String> {
        self.seeking.id
    }
}

impl Sink for Seeking {
    fn key(&mut self, key: &[u8], _: u64) -> Result<(), Unreadable> {
        self.at_id = self.depth == 1 && key == b"id";
        Ok(())
    }

    fn begin(&mut self, kind: Kind) -> Result<Want, Unreadable> {
        match kind {
            Kind::Object | Kind::Array => {
                // A list is no job.
                if self.depth == 0 && kind == Kind::Array {
                    return Err(Unreadable::NotAnObject);
                }
                self.depth += 1;
                self.at_id = false;
                Ok(Want::Nothing)
            }
            Kind::String if self.at_id => Ok(Want::Head(MAX_ID + 1)),
            _ => Ok(Want::Nothing),
        }
    }

    fn piece(&mut self, _: &[u8]) {}

    fn string(&mut self, string: &StringToken<'_>) -> Result<(), Unreadable> {
        if std::mem::take(&mut self.at_id) && (1..=MAX_ID as u64).contains(&string.length) {
            self.id = std::str::from_utf8(string.kept).ok().map(str::to_owned);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Unreadable> {
        self.depth -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_the_object_itself_is_found() {
        for (answer, id) in [
            (r#"{"object":"video","id":"video_1","x":{"id":"no"}}"#, Some("video_1")),
            (r#"{"x":{"id":"no"},"list":[{"id":"no"}],"id":"video_2"}"#, Some("video_2")),
            (r#"{"id":7}"#, None),
            (r#"{"id":""}"#, None),
            (r#"[{"id":"no"}]"#, None),
            ("RIFF....", None),
            ("", None),
        ] {
            for size in [1, 5, 1000] {
                let mut seeker = JobSeeker::default();
                answer.as_bytes().chunks(size).for_each(|chunk| seeker.feed(chunk));
                assert_eq!(seeker.finish().as_deref(), id, "{answer}");
            }
        }
    }
}
