//! What a request for a model may carry: the media policy that its owner declares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{Format, Modality};

/// Where a media item comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaSource {
    /// The bytes travel in the request (base64, a `data:` URL), or nowhere (a reference to an earlier item by `uuid`).
    Inline,
    /// The model server is asked to fetch them.
    Url,
}

/// What a request for a model may carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediaPolicy {
    /// Limits per modality. A modality without a rule is free.
    pub rules: BTreeMap<Modality, MediaRule>,
    /// What is let through although it can harm a model server.
    pub allowed: BTreeSet<UnsafeFeature>,
    /// Whether media that a client has not named get a name, for engines that take one.
    pub writes_uuids: bool,
}

/// The limits on items of one modality; what is not set is free.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediaRule {
    /// Items in one request.
    pub max_items: Option<u32>,
    /// Bytes of one item as it is encoded in the request.
    pub max_item_bytes: Option<u64>,
    /// Width times height of one inline item.
    pub max_pixels: Option<u64>,
    /// The shorter side of one inline item, in pixels, at least.
    pub min_side: Option<u32>,
    /// Length of one inline item, in seconds.
    pub max_seconds: Option<u32>,
    /// Formats of inline items, by their content; empty means any.
    pub formats: Vec<Format>,
    /// Where items may come from; empty means anywhere.
    pub sources: Vec<MediaSource>,
    /// Hosts that URLs may name; empty means any that is not private.
    pub allowed_hosts: Vec<HostPattern>,
    /// Hosts whose objects never change, so that what signs a URL does not tell one from another.
    pub immutable_hosts: Vec<HostPattern>,
    /// Whether URLs must be https.
    pub https_only: bool,
}

/// Something that engines offer to clients they trust, and that can crash, stall or open them when a stranger uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnsafeFeature {
    /// Tensors in place of media or text: `image_embeds`, `audio_embeds`, `prompt_embeds`.
    Embeds,
    /// `file:` URLs.
    FileUrls,
    /// `mm_processor_kwargs`, `media_io_kwargs` and the like in a request.
    ProcessorArguments,
    /// `video/jpeg`: a video as a list of pictures, as many as the client likes.
    FrameLists,
    /// A model's own placeholder for media, typed as text where no media goes with it.
    PlaceholderTokens,
    /// An engine's inner forms: `features` of `/inference/v1/generate`, `data` of `/pooling`, adapters and models by path, transfer parameters, `image_pil`.
    EngineInternals,
    /// Fields of an engine's own interface that the picker does not know: the engine may fetch, open or run what they say.
    UnlistedFields,
    /// Clients' own names for media (`uuid`) reach the engine as they are, so that one client is answered from what another put into its
    /// cache. Else each client's are its own; nothing is refused.
    SharedUuids,
}

impl UnsafeFeature {
    pub const ALL: [Self; 8] = [
        Self::Embeds,
        Self::FileUrls,
        Self::ProcessorArguments,
        Self::FrameLists,
        Self::PlaceholderTokens,
        Self::EngineInternals,
        Self::UnlistedFields,
        Self::SharedUuids,
    ];

    /// Its name, as InferenceModel spells it in `media.allow`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embeds => "Embeds",
            Self::FileUrls => "FileURLs",
            Self::ProcessorArguments => "ProcessorArguments",
            Self::FrameLists => "FrameLists",
            Self::PlaceholderTokens => "PlaceholderTokens",
            Self::EngineInternals => "EngineInternals",
            Self::UnlistedFields => "UnlistedFields",
            Self::SharedUuids => "SharedUUIDs",
        }
    }
}

/// A host name, or `*.example.com` for every host below `example.com` (itself not included).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_ascii_lowercase())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain below which every host is meant, if it is such a pattern.
    pub fn domain(&self) -> Option<&str> {
        self.0.strip_prefix('*').map(|rest| rest.trim_start_matches('.'))
    }

    /// Whether `host` (no port, no user, any case) is meant.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        match self.0.strip_prefix('*') {
            Some(suffix) => host.strip_suffix(suffix).is_some_and(|label| !label.is_empty()),
            None => host == self.0,
        }
    }
}

impl MediaSource {
    pub const ALL: [Self; 2] = [Self::Inline, Self::Url];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Url => "URL",
        }
    }
}

impl fmt::Display for MediaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_means_every_host_below_and_not_the_domain_itself() {
        let pattern = HostPattern::new("*.Example.com");
        assert!(pattern.matches("img.example.COM"));
        assert!(pattern.matches("a.b.example.com"));
        assert!(!pattern.matches("example.com"));
        assert!(!pattern.matches("badexample.com"));
        assert!(!pattern.matches(".example.com"));
    }
}
