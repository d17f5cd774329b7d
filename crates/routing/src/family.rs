//! Model families: which formula tells how many tokens a media item becomes.

use std::fmt;
use std::str::FromStr;

/// A family of models that turn media into tokens in the same way. `media::tokens` holds the formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Qwen2Vl,
    Qwen25Vl,
    Qwen3Vl,
    Qwen2Audio,
    Qwen25Omni,
    Qwen3Omni,
    Llama32Vision,
    Llama4,
    Gemma3,
    Gemma3n,
    Gemma4,
    InternVl,
    Pixtral,
    MistralSmall3,
    SmolVlm,
    /// SmolVLM of 256M and 500M, which cuts pictures otherwise.
    SmolVlmSmall,
    Glm4V,
    MiniCpmV,
    Phi4Multimodal,
    Llava15,
    LlavaNext,
    Whisper,
    Ultravox,
    Voxtral,
}

/// A word that names no family.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown model family {0:?}")]
pub struct UnknownFamily(pub String);

/// What names of models hold, in lower case with `_` and space as `-`; the first that is found tells.
const MARKS: [(&str, Family); 46] = [
    // Names of these hold the name of a base model as well.
    ("ultravox", Family::Ultravox),
    ("whisper", Family::Whisper),
    ("qwen3-omni", Family::Qwen3Omni),
    ("qwen2.5-omni", Family::Qwen25Omni),
    ("qwen2-5-omni", Family::Qwen25Omni),
    ("qwen3-vl", Family::Qwen3Vl),
    ("qwen3.5", Family::Qwen3Vl),
    ("qwen2.5-vl", Family::Qwen25Vl),
    ("qwen2-5-vl", Family::Qwen25Vl),
    ("qwen2-vl", Family::Qwen2Vl),
    ("qvq", Family::Qwen2Vl),
    ("qwen2-audio", Family::Qwen2Audio),
    ("qwen-audio", Family::Qwen2Audio),
    ("llama-4", Family::Llama4),
    ("llama4", Family::Llama4),
    ("llama-3.2-11b-vision", Family::Llama32Vision),
    ("llama-3.2-90b-vision", Family::Llama32Vision),
    ("llama-3.2-vision", Family::Llama32Vision),
    ("mllama", Family::Llama32Vision),
    ("gemma-4", Family::Gemma4),
    ("gemma4", Family::Gemma4),
    ("gemma-3n", Family::Gemma3n),
    ("gemma3n", Family::Gemma3n),
    ("gemma-3", Family::Gemma3),
    ("gemma3", Family::Gemma3),
    ("internvl", Family::InternVl),
    ("pixtral-large", Family::Pixtral),
    ("pixtral", Family::Pixtral),
    ("mistral-small-3", Family::MistralSmall3),
    ("mistral-medium-3", Family::MistralSmall3),
    ("smolvlm2-256m", Family::SmolVlmSmall),
    ("smolvlm2-500m", Family::SmolVlmSmall),
    ("smolvlm-256m", Family::SmolVlmSmall),
    ("smolvlm-500m", Family::SmolVlmSmall),
    ("smolvlm", Family::SmolVlm),
    ("glm-4.1v", Family::Glm4V),
    ("glm-4.5v", Family::Glm4V),
    ("phi-4-multimodal", Family::Phi4Multimodal),
    ("phi-4-mm", Family::Phi4Multimodal),
    ("minicpm-v-2", Family::MiniCpmV),
    ("minicpm-o-2", Family::MiniCpmV),
    ("llava-v1.6", Family::LlavaNext),
    ("llava-next", Family::LlavaNext),
    ("llava-v1.5", Family::Llava15),
    ("llava-1.5", Family::Llava15),
    ("voxtral", Family::Voxtral),
];

