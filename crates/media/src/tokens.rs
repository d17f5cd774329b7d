//! How many tokens a media item becomes, by model family: what a prompt grows by, with the marks that a processor writes around it.
//!
//! The formulas are those of the processors (`transformers` 5.24) and of vLLM 0.33, with the constants that the models are published with;
//! beside each stands where it is from (`vllm/model_executor/models/` and `transformers/models/` are left out of the paths). A server
//! that was started with other limits counts otherwise. `testdata/tokens-vllm-0.32.tsv` holds what a real vLLM counted,
//! `testdata/tokens-published.tsv` what the formulas give in an independent transcription.

mod audio;
mod number;
mod picture;
mod video;

use routing::{Family, Modality};

use crate::Facts;
use audio::Audio;
use picture::{Picture, Resized};
use video::Sampling;

/// An estimate, or nothing where the item does not say how large or long it is, or where the family takes no such thing.
pub fn estimate(family: Family, modality: Modality, facts: &Facts) -> Option<u64> {
    match modality {
        Modality::Image => {
            let (width, height) = facts.size?;
            Some(picture_of(family)?.tokens(width, height))
        }
        Modality::Audio => Some(audio_of(family)?.tokens(seconds(facts)?)),
        Modality::Video => {
            let (width, height) = facts.size?;
            video_tokens(family, width, height, seconds(facts)?, facts.frame_rate())
        }
        Modality::Text | Modality::Embedding => None,
    }
}

/// At most seven weeks: whoever claims more has no such thing.
fn seconds(facts: &Facts) -> Option<f64> {
    facts.milliseconds.map(|milliseconds| f64::from(u32::try_from(milliseconds).unwrap_or(u32::MAX)) / 1000.0)
}

/// `qwen2_vl/image_processing_qwen2_vl.py::smart_resize`; 56² to 16384 tokens of 28².
const QWEN2: Resized = Resized { unit: 28, min_pixels: 3136, max_pixels: 12_845_056 };
/// The same with 32; the published `preprocessor_config.json` of Qwen3-VL.
const QWEN3: Resized = Resized { unit: 32, min_pixels: 65_536, max_pixels: 16_777_216 };
/// Qwen3-Omni keeps Qwen2's bounds.
const QWEN3_OMNI: Resized = Resized { unit: 32, min_pixels: 3136, max_pixels: 12_845_056 };
/// `glm4v/image_processing_glm4v.py`: 9,633,792 over two identical pictures.
const GLM4V: Resized = Resized { unit: 28, min_pixels: 6272, max_pixels: 4_816_896 };

fn picture_of(family: Family) -> Option<Picture> {
    Some(match family {
        Family::Qwen2Vl | Family::Qwen25Vl | Family::Qwen25Omni => Picture::Resized(QWEN2),
        Family::Qwen3Vl => Picture::Resized(QWEN3),
        Family::Qwen3Omni => Picture::Resized(QWEN3_OMNI),
        Family::Glm4V => Picture::Resized(GLM4V),
        // mllama4.py, llama4/processing_llama4.py.
        Family::Llama4 => Picture::Llama4,
        // mllama/image_processing_mllama.py: 1601 per tile, read across and not in the prompt.
        Family::Llama32Vision => Picture::Mllama,
        // gemma3_mm.py, gemma3n_mm.py: 256, two marks and two line ends.
        Family::Gemma3 | Family::Gemma3n => Picture::Fixed(260),
        // gemma4_mm.py::_compute_num_soft_tokens: a budget of 280, and two marks.
        Family::Gemma4 => Picture::Gemma4 { budget: 280 },
        // internvl.py: tiles of 448, 256 each, and a thumbnail.
        Family::InternVl => Picture::InternVl,
        // pixtral.py: units of 16 in at most 1024, a break after each row.
        Family::Pixtral => Picture::Rows { unit: 16, longest: 1024 },
        // mistral3.py: units of 28 in at most 1540.
        Family::MistralSmall3 => Picture::Rows { unit: 28, longest: 1540 },
        // idefics3.py, idefics3/image_processing_idefics3.py.
        Family::SmolVlm => Picture::Split { longest: 1536, tile: 384, tokens: 81 },
        Family::SmolVlmSmall => Picture::Split { longest: 2048, tile: 512, tokens: 64 },
        // llava.py: (336 / 14)².
        Family::Llava15 => Picture::Fixed(576),
        Family::LlavaNext => Picture::LlavaNext,
        // minicpmv.py: 64 for each slice, and two marks.
        Family::MiniCpmV => Picture::MiniCpmV,
        // phi4mm.py::_compute_num_image_tokens.
        Family::Phi4Multimodal => Picture::Phi4,
        Family::Qwen2Audio | Family::Whisper | Family::Ultravox | Family::Voxtral => return None,
    })
}

