//! The media policy of a model, held against what a request carries.

use media::{Facts, MediaUrl, Reach, Scheme, UrlFault};
use request::{InferenceRequest, MediaItem, PartPath};
use routing::{
    Capability, Family, Format, MediaPolicy, MediaRule, MediaSource, Modality, ModalitySet, Model, UnsafeFeature,
};

use crate::{Code, Rejection};

/// Something that the model's owner does not want, or did not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model {model:?} {cause}")]
pub struct MediaRefusal {
    pub model: String,
    /// None for what stands in no one place.
    pub at: Option<PartPath>,
    pub cause: RefusalCause,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusalCause {
    #[error("accepts at most {limit} {modality} items per request")]
    TooMany { modality: Modality, limit: u32 },
    #[error("accepts {modality} items of at most {limit} bytes; this one has {bytes}")]
    TooLarge { modality: Modality, limit: u64, bytes: u64 },
    #[error("accepts {modality} items of at most {limit} pixels; this one has {width} x {height}")]
    TooManyPixels { modality: Modality, limit: u64, width: u32, height: u32 },
    #[error("accepts {modality} items of at least {limit} pixels a side; this one has {width} x {height}")]
    TooThin { modality: Modality, limit: u32, width: u32, height: u32 },
    #[error("accepts {modality} items of at most {limit} s; this one lasts {} s", milliseconds.div_ceil(1000))]
    TooLong { modality: Modality, limit: u32, milliseconds: u64 },
    #[error("cannot accept this {modality}: invalid base64")]
    Broken { modality: Modality },
    #[error("limits the {what} of {modality} items, and this one's header does not state them")]
    Untold { modality: Modality, what: &'static str },
    #[error("accepts {modality} as {}, not {}", formats(allowed), found.map_or("an unknown format", Format::as_str))]
    Format { modality: Modality, allowed: Vec<Format>, found: Option<Format> },
    #[error("does not accept {source_kind} {modality} items")]
    Source { modality: Modality, source_kind: MediaSource },
    #[error("does not accept this {modality} URL: {fault}")]
    Url { modality: Modality, fault: UrlFault },
    #[error("accepts {modality} from https URLs only")]
    Scheme { modality: Modality },
    #[error("does not accept {modality} from host {host:?}")]
    Host { modality: Modality, host: String },
    #[error("does not accept {modality} from private host {host:?}; its owner can allow it by name in spec.media.{modality_field}.allowedHosts", modality_field = field_of(*modality))]
    PrivateHost { modality: Modality, host: String },
    #[error(
        "does not accept the field {field:?}, which is not known here and which a model server may act on; its owner can allow such fields with \
         UnlistedFields in spec.media.allow"
    )]
    UnlistedField { field: String },
    #[error("does not accept {}; its owner can allow this with {} in spec.media.allow", words_for(*feature), feature.as_str())]
    UnsafeFeature { feature: UnsafeFeature },
    #[error(
        "does not accept {token:?} in text: the engine would take it for the place of a media item; its owner can allow this with PlaceholderTokens in spec.media.allow"
    )]
    Placeholder { token: &'static str },
}

impl RefusalCause {
    pub const fn code(&self) -> Code {
        match self {
            Self::TooMany { .. } => Code::TooManyMediaItems,
            Self::TooLarge { .. } => Code::MediaItemTooLarge,
            Self::TooManyPixels { .. } | Self::TooThin { .. } => Code::MediaSizeNotAllowed,
            Self::TooLong { .. } => Code::MediaItemTooLong,
            Self::Untold { .. } | Self::Broken { .. } => Code::MediaUnreadable,
            Self::Format { .. } => Code::MediaFormatNotAllowed,
            Self::Source { .. } => Code::MediaSourceNotAllowed,
            Self::Url { .. } | Self::Scheme { .. } => Code::MediaUrlNotAllowed,
            Self::Host { .. } | Self::PrivateHost { .. } => Code::MediaHostNotAllowed,
            Self::UnsafeFeature { .. } | Self::UnlistedField { .. } | Self::Placeholder { .. } => Code::UnsafeFeature,
        }
    }
}

fn formats(allowed: &[Format]) -> String {
    allowed.iter().map(|format| format.as_str()).collect::<Vec<_>>().join(", ")
}

