//! What a value means by where it stands. What stands at the root of a body, `fields` says; below that the shapes are those that vLLM
//! (`vllm/entrypoints/openai`, `chat_utils.py`), SGLang, vLLM-Omni and the APIs of OpenAI and Anthropic take.

use media::Spelling;
use routing::{Modality, Operation, UnsafeFeature};

use crate::fields::Holds;
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
    /// Beside that, in a field that no engine is known to take media from: a word, unless it could be fetched.
    MediaWord(MediaKind),
    /// A short word that engines paste into a URL.
    Token,
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
    /// What caches are to be kept apart by.
    Salt,
    /// A picture that a tool made, or what another tool has to say.
    Result,
    /// More fields of the root's kind.
    Bag,
    /// Nothing to routing, unless a field in it means the same wherever it stands.
    Aside,
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

/// What a field of the root means.
pub(crate) fn meaning_of_field(holds: Holds) -> Meaning {
    match holds {
        Holds::Model => Meaning::Model,
        Holds::Stream => Meaning::Stream,
        Holds::Modalities => Meaning::Modalities,
        Holds::Previous => Meaning::Previous,
        Holds::Salt => Meaning::Salt,
        Holds::Messages => Meaning::Messages,
        Holds::Content => Meaning::Content,
        Holds::Documents => Meaning::Documents,
        Holds::Text => Meaning::Text,
        Holds::Words => Meaning::Words,
        Holds::Image => Meaning::Loose(IMAGE),
        Holds::Audio => Meaning::Loose(AUDIO),
        Holds::Video => Meaning::Loose(VIDEO),
        Holds::File => Meaning::Loose(MediaKind::File),
        Holds::Setting => Meaning::Aside,
        Holds::Bag => Meaning::Bag,
        Holds::Embeds => Meaning::Unsafe(UnsafeFeature::Embeds),
        Holds::Processor => Meaning::Unsafe(UnsafeFeature::ProcessorArguments),
        Holds::Internal => Meaning::Unsafe(UnsafeFeature::EngineInternals),
        Holds::Shared => Meaning::Unsafe(UnsafeFeature::SharedUuids),
    }
}

/// What it means in a bag. Some engines lay a bag over the body: what decides who serves is not to be said twice.
pub(crate) fn meaning_in_bag(holds: Holds) -> Meaning {
    match holds {
        Holds::Model | Holds::Modalities | Holds::Previous => Meaning::Unsafe(UnsafeFeature::EngineInternals),
        other => meaning_of_field(other),
    }
}

/// What the value of a key means below the root.
#[expect(clippy::match_same_arms, reason = "a line for each rule")]
pub(crate) fn meaning_of_key(operation: Operation, parent: Meaning, key: Key) -> Meaning {
    match (parent, key) {
        (Meaning::Message, Key::Content | Key::Output) => Meaning::Content,
        // OpenRouter's clients send pictures of earlier answers back so.
        (Meaning::Message, Key::Images) => Meaning::Loose(IMAGE),
        (Meaning::Message, Key::Result) => Meaning::Result,
        (Meaning::Message | Meaning::Words, _) => Meaning::Words,
        (Meaning::Part, key) => meaning_of_part(operation, key),
        (Meaning::Source, Key::Type) => Meaning::SourceType,
        (Meaning::Source | Meaning::Media(_) | Meaning::MediaData(..), Key::MediaType) => Meaning::MediaType,
        (Meaning::Source, Key::Data) => Meaning::MediaData(MediaKind::File, Spelling::Data),
        (Meaning::Source, Key::Url) => Meaning::MediaData(MediaKind::File, Spelling::Url),
        (Meaning::Source, Key::Content) => Meaning::Content,
        (Meaning::Source | Meaning::Media(_) | Meaning::MediaData(..), Key::FileId) => Meaning::PartFileId,
        (Meaning::Media(kind) | Meaning::MediaData(kind, _), key) => meaning_in_media(kind, key),
        (Meaning::MediaWord(_), _) => parent,
        (Meaning::Document, Key::Text | Key::PromptString) => Meaning::Text,
        // SGLang's are parts of content; which they are, their keys say.
        (Meaning::Document, Key::Type) => Meaning::Aside,
        (Meaning::Document, Key::Content) => Meaning::Content,
        (Meaning::Document, Key::Image | Key::ImageUrl | Key::Images) => Meaning::Loose(IMAGE),
        (Meaning::Document, Key::Video | Key::VideoUrl) => Meaning::Loose(VIDEO),
        (Meaning::Document, Key::Audio | Key::AudioUrl) => Meaning::Loose(AUDIO),
        // llama.cpp's, for any of them.
        (Meaning::Document, Key::MultimodalData) => Meaning::Loose(MediaKind::File),
        _ => Meaning::Ignored,
    }
}

