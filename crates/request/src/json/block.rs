//! How far a string goes on, looked at 64 bytes at a time as bit masks, as the first stage of simdjson does (Langdale and Lemire, "Parsing
//! gigabytes of JSON per second", 2019).

use fearless_simd::{Level, Simd, SimdBase as _, SimdMask as _, dispatch, u8x64};

const BLOCK: usize = 64;

/// Of an escape with four digits that begins here the block does not hold the end.
const LAST: u64 = u64::MAX << (BLOCK - 4);

/// Bytes at the beginning of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) length: usize,
    /// Whether there may be something among them that is not ASCII.
    pub(super) high: bool,
}

/// How far there is neither a quote nor a control character nor a backslash; `over_escapes`, also none but those that begin an escape of
/// what is no letter or sign of ASCII, or of one that cannot stand for itself.
pub(super) fn run(bytes: &[u8], over_escapes: bool) -> Run {
    run_at(Level::new(), bytes, over_escapes)
}

fn run_at(level: Level, bytes: &[u8], over_escapes: bool) -> Run {
    dispatch!(level, simd => if over_escapes { through::<_, true>(simd, bytes) } else { through::<_, false>(simd, bytes) })
}

/// What bytes of a block are, a bit each.
#[derive(Debug, Clone, Copy)]
struct Block<S: Simd>(u8x64<S>);

#[inline(always)]
#[expect(clippy::inline_always, reason = "or it is compiled for the oldest processors")]
fn through<S: Simd, const OVER_ESCAPES: bool>(simd: S, bytes: &[u8]) -> Run {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut last = [b' '; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    let mut all = u8x64::splat(simd, 0);
    // Whether the first byte of a block is one that was escaped before it.
    let mut escaped_first = false;
    for (number, block) in blocks.iter().chain([&last]).enumerate() {
        let start = number * BLOCK;
        let block = Block(u8x64::from_slice(simd, block));
        all |= block.0;
        let (quotes, backslashes) = (block.is(b'"'), block.is(b'\\'));
        let mut stops = quotes | block.below(b' ');
        if !OVER_ESCAPES {
            stops |= backslashes;
        } else if backslashes != 0 || escaped_first {
            let escaped = escaped(backslashes, &mut escaped_first);
            let passed = passed(block, escaped, start, bytes);
            // A stop at what is escaped is one at its backslash.
            let refused = escaped & !passed;
            let escaped_stop = refused.trailing_zeros() as usize;
            stops &= !escaped;
            if refused != 0 && stops.trailing_zeros() as usize >= escaped_stop {
                return Run { length: start + escaped_stop - 1, high: high(all) };
            }
        }
        if stops != 0 {
            let length = start + stops.trailing_zeros() as usize;
            return Run { length, high: high(all) };
        }
    }
    Run { length: bytes.len(), high: high(all) }
}

/// The bytes that a backslash takes, of which the first may be that of the block before.
fn escaped(backslashes: u64, escaped_first: &mut bool) -> u64 {
    // Nearly always each stands alone.
    if !*escaped_first && backslashes & backslashes << 1 == 0 {
        *escaped_first = backslashes >> 63 != 0;
        return backslashes << 1;
    }
    let mut escaped = u64::from(std::mem::take(escaped_first));
    let mut left = backslashes & !escaped;
    while left != 0 {
        let backslash = left & left.wrapping_neg();
        escaped |= backslash << 1;
        *escaped_first = backslash >> 63 != 0;
        left &= !(backslash | backslash << 1);
    }
    escaped
}

/// Those that are escaped and need not be looked at more closely.
#[inline(always)]
#[expect(clippy::inline_always, reason = "or it is compiled for the oldest processors")]
fn passed<S: Simd>(block: Block<S>, escaped: u64, start: usize, bytes: &[u8]) -> u64 {
    let signs = block.is(b'"') | block.is(b'\\') | block.is(b'/');
    let passed = escaped & (signs | block.is(b'n') | block.is(b't') | block.is(b'r') | block.is(b'b') | block.is(b'f'));
    let unicode = escaped & block.is(b'u');
    if unicode == 0 {
        return passed;
    }
    let (digit, zero) = (block.hex_digits(), block.is(b'0'));
    let digits = digit >> 1 & digit >> 2 & digit >> 3 & digit >> 4;
    let ascii = zero >> 1 & zero >> 2 & block.below(b'8') >> 3;
    let mut passed = passed | unicode & digits & !ascii & !LAST;
    let mut last = unicode & LAST;
    while last != 0 {
        let at = last.trailing_zeros() as usize;
        passed |= u64::from(is_beyond_ascii(bytes.get(start + at + 1..).unwrap_or_default())) << at;
        last &= last - 1;
    }
    passed
}

/// Whether the four digits of an escape are there, and stand for something beyond ASCII.
fn is_beyond_ascii(digits: &[u8]) -> bool {
    let Some(&[a, b, c, d]) = digits.first_chunk() else { return false };
    let [a, b, c, d] = [a, b, c, d].map(|digit| HEX[usize::from(digit)]);
    (a | b | c | d) < 16 && (a | b | c & 8) != 0
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "or it is compiled for the oldest processors")]
fn high<S: Simd>(all: u8x64<S>) -> bool {
    all.simd_ge(0x80).to_bitmask() != 0
}

