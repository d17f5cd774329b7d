//! Pictures: PNG, JPEG, GIF, WebP, BMP, TIFF. (AVIF and HEIF are boxes.)

use super::number::{be16, be32, le16, le24, le32};
use super::{Facts, Next};

#[derive(Debug)]
pub(super) enum Image {
    Png,
    Gif,
    WebP,
    Bmp,
    Jpeg {
        begun: bool,
    },
    Tiff {
        big_endian: bool,
        /// Where the first directory begins, and entries of it that are left once it has begun.
        directory: u64,
        entries: Option<u16>,
        size: (u32, u32),
    },
}

impl Image {
    pub(super) fn tiff(seen: &[u8]) -> Self {
        let big_endian = seen.first() == Some(&b'M');
        let directory = if big_endian { be32(seen, 4) } else { le32(seen, 4) };
        Self::Tiff { big_endian, directory: u64::from(directory), entries: None, size: (0, 0) }
    }

    /// Each of the fixed headers is asked for whole, and read when it is there.
    pub(super) fn step(&mut self, seen: &[u8], facts: &mut Facts) -> Next {
        let whole = |size: usize| (seen.len() < size).then_some(Next::Skip { bytes: 0, then: size });
        match self {
            // PNG (ISO 15948), 11.2.2: width and height at 16 and 20.
            Self::Png => whole(24).unwrap_or_else(|| {
                facts.grow_to(be32(seen, 16), be32(seen, 20));
                Next::Done
            }),
            Self::Gif => whole(10).unwrap_or_else(|| {
                facts.grow_to(u32::from(le16(seen, 6)), u32::from(le16(seen, 8)));
                Next::Done
            }),
            Self::Bmp => whole(26).unwrap_or_else(|| {
                let (width, height) = match le32(seen, 14) {
                    // OS/2's header has 16 bits for each.
                    12 => (u32::from(le16(seen, 18)), u32::from(le16(seen, 20))),
                    _ => (le32(seen, 18), le32(seen, 22)),
                };
                // A negative height says that rows go from top to bottom.
                facts.grow_to(width.cast_signed().unsigned_abs(), height.cast_signed().unsigned_abs());
                Next::Done
            }),
            Self::WebP => whole(30).unwrap_or_else(|| {
                web_p(seen, facts);
                Next::Done
            }),
            Self::Jpeg { begun } => jpeg(begun, seen, facts),
            Self::Tiff { big_endian, directory, entries, size } => {
                tiff(*big_endian, *directory, entries, size, seen, facts)
            }
        }
    }
}

/// RFC 9649: a canvas in VP8X, else the size in the stream itself.
fn web_p(seen: &[u8], facts: &mut Facts) {
    match &seen[12..16] {
        b"VP8X" => facts.grow_to(le24(seen, 24) + 1, le24(seen, 27) + 1),
        b"VP8L" => {
            let bits = le32(seen, 21);
            facts.grow_to((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1);
        }
        b"VP8 " => facts.grow_to(u32::from(le16(seen, 26)) & 0x3fff, u32::from(le16(seen, 28)) & 0x3fff),
        _ => {}
    }
}

/// ITU T.81, annex B: segments, one of which begins a frame. Cameras put previews of hundreds of KB before it.
fn jpeg(begun: &mut bool, seen: &[u8], facts: &mut Facts) -> Next {
    if !std::mem::replace(begun, true) {
        return Next::Skip { bytes: 2, then: 4 };
    }
    if seen.len() < 4 {
        return Next::Skip { bytes: 0, then: 4 };
    }
    match (seen[0], seen[1]) {
        // Markers may be preceded by any number of fill bytes.
        (0xff, 0xff) => Next::Skip { bytes: 1, then: 4 },
        (0xff, 0x01 | 0xd0..=0xd7) => Next::Skip { bytes: 2, then: 4 },
        // Start of frame, in each of its kinds.
        (0xff, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf) => {
            if seen.len() < 9 {
                return Next::Skip { bytes: 0, then: 9 };
            }
            facts.grow_to(u32::from(be16(seen, 7)), u32::from(be16(seen, 5)));
            Next::Done
        }
        // Entropy-coded data begins, or the picture ends.
        (0xff, 0xda | 0xd9) => Next::Done,
        (0xff, _) => Next::Skip { bytes: 2 + u64::from(be16(seen, 2).max(2)), then: 4 },
        _ => Next::Done,
    }
}

/// TIFF 6.0, section 2: entries of 12 bytes in the first directory; ImageWidth is 256, ImageLength 257.
fn tiff(
    big_endian: bool,
    directory: u64,
    entries: &mut Option<u16>,
    size: &mut (u32, u32),
    seen: &[u8],
    facts: &mut Facts,
) -> Next {
    let short = |at| if big_endian { u32::from(be16(seen, at)) } else { u32::from(le16(seen, at)) };
    let long = |at| if big_endian { be32(seen, at) } else { le32(seen, at) };
    let Some(left) = entries else {
        *entries = Some(u16::MAX);
        return Next::Skip { bytes: directory, then: 2 };
    };
    if *left == u16::MAX {
        if seen.len() < 2 {
            return Next::Done;
        }
        // Of more than 1000 entries none is needed.
        *left = u16::try_from(short(0)).unwrap_or(0).min(1000);
        return Next::Skip { bytes: 2, then: 12 };
    }
    if *left == 0 || seen.len() < 12 {
        return Next::Done;
    }
    *left -= 1;
    let value = if short(2) == 3 { short(8) } else { long(8) };
    match short(0) {
        256 => size.0 = value,
        257 => size.1 = value,
        _ => {}
    }
    if size.0 > 0 && size.1 > 0 {
        facts.grow_to(size.0, size.1);
        return Next::Done;
    }
    Next::Skip { bytes: 12, then: 12 }
}
