//! What InferenceModel says of media and operations, in the words of the table.

use api::{MaxItems, TargetLimits};
use routing::{Format, HostPattern, Limits, MediaPolicy, MediaRule, MediaSource, Modality, Operation, UnsafeFeature};

/// What the API server cannot check, or objects from files come past.
pub(crate) fn invalid(media: &api::MediaPolicy) -> Option<String> {
    let rules = [&media.image, &media.audio, &media.video].into_iter().flatten();
    for rule in rules {
        if let Some(quantity) = rule.max_item_bytes.as_deref().filter(|quantity| bytes(quantity).is_none()) {
            return Some(format!("maxItemBytes {quantity:?} is not a quantity of bytes such as 20Mi"));
        }
        let numbers = [
            ("maxItems", rule.max_items.map(i64::from), 0),
            ("minSide", rule.min_side.map(i64::from), 1),
            ("maxSeconds", rule.max_seconds.map(i64::from), 1),
            ("maxPixels", rule.max_pixels, 1),
        ];
        let too_small = numbers
            .into_iter()
            .find_map(|(name, number, least)| Some((name, number.filter(|number| *number < least)?, least)));
        if let Some((name, number, least)) = too_small {
            return Some(format!("{name} {number} must be at least {least}"));
        }
        if let Some(unknown) = rule.formats.iter().find_map(|format| format.parse::<Format>().err()) {
            let known: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
            return Some(format!("{unknown}; expected one of {}", known.join(", ")));
        }
    }
    None
}

pub(crate) fn media(media: Option<&api::MediaPolicy>) -> MediaPolicy {
    let Some(api::MediaPolicy { image, audio, video, allow, write_uuids }) = media else {
        return MediaPolicy::default();
    };
    let rules = [(Modality::Image, image), (Modality::Audio, audio), (Modality::Video, video)];
    MediaPolicy {
        rules: rules.into_iter().filter_map(|(modality, rule)| Some((modality, rule_of(rule.as_ref()?)))).collect(),
        allowed: allow.iter().copied().map(unsafe_feature).collect(),
        writes_uuids: *write_uuids,
    }
}

fn rule_of(rule: &api::MediaRule) -> MediaRule {
    let source = |source: &api::MediaSource| match source {
        api::MediaSource::Inline => MediaSource::Inline,
        api::MediaSource::Url => MediaSource::Url,
    };
    let number = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
    MediaRule {
        max_items: number(rule.max_items),
        max_item_bytes: rule.max_item_bytes.as_deref().and_then(bytes),
        max_pixels: rule.max_pixels.and_then(|pixels| u64::try_from(pixels).ok()),
        min_side: number(rule.min_side),
        max_seconds: number(rule.max_seconds),
        formats: rule.formats.iter().filter_map(|format| format.parse().ok()).collect(),
        sources: rule.sources.iter().map(source).collect(),
        allowed_hosts: rule.allowed_hosts.iter().map(|host| HostPattern::new(host)).collect(),
        immutable_hosts: rule.immutable_hosts.iter().map(|host| HostPattern::new(host)).collect(),
        https_only: !rule.schemes.is_empty() && rule.schemes.iter().all(|scheme| *scheme == api::UrlScheme::Https),
    }
}

/// Reads `20Mi`, `5M`, `1024`: Kubernetes quantities as far as bytes need them.
fn bytes(quantity: &str) -> Option<u64> {
    let digits = quantity.len() - quantity.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = quantity.split_at(digits);
    let factor = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

const fn unsafe_feature(feature: api::UnsafeFeature) -> UnsafeFeature {
    match feature {
        api::UnsafeFeature::Embeds => UnsafeFeature::Embeds,
        api::UnsafeFeature::FileUrls => UnsafeFeature::FileUrls,
        api::UnsafeFeature::ProcessorArguments => UnsafeFeature::ProcessorArguments,
        api::UnsafeFeature::FrameLists => UnsafeFeature::FrameLists,
        api::UnsafeFeature::PlaceholderTokens => UnsafeFeature::PlaceholderTokens,
        api::UnsafeFeature::EngineInternals => UnsafeFeature::EngineInternals,
        api::UnsafeFeature::UnlistedFields => UnsafeFeature::UnlistedFields,
        api::UnsafeFeature::SharedUuids => UnsafeFeature::SharedUuids,
    }
}

/// What a target declares to take at once.
pub(crate) fn limits(declared: Option<TargetLimits>) -> Limits {
    let TargetLimits { context_length, max_items } = declared.unwrap_or_default();
    let MaxItems { image, audio, video } = max_items.unwrap_or_default();
    let limits = context_length.map_or(Limits::NONE, |tokens| Limits::NONE.with_context(tokens));
    let items = [(Modality::Image, image), (Modality::Audio, audio), (Modality::Video, video)];
    items
        .into_iter()
        .fold(limits, |limits, (modality, items)| items.map_or(limits, |items| limits.with_items(modality, items)))
}

/// The operation that objects call so.
pub const fn operation(operation: api::Operation) -> Operation {
    match operation {
        api::Operation::ChatCompletions => Operation::ChatCompletions,
        api::Operation::Completions => Operation::Completions,
        api::Operation::Responses => Operation::Responses,
        api::Operation::Messages => Operation::Messages,
        api::Operation::Embeddings => Operation::Embeddings,
        api::Operation::Pooling => Operation::Pooling,
        api::Operation::Classify => Operation::Classify,
        api::Operation::Score => Operation::Score,
        api::Operation::Rerank => Operation::Rerank,
        api::Operation::Transcriptions => Operation::Transcriptions,
        api::Operation::Translations => Operation::Translations,
        api::Operation::Speech => Operation::Speech,
        api::Operation::ImageGenerations => Operation::ImageGenerations,
        api::Operation::ImageEdits => Operation::ImageEdits,
        api::Operation::Videos => Operation::Videos,
        api::Operation::Realtime => Operation::Realtime,
        api::Operation::Tokenize => Operation::Tokenize,
        api::Operation::Generate => Operation::Generate,
    }
}
