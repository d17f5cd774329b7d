//! What engines say where a request holds what they do not take, and another may.

use std::fmt;

use crate::{Modality, ModalitySet};

/// Why an engine refuses a request that is sound in itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unfit {
    /// Its model takes nothing but text.
    TextOnly,
    /// Of a modality it takes at most so many items at once; 0 where it takes none.
    Items { modality: Modality, most: u32 },
    /// The prompt is longer than its context, of so many tokens where it says.
    Length { context: Option<u32> },
}

/// Where the message of an error stands in its JSON, as pointers (RFC 6901): OpenAI's shape and Anthropic's, SGLang's, FastAPI's and Ollama's.
pub const ERROR_MESSAGES: [&str; 4] = ["/error/message", "/message", "/detail", "/error"];

impl Unfit {
    /// What the message of an error says, by the words that engines have for it; none where it is about something else. A client's words may be
    /// in a message, so each is looked for where the engine writes it.
    ///
    /// vLLM 0.32 (`entrypoints/chat_utils.py`, `renderers/params.py`), SGLang 0.5 (`srt/managers/tokenizer_manager.py`), llama.cpp
    /// (`tools/server/server-common.cpp`), which is in Ollama since 0.30, and Ollama before that (`model/models`).
    pub fn of(message: &str) -> Option<Self> {
        let message = message.trim().trim_end_matches(" None");
        // Before it stands the model's name or path, one word: what a client wrote may end an error of another kind.
        let model = message.strip_suffix(" is not a multimodal model");
        if model.is_some_and(|model| !model.is_empty() && !model.contains(|c: char| c.is_whitespace())) {
            return Some(Self::TextOnly);
        }
        if message == "Multimodal data provided, but model does not support multimodal requests." {
            return Some(Self::TextOnly);
        }
        let none_of = |modality| Some(Self::Items { modality, most: 0 });
        if message == "this model is missing data required for image input" {
            return none_of(Modality::Image);
        }
        if let Some((word, rest)) = message.split_once(" input is not supported")
            && (rest.is_empty() || rest.starts_with(" - hint"))
        {
            return none_of(modality(word)?);
        }
        at_most(message).or_else(|| too_long(message))
    }

    /// Whether it is about what a request of these modalities holds; else it is some other fault in words like these.
    pub fn is_about(self, input: ModalitySet) -> bool {
        match self {
            Self::TextOnly => !input.difference(ModalitySet::TEXT).is_empty(),
            Self::Items { modality, .. } => input.contains(modality),
            Self::Length { .. } => true,
        }
    }

    /// What of a request it speaks of, of these modalities; nothing where it is about how much there is of it.
    pub fn refused(self, input: ModalitySet) -> ModalitySet {
        match self {
            Self::TextOnly => input.difference(ModalitySet::TEXT),
            Self::Items { modality, most: 0 } => input.intersection(ModalitySet::EMPTY.with(modality)),
            Self::Items { .. } | Self::Length { .. } => ModalitySet::EMPTY,
        }
    }
}

/// As the end of a sentence on an engine: it takes …
impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TextOnly => f.write_str("nothing but text"),
            Self::Items { modality, most: 0 } => write!(f, "no {modality}"),
            Self::Items { modality, most } => write!(f, "at most {most} of {modality} at once"),
            Self::Length { context: Some(tokens) } => write!(f, "at most {tokens} tokens"),
            Self::Length { context: None } => f.write_str("no prompt of this length"),
        }
    }
}

/// `At most 2 image(s) may be provided in one prompt.`, or SGLang's `Image count 3 exceeds limit 2 per request.`
fn at_most(message: &str) -> Option<Unfit> {
    let (most, word) = match message.strip_prefix("At most ") {
        Some(rest) => {
            let (most, rest) = rest.split_once(' ')?;
            (most, rest.split_once("(s) may be provided in one ")?.0)
        }
        None => {
            let (word, rest) = message.split_once(" count ")?;
            let most = rest.strip_suffix(" per request.")?.split_once(" exceeds limit ")?.1;
            (most, word)
        }
    };
    Some(Unfit::Items { modality: modality(word)?, most: most.parse().ok()? })
}

fn modality(word: &str) -> Option<Modality> {
    match &*word.to_ascii_lowercase() {
        // `vision_chunk` is of models that read pictures and film as one.
        "image" | "vision_chunk" => Some(Modality::Image),
        "audio" => Some(Modality::Audio),
        "video" => Some(Modality::Video),
        _ => None,
    }
}

