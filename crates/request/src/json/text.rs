//! The inside of a JSON string: escapes, UTF-8, and how far it goes. Media is read here, so this file is the speed of the scanner.

use crate::Unreadable;
use crate::json::Want;
use crate::json::block::{self, HEX};

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
    /// Small pieces of what is wanted, to be handed on together: PHP writes an escape every 64 bytes of base64.
    gathered: Vec<u8>,
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

    /// Whether words are looked for in the string at hand.
    pub(crate) fn is_searched(&self) -> bool {
        self.want == Want::ToSearch
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
            Want::Pieces | Want::ToSearch if !whole.is_empty() => take(whole),
            Want::Pieces | Want::ToSearch | Want::Nothing => {}
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
        let fed = self.read(bytes, here, &mut take);
        self.hand_on(&mut take);
        fed
    }

    fn read(&mut self, bytes: &[u8], here: u64, take: &mut impl FnMut(&[u8])) -> Result<(usize, bool), Unreadable> {
        let mut at = 0;
        while at < bytes.len() {
            if self.escape != Escape::None {
                self.escaped(bytes[at], here + at as u64, take)?;
                at += 1;
                continue;
            }
            if self.partial_len > 0 {
                self.sequence(bytes[at], here + at as u64, take)?;
                at += 1;
                continue;
            }
            // Whoever takes the pieces looks at them again, so that they should still be in the cache.
            let ahead = &bytes[at..bytes.len().min(at + PIECE)];
            let run = block::run(ahead, matches!(self.want, Want::Nothing | Want::ToSearch));
            let plain = &ahead[..run.length];
            let cut = if run.high { Self::check(plain, here + at as u64, run.length == ahead.len())? } else { 0 };
            let whole = &plain[..plain.len() - cut];
            if !whole.is_empty() {
                self.take(whole, take);
            }
            at += run.length - cut;
            if cut > 0 && at + cut == bytes.len() {
                self.partial_len = cut;
                self.partial[..cut].copy_from_slice(&bytes[at..]);
                return Ok((bytes.len(), false));
            }
            match ahead.get(run.length) {
                None => {}
                Some(b'"') => {
                    self.lone_surrogate(take);
                    return Ok((at + 1, true));
                }
                Some(b'\\') => {
                    at += self.escape(&bytes[at..], here + at as u64, take)?;
                }
                Some(_) => {
                    return Err(Unreadable::Malformed {
                        at: here + at as u64,
                        what: "unescaped control character in a string",
                    });
                }
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
            Want::ToSearch => take(plain),
            Want::Pieces if plain.len() >= LARGE => {
                self.hand_on(take);
                take(plain);
            }
            Want::Pieces => {
                self.gathered.extend_from_slice(plain);
                if self.gathered.len() >= GATHERED {
                    self.hand_on(take);
                }
            }
        }
    }

    fn hand_on(&mut self, take: &mut impl FnMut(&[u8])) {
        if !self.gathered.is_empty() {
            take(&self.gathered);
            self.gathered.clear();
        }
    }

    /// Checks that this is UTF-8; says how many bytes at its end begin a sequence that is cut, which may only be where more can follow.
    fn check(plain: &[u8], here: u64, more_follows: bool) -> Result<usize, Unreadable> {
        let cut = if more_follows { cut_sequence(plain) } else { 0 };
        let (whole, rest) = plain.split_at(plain.len() - cut);
        // Only what is wrong is looked at again, to say where.
        let (start, rest) = if simdutf8::basic::from_utf8(whole).is_ok() { (whole.len(), rest) } else { (0, plain) };
        match std::str::from_utf8(rest) {
            Ok(_) => Ok(0),
            Err(error) if error.error_len().is_none() && more_follows => Ok(rest.len() - error.valid_up_to()),
            Err(error) => Err(Unreadable::NotUtf8 { at: here + (start + error.valid_up_to()) as u64 }),
        }
    }

    /// Goes on with a sequence that a chunk cut, a byte at a time: at most three of them.
    fn sequence(&mut self, byte: u8, here: u64, take: &mut impl FnMut(&[u8])) -> Result<(), Unreadable> {
        let begun = self.partial_len;
        self.partial[begun] = byte;
        self.partial_len += 1;
        let partial = self.partial;
        match std::str::from_utf8(&partial[..self.partial_len]) {
            Ok(_) => {
                let length = std::mem::take(&mut self.partial_len);
                self.take(&partial[..length], take);
            }
            // It is wrong where it began.
            Err(error) if error.error_len().is_some() => return Err(Unreadable::NotUtf8 { at: here - begun as u64 }),
            Err(_) => {}
        }
        Ok(())
    }

    /// Takes an escape, as a whole if it is there, or else its backslash.
    fn escape(&mut self, bytes: &[u8], here: u64, take: &mut impl FnMut(&[u8])) -> Result<usize, Unreadable> {
        match *bytes {
            [_, b'u', a, b, c, d, ..] => {
                let digits = [a, b, c, d].map(|digit| HEX[usize::from(digit)]);
                if digits.iter().all(|digit| *digit < 16) {
                    let unit = digits.iter().fold(0, |unit, digit| unit << 4 | u16::from(*digit));
                    self.unicode(unit, take);
                    return Ok(6);
                }
            }
            [_, byte, ..] if byte != b'u' => {
                self.escaped(byte, here + 1, take)?;
                return Ok(2);
            }
            _ => {}
        }
        // Cut, or wrong somewhere: a byte at a time.
        self.escape = Escape::Backslash;
        Ok(1)
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

/// How many bytes at the end begin a sequence of UTF-8 that is not there as a whole, if all before them is right.
fn cut_sequence(bytes: &[u8]) -> usize {
    let needs = |byte: u8| match byte {
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
        _ => 1,
    };
    let is_cut = |(place, byte): &(usize, &u8)| needs(**byte) > place + 1;
    bytes.iter().rev().enumerate().take(3).find(is_cut).map_or(0, |(place, _)| place + 1)
}

/// The string that these bytes begin with, if it is short, holds nothing but plain ASCII, and its closing quote is among them.
pub(crate) fn short(bytes: &[u8]) -> Option<&[u8]> {
    let (words, _) = bytes[..bytes.len().min(SHORT)].as_chunks();
    let at = words.iter().enumerate().find_map(|(number, word)| Some(number * WORD + first_special(*word)?))?;
    (bytes[at] == b'"').then(|| &bytes[..at])
}

/// Largest piece handed on at once.
const PIECE: usize = 32 << 10;

/// A piece of this size is handed on as it is, smaller ones once they are so many bytes together.
const LARGE: usize = 512;
const GATHERED: usize = 8 << 10;

/// Bytes of a word.
const WORD: usize = 8;

/// The place of the first byte that is not plain ASCII. All eight are looked at in one register: of each test below the lowest bit that is
/// set is right, whatever carries do to those above it.
#[inline]
fn first_special(word: [u8; WORD]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; WORD]);
    const TOPS: u64 = u64::from_le_bytes([0x80; WORD]);
    let word = u64::from_le_bytes(word);
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero(word ^ (ONES * u64::from(b'"')));
    let backslash = zero(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let special = (quote | backslash | control | word) & TOPS;
    (special != 0).then(|| special.trailing_zeros() as usize / WORD)
}
