//! Audio: WAV, FLAC, Ogg (Opus and Vorbis), MP3. (M4A is boxes.)

use super::number::{be32, le16, le32};
use super::{Facts, Next};

/// `count` of something that comes `rate` times a second, in milliseconds.
fn milliseconds(count: u64, rate: u64) -> Option<u64> {
    (rate > 0).then(|| count.saturating_mul(1000) / rate)
}

/// RIFF WAVE: chunks, of which `fmt ` tells bytes per second and `data` how many there are.
#[derive(Debug, Default)]
pub(super) struct Wav {
    begun: bool,
    bytes_per_second: u32,
    /// Where the samples begin, and how many bytes of them are announced.
    data: Option<(u64, u32)>,
    at: u64,
}

impl Wav {
    pub(super) fn step(&mut self, seen: &[u8]) -> Next {
        if !std::mem::replace(&mut self.begun, true) {
            self.at = 12;
            return Next::Skip { bytes: 12, then: 8 };
        }
        if seen.len() < 8 {
            return Next::Skip { bytes: 0, then: 8 };
        }
        let size = le32(seen, 4);
        match &seen[..4] {
            b"fmt " if seen.len() < 24 => return Next::Skip { bytes: 0, then: 24 },
            b"fmt " => self.bytes_per_second = le32(seen, 16),
            b"data" => {
                self.data = Some((self.at + 8, size));
                return Next::Done;
            }
            _ => {}
        }
        // Chunks begin at even places.
        let whole = 8 + u64::from(size) + u64::from(size % 2);
        self.at += whole;
        Next::Skip { bytes: whole, then: 8 }
    }

    /// A header that was written before the end was known announces nothing or the most; then what came counts.
    pub(super) fn finish(&self, facts: &mut Facts) {
        if let Some((begin, announced)) = self.data {
            let there = facts.bytes.saturating_sub(begin);
            let bytes = if matches!(announced, 0 | u32::MAX) { there } else { there.min(u64::from(announced)) };
            facts.milliseconds = milliseconds(bytes, u64::from(self.bytes_per_second));
        }
    }
}

/// RFC 9639, section 8.2: STREAMINFO comes first, with the sample rate in 20 bits and the samples in 36.
pub(super) fn flac(seen: &[u8], facts: &mut Facts) -> Next {
    if seen.len() < 26 {
        return Next::Skip { bytes: 0, then: 26 };
    }
    let rate = be32(seen, 18) >> 12;
    let samples = u64::from(be32(seen, 18) & 0xf) << 32 | u64::from(be32(seen, 22));
    if samples > 0 {
        facts.milliseconds = milliseconds(samples, u64::from(rate));
    }
    Next::Done
}

/// RFC 3533: pages, each with the position of its last sample. The first page says what the positions count.
#[derive(Debug, Default)]
pub(super) struct Ogg {
    rate: u32,
    pre_skip: u64,
    granule: u64,
}

impl Ogg {
    pub(super) fn step(&mut self, seen: &[u8]) -> Next {
        const HEADER: usize = 27;
        if seen.len() < HEADER {
            return Next::Skip { bytes: 0, then: HEADER };
        }
        if &seen[..4] != b"OggS" {
            return Next::Done;
        }
        let segments = usize::from(seen[26]);
        // Of the first page the beginning of its payload as well.
        let wanted = HEADER + segments + if self.rate == 0 { 19 } else { 0 };
        if seen.len() < wanted {
            return Next::Skip { bytes: 0, then: wanted };
        }
        let payload: u64 = seen[HEADER..HEADER + segments].iter().map(|size| u64::from(*size)).sum();
        if self.rate == 0 {
            let codec = &seen[HEADER + segments..];
            if codec.starts_with(b"OpusHead") {
                // RFC 7845, section 4: positions count samples at 48 kHz, whatever the source was.
                (self.rate, self.pre_skip) = (48_000, u64::from(le16(codec, 10)));
            } else if codec.starts_with(b"\x01vorbis") {
                self.rate = le32(codec, 12);
            }
            if self.rate == 0 {
                return Next::Done;
            }
        }
        let granule = u64::from(le32(seen, 6)) | u64::from(le32(seen, 10)) << 32;
        // All ones: no packet ends on this page.
        if granule != u64::MAX {
            self.granule = self.granule.max(granule);
        }
        Next::Skip { bytes: (HEADER + segments) as u64 + payload, then: HEADER }
    }

