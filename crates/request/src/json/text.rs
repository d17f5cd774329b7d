//! The inside of a JSON string: escapes, UTF-8, and how far it goes. Media is read here, so this file is the speed of the scanner.

use crate::Unreadable;
use crate::json::Want;

/// A string being read.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// What was wanted of its beginning.
    kept: Vec<u8>,
    want: Want,
    length: u64,
    escape: Escape,
    /// A high surrogate that waits for its low one.
    high: Option<u16>,
    /// The beginning of a UTF-8 sequence that a chunk cut.
    partial: [u8; 4],
    partial_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Escape {
    #[default]
    None,
    Backslash,
    Unicode {
        value: u16,
        digits: u8,
    },
}

/// How long a string may be to be looked for as a whole.
const SHORT: usize = 64;

impl Text {
    pub(crate) fn start(&mut self, want: Want) {
        self.kept.clear();
        self.want = want;
        self.length = 0;
        self.escape = Escape::None;
        self.high = None;
        self.partial_len = 0;
    }

    pub(crate) fn kept(&self) -> &[u8] {
        &self.kept
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// What is wanted of a string that is there as a whole.
    pub(crate) fn wanted_of<'a>(&self, whole: &'a [u8], take: impl FnOnce(&[u8])) -> &'a [u8] {
        match self.want {
            Want::Head(limit) => return &whole[..whole.len().min(limit)],
            Want::Pieces if !whole.is_empty() => take(whole),
            Want::Pieces | Want::Nothing => {}
        }
        &[]
    }

    /// Takes bytes up to and with the closing quote, or all; says how many, and whether the string ended. `here` is the position of
    /// the first byte, for errors; `take` is given the string's content, unescaped, when all of it is wanted.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        here: u64,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(usize, bool), Unreadable> {
        let take = &mut take;
        let mut at = 0;
        while at < bytes.len() {
            if self.escape != Escape::None {
                self.escaped(bytes[at], here + at as u64, take)?;
                at += 1;
                continue;
            }
            // Whoever takes the pieces looks at them again, so that they should still be in the cache.
            let ahead = if self.want == Want::Pieces { PIECE.min(bytes.len() - at) } else { bytes.len() - at };
            let run = if self.partial_len == 0 { plain_prefix(&bytes[at..at + ahead]) } else { 0 };
            if run > 0 {
                self.take(&bytes[at..at + run], take);
                at += run;
                if run == ahead {
                    continue;
                }
            }
            let Some(&byte) = bytes.get(at) else { break };
            let position = here + at as u64;
            match byte {
                b'"' if self.partial_len == 0 => {
                    self.lone_surrogate(take);
                    return Ok((at + 1, true));
                }
                b'\\' if self.partial_len == 0 => {
                    self.escape = Escape::Backslash;
                    at += 1;
                }
                0x80.. => at += self.multibyte(&bytes[at..], position, take)?,
                0..0x20 if self.partial_len == 0 => {
                    return Err(Unreadable::Malformed {
                        at: position,
                        what: "unescaped control character in a string",
                    });
                }
                // A sequence that a chunk cut goes on with something that is no part of one: it is wrong where it began.
                _ => return Err(Unreadable::NotUtf8 { at: position - self.partial_len as u64 }),
            }
        }
        Ok((at, false))
    }

    fn take(&mut self, plain: &[u8], take: &mut impl FnMut(&[u8])) {
        self.lone_surrogate(take);
        self.length += plain.len() as u64;
        match self.want {
            Want::Nothing => {}
            Want::Head(limit) => {
                let room = limit - self.kept.len();
                self.kept.extend_from_slice(&plain[..plain.len().min(room)]);
            }
            Want::Pieces => take(plain),
        }
    }

    /// Takes what is not ASCII, with whatever ASCII stands between.
    fn multibyte(&mut self, bytes: &[u8], here: u64, take: &mut impl FnMut(&[u8])) -> Result<usize, Unreadable> {
        if self.partial_len > 0 {
            // Finish the cut sequence a byte at a time: at most three of them.
            self.partial[self.partial_len] = bytes[0];
            self.partial_len += 1;
            let partial = self.partial;
            match std::str::from_utf8(&partial[..self.partial_len]) {
                Ok(_) => {
                    let len = std::mem::take(&mut self.partial_len);
                    self.take(&partial[..len], take);
                }
                Err(error) if error.error_len().is_some() => {
                    return Err(Unreadable::NotUtf8 { at: here + 1 - self.partial_len as u64 });
                }
                Err(_) => {}
            }
            return Ok(1);
        }
        let run = run_prefix(bytes);
        match std::str::from_utf8(&bytes[..run]) {
            Ok(_) => self.take(&bytes[..run], take),
            Err(error) if error.error_len().is_none() && run == bytes.len() => {
                let cut = error.valid_up_to();
                self.take(&bytes[..cut], take);
                self.partial_len = run - cut;
                self.partial[..run - cut].copy_from_slice(&bytes[cut..run]);
            }
            Err(error) => return Err(Unreadable::NotUtf8 { at: here + error.valid_up_to() as u64 }),
        }
        Ok(run)
    }

    fn escaped(&mut self, byte: u8, here: u64, take: &mut impl FnMut(&[u8])) -> Result<(), Unreadable> {
        let malformed = Unreadable::Malformed { at: here, what: "invalid escape" };
        if let Escape::Unicode { value, digits } = self.escape {
            let Some(digit) = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
                return Err(malformed);
            };
            let value = value << 4 | digit;
            if digits == 3 {
                self.escape = Escape::None;
                self.unicode(value, take);
            } else {
                self.escape = Escape::Unicode { value, digits: digits + 1 };
            }
            return Ok(());
        }
        self.escape = Escape::None;
        match byte {
            b'"' | b'\\' | b'/' => self.take(&[byte], take),
            b'b' => self.take(&[8], take),
            b'f' => self.take(&[12], take),
            b'n' => self.take(b"\n", take),
            b'r' => self.take(b"\r", take),
            b't' => self.take(b"\t", take),
            b'u' => self.escape = Escape::Unicode { value: 0, digits: 0 },
            _ => return Err(malformed),
        }
        Ok(())
    }

    /// Takes a `\uXXXX`. Half a pair becomes U+FFFD, as in most readers that do not refuse it.
    fn unicode(&mut self, unit: u16, take: &mut impl FnMut(&[u8])) {
        match (self.high.take(), unit) {
            (Some(high), 0xDC00..0xE000) => {
                let code = 0x1_0000 + ((u32::from(high) - 0xD800) << 10) + (u32::from(unit) - 0xDC00);
                self.character(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), take);
            }
            (high, 0xD800..0xDC00) => {
                if high.is_some() {
                    self.character(char::REPLACEMENT_CHARACTER, take);
                }
                self.high = Some(unit);
            }
            (high, _) => {
                if high.is_some() {
                    self.character(char::REPLACEMENT_CHARACTER, take);
                }
                self.character(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER), take);
            }
        }
    }

    fn character(&mut self, character: char, take: &mut impl FnMut(&[u8])) {
        self.take(character.encode_utf8(&mut [0; 4]).as_bytes(), take);
    }

    fn lone_surrogate(&mut self, take: &mut impl FnMut(&[u8])) {
        if self.high.take().is_some() {
            self.character(char::REPLACEMENT_CHARACTER, take);
        }
    }
}

