//! Base64, decoded as it streams by (RFC 4648, section 4). White space is skipped and missing padding forgiven, as lenient readers do, so that
//! the same bytes are the same however they were written; vLLM 0.32 refuses both in its own words.

/// Characters decoded at once: a multiple of four.
const BLOCK: usize = 32 << 10;

/// After a failure so many are tried.
const MIN_BLOCK: usize = 256;

/// Bytes handed on at once: what a tree hash takes at full speed (BLAKE3: a power of two, sixteen chunks of 1 KiB or more), and small
/// enough to be still in the cache.
const BATCH: usize = 64 << 10;

/// A decoder that remembers up to three characters between pieces.
#[derive(Debug)]
pub(crate) struct Decoder {
    carry: [u8; 4],
    carried: usize,
    /// How many `=` came; after the first nothing else may.
    padding: u8,
    sound: bool,
    /// Decoded and not yet handed on: the first `filled` bytes.
    decoded: Box<[u8]>,
    filled: usize,
    /// Characters tried at once: fewer after a failure, since decoders that fail look at all of them first.
    block: usize,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            carry: [0; 4],
            carried: 0,
            padding: 0,
            sound: true,
            decoded: vec![0; BATCH + BLOCK].into_boxed_slice(),
            filled: 0,
            block: BLOCK,
        }
    }

    pub(crate) fn start(&mut self) {
        (self.carried, self.padding, self.sound, self.filled) = (0, 0, true, 0);
    }

    /// Decodes a piece and hands on what it holds. After something that is no base64 nothing more is handed on.
    pub(crate) fn feed(&mut self, mut piece: &[u8], mut take: impl FnMut(&[u8])) {
        while !piece.is_empty() && self.sound {
            piece = self.some(piece);
            if self.filled >= BATCH {
                take(&self.decoded[..BATCH]);
                self.decoded.copy_within(BATCH..self.filled, 0);
                self.filled -= BATCH;
            }
        }
    }

    /// Decodes the beginning of a piece; answers with the rest.
    fn some<'p>(&mut self, piece: &'p [u8]) -> &'p [u8] {
        let blanks = piece.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if blanks > 0 {
            return &piece[blanks..];
        }
        if self.carried == 0 && self.padding == 0 {
            let block = &piece[..piece.len().min(self.block)];
            if let Some(whole) = self.fast(block) {
                self.block = (self.block * 2).min(BLOCK);
                if whole > 0 {
                    return &piece[whole..];
                }
            } else {
                // Text with white space in it costs a small multiple of text without, and never the square of it.
                self.block = MIN_BLOCK;
                let sound = sound_prefix(block);
                if let Some(whole) = self.fast(&block[..sound]).filter(|whole| *whole > 0) {
                    return &piece[whole..];
                }
            }
        }
        // Padding, a beginning that another piece cut, or nonsense: as far as the next place to be fast from.
        self.slowly(piece)
    }

    /// Decodes all whole quantities of a block at once; says how many characters, or nothing when one of them is no base64.
    fn fast(&mut self, block: &[u8]) -> Option<usize> {
        let whole = block.len() / 4 * 4;
        let out = &mut self.decoded[self.filled..];
        self.filled += base64_turbo::STANDARD_NO_PAD.decode_slice(&block[..whole], out).ok()?;
        Some(whole)
    }

    /// Decodes character by character, to a place where four begin or the end.
    fn slowly<'p>(&mut self, piece: &'p [u8]) -> &'p [u8] {
        for (at, byte) in piece.iter().enumerate() {
            match (*byte, sextet(*byte)) {
                (byte, _) if byte.is_ascii_whitespace() => {}
                (b'=', _) => {
                    self.padding += 1;
                    self.sound &= self.carried >= 2 && usize::from(self.padding) + self.carried <= 4;
                }
                (_, Some(sextet)) if self.padding == 0 => {
                    self.carry[self.carried] = sextet;
                    self.carried += 1;
                }
                _ => self.sound = false,
            }
            if self.carried == 4 {
                self.quantum();
            }
            if !self.sound || (self.carried == 0 && self.padding == 0) {
                return &piece[at + 1..];
            }
        }
        &[]
    }

    /// Decodes what is carried.
    fn quantum(&mut self) {
        let [a, b, c, d] = self.carry;
        let bytes = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
        let count = self.carried * 6 / 8;
        self.decoded[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        (self.carried, self.carry) = (0, [0; 4]);
    }

    /// The end: hands on what is left, and says whether all of it was base64. Missing padding is forgiven.
    pub(crate) fn finish(&mut self, take: impl FnOnce(&[u8])) -> bool {
        self.sound &= self.carried != 1;
        if self.sound && self.carried > 0 {
            self.quantum();
        }
        take(&self.decoded[..self.filled]);
        self.filled = 0;
        self.sound
    }
}

/// How many characters at the beginning are of the alphabet.
fn sound_prefix(block: &[u8]) -> usize {
    block.iter().position(|byte| sextet(*byte).is_none()).unwrap_or(block.len())
}

const fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&[u8]>) {
        for cut in 0..=text.len() {
            let mut decoder = Decoder::new();
            let mut bytes = Vec::new();
            decoder.feed(&text.as_bytes()[..cut], |some| bytes.extend_from_slice(some));
            decoder.feed(&text.as_bytes()[cut..], |some| bytes.extend_from_slice(some));
            let sound = decoder.finish(|some| bytes.extend_from_slice(some));
            assert_eq!(sound.then_some(&*bytes), expected, "{text:?} cut at {cut}");
        }
    }

    #[test]
    fn it_is_decoded_wherever_it_is_cut() {
        check("", Some(b""));
        check("Zm9vYmFy", Some(b"foobar"));
        check("Zm9vYg==", Some(b"foob"));
        check("Zm9vYg", Some(b"foob"));
        check("Zm9vYmE=", Some(b"fooba"));
        check("Zm9v\r\nYmE=\n", Some(b"fooba"));
        check("Z m 9 v Y m E =", Some(b"fooba"));
    }

    #[test]
    fn what_is_no_base64_is_told() {
        for text in ["Z", "Zm9vY", "Zm9v!mFy", "Zg==Zg==", "Zm9v=", "Zm9vYg===", "Zm9-", "Zm9_", "é", "====", "Z==="] {
            check(text, None);
        }
    }

    #[test]
    fn long_text_with_and_without_lines_is_the_same() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        let plain = ::base64::Engine::encode(&::base64::prelude::BASE64_STANDARD, &bytes);
        let lines =
            plain.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>().join("\r\n");
        for text in [&plain, &lines] {
            for size in [1, 3, 1000, 65_536, usize::MAX] {
                let mut decoder = Decoder::new();
                let mut out = Vec::new();
                text.as_bytes().chunks(size).for_each(|piece| decoder.feed(piece, |some| out.extend_from_slice(some)));
                assert!(decoder.finish(|some| out.extend_from_slice(some)));
                assert!(out == bytes, "in pieces of {size}");
            }
        }
    }
}
