//! ISO base media (ISO 14496-12): MP4, QuickTime, M4A, and the pictures in the same boxes, AVIF and HEIF.
//!
//! Boxes that hold boxes are entered by reading on behind their header, so that no stack is needed; all others are passed by.

use routing::Format;

use super::number::{be32, be64};
use super::{Facts, Next};

#[derive(Debug, Default)]
pub(super) struct Boxes {
    /// The leaf that is wanted next, and how many of its bytes follow the header.
    leaf: Option<([u8; 4], u64)>,
    milliseconds: Option<u64>,
    track: Track,
    /// Pictures of the video track with the most of them.
    frames: Option<u32>,
}

#[derive(Debug, Default)]
struct Track {
    size: (u32, u32),
    is_video: bool,
}

/// A box's header.
const HEADER: usize = 8;

/// So much of a leaf is read; what is wanted of each stands at its beginning.
const LEAF: u64 = 128;

pub(super) fn format_of_brand(seen: &[u8]) -> Format {
    match seen.get(8..12) {
        Some(b"avif" | b"avis") => Format::Avif,
        Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1") => Format::Heif,
        Some(b"M4A " | b"M4B ") => Format::M4a,
        Some(b"qt  ") => Format::QuickTime,
        _ => Format::Mp4,
    }
}

impl Boxes {
    pub(super) fn step(&mut self, seen: &[u8], facts: &mut Facts) -> Next {
        if let Some((kind, left)) = self.leaf {
            let want = left.min(LEAF);
            if (seen.len() as u64) < want {
                return Next::Skip { bytes: 0, then: usize::try_from(want).unwrap_or_default() };
            }
            self.leaf = None;
            self.read(kind, &seen[..usize::try_from(want).unwrap_or_default()], facts);
            return Next::Skip { bytes: left, then: HEADER };
        }
        if seen.len() < HEADER {
            return Next::Skip { bytes: 0, then: HEADER };
        }
        let kind: [u8; 4] = [seen[4], seen[5], seen[6], seen[7]];
        let (header, size) = match be32(seen, 0) {
            // To the end of the file.
            0 => return Next::Done,
            1 if seen.len() < 16 => return Next::Skip { bytes: 0, then: 16 },
            1 => (16, be64(seen, 8)),
            size => (8, u64::from(size)),
        };
        let Some(content) = size.checked_sub(header) else { return Next::Done };
        match &kind {
            b"moov" | b"mdia" | b"minf" | b"stbl" | b"iprp" | b"ipco" => Next::Skip { bytes: header, then: HEADER },
            b"trak" => {
                self.track = Track::default();
                Next::Skip { bytes: header, then: HEADER }
            }
            // Version and flags come before what it holds.
            b"meta" => Next::Skip { bytes: header + 4, then: HEADER },
            b"mvhd" | b"tkhd" | b"hdlr" | b"stsz" | b"ispe" => {
                self.leaf = Some((kind, content));
                Next::Skip { bytes: header, then: usize::try_from(content.min(LEAF)).unwrap_or_default() }
            }
            _ => Next::Skip { bytes: size, then: HEADER },
        }
    }

    fn read(&mut self, kind: [u8; 4], leaf: &[u8], facts: &mut Facts) {
        let long = leaf.first() == Some(&1);
        match &kind {
            b"mvhd" => {
                let (scale, duration) =
                    if long { (be32(leaf, 20), be64(leaf, 24)) } else { (be32(leaf, 12), u64::from(be32(leaf, 16))) };
                let unknown = duration == 0 || duration == u64::from(u32::MAX) || duration == u64::MAX;
                self.milliseconds = (scale > 0 && !unknown).then(|| duration.saturating_mul(1000) / u64::from(scale));
            }
            b"tkhd" => {
                // Fixed point, 16.16, at the end of the box.
                let at = if long { 88 } else { 76 };
                self.track.size = (be32(leaf, at) >> 16, be32(leaf, at + 4) >> 16);
            }
            b"hdlr" if leaf.get(8..12) == Some(b"vide") => {
                self.track.is_video = true;
                facts.grow_to(self.track.size.0, self.track.size.1);
            }
            b"stsz" if self.track.is_video => self.frames = self.frames.max(Some(be32(leaf, 8))),
            b"ispe" => facts.grow_to(be32(leaf, 4), be32(leaf, 8)),
            _ => {}
        }
    }

    pub(super) fn finish(&self, facts: &mut Facts) {
        facts.milliseconds = self.milliseconds;
        facts.frames = self.frames.filter(|frames| *frames > 0);
        // Audio in a video's file is audio: browsers record it so.
        if facts.format == Some(Format::Mp4) && facts.size.is_none() && self.milliseconds.is_some() {
            facts.format = Some(Format::M4a);
        }
    }
}
