//! How many bytes of text are a token to the servers of a pool, as their answers tell.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Learned of every answer that says how many tokens its prompt was.
#[derive(Debug)]
pub(crate) struct Density(AtomicU32);

/// Of English nearly four, of Chinese about three.
const ASSUMED: f32 = 4.0;

/// A tokenizer of bytes has one. Of more than eight no text is: a server then counts something else.
const LEAST: f32 = 1.0;
const MOST: f32 = 8.0;

/// What one answer counts for, beside all before it.
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
        let told = (bytes as f32 / tokens as f32).clamp(LEAST, MOST);
        let before = self.bytes();
        // Of two at once one may be lost.
        self.0.store((before + (told - before) * SHARE).to_bits(), Relaxed);
    }
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
        density.learn(1_000_000, 1);
        assert!((4.0..4.5).contains(&density.bytes()), "{}", density.bytes());
        for _ in 0..100 {
            density.learn(30_000, 10_000);
        }
        assert!((density.bytes() - 3.0).abs() < 0.1, "{}", density.bytes());
        for (bytes, tokens) in [(100, 1), (5000, 0)] {
            let before = density.bytes();
            density.learn(bytes, tokens);
            assert_eq!(density.bytes().to_bits(), before.to_bits(), "it tells nothing");
        }
        for _ in 0..200 {
            density.learn(5000, u64::MAX);
        }
        assert!((density.bytes() - LEAST).abs() < 0.01);
    }
}
