//! What a request for a model may carry: the media policy that its owner declares.

use std::collections::BTreeMap;
use std::fmt;

use crate::Modality;

/// Where a media item comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaSource {
    /// The bytes travel in the request (base64, a `data:` URL), or nowhere (a reference to an earlier item by `uuid`).
    Inline,
    /// The model server is asked to fetch them.
    Url,
}

/// Limits per modality. A modality without a rule is free.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediaPolicy(pub BTreeMap<Modality, MediaRule>);

/// The limits on items of one modality; what is not set is free.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediaRule {
    /// Items in one request.
    pub max_items: Option<u32>,
    /// Bytes of one item as it is encoded in the request.
    pub max_item_bytes: Option<u64>,
    /// Where items may come from; empty means anywhere.
    pub sources: Vec<MediaSource>,
    /// Hosts that URLs may name; empty means any.
    pub allowed_hosts: Vec<HostPattern>,
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
