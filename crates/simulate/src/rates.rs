//! How long a model takes for what, on its accelerators.
//!
//! Fitted on AIConfigurator 0.12.0's measured operator tables alone (its rows for vLLM 0.14): `cli estimate --estimate-mode static`, encode,
//! prefill with the tokens of the media, and time per output token, at batches of 1 to 64.

use serde::Deserialize;

/// A model on an accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Hardware {
    /// Qwen3-VL-8B on one H100.
    #[serde(rename = "qwen3-vl-8b-h100")]
    Qwen3Vl8bH100,
    /// Qwen3-VL-32B on two H100.
    #[serde(rename = "qwen3-vl-32b-2xh100")]
    Qwen3Vl32b2xH100,
    /// The same on two H200.
    #[serde(rename = "qwen3-vl-32b-2xh200")]
    Qwen3Vl32b2xH200,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rates {
    /// Of an item: `a + b·MP + c·MP²`, in millions of pixels.
    encode: [f64; 3],
    /// Of a prompt: so much by itself, and so much for each token.
    prefill: [f64; 2],
    /// Of a token of each answer under way: alone, and more for each other one.
    decode: [f64; 2],
    /// How much longer everything takes in an engine than its operators.
    engine: f64,
}

impl Hardware {
    pub(crate) const fn rates(self) -> Rates {
        match self {
            Self::Qwen3Vl8bH100 => {
                Rates { encode: [1.3, 8.9, 3.75], prefill: [3.0, 0.0195], decode: [6.36, 0.11], engine: ENGINE }
            }
            Self::Qwen3Vl32b2xH100 => {
                Rates { encode: [1.3, 8.9, 3.75], prefill: [5.0, 0.0505], decode: [13.4, 0.21], engine: ENGINE }
            }
            Self::Qwen3Vl32b2xH200 => {
                Rates { encode: [1.3, 8.9, 3.75], prefill: [5.0, 0.0505], decode: [10.8, 0.145], engine: ENGINE }
            }
        }
    }
}

/// llm-d measured 15,751 tokens a second where the tables say 19,100 (Qwen3-VL-32B on two H100, `peakPrefillThroughput`).
const ENGINE: f64 = 1.21;

impl Rates {
    /// To encode an item of so many millions of pixels.
    pub(crate) fn encode(&self, megapixels: f64) -> f64 {
        let [a, b, c] = self.encode;
        self.engine * (a + b * megapixels + c * megapixels * megapixels)
    }

    /// To read so many tokens of a prompt in one step.
    pub(crate) fn prefill(&self, tokens: u64) -> f64 {
        self.engine * self.prefill[1] * tokens as f64
    }

    /// Of a step by itself, when nothing is decoded in it.
    pub(crate) fn step(&self) -> f64 {
        self.engine * self.prefill[0]
    }

    /// To write one token of each of so many answers.
    pub(crate) fn decode(&self, answers: usize) -> f64 {
        self.engine * (self.decode[0] + self.decode[1] * answers.saturating_sub(1) as f64)
    }
}

/// Tokens of a picture of so many millions of pixels, for Qwen3-VL: one for each 32 × 32.
pub(crate) fn tokens_of(megapixels: f64) -> u32 {
    (megapixels * 1e6 / 1024.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the tables, in milliseconds: what they say, and what the fit makes of it, without what an engine adds.
    #[test]
    fn the_fit_is_within_a_tenth_of_the_tables() {
        let near = |what: &str, fitted: f64, table: f64, share: f64| {
            assert!((fitted / table - 1.0).abs() <= share, "{what}: {fitted:.1} for {table}");
        };
        let small = Hardware::Qwen3Vl8bH100.rates();
        for (megapixels, table) in [(0.262, 3.9), (0.922, 11.8), (2.074, 36.9), (4.194, 104.3)] {
            near("encode", small.encode(megapixels) / ENGINE, table, 0.1);
        }
        let prefill = |rates: Rates, tokens| (rates.prefill(tokens) + rates.step()) / ENGINE;
        for (tokens, table) in [(1024, 21.8), (256 + 900, 24.6), (256 + 2025, 48.5), (256 + 4096, 98.1)] {
            near("prefill of the 8B", prefill(small, tokens), table, 0.15);
        }
        let large = Hardware::Qwen3Vl32b2xH100.rates();
        for (tokens, table) in [(1300, 70.0), (256 + 900, 65.9), (256 + 2025, 118.2), (1300 + 2700, 212.0)] {
            near("prefill of the 32B", prefill(large, tokens), table, 0.1);
        }
        let larger = Hardware::Qwen3Vl32b2xH200.rates();
        near("prefill on H200", prefill(larger, 1300 + 2700), 212.0, 0.1);
        for (rates, answers, table) in [
            (small, 1, 6.36),
            (small, 16, 8.04),
            (large, 1, 13.5),
            (large, 16, 17.8),
            (large, 64, 26.9),
            (larger, 1, 10.8),
            (larger, 16, 13.4),
            (larger, 64, 19.8),
        ] {
            near("decode", rates.decode(answers) / ENGINE, table, 0.1);
        }
    }
}
