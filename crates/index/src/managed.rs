//! Managed pools: whose picker the controller runs, and how.

use std::collections::BTreeMap;

use api::{InferencePool, PickerTemplate, PickerTemplateSpec, annotations};
use kube::ResourceExt;

use crate::condition::Verdict;
use crate::observe::{Index, ObjectKey};
use crate::pod::selects;

/// A picker that the controller is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct ManagedPicker {
    /// The Service that the pool names, whose name everything else of the picker has as well.
    pub service: String,
    /// The Service's port for gateways.
    pub port: u16,
    pub template: PickerTemplateSpec,
    /// Which template that is, and which generation of it: where this changes, a user changed what is wanted.
    pub made_from: String,
}

/// The type of the condition that only managed pools have.
pub const PICKER_READY: &str = "PickerReady";

/// Why a pool has no picker whose Service is another's.
pub(crate) const NAME_IN_USE: &str = "NameInUse";

/// The template that is used without being named.
const DEFAULT_TEMPLATE: &str = "default";

/// The pool that has each Service's name first: the oldest, and of equally old ones the first by name.
pub(crate) fn owners<'a>(index: &'a Index, namespace: &str) -> BTreeMap<&'a str, &'a ObjectKey> {
    let mut owners: BTreeMap<&str, (_, &ObjectKey)> = BTreeMap::new();
    for (key, pool) in
        index.pools.in_namespace(namespace).filter(|(key, pool)| is_managed(index, key, pool) == Ok(true))
    {
        let Some(picker) = &pool.spec.endpoint_picker_ref else { continue };
        let claim = (pool.metadata.creation_timestamp.as_ref().map(|time| time.0), key);
        owners.entry(&picker.name).and_modify(|owner| *owner = (*owner).min(claim)).or_insert(claim);
    }
    owners.into_iter().map(|(name, (_, key))| (name, key)).collect()
}

fn is_managed(index: &Index, key: &ObjectKey, pool: &InferencePool) -> Result<bool, Verdict> {
    match pool.annotations().get(annotations::PICKER).map(String::as_str) {
        None => Ok(index.managed_by_default.holds(&key.namespace)),
        Some("managed") => Ok(true),
        Some("unmanaged") => Ok(false),
        Some(other) => {
            let message =
                format!("annotation {} is {:?}; expected managed or unmanaged", annotations::PICKER, shortened(other));
            Err(Verdict::no(PICKER_READY, "InvalidAnnotation", message))
        }
    }
}

/// The picker to run for a pool: none for one that is not managed, a verdict for one that cannot be.
pub(crate) fn picker(
    key: &ObjectKey,
    pool: &InferencePool,
    owners: &BTreeMap<&str, &ObjectKey>,
    index: &Index,
) -> Result<Option<ManagedPicker>, Verdict> {
    let no = |reason, message: String| Err(Verdict::no(PICKER_READY, reason, message));
    if !is_managed(index, key, pool)? {
        return Ok(None);
    }
    let Some(picker) = pool.spec.endpoint_picker_ref.as_ref() else {
        return no(
            "NoPickerRef",
            "a managed pool must set endpointPickerRef: the name of the Service to create, and its port".into(),
        );
    };
    let Some(port) = picker.port.filter(|_| picker.group.is_empty() && picker.kind == "Service") else {
        return no("NoPickerRef", "endpointPickerRef of a managed pool must name a Service and a port".into());
    };
    if let Some(owner) = owners.get(&*picker.name).filter(|owner| **owner != key) {
        let message = format!(
            "Service {} belongs to the picker of pool {}, which is older or first by name; give this pool a Service name of its own",
            picker.name, owner.name
        );
        return no(NAME_IN_USE, message);
    }
    if !is_dns_label(&picker.name) {
        let message = format!(
            "{:?} is not a valid Service name: use 1 to 63 characters a-z, 0-9 and -, starting with a letter and not ending with -",
            picker.name
        );
        return no("InvalidName", message);
    }
    let name = pool.annotations().get(annotations::PICKER_TEMPLATE).map(String::as_str);
    let found = template(index, &key.namespace, name.unwrap_or(DEFAULT_TEMPLATE));
    let (template, made_from) = match (found, name) {
        (Some(found), _) => {
            let generation = found.metadata.generation.unwrap_or_default();
            (found.spec.clone(), format!("PickerTemplate {}, generation {generation}", found.name_any()))
        }
        (None, None) => (PickerTemplateSpec::default(), "no PickerTemplate".to_owned()),
        (None, Some(name)) => {
            return no(
                "TemplateNotFound",
                format!("there is no PickerTemplate {} in namespace {}", shortened(name), key.namespace),
            );
        }
    };
    if let Some(wrong) = wrong_labels(&template, pool) {
        return no("InvalidTemplate", format!("{made_from}: {wrong}"));
    }
    Ok(Some(ManagedPicker { service: picker.name.clone(), port: port.number.0, template, made_from }))
}

/// What Kubernetes, or we, would not put on a picker's pods.
fn wrong_labels(template: &PickerTemplateSpec, pool: &InferencePool) -> Option<String> {
    let PickerTemplateSpec { pod_labels, pod_annotations, .. } = template;
    let keys = pod_labels
        .keys()
        .map(|key| ("podLabels", key))
        .chain(pod_annotations.keys().map(|key| ("podAnnotations", key)));
    for (field, key) in keys {
        if !is_qualified_name(key) {
            return Some(format!(
                "{field} has the invalid key {:?}: use 1 to 63 letters, digits, -, _ and ., optionally after a domain and /",
                shortened(key)
            ));
        }
    }
    if let Some((key, value)) = pod_labels.iter().find(|(_, value)| !(value.is_empty() || is_label(value))) {
        return Some(format!(
            "podLabels has the invalid value {key}: {:?}: use at most 63 letters, digits, -, _ and .",
            shortened(value)
        ));
    }
    selects(&pool.spec.selector.match_labels, pod_labels)
        .then(|| "podLabels match the pool's selector, so every picker would become one of its model servers".into())
}

/// A label's or annotation's key, as Kubernetes has it.
fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_subdomain = |prefix: &str| {
        prefix.len() <= 253
            && prefix
                .split('.')
                .all(|part| is_label(part) && !part.contains(|c: char| c == '_' || c.is_ascii_uppercase()))
    };
    is_label(name) && prefix.is_none_or(is_subdomain)
}

/// 1 to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at each end.
fn is_label(text: &str) -> bool {
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

fn template<'a>(index: &'a Index, namespace: &str, name: &str) -> Option<&'a PickerTemplate> {
    index.templates.objects.get(&ObjectKey::new(namespace, name))
}

/// What a Service's name must be (RFC 1035, as Kubernetes has it).
fn is_dns_label(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}
