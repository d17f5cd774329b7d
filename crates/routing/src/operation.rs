//! What a request asks a model server to do, and sets of it. The path of a request says which.

use std::fmt;

use crate::{Modality, ModalitySet};

/// An operation that model servers offer under a path of its own.
///
/// The names are those of the APIs that define them: OpenAI's for most, Anthropic's for `Messages`, vLLM's and SGLang's for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    ChatCompletions,
    Completions,
    Responses,
    Messages,
    Embeddings,
    Pooling,
    Classify,
    Score,
    Rerank,
    Transcriptions,
    Translations,
    Speech,
    ImageGenerations,
    ImageEdits,
    Videos,
    Realtime,
    Tokenize,
    Generate,
    /// Any other path, where such are let through at all.
    Other,
}

/// A set of operations; four bytes, copied freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationSet(u32);

impl Operation {
    /// Every operation, in the order they are written.
    pub const ALL: [Self; 19] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Responses,
        Self::Messages,
        Self::Embeddings,
        Self::Pooling,
        Self::Classify,
        Self::Score,
        Self::Rerank,
        Self::Transcriptions,
        Self::Translations,
        Self::Speech,
        Self::ImageGenerations,
        Self::ImageEdits,
        Self::Videos,
        Self::Realtime,
        Self::Tokenize,
        Self::Generate,
        Self::Other,
    ];

    /// What an answer is made of where the request does not say: nothing where it is numbers or tokens, or nobody knows.
    pub const fn gives(self) -> ModalitySet {
        match self {
            Self::ChatCompletions
            | Self::Completions
            | Self::Responses
            | Self::Messages
            | Self::Transcriptions
            | Self::Translations
            | Self::Generate => ModalitySet::TEXT,
            Self::Embeddings | Self::Pooling => ModalitySet::of(&[Modality::Embedding]),
            Self::Speech => ModalitySet::of(&[Modality::Audio]),
            Self::ImageGenerations | Self::ImageEdits => ModalitySet::of(&[Modality::Image]),
            Self::Videos => ModalitySet::of(&[Modality::Video]),
            Self::Classify | Self::Score | Self::Rerank | Self::Realtime | Self::Tokenize | Self::Other => {
                ModalitySet::EMPTY
            }
        }
    }

    /// A word for logs, metric labels and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat completions",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Embeddings => "embeddings",
            Self::Pooling => "pooling",
            Self::Classify => "classify",
            Self::Score => "score",
            Self::Rerank => "rerank",
            Self::Transcriptions => "transcriptions",
            Self::Translations => "translations",
            Self::Speech => "speech",
            Self::ImageGenerations => "image generations",
            Self::ImageEdits => "image edits",
            Self::Videos => "videos",
            Self::Realtime => "realtime",
            Self::Tokenize => "tokenize",
            Self::Generate => "generate",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl OperationSet {
    pub const EMPTY: Self = Self(0);
    /// What is assumed where nobody says which.
    pub const ALL: Self = Self((1 << Operation::ALL.len()) - 1);

    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & (1 << operation as u32) != 0
    }

    #[must_use]
    pub const fn with(self, operation: Operation) -> Self {
        Self(self.0 | 1 << operation as u32)
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All that answers are made of: see [`Operation::gives`].
    pub fn gives(self) -> ModalitySet {
        self.iter().fold(ModalitySet::EMPTY, |all, operation| all.union(operation.gives()))
    }

    pub fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::ALL.into_iter().filter(move |operation| self.contains(*operation))
    }
}

impl FromIterator<Operation> for OperationSet {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        operations.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// `chat completions, embeddings`; `everything` when it is all of them.
impl fmt::Display for OperationSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.pad("everything");
        }
        let words: Vec<&str> = self.iter().map(Operation::as_str).collect();
        f.pad(&words.join(", "))
    }
}