fn audio_of(family: Family) -> Option<Audio> {
    Some(match family {
        // qwen2_audio.py: half of half the mel frames, of which a clip has 3000.
        Family::Qwen2Audio => Audio::Quartered { frames: 3000 },
        // qwen2_5_omni_thinker.py: the same over 300 s.
        Family::Qwen25Omni => Audio::Quartered { frames: 30_000 },
        // qwen3_omni_moe_thinker.py: 13 a second.
        Family::Qwen3Omni => Audio::Thirteen,
        // gemma3n_mm.py: 188 whatever the length, two marks and two line ends.
        Family::Gemma3n => Audio::Fixed(192),
        // gemma4_mm.py::_compute_audio_num_tokens: 25 a second up to 30 s, and two marks.
        Family::Gemma4 => Audio::Gemma4,
        // whisper.py: always 1500 positions of the encoder, for each clip of 30 s.
        Family::Whisper => Audio::Clips { seconds: 30.0, tokens: 1500, extra: 0 },
        // ultravox.py: 16 mel frames each, in chunks of 30 s.
        Family::Ultravox => Audio::Sixteenths,
        // voxtral.py: 12.5 a second of started 30 s, and a mark.
        Family::Voxtral => Audio::Clips { seconds: 30.0, tokens: 375, extra: 1 },
        // phi4mm.py::_compute_audio_embed_size: eight mel frames each.
        Family::Phi4Multimodal => Audio::Eighths,
        _ => return None,
    })
}

fn video_tokens(family: Family, width: u32, height: u32, seconds: f64, rate: Option<f64>) -> Option<u64> {
    let frames = |sampling: Sampling| sampling.frames(seconds, rate);
    Some(match family {
        // qwen2_vl.py::get_video_replacement: two frames make one step; each frame is resized by itself.
        Family::Qwen2Vl | Family::Qwen25Vl => frames(Sampling::Pairs).div_ceil(2) * QWEN2.tokens(width, height),
        // qwen2_5_omni/processing_qwen2_5_omni.py: 128 to 768 tokens of 28² a frame.
        Family::Qwen25Omni => {
            let each = Resized { unit: 28, min_pixels: 100_352, max_pixels: 602_112 };
            frames(Sampling::Pairs).div_ceil(2) * each.tokens(width, height)
        }
        // qwen3_omni_moe/processing_qwen3_omni_moe.py: 128 to 768 tokens of 32² a frame.
        Family::Qwen3Omni => {
            let each = Resized { unit: 32, min_pixels: 131_072, max_pixels: 786_432 };
            frames(Sampling::Pairs).div_ceil(2) * each.tokens(width, height)
        }
        // qwen3_vl.py: a budget over all frames, and some nine tokens of time before each step.
        Family::Qwen3Vl => {
            let frames = frames(Sampling::Each);
            let grid = video::budgeted(width, height, frames, 32, 4096, 25_165_824);
            frames.div_ceil(2) * (grid + 9)
        }
        // glm4_1v.py: two marks and the time before each step, two marks around all.
        Family::Glm4V => {
            let frames = frames(Sampling::TwoASecond);
            let grid = video::budgeted(width, height, frames, 28, 12_544, 47_040_000);
            frames.div_ceil(2) * (grid + 3) + 2
        }
        // gemma4_mm.py::get_video_repl: a budget of 70, two marks and some seven tokens of time a frame.
        Family::Gemma4 => frames(Sampling::Uniform(32)) * (Picture::Gemma4 { budget: 70 }.tokens(width, height) + 7),
        // internvl.py: one tile a frame, and `Frame1: ` before it.
        Family::InternVl => frames(Sampling::Uniform(32)) * 263,
        // minicpmv.py: one slice a frame.
        Family::MiniCpmV => frames(Sampling::Uniform(32)) * 66,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
