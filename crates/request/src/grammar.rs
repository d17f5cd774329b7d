//! What a value means by where it stands: one small table for each shape of body.
//!
//! The shapes are those that vLLM (`vllm/entrypoints/openai`, `chat_utils.py`), SGLang, vLLM-Omni and the APIs of OpenAI and Anthropic
//! take. What is not named here is nothing to routing.

use routing::{Modality, Operation, UnsafeFeature};

use crate::keys::Key;

/// What a value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
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
    Media(Kind),
    /// What is inside of it, however deep: URLs, data, embeddings.
    MediaData(Kind, Spelling),
    MediaType,
    /// Anthropic's `source`.
    Source,
    SourceType,
    /// Media outside of parts: a string, a list of them, or objects.
    Loose(Kind),
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
pub(crate) enum Kind {
    Of(Modality),
    /// Tensors in its place.
    Embeds(Modality),
    /// Anything; its content tells.
    File,
}

/// What a string of media may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// A URL, or what some engines take in the place of one.
    Url,
    /// Base64.
    Data,
}

const IMAGE: Kind = Kind::Of(Modality::Image);
const AUDIO: Kind = Kind::Of(Modality::Audio);
const VIDEO: Kind = Kind::Of(Modality::Video);

/// What the value of a key means.
#[expect(clippy::match_same_arms, reason = "a line for each rule")]
pub(crate) fn slot_of_key(operation: Operation, parent: Slot, key: Key) -> Slot {
    match (parent, key) {
        (Slot::Root, key) => slot_of_root(operation, key),
        (Slot::Message, Key::Content | Key::Output) => Slot::Content,
        (Slot::Message | Slot::Words, _) => Slot::Words,
        (Slot::Part, key) => slot_of_part(operation, key),
        (Slot::Source, Key::Type) => Slot::SourceType,
        (Slot::Source | Slot::Media(_) | Slot::MediaData(..), Key::MediaType) => Slot::MediaType,
        (Slot::Source, Key::Data) => Slot::MediaData(Kind::File, Spelling::Data),
        (Slot::Source, Key::Url) => Slot::MediaData(Kind::File, Spelling::Url),
        (Slot::Source, Key::Content) => Slot::Content,
        (Slot::Source | Slot::Media(_) | Slot::MediaData(..), Key::FileId) => Slot::PartFileId,
        (Slot::Media(_) | Slot::MediaData(..), Key::Fps | Key::MaxFrames | Key::NumFrames) => {
            Slot::Unsafe(UnsafeFeature::ProcessorArguments)
        }
        (Slot::Media(kind) | Slot::MediaData(kind, _), Key::Data | Key::FileData) => {
            Slot::MediaData(kind, Spelling::Data)
        }
        (Slot::Media(kind), _) => Slot::MediaData(kind, Spelling::Url),
        (Slot::MediaData(kind, spelling), _) => Slot::MediaData(kind, spelling),
        (Slot::Document, Key::Text) => Slot::Text,
        (Slot::Document, Key::Content) => Slot::Content,
        (Slot::Document, Key::Image | Key::ImageUrl | Key::Images) => Slot::Loose(IMAGE),
        (Slot::Document, Key::Video | Key::VideoUrl) => Slot::Loose(VIDEO),
        (Slot::Document, Key::Audio | Key::AudioUrl) => Slot::Loose(AUDIO),
        _ => Slot::Ignored,
    }
}