#[expect(clippy::inline_always, reason = "or it is compiled for the oldest processors")]
impl<S: Simd> Block<S> {
    #[inline(always)]
    fn is(self, byte: u8) -> u64 {
        self.0.simd_eq(byte).to_bitmask()
    }

    #[inline(always)]
    fn below(self, byte: u8) -> u64 {
        self.0.simd_lt(byte).to_bitmask()
    }

    #[inline(always)]
    fn hex_digits(self) -> u64 {
        let between = |bytes: u8x64<S>, first: u8, last: u8| (bytes - first).simd_le(last - first).to_bitmask();
        between(self.0, b'0', b'9') | between(self.0 | 0x20, b'a', b'f')
    }
}

/// What a hexadecimal digit stands for; 16 for what is none.
pub(super) const HEX: [u8; 256] = {
    let mut table = [16; 256];
    let digits = *b"0123456789abcdef";
    let mut value = 0_u8;
    while value < 16 {
        let digit = digits[value as usize];
        table[digit as usize] = value;
        table[digit.to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, a byte at a time.
    fn plainly(bytes: &[u8], over_escapes: bool) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += match (byte, bytes.get(at + 1)) {
                (b'\\', Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) if over_escapes => 2,
                (b'\\', Some(b'u')) if over_escapes && is_beyond_ascii(&bytes[at + 2..]) => 6,
                (b'"' | b'\\' | 0..0x20, _) => return at,
                _ => 1,
            };
        }
        at
    }

    fn levels() -> Vec<Level> {
        let level = Level::new();
        #[cfg(target_arch = "x86_64")]
        return [
            level.as_sse2().map(Level::Sse2),
            level.as_sse4_2().map(Level::Sse4_2),
            level.as_avx2().map(Level::Avx2),
        ]
        .into_iter()
        .flatten()
        .chain([level])
        .collect();
        #[cfg(not(target_arch = "x86_64"))]
        vec![level]
    }

    /// What follows, of which each case lacks some.
    const AFTER: &str = "\" and more";

    proptest! {
        #[test]
        fn blocks_and_bytes_agree(
            parts in prop::collection::vec(prop::sample::select(vec![
                "a", "é", "\\n", "\\\\", "\\\"", "\\u4e2d", "\\ud83d\\ude00", "\\u00e9", "thirty bytes that are all plain", "中文",
                "\\\\\\\\\\\\", "\\u0800\\u0080",
            ]), 0..60),
            end in prop::sample::select(vec!["", "\"", "\n", "\\u0041", "\\x", "\\", "\\u12", "\\u12g4", "\\\n", "\\u00\"0"]),
            cut in 0..=AFTER.len(),
            over_escapes: bool,
        ) {
            let text = parts.concat() + end + AFTER;
            let bytes = &text.as_bytes()[..text.len() - cut];
            for level in levels() {
                let run = run_at(level, bytes, over_escapes);
                prop_assert_eq!(run.length, plainly(bytes, over_escapes), "{:?}", level);
                prop_assert!(run.high || bytes[..run.length].is_ascii());
            }
        }

        #[test]
        fn any_bytes_agree(bytes: Vec<u8>, over_escapes: bool) {
            prop_assert_eq!(run(&bytes, over_escapes).length, plainly(&bytes, over_escapes));
        }
    }

    #[test]
    fn escapes_of_ascii_are_not_passed_over() {
        for (digits, is_beyond) in [
            ("003c", false),
            ("007F", false),
            ("0080", true),
            ("00e9", true),
            ("1000", true),
            ("D83D", true),
            ("00", false),
            ("zz00", false),
            ("0g80", false),
        ] {
            assert_eq!(is_beyond_ascii(digits.as_bytes()), is_beyond, "{digits}");
            let escape = format!("\\u{digits}");
            assert_eq!(run(escape.as_bytes(), true).length, if is_beyond { 6 } else { 0 }, "{digits}");
        }
    }
}
