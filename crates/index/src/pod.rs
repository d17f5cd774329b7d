//! What matters of a pod, read once when it is seen.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::annotations::{ACTIVE_PORTS, ACTIVE_PORTS_LLM_D, INPUT_MODALITIES, OPERATIONS, OUTPUT_MODALITIES};
use k8s_openapi::api::core::v1::Pod;
use routing::{Capability, Modality, ModalitySet, OperationSet, Uid};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) uid: Uid,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ip: Option<IpAddr>,
    /// The Ready condition is True, and nobody has asked for the pod's end.
    pub(crate) ready: bool,
    /// It ended for good, so that it counts no more.
    pub(crate) ended: bool,
    /// None: every port of the pool.
    active_ports: Option<Vec<u16>>,
    pub(crate) capability: Option<Capability>,
    /// Words in its annotations that name no modality, or no operation.
    pub(crate) unknown_words: Vec<String>,
}

/// Whether a pool's selector means a pod with these labels. An empty one means none: it would mean every pod there is.
pub(crate) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

impl PodFacts {
    pub(crate) fn of(pod: &Pod) -> Self {
        let annotation =
            |name: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
        let status = pod.status.as_ref();
        let is_ready = status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        let phase = status.and_then(|status| status.phase.as_deref());
        let mut unknown_words = Vec::new();
        let mut modalities = |name| annotation(name).map(|list| known_modalities(list, &mut unknown_words));
        let (input, output) = (modalities(INPUT_MODALITIES), modalities(OUTPUT_MODALITIES));
        let operations = annotation(OPERATIONS).map(|list| known_operations(list, &mut unknown_words));
        let capability = (input.is_some() || output.is_some() || operations.is_some()).then(|| Capability {
            input: input.unwrap_or(ModalitySet::ALL),
            output: output.unwrap_or(ModalitySet::ALL),
            operations: operations.unwrap_or(OperationSet::ALL),
        });
        Self {
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            ip: status.and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok()),
            ready: is_ready && pod.metadata.deletion_timestamp.is_none(),
            ended: matches!(phase, Some("Succeeded" | "Failed")),
            active_ports: annotation(ACTIVE_PORTS_LLM_D).or(annotation(ACTIVE_PORTS)).map(ports),
            capability,
            unknown_words,
        }
    }

    pub(crate) fn serves_on(&self, port: u16) -> bool {
        self.active_ports.as_ref().is_none_or(|active| active.contains(&port))
    }
}

/// The operations of a list, in the same way.
fn known_operations(list: &str, unknown: &mut Vec<String>) -> OperationSet {
    let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
    let known = |word: &str| api::Operation::ALL.into_iter().find(|one| one.name().eq_ignore_ascii_case(word));
    words
        .filter_map(|word| {
            let operation = known(word);
            if operation.is_none() {
                unknown.push(word.chars().take(64).collect());
            }
            operation.map(crate::policy::operation)
        })
        .collect()
}

/// The modalities of a list; a word that names none offers nothing, so that a slip of the pen narrows and never widens.
fn known_modalities(list: &str, unknown: &mut Vec<String>) -> ModalitySet {
    let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
    words
        .filter_map(|word| match word.parse::<Modality>() {
            Ok(modality) => Some(modality),
            Err(error) => {
                unknown.push(error.0);
                None
            }
        })
        .collect()
}

/// Tokens that are no port are skipped, so a list of only such tokens means no port at all.
fn ports(list: &str) -> Vec<u16> {
    list.split(',').filter_map(|token| token.trim().parse().ok()).filter(|port| *port > 0).collect()
}
