//! Pictures: PNG, JPEG, GIF, WebP, BMP, TIFF. (AVIF and HEIF are boxes.)

use super::number::{be16, be32, le16, le24, le32};
use super::{Facts, Next};

#[derive(Debug)]
pub(super) enum Image {
    Png {
        begun: bool,
    },
    Gif(Gif),
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
            Self::Png { begun } => png(begun, seen, facts),
            Self::Gif(gif) => gif.step(seen, facts),
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

/// PNG (ISO 15948), 5.3 and 11.2.2: chunks, the first of which has width and height. Some readers take a second one, so the largest counts.
fn png(begun: &mut bool, seen: &[u8], facts: &mut Facts) -> Next {
    if !std::mem::replace(begun, true) {
        return Next::Skip { bytes: 8, then: 8 };
    }
    if seen.len() < 8 {
        return Next::Skip { bytes: 0, then: 8 };
    }
    match &seen[4..8] {
        b"IHDR" if seen.len() < 16 => return Next::Skip { bytes: 0, then: 16 },
        b"IHDR" => facts.grow_to(be32(seen, 8), be32(seen, 12)),
        b"IDAT" | b"IEND" => return Next::Done,
        _ => {}
    }
    // Length, type and checksum around the content.
    Next::Skip { bytes: u64::from(be32(seen, 0)) + 12, then: 8 }
}

/// GIF89a: a screen, then blocks; a picture may be larger than its screen, and some readers make room for it.
#[derive(Debug, Default)]
pub(super) enum Gif {
    #[default]
    Start,
    Block,
    /// Pieces of at most 255 bytes, to an empty one.
    Pieces,
}

impl Gif {
    fn step(&mut self, seen: &[u8], facts: &mut Facts) -> Next {
        let colours = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
        match self {
            Self::Start if seen.len() < 13 => Next::Skip { bytes: 0, then: 13 },
            Self::Start => {
                facts.grow_to(le16(seen, 6).into(), le16(seen, 8).into());
                *self = Self::Block;
                Next::Skip { bytes: 13 + colours(seen[10]), then: 1 }
            }
            Self::Block => match seen.first() {
                None => Next::Skip { bytes: 0, then: 1 },
                // An extension: its label, then pieces.
                Some(0x21) => {
                    *self = Self::Pieces;
                    Next::Skip { bytes: 2, then: 1 }
                }
                Some(0x2c) if seen.len() < 10 => Next::Skip { bytes: 0, then: 10 },
                Some(0x2c) => {
                    let [left, top, width, height] = [1, 3, 5, 7].map(|place| u32::from(le16(seen, place)));
                    let (screen_width, screen_height) = facts.size.unwrap_or_default();
                    facts.grow_to(screen_width.max(left + width), screen_height.max(top + height));
                    *self = Self::Pieces;
                    // Its colours, and the size of its codes.
                    Next::Skip { bytes: 10 + colours(seen[9]) + 1, then: 1 }
                }
                Some(_) => Next::Done,
            },
            Self::Pieces => match seen.first() {
                None => Next::Skip { bytes: 0, then: 1 },
                Some(0) => {
                    *self = Self::Block;
                    Next::Skip { bytes: 1, then: 1 }
                }
                Some(size) => Next::Skip { bytes: 1 + u64::from(*size), then: 1 },
            },
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