#[expect(clippy::match_same_arms, reason = "a line for each rule")]
fn slot_of_root(operation: Operation, key: Key) -> Slot {
    use Operation as Op;
    match (operation, key) {
        (_, Key::Model) => Slot::Model,
        (_, Key::Stream) => Slot::Stream,
        (Op::Other, _) => Slot::Ignored,
        (_, Key::MmProcessorKwargs | Key::MediaIoKwargs) => Slot::Unsafe(UnsafeFeature::ProcessorArguments),
        (_, Key::PromptEmbeds | Key::InputEmbeds) => Slot::Unsafe(UnsafeFeature::Embeds),
        // An adapter or a model from any path, and a host for the engine to connect to.
        (_, Key::Lora | Key::FrameInterpolationModelPath | Key::KvTransferParams | Key::EcTransferParams) => {
            Slot::Unsafe(UnsafeFeature::EngineInternals)
        }
        (Op::ChatCompletions, Key::Modalities) => Slot::Modalities,
        (
            Op::ChatCompletions | Op::Embeddings | Op::Pooling | Op::Classify | Op::Tokenize | Op::Messages,
            Key::Messages,
        ) => Slot::Messages,
        (Op::Messages, Key::System) => Slot::Content,
        (Op::ChatCompletions | Op::Tokenize, Key::Documents) => Slot::Words,
        (Op::Responses, Key::Input) => Slot::Messages,
        (Op::Responses, Key::PreviousResponseId) => Slot::Previous,
        (Op::Responses, Key::Instructions) => Slot::Text,
        (Op::Embeddings | Op::Pooling | Op::Classify, Key::Input) => Slot::Documents,
        (Op::Pooling, Key::Data) | (Op::Generate, Key::Features | Key::ContentParts) => {
            Slot::Unsafe(UnsafeFeature::EngineInternals)
        }
        (Op::Score | Op::Rerank, Key::Query | Key::Queries | Key::Documents | Key::Items)
        | (Op::Score, Key::Text1 | Key::Text2 | Key::Data1 | Key::Data2) => Slot::Documents,
        (
            Op::Completions | Op::Tokenize | Op::ImageGenerations | Op::ImageEdits | Op::Videos | Op::Generate,
            Key::Prompt,
        )
        | (Op::Speech, Key::Input | Key::Instructions)
        | (Op::Generate, Key::Text | Key::InputIds | Key::TokenIds)
        | (Op::Tokenize, Key::Tokens) => Slot::Text,
        (Op::Speech, Key::RefAudio) | (Op::Generate, Key::AudioData) => Slot::Loose(AUDIO),
        (Op::Generate, Key::ImageData) => Slot::Loose(IMAGE),
        (Op::Generate, Key::VideoData) => Slot::Loose(VIDEO),
        (
            Op::ImageGenerations | Op::ImageEdits | Op::Videos,
            Key::Image | Key::Images | Key::ImageUrl | Key::Mask | Key::MaskImage | Key::ReferenceImage,
        ) => Slot::Loose(IMAGE),
        (Op::Videos, Key::Video | Key::VideoUrl) => Slot::Loose(VIDEO),
        (Op::Videos, Key::InputReference | Key::ImageReference | Key::VideoReference) => Slot::Loose(Kind::File),
        _ => Slot::Ignored,
    }
}

fn slot_of_part(operation: Operation, key: Key) -> Slot {
    match key {
        Key::Type => Slot::PartType,
        // Anthropic's blocks have none, so that it must not make a picture something else.
        Key::Uuid if operation != Operation::Messages => Slot::PartUuid,
        Key::Text => Slot::PartText,
        Key::ImageUrl | Key::InputImage | Key::Image => Slot::Media(IMAGE),
        // `transformers` opens its string as a URL or a local file, whatever vLLM was told to allow (tried with vLLM 0.32).
        Key::ImagePil => Slot::Unsafe(UnsafeFeature::EngineInternals),
        Key::VideoUrl | Key::Video => Slot::Media(VIDEO),
        Key::AudioUrl | Key::InputAudio | Key::Audio => Slot::Media(AUDIO),
        Key::ImageEmbeds => Slot::Media(Kind::Embeds(Modality::Image)),
        Key::AudioEmbeds => Slot::Media(Kind::Embeds(Modality::Audio)),
        Key::VideoEmbeds => Slot::Media(Kind::Embeds(Modality::Video)),
        Key::PromptEmbeds => Slot::Unsafe(UnsafeFeature::Embeds),
        Key::File | Key::FileUrl => Slot::Media(Kind::File),
        Key::FileData => Slot::MediaData(Kind::File, Spelling::Data),
        Key::FileId => Slot::PartFileId,
        Key::Source if operation == Operation::Messages => Slot::Source,
        // Results of tools hold parts of their own.
        Key::Content if operation == Operation::Messages => Slot::Content,
        _ => Slot::Words,
    }
}

