//! Videos: which frames vLLM takes of them (`vllm/multimodal/video.py`), and how large they are then.
//!
//! Releases before mid-2026 took 32 frames of every video: an estimate for them is too low for short videos and too high for long ones.

use super::number::{real, whole};

/// Which frames are taken.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sampling {
    /// Two a second, 4 to 768, an even number (`Qwen2VLVideoBackend`).
    Pairs,
    /// Two a second, 4 to 768 (`Qwen3VLVideoBackend`).
    Each,
    /// Two a second up to 300 s, then 600 (`DynamicVideoBackend`).
    TwoASecond,
    /// So many, spread evenly (`VideoBackend`).
    Uniform(u64),
}

impl Sampling {
    /// Where the frame rate is not known, as many frames as the video could have are assumed.
    pub(super) fn frames(self, seconds: f64, rate: Option<f64>) -> u64 {
        let total = rate.map_or(u64::MAX, |rate| whole((seconds * rate).round()).max(1));
        let twice = seconds * 2.0;
        match self {
            Self::Pairs => {
                let most = 768.min(total) / 2 * 2;
                (whole(twice.max(4.0)).min(most).min(total) / 2 * 2).max(1)
            }
            Self::Each => whole(twice).clamp(4, 768).min(total),
            Self::TwoASecond => (if seconds <= 300.0 { whole(twice).max(1) } else { 600 }).min(total),
            Self::Uniform(frames) => frames.min(total),
        }
    }
}

/// Tokens of a step of two frames, where all frames share a budget of pixels
/// (`qwen3_vl/video_processing_qwen3_vl.py::smart_resize`, and GLM's with other constants).
pub(super) fn budgeted(width: u32, height: u32, frames: u64, unit: u64, min: u64, max: u64) -> u64 {
    let (mut w, mut h) = (f64::from(width.max(1)), f64::from(height.max(1)));
    let u = real(unit);
    if w < u || h < u {
        let scale = (u / w).max(u / h);
        (w, h) = ((w * scale).floor(), (h * scale).floor());
    }
    let near = |side: f64| (side / u).round_ties_even() * u;
    let even = (real(frames) / 2.0).round_ties_even() * 2.0;
    let all = even * near(w) * near(h);
    let (tall, wide) = if all > real(max) {
        let by = (real(frames) * h * w / real(max)).sqrt();
        ((h / by / u).floor().max(1.0), (w / by / u).floor().max(1.0))
    } else if all < real(min) {
        let by = (real(min) / (real(frames) * h * w)).sqrt();
        ((h * by / u).ceil(), (w * by / u).ceil())
    } else {
        (near(h) / u, near(w) / u)
    };
    whole(tall * wide)
}
