//! EBML (RFC 8794), as far as WebM and Matroska need it: how long, how large, how many pictures a second.

use routing::Format;

use super::{Facts, Next};

#[derive(Debug, Default)]
pub(super) struct Ebml {
    /// The leaf that is wanted next, and its size.
    leaf: Option<(u32, u64)>,
    /// Nanoseconds that one unit of `Duration` stands for.
    scale: Option<u64>,
    duration: Option<f64>,
    track: Track,
    /// Nanoseconds from one picture to the next, of the track with the largest.
    frame_duration: Option<u64>,
}

/// What is known of the track at hand; its fields come in any order.
#[derive(Debug, Default)]
struct Track {
    is_video: bool,
    width: u32,
    height: u32,
    frame_duration: Option<u64>,
}

/// `TrackType` of video.
const IS_VIDEO: u64 = 1;

/// An identifier of four bytes and a size of eight.
const HEADER: usize = 12;

// RFC 9559, section 5.
const EBML: u32 = 0x1A45_DFA3;
const DOC_TYPE: u32 = 0x4282;
const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_A966;
const TIMESTAMP_SCALE: u32 = 0x2A_D7B1;
const DURATION: u32 = 0x4489;
const TRACKS: u32 = 0x1654_AE6B;
const TRACK_ENTRY: u32 = 0xAE;
const TRACK_TYPE: u32 = 0x83;
const DEFAULT_DURATION: u32 = 0x23_E383;
const VIDEO: u32 = 0xE0;
const PIXEL_WIDTH: u32 = 0xB0;
const PIXEL_HEIGHT: u32 = 0xBA;
const CLUSTER: u32 = 0x1F43_B675;

impl Ebml {
    pub(super) fn step(&mut self, seen: &[u8], facts: &mut Facts) -> Next {
        if let Some((id, size)) = self.leaf {
            let size_here = usize::try_from(size).unwrap_or(usize::MAX);
            if seen.len() < size_here {
                return Next::Skip { bytes: 0, then: size_here };
            }
            self.leaf = None;
            self.read(id, &seen[..size_here], facts);
            return Next::Skip { bytes: size, then: HEADER };
        }
        if seen.len() < HEADER {
            return Next::Skip { bytes: 0, then: HEADER };
        }
        let Some((id, size, header)) = element(seen) else { return Next::Done };
        match id {
            TRACK_ENTRY => {
                self.end_of_track(facts);
                Next::Skip { bytes: header, then: HEADER }
            }
            EBML | SEGMENT | INFO | TRACKS | VIDEO => Next::Skip { bytes: header, then: HEADER },
            // Pictures begin; what was not said before is not waited for.
            CLUSTER => Next::Done,
            _ if size == u64::MAX => Next::Done,
            DOC_TYPE | TIMESTAMP_SCALE | DURATION | TRACK_TYPE | DEFAULT_DURATION | PIXEL_WIDTH | PIXEL_HEIGHT
                if size <= 16 =>
            {
                self.leaf = Some((id, size));
                Next::Skip { bytes: header, then: usize::try_from(size).unwrap_or_default() }
            }
            _ => Next::Skip { bytes: header.saturating_add(size), then: HEADER },
        }
    }

    fn read(&mut self, id: u32, leaf: &[u8], facts: &mut Facts) {
        let unsigned = leaf.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        match id {
            DOC_TYPE if leaf.starts_with(b"webm") => facts.format = Some(Format::WebM),
            TIMESTAMP_SCALE => self.scale = Some(unsigned),
            DURATION => {
                self.duration = match leaf.len() {
                    4 => leaf.try_into().ok().map(f32::from_be_bytes).map(f64::from),
                    8 => leaf.try_into().ok().map(f64::from_be_bytes),
                    _ => None,
                }
            }
            TRACK_TYPE => self.track.is_video = unsigned == IS_VIDEO,
            DEFAULT_DURATION => self.track.frame_duration = Some(unsigned).filter(|duration| *duration > 0),
            PIXEL_WIDTH => self.track.width = u32::try_from(unsigned).unwrap_or(u32::MAX),
            PIXEL_HEIGHT => self.track.height = u32::try_from(unsigned).unwrap_or(u32::MAX),
            _ => {}
        }
    }

    fn end_of_track(&mut self, facts: &mut Facts) {
        let Track { is_video, width, height, frame_duration } = std::mem::take(&mut self.track);
        let before = facts.size;
        // A size counts whatever the track says it is: a limit on pixels is not to be talked out of.
        facts.grow_to(width, height);
        if is_video && facts.size != before {
            self.frame_duration = frame_duration;
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a length in milliseconds; `as` keeps within the range, and anything absurd stays absurd"
    )]
    pub(super) fn finish(&mut self, facts: &mut Facts) {
        self.end_of_track(facts);
        let scale = self.scale.unwrap_or(1_000_000);
        let milliseconds = self.duration.filter(|d| *d > 0.0).map(|d| (d * scale as f64 / 1e6) as u64);
        facts.milliseconds = milliseconds;
        if facts.size.is_some() {
            let frames = self.frame_duration.zip(milliseconds).map(|(each, all)| all.saturating_mul(1_000_000) / each);
            facts.frames = frames.map(|frames| u32::try_from(frames).unwrap_or(u32::MAX)).filter(|frames| *frames > 0);
        }
    }
}

/// An element's identifier, the size of its content (the greatest number when it is not known), and the size of its header.
fn element(seen: &[u8]) -> Option<(u32, u64, u64)> {
    let id_length = 1 + usize::try_from(seen.first()?.leading_zeros()).ok()?;
    if id_length > 4 {
        return None;
    }
    let id = seen[..id_length].iter().fold(0_u32, |id, byte| id << 8 | u32::from(*byte));
    let first = *seen.get(id_length)?;
    let size_length = 1 + usize::try_from(first.leading_zeros()).ok()?;
    if size_length > 8 {
        return None;
    }
    let rest = seen.get(id_length + 1..id_length + size_length)?;
    let value_bits = u64::from(first) & ((1 << (8 - size_length)) - 1);
    let size = rest.iter().fold(value_bits, |size, byte| size << 8 | u64::from(*byte));
    let unknown = (1_u64 << (7 * size_length)) - 1;
    Some((id, if size == unknown { u64::MAX } else { size }, (id_length + size_length) as u64))
}
