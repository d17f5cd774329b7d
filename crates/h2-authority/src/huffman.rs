//! The Huffman code of HPACK, as far as a name must be read and replaced.

/// The length in bits of each byte's code (RFC 7541, appendix B). The codes are canonical: sorted by length, then by byte, each is the one
/// before plus one. So the lengths are all there is to know.
#[rustfmt::skip]
const BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The longest code of a byte.
const MAX_BITS: usize = 30;

/// Bytes that may stand in a name, and their codes: one for nearly each length, the longest first.
const FILLERS: [(u8, usize, u32); 6] = [
    (b'$', 13, 0b1_1111_1111_1001),
    (b'!', 10, 0b11_1111_1000),
    (b'X', 8, 0b1111_1100),
    (b'x', 7, 0b111_1001),
    (b'-', 6, 0b1_0110),
    (b'0', 5, 0),
];

/// Codes by their length: how many there are, the first of them, and where its byte stands in `bytes`.
struct Codes {
    first: [u32; MAX_BITS + 1],
    count: [u32; MAX_BITS + 1],
    start: [usize; MAX_BITS + 1],
    bytes: [u8; 256],
}

const CODES: Codes = Codes::of(&BITS);

impl Codes {
    #[expect(clippy::cast_possible_truncation, reason = "`byte` counts to 255")]
    const fn of(bits: &[u8; 256]) -> Self {
        let mut codes =
            Self { first: [0; MAX_BITS + 1], count: [0; MAX_BITS + 1], start: [0; MAX_BITS + 1], bytes: [0; 256] };
        let (mut length, mut code, mut place) = (1, 0, 0);
        while length <= MAX_BITS {
            codes.first[length] = code;
            codes.start[length] = place;
            let mut byte = 0;
            while byte < 256 {
                if bits[byte] as usize == length {
                    codes.bytes[place] = byte as u8;
                    place += 1;
                    codes.count[length] += 1;
                }
                byte += 1;
            }
            code = (code + codes.count[length]) << 1;
            length += 1;
        }
        codes
    }
}

/// What was encoded; none where no encoder wrote this.
pub(crate) fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(encoded.len() * 8 / 5);
    let (mut code, mut length) = (0_u32, 0_usize);
    for byte in encoded {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            length += 1;
            if length > MAX_BITS {
                return None;
            }
            let place = code.wrapping_sub(CODES.first[length]);
            if place < CODES.count[length] {
                decoded.push(CODES.bytes[CODES.start[length] + place as usize]);
                (code, length) = (0, 0);
            }
        }
    }
    // What is left is padding: fewer than eight bits, all ones.
    (length < 8 && code == (1 << length) - 1).then_some(decoded)
}

/// Writes over `encoded` a name of `length` bytes that is encoded in just as many bytes as before. False where there is none: that would
/// need more than 13 bits for a byte of it.
pub(crate) fn fill(encoded: &mut [u8], length: usize) -> bool {
    let mut left = encoded.len() * 8;
    if left < length * 5 || left > length * 13 + 7 {
        return false;
    }
    let (mut bits, mut count, mut at) = (0_u64, 0_usize, 0_usize);
    let mut write = |code: u32, length: usize, encoded: &mut [u8]| {
        bits = bits << length | u64::from(code);
        count += length;
        while count >= 8 {
            count -= 8;
            encoded[at] = (bits >> count & 0xff) as u8;
            at += 1;
        }
    };
    for others in (0..length).rev() {
        // The longest that leaves enough for the others.
        let room = left - others * 5;
        let Some((_, bits, code)) = FILLERS.into_iter().find(|(_, bits, _)| *bits <= room) else { return false };
        write(code, bits, encoded);
        left -= bits;
    }
    write((1 << left) - 1, left, encoded);
    true
}

#[cfg(test)]
mod tests {
    use httlib_huffman::DecoderSpeed;
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        httlib_huffman::encode(text, &mut encoded).unwrap();
        encoded
    }

    proptest! {
        #[test]
        fn what_a_library_encodes_is_read(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&encoded(&text)), Some(text));
        }

        #[test]
        fn what_is_filled_in_is_of_the_same_length_to_a_library(text in "[ -~]{1,200}") {
            let mut value = encoded(text.as_bytes());
            let length = value.len();
            if fill(&mut value, text.len()) {
                let mut read = Vec::new();
                httlib_huffman::decode(&value, &mut read, DecoderSpeed::FourBits).unwrap();
                prop_assert_eq!((read.len(), value.len()), (text.len(), length));
                prop_assert!(http::uri::Authority::try_from(&*read).is_ok());
                prop_assert_eq!(decode(&value), Some(read));
            } else {
                prop_assert!(length * 8 > text.len() * 13 + 7);
            }
        }
    }

    #[test]
    fn padding_that_no_encoder_writes_is_refused() {
        assert_eq!(decode(&[0b0000_0000]), None, "zeros at the end");
        assert_eq!(decode(&[0b0000_0111]).as_deref(), Some(&b"0"[..]));
        assert_eq!(decode(&[0b0000_0111, 0xff]), None, "more than seven bits of it");
    }
}
