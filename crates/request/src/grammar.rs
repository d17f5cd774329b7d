//! What a value means by where it stands: one small table for each shape of body.
//!
//! The shapes are those that vLLM (`vllm/entrypoints/openai`, `chat_utils.py`), SGLang, vLLM-Omni and the APIs of OpenAI and Anthropic
//! take. What is not named here is nothing to routing.

use media::Spelling;
use routing::{Modality, Operation, UnsafeFeature};

use crate::keys::Key;

/// What a value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Root,
    Model,
    Stream,
    Modalities,
    ModalityWord,
    /// Text, as a string or a list of strings or tokens; whatever is not null is some.
    Text,
    /// `messages` of chat and Anthropic, or the items of Responses: strings and objects.
    Messages,
    Message,
    /// A string, a list of parts, or one part.
    Content,
    Part,
    PartType,
    /// Whether it counts as text depends on the part's type.
    PartText,
    PartUuid,
    PartFileId,
    /// A part's media field: an object, a string, or null.
    Media(MediaKind),
    /// What is inside of it, however deep: URLs, data, embeddings.
    MediaData(MediaKind, Spelling),
    MediaType,
    /// Anthropic's `source`.
    Source,
    SourceType,
    /// Media outside of parts: a string, a list of them, or objects.
    Loose(MediaKind),
    /// Of rerank, score and embeddings: a string, tokens, an object of text or media, or a list of those.
    Documents,
    Document,
    /// What templates write into a prompt beside the texts: roles, names, tools, arguments; however deep, keys and all.
    Words,
    /// Something that engines should not be asked by strangers.
    Unsafe(UnsafeFeature),
    /// The response that this one follows.
    Previous,
    Ignored,
}

/// What a media field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaKind {
    Of(Modality),
    /// Tensors in its place.
    Embeds(Modality),
    /// Anything; its content tells.
    File,
}

const IMAGE: MediaKind = MediaKind::Of(Modality::Image);
const AUDIO: MediaKind = MediaKind::Of(Modality::Audio);
const VIDEO: MediaKind = MediaKind::Of(Modality::Video);

/// What the value of a key means.
#[expect(clippy::match_same_arms, reason = "a line for each rule")]
pub(crate) fn meaning_of_key(operation: Operation, parent: Meaning, key: Key) -> Meaning {
    match (parent, key) {
        (Meaning::Root, key) => meaning_of_root(operation, key),
        (Meaning::Message, Key::Content | Key::Output) => Meaning::Content,
        (Meaning::Message | Meaning::Words, _) => Meaning::Words,
        (Meaning::Part, key) => meaning_of_part(operation, key),
        (Meaning::Source, Key::Type) => Meaning::SourceType,
        (Meaning::Source | Meaning::Media(_) | Meaning::MediaData(..), Key::MediaType) => Meaning::MediaType,
        (Meaning::Source, Key::Data) => Meaning::MediaData(MediaKind::File, Spelling::Data),
        (Meaning::Source, Key::Url) => Meaning::MediaData(MediaKind::File, Spelling::Url),
        (Meaning::Source, Key::Content) => Meaning::Content,
        (Meaning::Source | Meaning::Media(_) | Meaning::MediaData(..), Key::FileId) => Meaning::PartFileId,
        (Meaning::Media(_) | Meaning::MediaData(..), Key::Fps | Key::MaxFrames | Key::NumFrames) => {
            Meaning::Unsafe(UnsafeFeature::ProcessorArguments)
        }
        (Meaning::Media(kind) | Meaning::MediaData(kind, _), Key::Data | Key::FileData) => {
            Meaning::MediaData(kind, Spelling::Data)
        }
        (Meaning::Media(kind), _) => Meaning::MediaData(kind, Spelling::Url),
        (Meaning::MediaData(kind, spelling), _) => Meaning::MediaData(kind, spelling),
        (Meaning::Document, Key::Text) => Meaning::Text,
        (Meaning::Document, Key::Content) => Meaning::Content,
        (Meaning::Document, Key::Image | Key::ImageUrl | Key::Images) => Meaning::Loose(IMAGE),
        (Meaning::Document, Key::Video | Key::VideoUrl) => Meaning::Loose(VIDEO),
        (Meaning::Document, Key::Audio | Key::AudioUrl) => Meaning::Loose(AUDIO),
        _ => Meaning::Ignored,
    }
}