fn too_long(message: &str) -> Option<Unfit> {
    // How it begins, and what stands before the context's length.
    const SAID: [(&str, &str); 7] = [
        ("This model's maximum context length is ", ""),
        ("The decoder prompt ", " is longer than the maximum model length of "),
        ("The input (", " is longer than the model's context length ("),
        ("Requested token count ", " the model's maximum context length of "),
        ("request (", " exceeds the available context size ("),
        ("the request exceeds the available context size", ""),
        ("the input length exceeds the context length", ""),
    ];
    let rest = SAID.iter().find_map(|(begins, before)| {
        let rest = message.strip_prefix(begins)?;
        if before.is_empty() { Some(rest) } else { rest.split_once(before).map(|(_, rest)| rest) }
    })?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    Some(Unfit::Length { context: digits.parse().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_say_is_read() {
        let items = |modality, most| Some(Unfit::Items { modality, most });
        let length = |context| Some(Unfit::Length { context });
        for (message, is) in [
            ("tiny-text is not a multimodal model", Some(Unfit::TextOnly)),
            ("tiny-text is not a multimodal model None", Some(Unfit::TextOnly)),
            ("At most 0 audio(s) may be provided in one prompt. (parameter=audio)", items(Modality::Audio, 0)),
            ("At most 2 image(s) may be provided in one request.", items(Modality::Image, 2)),
            ("Multimodal data provided, but model does not support multimodal requests.", Some(Unfit::TextOnly)),
            ("At most 0 vision_chunk(s) may be provided in one prompt.", items(Modality::Image, 0)),
            ("Image count 3 exceeds limit 2 per request.", items(Modality::Image, 2)),
            (
                "audio input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
                items(Modality::Audio, 0),
            ),
            ("this model is missing data required for image input", items(Modality::Image, 0)),
            ("This model's maximum context length is 4096 tokens. However, your prompt contains", length(Some(4096))),
            ("The decoder prompt (length 9) is longer than the maximum model length of 8.", length(Some(8))),
            ("The input (9 tokens) is longer than the model's context length (8 tokens).", length(Some(8))),
            (
                "Requested token count exceeds the model's maximum context length of 8 tokens. You requested",
                length(Some(8)),
            ),
            ("request (9 tokens) exceeds the available context size (8 tokens), try increasing it", length(Some(8))),
            ("the request exceeds the available context size, try increasing it", length(None)),
            ("the input length exceeds the context length", length(None)),
        ] {
            assert_eq!(Unfit::of(message), is, "{message}");
        }
    }

    #[test]
    fn what_is_about_something_else_or_a_clients_words_is_not() {
        for message in [
            "",
            "The URL must be either a HTTP, data or file URL.",
            "The model `x is not a multimodal model` does not exist.",
            "Unexpected role: x is not a multimodal model",
            " is not a multimodal model",
            "At most a few image(s) may be provided in one prompt.",
            "At most 2 tool(s) may be provided in one prompt.",
            "Unsupported chat content part type: 'image input is not supported'.",
            "role: At most 0 image(s) may be provided in one prompt.",
            "Invalid value: This model's maximum context length is 8 tokens.",
            "Failed to load image: cannot identify image file",
        ] {
            assert_eq!(Unfit::of(message), None, "{message}");
        }
    }

    #[test]
    fn of_what_a_request_carries_only_what_is_spoken_of_is_refused() {
        let [text, image, audio] =
            [Modality::Text, Modality::Image, Modality::Audio].map(|one| ModalitySet::of(&[one]));
        let all = text.union(image).union(audio);
        assert_eq!(Unfit::TextOnly.refused(all), image.union(audio));
        assert_eq!(Unfit::Items { modality: Modality::Image, most: 0 }.refused(all), image);
        assert_eq!(Unfit::Items { modality: Modality::Image, most: 0 }.refused(text), ModalitySet::EMPTY);
        assert_eq!(Unfit::Items { modality: Modality::Image, most: 2 }.refused(all), ModalitySet::EMPTY);
        assert_eq!(Unfit::Length { context: None }.refused(all), ModalitySet::EMPTY);
        assert!(Unfit::TextOnly.is_about(all) && !Unfit::TextOnly.is_about(text));
        let video = Unfit::Items { modality: Modality::Video, most: 2 };
        assert!(!video.is_about(all) && Unfit::Length { context: None }.is_about(text));
    }
}
