//! The media policy of a model, held against what a request carries.

use request::{Host, MediaItem, PartPath};
use routing::{MediaPolicy, MediaRule, MediaSource, Modality};

use crate::Rejection;

/// A media item that the model's owner does not want.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model {model:?} {cause}")]
pub struct MediaRefusal {
    pub model: String,
    pub at: PartPath,
    pub cause: RefusalCause,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusalCause {
    #[error("takes at most {limit} {modality} items in a request; this is one more")]
    TooMany { modality: Modality, limit: u32 },
    #[error("takes {modality} items of at most {limit} bytes; this has {bytes}")]
    TooLarge { modality: Modality, limit: u64, bytes: u64 },
    #[error("takes no {modality} as {source_kind}")]
    Source { modality: Modality, source_kind: MediaSource },
    #[error("takes no {modality} from the host {host:?}")]
    Host { modality: Modality, host: String },
    #[error("takes {modality} from listed hosts only, and the host of this URL is not clear")]
    UnclearHost { modality: Modality },
}

impl RefusalCause {
    /// The `code` of the error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooMany { .. } => "too_many_media_items",
            Self::TooLarge { .. } => "media_item_too_large",
            Self::Source { .. } => "media_source_not_allowed",
            Self::Host { .. } | Self::UnclearHost { .. } => "media_host_not_allowed",
        }
    }
}

/// The first item that the policy forbids, if any.
pub(crate) fn check(model: &str, policy: &MediaPolicy, media: &[MediaItem]) -> Result<(), Rejection> {
    for (modality, rule) in &policy.0 {
        let items = media.iter().filter(|item| item.modality == *modality);
        for (number, item) in items.enumerate() {
            if let Some(cause) = forbidden(*modality, rule, number, item) {
                return Err(Rejection::Media(MediaRefusal { model: model.to_owned(), at: item.at, cause }));
            }
        }
    }
    Ok(())
}

fn forbidden(modality: Modality, rule: &MediaRule, number: usize, item: &MediaItem) -> Option<RefusalCause> {
    if let Some(limit) = rule.max_items.filter(|limit| number >= *limit as usize) {
        return Some(RefusalCause::TooMany { modality, limit });
    }
    if let Some(limit) = rule.max_item_bytes.filter(|limit| item.source == MediaSource::Inline && item.bytes > *limit) {
        return Some(RefusalCause::TooLarge { modality, limit, bytes: item.bytes });
    }
    if !rule.sources.is_empty() && !rule.sources.contains(&item.source) {
        return Some(RefusalCause::Source { modality, source_kind: item.source });
    }
    if rule.allowed_hosts.is_empty() || item.source == MediaSource::Inline {
        return None;
    }
    match &item.host {
        Host::Named(host) if rule.allowed_hosts.iter().any(|pattern| pattern.matches(host)) => None,
        Host::Named(host) => Some(RefusalCause::Host { modality, host: host.chars().take(253).collect() }),
        Host::None | Host::Unclear => Some(RefusalCause::UnclearHost { modality }),
    }
}