/// What a field in the object of a media field means. A file may say what it is by the name of its field.
fn meaning_in_media(kind: MediaKind, key: Key) -> Meaning {
    let named = |modality| if kind == MediaKind::File { MediaKind::Of(modality) } else { kind };
    match key {
        Key::Fps | Key::MaxFrames | Key::NumFrames => Meaning::Unsafe(UnsafeFeature::ProcessorArguments),
        // Of a sound it is what the engine calls its data; of others it is a word.
        Key::Format if kind == AUDIO => Meaning::Token,
        Key::Data | Key::FileData => Meaning::MediaData(kind, Spelling::Data),
        Key::ImageUrl | Key::InputImage | Key::Image => Meaning::MediaData(named(Modality::Image), Spelling::Url),
        // vLLM-Omni's `references` of speech.
        Key::AudioUrl | Key::InputAudio | Key::Audio | Key::AudioPath => {
            Meaning::MediaData(named(Modality::Audio), Spelling::Url)
        }
        Key::VideoUrl | Key::Video => Meaning::MediaData(named(Modality::Video), Spelling::Url),
        Key::Url | Key::Uri | Key::File | Key::FileUrl => Meaning::MediaData(kind, Spelling::Url),
        _ => meaning_beside_media(kind),
    }
}

/// Where tensors are, every string is one.
const fn meaning_beside_media(kind: MediaKind) -> Meaning {
    match kind {
        MediaKind::Embeds(_) => Meaning::MediaData(kind, Spelling::Data),
        _ => Meaning::MediaWord(kind),
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
        // vLLM's `content_parts`: of which kind it is, the type says (`token_in_token_out/serving.py`).
        Key::Url if operation == Operation::Generate => Meaning::Media(MediaKind::File),
        Key::Source if operation == Operation::Messages => Meaning::Source,
        // Results of tools hold parts of their own.
        Key::Content if operation == Operation::Messages => Meaning::Content,
        _ => Meaning::Words,
    }
}

/// Words beside media that no engine fetches, whatever they look like.
const BESIDE: [&[u8]; 9] =
    [b"alt", b"caption", b"content_hash", b"description", b"file_name", b"id", b"mime_type", b"name", b"title"];

/// What the value of a key means that is not known, below the root.
pub(crate) fn meaning_of_unknown_key(parent: Meaning, key: &[u8]) -> Meaning {
    match parent {
        Meaning::Message | Meaning::Words | Meaning::Part => Meaning::Words,
        // What clients and gateways write beside media for themselves.
        Meaning::Media(MediaKind::Of(_) | MediaKind::File)
        | Meaning::MediaData(MediaKind::Of(_) | MediaKind::File, _)
            if BESIDE.contains(&key) =>
        {
            Meaning::Ignored
        }
        _ if matches!(key, b"detail" | b"filename") => Meaning::Ignored,
        Meaning::Media(kind) | Meaning::MediaData(kind, _) => meaning_beside_media(kind),
        Meaning::MediaWord(_) => parent,
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
        Meaning::Text
        | Meaning::Words
        | Meaning::Loose(_)
        | Meaning::MediaData(..)
        | Meaning::MediaWord(_)
        | Meaning::Unsafe(_)
        | Meaning::Bag
        | Meaning::Aside => array,
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
        | Meaning::MediaWord(_)
        | Meaning::Words
        | Meaning::Unsafe(_)
        | Meaning::Bag
        | Meaning::Aside => meaning,
        Meaning::Content => Meaning::Part,
        Meaning::Messages => Meaning::Message,
        Meaning::PartText => Meaning::Words,
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
        | Meaning::MediaWord(_)
        | Meaning::Words
        | Meaning::Text
        | Meaning::Loose(_)
        | Meaning::Documents
        | Meaning::Unsafe(_)
        | Meaning::Bag
        | Meaning::Aside => meaning,
        Meaning::Media(kind) => Meaning::MediaData(kind, Spelling::Url),
        Meaning::Part => Meaning::Content,
        Meaning::PartText => Meaning::Words,
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
