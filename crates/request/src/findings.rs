//! What was found in a body, whatever its encoding.

use std::fmt;
use std::ops::Range;

use media::{Facts, Identity, MediaUrl, UrlFault};
use routing::{MediaSource, Modality, ModalitySet, Operation, Requirement, UnsafeFeature};

use crate::placeholders::Seeker;
use crate::prompt::Writer;
use crate::{Owned, Unreadable};

/// Something other than text that a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaItem {
    pub modality: Modality,
    pub source: MediaSource,
    /// Bytes as they are encoded in the request: of the base64, the file or the URL.
    pub bytes: u64,
    /// What the client says it is, in lower case: of the `data:` header, the form's part, or a field beside it.
    pub media_type: Option<String>,
    /// None where nothing came that could tell one item from another.
    pub identity: Option<Identity>,
    /// Where the name stands, or would, by which engines find media again (`uuid`); none where they take no name.
    pub uuid: Option<UuidAt>,
    /// What its first bytes tell; nothing for what would have to be fetched.
    pub facts: Facts,
    /// Whether what should be base64 is none. An engine refuses it, or makes something of it that nobody foresees.
    pub broken: bool,
    /// Whether it is a document, of whose pages engines make pictures.
    pub is_document: bool,
    /// Where it would be fetched from, or what is wrong with that.
    pub url: Option<Result<MediaUrl, UrlFault>>,
    pub at: PartPath,
}

/// The place of an item's name for the caches of engines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UuidAt {
    /// The client's own stands here, with its quotes.
    Given(Range<u64>),
    /// The client gave none. The item's part ends with a bracket in this place, and has fields.
    Missing(u64),
}

/// Where a part stands in the body: `messages[0].content[1]`, `input[2].output[0]`, or the name of a form's part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartPath(pub(crate) String);

/// The place of something that engines should not be asked by strangers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsafeFeatureAt {
    pub feature: UnsafeFeature,
    pub at: PartPath,
}

/// Where the model's name stands in a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpan {
    pub range: Range<u64>,
    pub encoding: NameEncoding,
}

/// How a name is written in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameEncoding {
    /// A JSON string; the span holds its quotes.
    Json,
    /// As it is, in a part of a form.
    Form,
}

/// A media item weighs a path and some facts; a request with more of them is not for a model server.
pub(crate) const MAX_ITEMS: usize = 4096;

/// Longest model name that is read. InferenceModel allows 256.
pub(crate) const MAX_MODEL: usize = 1024;

#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) model: Option<String>,
    pub(crate) model_span: Option<ModelSpan>,
    pub(crate) stream: bool,
    pub(crate) follows: Option<Owned>,
    pub(crate) media: Vec<MediaItem>,
    /// The first of each kind.
    pub(crate) unsafe_features: Vec<UnsafeFeatureAt>,
    pub(crate) text: bool,
    /// What `modalities` asks for.
    pub(crate) output: Option<ModalitySet>,
    /// For the texts, which run into each other within a message.
    pub(crate) seeker: Seeker,
    /// For what stands beside and between them.
    pub(crate) aside: Seeker,
    pub(crate) prompt: Writer,
}

impl Findings {
    /// Nothing yet. Texts are told apart by hashes with this key.
    pub(crate) fn new(key: u64) -> Self {
        Self {
            model: None,
            model_span: None,
            stream: false,
            follows: None,
            media: Vec::new(),
            unsafe_features: Vec::new(),
            text: false,
            output: None,
            seeker: Seeker::default(),
            aside: Seeker::default(),
            prompt: Writer::new(key),
        }
    }

    pub(crate) fn requires(&self, operation: Operation) -> Requirement {
        let text = if self.text { ModalitySet::TEXT } else { ModalitySet::EMPTY };
        let input = self.media.iter().map(|item| item.modality).collect::<ModalitySet>().union(text);
        match operation {
            // The session has begun before anything is said.
            Operation::Realtime => Requirement::new(operation, ModalitySet::of(&[Modality::Audio]), ModalitySet::EMPTY),
            Operation::ChatCompletions => {
                Requirement::new(operation, input, self.output.unwrap_or_else(|| operation.gives()))
            }
            _ => Requirement::new(operation, input, operation.gives()),
        }
    }

    pub(crate) fn add(&mut self, item: MediaItem) -> Result<(), Unreadable> {
        if self.media.len() == MAX_ITEMS {
            return Err(Unreadable::TooManyItems { limit: MAX_ITEMS });
        }
        if item.media_type.as_deref() == Some("video/jpeg") {
            self.unsafe_feature(UnsafeFeature::FrameLists, || item.at.clone());
        }
        if item.url == Some(Err(UrlFault::File)) {
            self.unsafe_feature(UnsafeFeature::FileUrls, || item.at.clone());
        }
        self.prompt.media(self.media.len());
        self.media.push(item);
        Ok(())
    }

    pub(crate) fn has(&self, feature: UnsafeFeature) -> bool {
        self.unsafe_features.iter().any(|known| known.feature == feature)
    }

    pub(crate) fn unsafe_feature(&mut self, feature: UnsafeFeature, at: impl FnOnce() -> PartPath) {
        if !self.has(feature) {
            self.unsafe_features.push(UnsafeFeatureAt { feature, at: at() });
        }
    }
}

impl PartPath {
    /// One that somebody else wrote down.
    pub fn new(path: String) -> Self {
        Self(path)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PartPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
