//! A header block: finds the value of `:authority` and replaces one that h2 refuses.

use std::ops::Range;

use crate::huffman;

/// `:authority` in the static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;

/// A string as it stands in a block.
struct Literal {
    place: Range<usize>,
    huffman: bool,
}

/// Replaces a value of `:authority` that h2 refuses by one of the same length; answers whether there was one and it could be replaced.
/// A block that is malformed stays as it is.
///
/// A name that is given by an index of the dynamic table is not looked for: `:authority` has a place in the static table, which encoders
/// find first. A value that comes by index was a literal once, and was replaced then.
pub(crate) fn mend(block: &mut [u8]) -> bool {
    find(block).is_some_and(|value| replace(&mut block[value.place], value.huffman))
}

/// The first value of `:authority` that stands in the block itself.
fn find(block: &[u8]) -> Option<Literal> {
    let mut at = 0;
    while let Some(first) = block.get(at) {
        match first {
            // An indexed field, name and value.
            0x80.. => _ = integer(block, &mut at, 7)?,
            // A new size for the dynamic table.
            0x20..0x40 => _ = integer(block, &mut at, 5)?,
            // A literal that goes to the table, or one that does not, or never does.
            _ => {
                let name = match integer(block, &mut at, if *first >= 0x40 { 6 } else { 4 })? {
                    0 => Some(string(block, &mut at)?),
                    index => {
                        let value = string(block, &mut at)?;
                        if index == AUTHORITY {
                            return Some(value);
                        }
                        None
                    }
                };
                if let Some(name) = name {
                    let value = string(block, &mut at)?;
                    if is_authority(&block[name.place], name.huffman) {
                        return Some(value);
                    }
                }
            }
        }
    }
    None
}

fn is_authority(name: &[u8], huffman: bool) -> bool {
    const NAME: &[u8] = b":authority";
    if huffman {
        // Of ten bytes with codes of five to eight bits.
        (7..=10).contains(&name.len()) && huffman::decode(name).is_some_and(|name| name == NAME)
    } else {
        name == NAME
    }
}

/// Whether h2 takes a value is asked of the very function that it asks. Of no bytes nothing else can be made.
fn replace(value: &mut [u8], huffman: bool) -> bool {
    let is_taken = |value: &[u8]| http::uri::Authority::try_from(value).is_ok();
    if huffman {
        let Some(decoded) = huffman::decode(value).filter(|decoded| !decoded.is_empty()) else { return false };
        !is_taken(&decoded) && huffman::fill(value, decoded.len())
    } else if value.is_empty() || is_taken(value) {
        false
    } else {
        value.fill(b'x');
        true
    }
}

/// An integer behind a prefix (RFC 7541, section 5.1); none where it is cut short, or greater than any length here.
fn integer(block: &[u8], at: &mut usize, prefix_bits: u32) -> Option<usize> {
    let mask = (1_usize << prefix_bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn string(block: &[u8], at: &mut usize) -> Option<Literal> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let place = *at..*at + length;
    block.get(place.clone())?;
    *at = place.end;
    Some(Literal { place, huffman })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISTIO: &[u8] = b"outbound|9002||picker.ns.svc.cluster.local";

    fn literal(text: &[u8], huffman: bool) -> Vec<u8> {
        let mut value = text.to_vec();
        if huffman {
            value.clear();
            httlib_huffman::encode(text, &mut value).unwrap();
        }
        let length = u8::try_from(value.len()).unwrap();
        assert!(length < 127, "a length of one byte");
        [&[if huffman { length | 0x80 } else { length }][..], &value].concat()
    }

    /// A block with this between other fields; answers what h2 would read as the authority.
    #[track_caller]
    fn check(representation: &[u8], huffman: bool, value: &[u8], expected: Option<&[u8]>) {
        let before: &[u8] = &[0x3f, 0xe1, 0x1f, 0x83, 0x86, 0x04, 0x02, b'/', b'x'];
        let after: &[u8] = &[0x40, 0x01, b'a', 0x03, b'b', b'|', b'c', 0xc0];
        let value = literal(value, huffman);
        let mut block = [before, representation, &value, after].concat();
        let was = block.clone();
        assert_eq!(mend(&mut block), expected.is_some());
        let at = before.len() + representation.len() + 1;
        let (mended, rest) = (&block[at..at + value.len() - 1], &block[at + value.len() - 1..]);
        assert_eq!((&block[..at], rest), (&was[..at], after), "nothing else changes");
        match expected {
            None => assert_eq!(block, was),
            Some(expected) if huffman => assert_eq!(huffman::decode(mended).as_deref(), Some(expected)),
            Some(expected) => assert_eq!(mended, expected),
        }
    }

    #[test]
    fn every_form_of_the_field_is_found() {
        let name = literal(b":authority", false);
        let coded = literal(b":authority", true);
        let forms: [&[u8]; 6] = [
            &[0x41],
            &[0x01],
            &[0x11],
            &[&[0x40], &*name].concat(),
            &[&[0x00], &*coded].concat(),
            &[&[0x10], &*coded].concat(),
        ];
        for form in forms {
            check(form, false, ISTIO, Some(&[b'x'; 42]));
            check(form, false, b"picker.ns.svc.cluster.local:9002", None);
            check(form, true, b"picker", None);
            check(form, true, b"", None);
            check(form, false, b"", None);
        }
    }

    #[test]
    fn a_coded_value_keeps_both_its_lengths() {
        let mut block = [&[0x41], &*literal(ISTIO, true)].concat();
        let size = block.len();
        assert!(mend(&mut block));
        assert_eq!(block.len(), size);
        assert_eq!(huffman::decode(&block[2..]).unwrap().len(), ISTIO.len());
        assert!(!mend(&mut block), "once is enough");
    }

    #[test]
    fn whatever_else_h2_refuses_is_replaced_as_well() {
        for value in [&b"a b"[..], b"<x>", b"{a}", b"a\\b", b"[::1", b"a:b:c", b"user@", b"\xc3\xa4"] {
            check(&[0x41], false, value, Some(&vec![b'x'; value.len()]));
        }
        // Of bytes with 28 bits each nothing of the same length can be made.
        check(&[0x41], true, &[1, 2, 3], None);
    }

    #[test]
    fn what_is_cut_short_stays_as_it_is() {
        let block = [&[0x82, 0x41], &*literal(ISTIO, false)].concat();
        for end in 0..block.len() {
            let mut cut = block[..end].to_vec();
            assert!(!mend(&mut cut) && cut == block[..end]);
        }
        for malformed in [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]] {
            assert!(!mend(&mut malformed.to_vec()));
        }
    }
}