const fn field_of(modality: Modality) -> &'static str {
    match modality {
        Modality::Audio => "Audio",
        Modality::Video => "Video",
        _ => "Image",
    }
}

const fn words_for(feature: UnsafeFeature) -> &'static str {
    match feature {
        UnsafeFeature::Embeds => "tensors in place of media or text",
        UnsafeFeature::FileUrls => "file: URLs",
        UnsafeFeature::ProcessorArguments => "processor arguments",
        UnsafeFeature::FrameLists => "videos as lists of frames (video/jpeg)",
        UnsafeFeature::PlaceholderTokens => "placeholder tokens in text",
        UnsafeFeature::EngineInternals => "fields internal to its engine",
        UnsafeFeature::UnlistedFields => "fields that are not known here",
        UnsafeFeature::SharedUuids => "media names shared between clients",
    }
}

/// The first thing that the policy of a declared model forbids, if any.
pub(crate) fn check(
    name: &str,
    model: &Model,
    request: &InferenceRequest,
    private_domains: &[String],
) -> Result<(), Rejection> {
    check_policy(name, &model.media, request, private_domains)
}

/// The same for a pool that nobody declared anything of.
pub(crate) fn check_undeclared(request: &InferenceRequest, private_domains: &[String]) -> Result<(), Rejection> {
    let policy = MediaPolicy::default();
    let name = request.model.as_deref().unwrap_or_default();
    check_policy(name, &policy, request, private_domains)
}

fn check_policy(
    name: &str,
    policy: &MediaPolicy,
    request: &InferenceRequest,
    private_domains: &[String],
) -> Result<(), Rejection> {
    let refused = |at: Option<&PartPath>, cause| {
        Rejection::Media(Box::new(MediaRefusal { model: name.to_owned(), at: at.cloned(), cause }))
    };
    if let Some(found) = request.unsafe_features.iter().find(|found| !policy.allowed.contains(&found.feature)) {
        let cause = match found.feature {
            UnsafeFeature::UnlistedFields => RefusalCause::UnlistedField { field: found.at.to_string() },
            feature => RefusalCause::UnsafeFeature { feature },
        };
        return Err(refused(Some(&found.at), cause));
    }
    let free = MediaRule::default();
    let mut counts = [0_usize; Modality::ALL.len()];
    for item in &request.media {
        let rule = policy.rules.get(&item.modality).unwrap_or(&free);
        let count = &mut counts[item.modality as usize];
        let cause = too_many(rule, *count, item)
            .or_else(|| forbidden_source(rule, policy, item, private_domains))
            .or_else(|| forbidden_content(rule, item));
        if let Some(cause) = cause {
            return Err(refused(Some(&item.at), cause));
        }
        *count += 1;
    }
    Ok(())
}

/// A placeholder in the request's text that a target of the model must not see.
pub(crate) fn placeholder(
    policy: Option<&MediaPolicy>,
    target: Capability,
    family: Option<Family>,
    request: &InferenceRequest,
) -> Option<&'static str> {
    let is_allowed = policy.is_some_and(|policy| policy.allowed.contains(&UnsafeFeature::PlaceholderTokens));
    // A model that takes text alone knows no placeholders.
    if is_allowed || request.placeholders.is_empty() || target.input.difference(ModalitySet::TEXT).is_empty() {
        return None;
    }
    let items = |modality| request.media.iter().filter(|item| item.modality == modality).count();
    request.placeholders.unsafe_for(family, items)
}

/// That no target takes a request because of one.
pub(crate) fn placeholder_refused(name: &str, token: &'static str) -> Rejection {
    let cause = RefusalCause::Placeholder { token };
    Rejection::Media(Box::new(MediaRefusal { model: name.to_owned(), at: None, cause }))
}

fn too_many(rule: &MediaRule, count: usize, item: &MediaItem) -> Option<RefusalCause> {
    let limit = rule.max_items.filter(|limit| count >= *limit as usize)?;
    Some(RefusalCause::TooMany { modality: item.modality, limit })
}