/// What the value of a key means that is not known. Inside of a media field every one can hold media but those that are known to hold
/// words.
pub(crate) fn slot_of_unknown_key(parent: Slot, key: &[u8]) -> Slot {
    match parent {
        Slot::Message | Slot::Words => Slot::Words,
        Slot::Root if matches!(key, b"tools" | b"functions" | b"chat_template" | b"chat_template_kwargs") => {
            Slot::Words
        }
        _ if matches!(key, b"detail" | b"format" | b"filename") => Slot::Ignored,
        Slot::Media(kind) => Slot::MediaData(kind, Spelling::Url),
        Slot::MediaData(..) => parent,
        Slot::Part => Slot::Words,
        _ => Slot::Ignored,
    }
}

/// What the elements of an array mean.
pub(crate) fn slot_of_element(array: Slot) -> Slot {
    match array {
        Slot::Messages => Slot::Message,
        Slot::Content => Slot::Part,
        Slot::Modalities => Slot::ModalityWord,
        Slot::Documents => Slot::Documents,
        Slot::Text | Slot::Words | Slot::Loose(_) | Slot::MediaData(..) => array,
        _ => Slot::Ignored,
    }
}

/// What an object means at a place; most places want something else, and what a model server will refuse is not looked into.
pub(crate) fn object_slot(slot: Slot) -> Slot {
    match slot {
        Slot::Root
        | Slot::Message
        | Slot::Part
        | Slot::Source
        | Slot::Media(_)
        | Slot::MediaData(..)
        | Slot::Words
        | Slot::Unsafe(_) => slot,
        Slot::Content => Slot::Part,
        Slot::Documents => Slot::Document,
        Slot::Loose(kind) => Slot::Media(kind),
        _ => Slot::Ignored,
    }
}

pub(crate) fn array_slot(slot: Slot) -> Slot {
    match slot {
        Slot::Messages
        | Slot::Content
        | Slot::Modalities
        | Slot::MediaData(..)
        | Slot::Words
        | Slot::Text
        | Slot::Loose(_)
        | Slot::Documents => slot,
        Slot::Media(kind) => Slot::MediaData(kind, Spelling::Url),
        // Several conversations, where vectors are made of them.
        Slot::Message => Slot::Messages,
        _ => Slot::Ignored,
    }
}

/// What a part's `type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeWord {
    Text,
    Media(Kind),
    /// Nothing that an engine we know takes as a part with media or text.
    Unknown,
}

impl TypeWord {
    pub(crate) fn of(word: &[u8]) -> Self {
        Self::Media(match word {
            b"text" | b"input_text" | b"output_text" | b"refusal" | b"thinking" | b"redacted_thinking"
            | b"reasoning_text" | b"summary_text" | b"tool_reference" => return Self::Text,
            b"image_url" | b"input_image" | b"image_pil" | b"image" | b"computer_screenshot" => IMAGE,
            b"image_embeds" => Kind::Embeds(Modality::Image),
            b"audio_embeds" => Kind::Embeds(Modality::Audio),
            b"video_embeds" => Kind::Embeds(Modality::Video),
            // Tensors in the place of text.
            b"prompt_embeds" => Kind::Embeds(Modality::Text),
            b"input_audio" | b"audio_url" | b"audio" => AUDIO,
            b"video_url" | b"video" | b"input_video" => VIDEO,
            b"document" | b"file" | b"input_file" => Kind::File,
            _ => return Self::Unknown,
        })
    }
}