#[expect(clippy::match_same_arms, reason = "a line for each rule")]
fn meaning_of_root(operation: Operation, key: Key) -> Meaning {
    use Operation as Op;
    match (operation, key) {
        (_, Key::Model) => Meaning::Model,
        (_, Key::Stream) => Meaning::Stream,
        (Op::Other, _) => Meaning::Ignored,
        (_, Key::MmProcessorKwargs | Key::MediaIoKwargs) => Meaning::Unsafe(UnsafeFeature::ProcessorArguments),
        (_, Key::PromptEmbeds | Key::InputEmbeds) => Meaning::Unsafe(UnsafeFeature::Embeds),
        // An adapter or a model from any path, and a host for the engine to connect to.
        (_, Key::Lora | Key::FrameInterpolationModelPath | Key::KvTransferParams | Key::EcTransferParams) => {
            Meaning::Unsafe(UnsafeFeature::EngineInternals)
        }
        (Op::ChatCompletions, Key::Modalities) => Meaning::Modalities,
        (
            Op::ChatCompletions | Op::Embeddings | Op::Pooling | Op::Classify | Op::Tokenize | Op::Messages,
            Key::Messages,
        ) => Meaning::Messages,
        (Op::Messages, Key::System) => Meaning::Content,
        (Op::ChatCompletions | Op::Tokenize, Key::Documents) => Meaning::Words,
        (Op::Responses, Key::Input) => Meaning::Messages,
        (Op::Responses, Key::PreviousResponseId) => Meaning::Previous,
        (Op::Responses, Key::Instructions) => Meaning::Text,
        (Op::Embeddings | Op::Pooling | Op::Classify, Key::Input) => Meaning::Documents,
        (Op::Pooling, Key::Data) | (Op::Generate, Key::Features | Key::ContentParts) => {
            Meaning::Unsafe(UnsafeFeature::EngineInternals)
        }
        (Op::Score | Op::Rerank, Key::Query | Key::Queries | Key::Documents | Key::Items)
        | (Op::Score, Key::Text1 | Key::Text2 | Key::Data1 | Key::Data2) => Meaning::Documents,
        (
            Op::Completions | Op::Tokenize | Op::ImageGenerations | Op::ImageEdits | Op::Videos | Op::Generate,
            Key::Prompt,
        )
        | (Op::Speech, Key::Input | Key::Instructions)
        | (Op::Generate, Key::Text | Key::InputIds | Key::TokenIds)
        | (Op::Tokenize, Key::Tokens) => Meaning::Text,
        (Op::Speech, Key::RefAudio) | (Op::Generate, Key::AudioData) => Meaning::Loose(AUDIO),
        (Op::Generate, Key::ImageData) => Meaning::Loose(IMAGE),
        (Op::Generate, Key::VideoData) => Meaning::Loose(VIDEO),
        (
            Op::ImageGenerations | Op::ImageEdits | Op::Videos,
            Key::Image | Key::Images | Key::ImageUrl | Key::Mask | Key::MaskImage | Key::ReferenceImage,
        ) => Meaning::Loose(IMAGE),
        (Op::Videos, Key::Video | Key::VideoUrl) => Meaning::Loose(VIDEO),
        (Op::Videos, Key::InputReference | Key::ImageReference | Key::VideoReference) => {
            Meaning::Loose(MediaKind::File)
        }
        _ => Meaning::Ignored,
    }
}

fn meaning_of_part(operation: Operation, key: Key) -> Meaning {
    match key {
        Key::Type => Meaning::PartType,
        // Anthropic's blocks have none, so that it must not make a picture something else.
        Key::Uuid if operation != Operation::Messages => Meaning::PartUuid,
        Key::Text => Meaning::PartText,
        Key::ImageUrl | Key::InputImage | Key::Image => Meaning::Media(IMAGE),
        // `transformers` opens its string as a URL or a local file, whatever vLLM was told to allow (tried with vLLM 0.32).
        Key::ImagePil => Meaning::Unsafe(UnsafeFeature::EngineInternals),
        Key::VideoUrl | Key::Video => Meaning::Media(VIDEO),
        Key::AudioUrl | Key::InputAudio | Key::Audio => Meaning::Media(AUDIO),
        Key::ImageEmbeds => Meaning::Media(MediaKind::Embeds(Modality::Image)),
        Key::AudioEmbeds => Meaning::Media(MediaKind::Embeds(Modality::Audio)),
        Key::VideoEmbeds => Meaning::Media(MediaKind::Embeds(Modality::Video)),
        Key::PromptEmbeds => Meaning::Unsafe(UnsafeFeature::Embeds),
        Key::File | Key::FileUrl => Meaning::Media(MediaKind::File),
        Key::FileData => Meaning::MediaData(MediaKind::File, Spelling::Data),
        Key::FileId => Meaning::PartFileId,
        Key::Source if operation == Operation::Messages => Meaning::Source,
        // Results of tools hold parts of their own.
        Key::Content if operation == Operation::Messages => Meaning::Content,
        _ => Meaning::Words,
    }
}

