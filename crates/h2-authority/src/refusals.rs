//! What a server sends, frame by frame: h2 says of a stream that it refused it, and nobody else does.

/// Types of frames and an error code (RFC 9113, sections 6 and 7).
const RST_STREAM: u8 = 0x3;
const GOAWAY: u8 = 0x7;
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;

/// The head of a frame, and as much of its content as an error code may stand in.
const SEEN: usize = 9 + 8;

/// What was refused for its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// One stream, by PROTOCOL_ERROR: its headers are not as HTTP/2 has them.
    Stream,
    /// The whole connection, with this code.
    Connection(u32),
}

/// Follows what is sent over one connection, from its first byte.
#[derive(Debug, Default)]
pub struct Refusals {
    seen: [u8; SEEN],
    count: usize,
    /// Bytes of the frame that are still to come and tell nothing.
    skip: usize,
}

impl Refusals {
    /// Looks through bytes that were sent, which follow those before; answers the last refusal among them.
    pub fn look(&mut self, mut sent: &[u8]) -> Option<Refusal> {
        let mut found = None;
        while !sent.is_empty() {
            if self.skip > 0 {
                let part = self.skip.min(sent.len());
                (self.skip, sent) = (self.skip - part, &sent[part..]);
                continue;
            }
            let part = (self.wanted() - self.count).min(sent.len());
            self.seen[self.count..self.count + part].copy_from_slice(&sent[..part]);
            (self.count, sent) = (self.count + part, &sent[part..]);
            if self.count == self.wanted() {
                found = self.refusal().or(found);
                self.skip = self.length() - (self.count - 9);
                self.count = 0;
            }
        }
        found
    }

    fn length(&self) -> usize {
        u32::from_be_bytes([0, self.seen[0], self.seen[1], self.seen[2]]) as usize
    }

    /// How much of the frame is wanted, as far as that is known.
    fn wanted(&self) -> usize {
        let content = match self.seen[3] {
            _ if self.count < 9 => 0,
            RST_STREAM => 4,
            GOAWAY => 8,
            _ => 0,
        };
        9 + content.min(if self.count < 9 { 0 } else { self.length() })
    }

    fn refusal(&self) -> Option<Refusal> {
        let code =
            |at: usize| u32::from_be_bytes([self.seen[at], self.seen[at + 1], self.seen[at + 2], self.seen[at + 3]]);
        match (self.seen[3], self.count) {
            (RST_STREAM, 13) => (code(9) == PROTOCOL_ERROR).then_some(Refusal::Stream),
            (GOAWAY, SEEN) => Some(code(13)).filter(|code| *code != NO_ERROR).map(Refusal::Connection),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[track_caller]
    fn check(frames: &[Vec<u8>], expected: Option<Refusal>) {
        let bytes = frames.concat();
        for size in 1..=bytes.len() {
            let mut refusals = Refusals::default();
            let found = bytes.chunks(size).filter_map(|chunk| refusals.look(chunk)).last();
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn refusals_are_told_from_everything_else() {
        let (settings, data) = (frame(4, &[0; 12]), frame(0, &[1; 200]));
        let reset = |code| frame(3, &[0, 0, 0, code]);
        let goaway = |code| frame(7, &[0, 0, 0, 9, 0, 0, 0, code, b'w', b'h', b'y']);
        check(&[settings.clone(), data.clone(), reset(1), data.clone()], Some(Refusal::Stream));
        check(&[settings.clone(), reset(8), reset(0), goaway(0), data.clone()], None);
        check(&[goaway(11), settings.clone()], Some(Refusal::Connection(11)));
        // Too short to hold a code: nothing of ours, and nothing to fall over.
        check(&[frame(3, &[1]), frame(7, &[]), data, frame(3, &[]), reset(1)], Some(Refusal::Stream));
    }
}