    pub(super) fn finish(&self, facts: &mut Facts) {
        if self.granule > 0 {
            facts.milliseconds = milliseconds(self.granule.saturating_sub(self.pre_skip), u64::from(self.rate));
        }
    }
}

/// MPEG audio, layer III: an ID3 tag perhaps, then frames; the first may say how many there are.
#[derive(Debug, Default)]
pub(super) struct Mp3 {
    begun: bool,
    /// Where the frames begin.
    at: u64,
    frame: Option<Frame>,
    /// From a `Xing` or `Info` header.
    frames: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    bits_per_second: u32,
    rate: u32,
    samples: u32,
    /// Where a Xing header would stand in it.
    xing: usize,
}

impl Mp3 {
    pub(super) fn step(&mut self, seen: &[u8]) -> Next {
        if !self.begun && seen.len() < 10 {
            return Next::Skip { bytes: 0, then: 10 };
        }
        if !std::mem::replace(&mut self.begun, true) && seen.starts_with(b"ID3") {
            // ID3v2, 3.1: the size in four times seven bits, without its own ten.
            let size =
                seen.get(6..10).unwrap_or_default().iter().fold(0_u64, |size, byte| size << 7 | u64::from(byte & 0x7f));
            self.at = size + 10;
            return Next::Skip { bytes: self.at, then: 4 };
        }
        if seen.len() < 4 {
            return Next::Skip { bytes: 0, then: 4 };
        }
        let Some(frame) = Frame::read(seen) else { return Next::Done };
        let wanted = frame.xing + 12;
        if seen.len() < wanted {
            return Next::Skip { bytes: 0, then: wanted };
        }
        self.frame = Some(frame);
        let header = &seen[frame.xing..];
        if (header.starts_with(b"Xing") || header.starts_with(b"Info")) && be32(header, 4) & 1 == 1 {
            self.frames = Some(be32(header, 8));
        }
        Next::Done
    }

    pub(super) fn finish(&self, facts: &mut Facts) {
        let Some(frame) = self.frame else { return };
        facts.milliseconds = match self.frames {
            Some(frames) => milliseconds(u64::from(frames) * u64::from(frame.samples), u64::from(frame.rate)),
            // All frames are like the first.
            None => milliseconds(facts.bytes.saturating_sub(self.at) * 8, u64::from(frame.bits_per_second)),
        };
    }
}

pub(super) fn is_mp3(seen: &[u8]) -> bool {
    Frame::read(seen).is_some()
}

impl Frame {
    /// ISO 11172-3, 2.4.2.3, and ISO 13818-3 for the lower rates.
    fn read(seen: &[u8]) -> Option<Self> {
        const MPEG_1: [u32; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
        const MPEG_2: [u32; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
        let &[0xff, b, c, d, ..] = seen else { return None };
        // Synchronisation, and layer III.
        if b & 0xe0 != 0xe0 || b >> 1 & 3 != 1 {
            return None;
        }
        let version = b >> 3 & 3;
        let first = version == 3;
        let bitrates = if first { MPEG_1 } else { MPEG_2 };
        let kilobits = *bitrates.get(usize::from(c >> 4).checked_sub(1)?)?;
        let rate = [44_100, 48_000, 32_000].get(usize::from(c >> 2 & 3))?
            >> match version {
                3 => 0,
                2 => 1,
                0 => 2,
                _ => return None,
            };
        let mono = d >> 6 == 3;
        let side = match (first, mono) {
            (true, false) => 32,
            (true, true) | (false, false) => 17,
            (false, true) => 9,
        };
        Some(Self { bits_per_second: kilobits * 1000, rate, samples: if first { 1152 } else { 576 }, xing: 4 + side })
    }
}
