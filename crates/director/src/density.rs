//! How many bytes of text are a token to the servers of a pool, as their answers tell.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Learned of every answer that says how many tokens its prompt was.
#[derive(Debug)]
pub(crate) struct Density(AtomicU32);

/// Of English nearly four, of Chinese about three.
pub(crate) const ASSUMED: f32 = 4.0;

/// A tokenizer of bytes has one, less what a template adds; runs of the same have many. Beyond, something else was counted.
const PLAUSIBLE: RangeInclusive<f32> = 0.8..=12.0;

const LEAST: f32 = 1.0;
const MOST: f32 = 8.0;

/// What an answer counts for, beside all before it: a prompt of so many bytes all, and none more than this share.
const ALL: f32 = 65_536.0;
const SHARE: f32 = 1.0 / 16.0;

/// A shorter text, in bytes, tells more of what a template writes around it.
const TELLING: u64 = 1024;

impl Density {
    /// Bytes a token.
    pub(crate) fn bytes(&self) -> f32 {
        f32::from_bits(self.0.load(Relaxed))
    }

    /// So many bytes of text, and nothing else, were so many tokens.
    pub(crate) fn learn(&self, bytes: u64, tokens: u64) {
        if bytes < TELLING || tokens == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio of numbers far below where that matters")]
        let (bytes, tokens) = (bytes as f32, tokens as f32);
        let told = bytes / tokens;
        if !PLAUSIBLE.contains(&told) {
            return;
        }
        let before = self.bytes();
        let change = (told.clamp(LEAST, MOST) - before) * (bytes / ALL).min(SHARE);
        // Of two at once one may be lost.
        self.0.store((before + change).to_bits(), Relaxed);
    }
}

/// How many tokens so many bytes of text are.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an estimate, never below zero"
)]
pub(crate) fn tokens(bytes: u64, bytes_of_a_token: f32) -> u64 {
    (bytes as f32 / bytes_of_a_token) as u64
}

impl Default for Density {
    fn default() -> Self {
        Self(AtomicU32::new(ASSUMED.to_bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_tell_and_no_single_one_misleads() {
        let density = Density::default();
        density.learn(1_000_000, 125_000);
        assert!((4.0..4.5).contains(&density.bytes()), "{}", density.bytes());
        for _ in 0..100 {
            density.learn(30_000, 10_000);
        }
        assert!((density.bytes() - 3.0).abs() < 0.1, "{}", density.bytes());
        for (bytes, tokens) in [(100, 50), (5000, 0), (5000, 1), (5000, u64::MAX)] {
            let before = density.bytes();
            density.learn(bytes, tokens);
            assert_eq!(density.bytes().to_bits(), before.to_bits(), "it tells nothing");
        }
        for _ in 0..10 {
            density.learn(1024, 1024);
        }
        assert!(density.bytes() > 2.5, "ten short ones are not many: {}", density.bytes());
        for _ in 0..200 {
            density.learn(5000, 6000);
        }
        assert!((density.bytes() - LEAST).abs() < 0.01);
    }
}
