//! Base64, decoded as it streams by (RFC 4648, section 4). White space is skipped, as the readers of model servers do.

/// Characters decoded at once: a multiple of four, small enough for the decoded bytes to be hashed while they are in the cache.
const BLOCK: usize = 32 << 10;

/// A decoder that remembers up to three characters between pieces.
#[derive(Debug)]
pub(crate) struct Decoder {
    carry: [u8; 4],
    carried: usize,
    /// How many `=` came; after the first nothing else may.
    padding: u8,
    sound: bool,
    decoded: Box<[u8]>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { carry: [0; 4], carried: 0, padding: 0, sound: true, decoded: vec![0; BLOCK / 4 * 3].into_boxed_slice() }
    }

    pub(crate) fn start(&mut self) {
        (self.carried, self.padding, self.sound) = (0, 0, true);
    }

    /// Decodes a piece and hands on what it holds. After something that is no base64 nothing more is handed on.
    pub(crate) fn feed(&mut self, mut piece: &[u8], mut take: impl FnMut(&[u8])) {
        while !piece.is_empty() && self.sound {
            if self.carried == 0 && self.padding == 0 {
                let block = &piece[..piece.len().min(BLOCK)];
                // Only a block that fails is searched for where it does, so that no text makes this quadratic.
                let whole = self.fast(block, &mut take).or_else(|| self.fast(&block[..sound_prefix(block)], &mut take));
                if let Some(whole) = whole.filter(|whole| *whole > 0) {
                    piece = &piece[whole..];
                    continue;
                }
            }
            // A line end, padding, a beginning that another piece cut, or nonsense: as far as the next place to be fast from.
            piece = self.slowly(piece, &mut take);
        }
    }

    /// Decodes all whole quantities of a block at once; says how many characters, or nothing when one of them is no base64.
    fn fast(&mut self, block: &[u8], take: &mut impl FnMut(&[u8])) -> Option<usize> {
        let whole = block.len() / 4 * 4;
        let out = base64_simd::Out::from_slice(&mut self.decoded);
        let decoded = base64_simd::STANDARD_NO_PAD.decode(&block[..whole], out).ok()?;
        if whole > 0 {
            take(decoded);
        }
        Some(whole)
    }

    /// Decodes character by character, to a place where four begin or the end.
    fn slowly<'p>(&mut self, piece: &'p [u8], take: &mut impl FnMut(&[u8])) -> &'p [u8] {
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
                let count = self.quantum();
                take(&self.decoded[..count]);
            }
            if !self.sound || (self.carried == 0 && self.padding == 0) {
                return &piece[at + 1..];
            }
        }
        &[]
    }

    /// Decodes what is carried to the beginning of the buffer; says how many bytes came of it.
    fn quantum(&mut self) -> usize {
        let [a, b, c, d] = self.carry;
        let bytes = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
        let count = self.carried * 6 / 8;
        self.decoded[..count].copy_from_slice(&bytes[..count]);
        (self.carried, self.carry) = (0, [0; 4]);
        count
    }

    /// The end: hands on what is left, and says whether all of it was base64. Missing padding is forgiven.
    pub(crate) fn finish(&mut self, take: impl FnOnce(&[u8])) -> bool {
        self.sound &= self.carried != 1;
        if self.sound && self.carried > 0 {
            let count = self.quantum();
            take(&self.decoded[..count]);
        }
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