/// The string that these bytes begin with, if it is short, holds nothing but plain ASCII, and its closing quote is among them.
pub(crate) fn short(bytes: &[u8]) -> Option<&[u8]> {
    let run = plain_prefix(&bytes[..bytes.len().min(SHORT)]);
    (bytes.get(run) == Some(&b'"')).then(|| &bytes[..run])
}

/// Largest piece handed on at once.
const PIECE: usize = 32 << 10;

/// How many bytes at the beginning are printable ASCII and neither a quote nor a backslash.
fn plain_prefix(bytes: &[u8]) -> usize {
    // As signed bytes, control characters and everything above ASCII are both below a space.
    prefix::<true>(bytes, |byte| byte.cast_signed() >= 0x20 && byte != b'"' && byte != b'\\')
}

/// The same with what is above ASCII.
fn run_prefix(bytes: &[u8]) -> usize {
    prefix::<false>(bytes, |byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
}

/// Bytes looked at together; the compiler turns the loop over a block into vector instructions.
const BLOCK: usize = 64;

/// Bytes of a word.
const WORD: usize = 8;

#[inline(always)]
#[expect(clippy::inline_always, reason = "the predicate must be inlined into the block loop to be vectorised")]
fn prefix<const ASCII: bool>(bytes: &[u8], plain: impl Fn(u8) -> bool) -> usize {
    // Most strings are keys and words, and end within two words.
    for (number, word) in bytes.chunks_exact(WORD).take(2).enumerate() {
        if let Some(at) = first_special::<ASCII>(word) {
            return number * WORD + at;
        }
    }
    let mut at = 0;
    for block in bytes.chunks_exact(BLOCK) {
        if !block.iter().fold(true, |all, byte| all & plain(*byte)) {
            break;
        }
        at += BLOCK;
    }
    for word in bytes[at..].chunks_exact(WORD) {
        if let Some(place) = first_special::<ASCII>(word) {
            return at + place;
        }
        at += WORD;
    }
    at + bytes[at..].iter().position(|byte| !plain(*byte)).unwrap_or(bytes.len() - at)
}

/// The place of the first byte that is not plain. All eight are looked at in one register: of each test below the lowest bit that is set
/// is right, whatever carries do to those above it.
#[inline]
fn first_special<const ASCII: bool>(word: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    let word = u64::from_le_bytes(word.try_into().ok()?);
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero(word ^ (ONES * u64::from(b'"')));
    let backslash = zero(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let high = if ASCII { word } else { 0 };
    let special = (quote | backslash | control | high) & TOPS;
    (special != 0).then(|| special.trailing_zeros() as usize / 8)
}
