//! Audio: mel frames of 10 ms at 16 kHz, gathered in steps.

use super::number::whole;

/// How a family counts audio.
#[derive(Debug, Clone, Copy)]
pub(super) enum Audio {
    Fixed(u64),
    /// Two halvings of at most so many mel frames.
    Quartered {
        frames: u64,
    },
    Thirteen,
    Gemma4,
    /// So many for each started clip.
    Clips {
        seconds: f64,
        tokens: u64,
        extra: u64,
    },
    Sixteenths,
    Eighths,
}

const SAMPLES_PER_SECOND: f64 = 16_000.0;

/// Samples from one mel frame to the next.
const HOP: u64 = 160;

impl Audio {
    pub(super) fn tokens(self, seconds: f64) -> u64 {
        let samples = whole((seconds * SAMPLES_PER_SECOND).round());
        let frames = samples.div_ceil(HOP);
        match self {
            Self::Fixed(tokens) => tokens,
            Self::Quartered { frames: most } => {
                let halved = halved(frames.min(most));
                halved.saturating_sub(2) / 2 + u64::from(halved >= 2)
            }
            Self::Thirteen => {
                let rest = frames % 100;
                halved(halved(halved(rest))) + frames / 100 * 13
            }
            Self::Gemma4 => {
                let mel = (samples + 160).saturating_sub(321) / HOP + 1;
                halved(halved(mel)).min(750) + 2
            }
            Self::Clips { seconds: clip, tokens, extra } => whole((seconds / clip).ceil()).max(1) * tokens + extra,
            Self::Sixteenths => frames / 3000 * 3000_u64.div_ceil(16) + (frames % 3000).div_ceil(16),
            Self::Eighths => (samples.saturating_sub(400) / HOP + 1).div_ceil(8),
        }
    }
}

/// What a convolution of stride two leaves.
fn halved(frames: u64) -> u64 {
    frames.div_ceil(2)
}