/// What the value of a key means that is not known. Inside of a media field every one can hold media but those that are known to hold
/// words.
pub(crate) fn meaning_of_unknown_key(parent: Meaning, key: &[u8]) -> Meaning {
    match parent {
        Meaning::Message | Meaning::Words => Meaning::Words,
        Meaning::Root if matches!(key, b"tools" | b"functions" | b"chat_template" | b"chat_template_kwargs") => {
            Meaning::Words
        }
        _ if matches!(key, b"detail" | b"format" | b"filename") => Meaning::Ignored,
        Meaning::Media(kind) => Meaning::MediaData(kind, Spelling::Url),
        Meaning::MediaData(..) => parent,
        Meaning::Part => Meaning::Words,
        _ => Meaning::Ignored,
    }
}

/// What the elements of an array mean.
pub(crate) fn meaning_of_element(array: Meaning) -> Meaning {
    match array {
        Meaning::Messages => Meaning::Message,
        Meaning::Content => Meaning::Part,
        Meaning::Modalities => Meaning::ModalityWord,
        Meaning::Documents => Meaning::Documents,
        Meaning::Text | Meaning::Words | Meaning::Loose(_) | Meaning::MediaData(..) => array,
        _ => Meaning::Ignored,
    }
}

/// What an object means at a place; most places want something else, and what a model server will refuse is not looked into.
pub(crate) fn meaning_in_object(meaning: Meaning) -> Meaning {
    match meaning {
        Meaning::Root
        | Meaning::Message
        | Meaning::Part
        | Meaning::Source
        | Meaning::Media(_)
        | Meaning::MediaData(..)
        | Meaning::Words
        | Meaning::Unsafe(_) => meaning,
        Meaning::Content => Meaning::Part,
        Meaning::Documents => Meaning::Document,
        Meaning::Loose(kind) => Meaning::Media(kind),
        _ => Meaning::Ignored,
    }
}

pub(crate) fn meaning_in_array(meaning: Meaning) -> Meaning {
    match meaning {
        Meaning::Messages
        | Meaning::Content
        | Meaning::Modalities
        | Meaning::MediaData(..)
        | Meaning::Words
        | Meaning::Text
        | Meaning::Loose(_)
        | Meaning::Documents => meaning,
        Meaning::Media(kind) => Meaning::MediaData(kind, Spelling::Url),
        // Several conversations, where vectors are made of them.
        Meaning::Message => Meaning::Messages,
        _ => Meaning::Ignored,
    }
}

/// What a part's `type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeWord {
    Text,
    Media(MediaKind),
    /// Nothing that an engine we know takes as a part with media or text.
    Unknown,
}

impl TypeWord {
    pub(crate) fn of(word: &[u8]) -> Self {
        Self::Media(match word {
            b"text" | b"input_text" | b"output_text" | b"refusal" | b"thinking" | b"redacted_thinking"
            | b"reasoning_text" | b"summary_text" | b"tool_reference" => return Self::Text,
            b"image_url" | b"input_image" | b"image_pil" | b"image" | b"computer_screenshot" => IMAGE,
            b"image_embeds" => MediaKind::Embeds(Modality::Image),
            b"audio_embeds" => MediaKind::Embeds(Modality::Audio),
            b"video_embeds" => MediaKind::Embeds(Modality::Video),
            // Tensors in the place of text.
            b"prompt_embeds" => MediaKind::Embeds(Modality::Text),
            b"input_audio" | b"audio_url" | b"audio" => AUDIO,
            b"video_url" | b"video" | b"input_video" => VIDEO,
            b"document" | b"file" | b"input_file" => MediaKind::File,
            _ => return Self::Unknown,
        })
    }
}