impl Family {
    pub const ALL: [Self; 24] = [
        Self::Qwen2Vl,
        Self::Qwen25Vl,
        Self::Qwen3Vl,
        Self::Qwen2Audio,
        Self::Qwen25Omni,
        Self::Qwen3Omni,
        Self::Llama32Vision,
        Self::Llama4,
        Self::Gemma3,
        Self::Gemma3n,
        Self::Gemma4,
        Self::InternVl,
        Self::Pixtral,
        Self::MistralSmall3,
        Self::SmolVlm,
        Self::SmolVlmSmall,
        Self::Glm4V,
        Self::MiniCpmV,
        Self::Phi4Multimodal,
        Self::Llava15,
        Self::LlavaNext,
        Self::Whisper,
        Self::Ultravox,
        Self::Voxtral,
    ];

    /// Its name, as InferenceModel spells it in `family`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qwen2Vl => "Qwen2-VL",
            Self::Qwen25Vl => "Qwen2.5-VL",
            Self::Qwen3Vl => "Qwen3-VL",
            Self::Qwen2Audio => "Qwen2-Audio",
            Self::Qwen25Omni => "Qwen2.5-Omni",
            Self::Qwen3Omni => "Qwen3-Omni",
            Self::Llama32Vision => "Llama-3.2-Vision",
            Self::Llama4 => "Llama-4",
            Self::Gemma3 => "Gemma-3",
            Self::Gemma3n => "Gemma-3n",
            Self::Gemma4 => "Gemma-4",
            Self::InternVl => "InternVL",
            Self::Pixtral => "Pixtral",
            Self::MistralSmall3 => "Mistral-Small-3",
            Self::SmolVlm => "SmolVLM",
            Self::SmolVlmSmall => "SmolVLM-500M",
            Self::Glm4V => "GLM-4V",
            Self::MiniCpmV => "MiniCPM-V",
            Self::Phi4Multimodal => "Phi-4-multimodal",
            Self::Llava15 => "LLaVA-1.5",
            Self::LlavaNext => "LLaVA-NeXT",
            Self::Whisper => "Whisper",
            Self::Ultravox => "Ultravox",
            Self::Voxtral => "Voxtral",
        }
    }

    /// The family that a model's name tells, as `Qwen/Qwen2.5-VL-7B-Instruct` does.
    pub fn guess(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase().replace(['_', ' '], "-");
        MARKS.iter().find(|(mark, _)| name.contains(mark)).map(|(_, family)| *family)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Family {
    type Err = UnknownFamily;

    fn from_str(word: &str) -> Result<Self, UnknownFamily> {
        Self::ALL
            .into_iter()
            .find(|family| family.as_str().eq_ignore_ascii_case(word))
            .ok_or_else(|| UnknownFamily(word.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_family_and_the_more_telling_mark_wins() {
        for (name, family) in [
            ("Qwen/Qwen2.5-VL-7B-Instruct", Some(Family::Qwen25Vl)),
            ("qwen2_5_vl", Some(Family::Qwen25Vl)),
            ("Qwen/Qwen2.5-Omni-7B", Some(Family::Qwen25Omni)),
            ("meta-llama/Llama-4-Scout-17B-16E-Instruct", Some(Family::Llama4)),
            ("google/gemma-3n-E4B-it", Some(Family::Gemma3n)),
            ("google/gemma-3-27b-it", Some(Family::Gemma3)),
            ("OpenGVLab/InternVL3-8B", Some(Family::InternVl)),
            ("llava-hf/llava-v1.6-mistral-7b-hf", Some(Family::LlavaNext)),
            ("openai/whisper-large-v3", Some(Family::Whisper)),
            ("fixie-ai/ultravox-v0_5-llama-3_2-1b", Some(Family::Ultravox)),
            ("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", Some(Family::SmolVlmSmall)),
            ("meta-llama/Llama-3.1-8B-Instruct", None),
        ] {
            assert_eq!(Family::guess(name), family, "{name}");
        }
    }

    #[test]
    fn every_family_is_read_back_from_its_name() {
        for family in Family::ALL {
            assert_eq!(family.as_str().parse(), Ok(family));
        }
    }
}