/// Where it comes from.
fn forbidden_source(
    rule: &MediaRule,
    policy: &MediaPolicy,
    item: &MediaItem,
    private_domains: &[String],
) -> Option<RefusalCause> {
    let modality = item.modality;
    if !rule.sources.is_empty() && !rule.sources.contains(&item.source) {
        return Some(RefusalCause::Source { modality, source_kind: item.source });
    }
    match item.url.as_ref()? {
        // The feature was allowed, or the request would have been refused for it.
        Err(UrlFault::File) if policy.allowed.contains(&UnsafeFeature::FileUrls) => None,
        Err(fault) => Some(RefusalCause::Url { modality, fault: *fault }),
        Ok(url) => forbidden_url(rule, modality, url, private_domains),
    }
}

fn forbidden_url(
    rule: &MediaRule,
    modality: Modality,
    url: &MediaUrl,
    private_domains: &[String],
) -> Option<RefusalCause> {
    let host = || url.host.chars().take(253).collect();
    let is_private = |host: &str| {
        Reach::of_host(host) == Reach::Private || private_domains.iter().any(|domain| media::is_within(host, domain))
    };
    let named = rule.allowed_hosts.iter().any(|pattern| pattern.matches(&url.host));
    // Who allows every host, or all of a public domain, does not mean what only looks like one of those.
    let named_as_private = || {
        let any_host_below = |domain: &str| format!("any.{domain}");
        rule.allowed_hosts.iter().filter(|pattern| pattern.matches(&url.host)).any(|pattern| {
            pattern.domain().is_none_or(|domain| !domain.is_empty() && is_private(&any_host_below(domain)))
        })
    };
    if rule.https_only && url.scheme != Scheme::Https {
        return Some(RefusalCause::Scheme { modality });
    }
    if !named && !rule.allowed_hosts.is_empty() {
        return Some(RefusalCause::Host { modality, host: host() });
    }
    (is_private(&url.host) && !named_as_private()).then(|| RefusalCause::PrivateHost { modality, host: host() })
}

/// What it is, as far as that can be told of what is inline.
fn forbidden_content(rule: &MediaRule, item: &MediaItem) -> Option<RefusalCause> {
    let MediaItem { modality, bytes, facts, .. } = item;
    let modality = *modality;
    // As a person counts them: of the item itself, not of its base64.
    // Where much more came than base64 makes of it, not all of it was read.
    let is_whole = facts.bytes > 0 && *bytes <= facts.bytes.saturating_mul(2).saturating_add(1024);
    let bytes = if is_whole { facts.bytes } else { *bytes };
    // Lists of frames are base64 with commas between, and were allowed if they are here.
    if item.broken && item.media_type.as_deref() != Some("video/jpeg") {
        return Some(RefusalCause::Broken { modality });
    }
    // A mere reference was looked at when it came, and a URL's content never is; but beside a URL there may be content as well.
    if bytes == 0 || (item.source == MediaSource::Url && facts.bytes == 0) {
        return None;
    }
    if let Some(limit) = rule.max_item_bytes.filter(|limit| bytes > *limit) {
        return Some(RefusalCause::TooLarge { modality, limit, bytes });
    }
    if !rule.formats.is_empty() && !facts.format.is_some_and(|format| rule.formats.contains(&format)) {
        return Some(RefusalCause::Format { modality, allowed: rule.formats.clone(), found: facts.format });
    }
    forbidden_size(rule, modality, facts).or_else(|| forbidden_length(rule, modality, facts))
}

fn forbidden_size(rule: &MediaRule, modality: Modality, facts: &Facts) -> Option<RefusalCause> {
    if rule.max_pixels.is_none() && rule.min_side.is_none() {
        return None;
    }
    let Some((width, height)) = facts.size else {
        return Some(RefusalCause::Untold { modality, what: "pixels" });
    };
    let pixels = u64::from(width) * u64::from(height);
    if let Some(limit) = rule.max_pixels.filter(|limit| pixels > *limit) {
        return Some(RefusalCause::TooManyPixels { modality, limit, width, height });
    }
    let limit = rule.min_side.filter(|limit| width.min(height) < *limit)?;
    Some(RefusalCause::TooThin { modality, limit, width, height })
}

fn forbidden_length(rule: &MediaRule, modality: Modality, facts: &Facts) -> Option<RefusalCause> {
    let limit = rule.max_seconds?;
    match facts.milliseconds {
        None => Some(RefusalCause::Untold { modality, what: "seconds" }),
        Some(milliseconds) if milliseconds > u64::from(limit) * 1000 => {
            Some(RefusalCause::TooLong { modality, limit, milliseconds })
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests;
