//! What a client sends, frame by frame: header blocks are mended, everything else passes.

use crate::hpack;

/// How a connection begins (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Type and flags of frames (RFC 9113, section 6).
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const FRAME_HEAD: usize = 9;

/// Most bytes of a connection that are kept until a header block is complete. h2 takes 16 KiB of it by default; what is larger passes as it
/// is, to be refused there.
pub const MAX_HELD: usize = 64 << 10;

/// Follows one connection from its first byte.
#[derive(Debug)]
pub struct Mender {
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many bytes of the preface were seen.
    Preface(usize),
    /// A frame begins.
    Frame,
    /// So many bytes of a frame are still to come.
    Within(usize),
    /// It is no HTTP/2.
    Foreign,
}

/// What became of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// So many may go on. The others must be shown again, with more behind them.
    pub bytes: usize,
    /// So many must be shown from there on for more to pass; nothing where all passed.
    pub wanted: usize,
    /// How many names were replaced.
    pub mended: usize,
}

/// The frames of one header block.
enum Block {
    Whole {
        length: usize,
        fragments: Fragments,
    },
    Wants(usize),
    /// Malformed, or too large to be kept.
    NotOurs,
}

/// Where the fragments of a block stand: nearly always one.
type Fragments = Vec<std::ops::Range<usize>>;

impl Default for Mender {
    fn default() -> Self {
        Self { state: State::Preface(0) }
    }
}

impl Mender {
    /// Mends `bytes` in place, which follow those that passed before.
    pub fn pass(&mut self, bytes: &mut [u8]) -> Passed {
        let mut at = 0;
        let mut mended = 0;
        let wanted = loop {
            let rest = &mut bytes[at..];
            match &mut self.state {
                State::Foreign => {
                    at = bytes.len();
                    break 0;
                }
                _ if rest.is_empty() => break 0,
                State::Preface(seen) => {
                    let part = rest.len().min(PREFACE.len() - *seen);
                    let is_ours = rest[..part] == PREFACE[*seen..*seen + part];
                    *seen += part;
                    at += part;
                    if !is_ours {
                        self.state = State::Foreign;
                    } else if *seen == PREFACE.len() {
                        self.state = State::Frame;
                    }
                }
                State::Within(left) => {
                    let part = rest.len().min(*left);
                    *left -= part;
                    at += part;
                    if *left == 0 {
                        self.state = State::Frame;
                    }
                }
                State::Frame => {
                    let Some(frame) = Frame::read(rest) else { break FRAME_HEAD };
                    if frame.kind != HEADERS {
                        self.state = State::Within(frame.length);
                        continue;
                    }
                    match block(rest) {
                        Block::Whole { length, fragments } => {
                            mended += usize::from(mend(rest, &fragments));
                            at += length;
                        }
                        Block::Wants(more) => break more,
                        Block::NotOurs => self.state = State::Within(frame.length),
                    }
                }
            }
        };
        Passed { bytes: at, wanted, mended }
    }
}

/// The head of a frame. Its length is that of the whole frame.
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
}

impl Frame {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, ..] = *bytes.get(..FRAME_HEAD)? else { return None };
        Some(Self { length: FRAME_HEAD + u32::from_be_bytes([0, a, b, c]) as usize, kind, flags })
    }
}

/// The block that begins with the frame of HEADERS at the front of `bytes`.
fn block(bytes: &[u8]) -> Block {
    let mut fragments = Fragments::with_capacity(1);
    let mut at = 0;
    loop {
        let Some(frame) = Frame::read(&bytes[at..]) else { return Block::Wants(at + FRAME_HEAD) };
        let end = at + frame.length;
        if end > MAX_HELD || (at > 0 && frame.kind != CONTINUATION) {
            return Block::NotOurs;
        }
        if end > bytes.len() {
            return Block::Wants(end);
        }
        let mut fragment = at + FRAME_HEAD..end;
        if frame.kind == HEADERS {
            if frame.flags & PADDED != 0 {
                let Some(padding) = bytes[fragment.clone()].first() else { return Block::NotOurs };
                fragment.start += 1;
                let Some(end) = fragment.end.checked_sub(usize::from(*padding)) else { return Block::NotOurs };
                fragment.end = end;
            }
            if frame.flags & PRIORITY != 0 {
                fragment.start += 5;
            }
            if fragment.start > fragment.end {
                return Block::NotOurs;
            }
        }
        fragments.push(fragment);
        if frame.flags & END_HEADERS != 0 {
            return Block::Whole { length: end, fragments };
        }
        at = end;
        if at + FRAME_HEAD > MAX_HELD {
            return Block::NotOurs;
        }
    }
}

fn mend(bytes: &mut [u8], fragments: &Fragments) -> bool {
    if let [fragment] = &**fragments {
        return hpack::mend(&mut bytes[fragment.clone()]);
    }
    // A value may stand on both sides of a cut.
    let mut whole: Vec<u8> = fragments.iter().flat_map(|fragment| &bytes[fragment.clone()]).copied().collect();
    let mended = hpack::mend(&mut whole);
    let mut rest = &*whole;
    for fragment in fragments.iter().filter(|_| mended) {
        let (part, others) = rest.split_at(fragment.len());
        bytes[fragment.clone()].copy_from_slice(part);
        rest = others;
    }
    mended
}

#[cfg(test)]
mod tests;
