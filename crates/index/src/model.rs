//! Models: which object serves a name, what its targets offer, and what is to be said of it.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{InferenceModel, Modalities, ModelSummary};
use routing::{
    Capability, Criticality, Family, Limits, Modality, ModalitySet, Model, OperationSet, RoutingTable, Target,
};

use crate::condition::Verdict;
use crate::observe::ObjectKey;
use crate::{policy, verified};

/// What is true of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelReport {
    /// Which object of that name, and which generation of it.
    pub uid: Option<String>,
    pub generation: Option<i64>,
    pub verdicts: Vec<Verdict>,
    /// Whether the table holds it.
    pub accepted: bool,
    /// The pools of its targets, each once.
    pub pools: Vec<String>,
    /// What ready endpoints offer of it now.
    pub on_offer: Modalities,
    /// What its targets are declared to take and give.
    pub declared: Modalities,
    /// What is declared and not on offer.
    pub lost: Modalities,
    /// What is declared and was found of a server that answered.
    pub found: Modalities,
    pub summary: api::ModelSummary,
}

/// The verdict that says whether the table holds a model.
pub(crate) const ACCEPTED: &str = "Accepted";

/// The object that serves each name: the oldest, and of equally old ones the first by name. Invalid objects take no name.
pub(crate) fn winners<'a>(
    models: impl Iterator<Item = (&'a ObjectKey, &'a InferenceModel)>,
) -> BTreeMap<&'a str, &'a ObjectKey> {
    let mut winners: BTreeMap<&str, (_, &ObjectKey)> = BTreeMap::new();
    for (key, model) in models.filter(|(_, model)| invalid(model).is_none()) {
        // Objects from files have no time and count as older than any that has; so does None in the order of Option.
        let age = model.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let claim = (age, key);
        winners.entry(&model.spec.model_name).and_modify(|winner| *winner = (*winner).min(claim)).or_insert(claim);
    }
    winners.into_iter().map(|(name, (_, key))| (name, key)).collect()
}

/// Whether the object serves its name.
pub(crate) fn accepted(key: &ObjectKey, object: &InferenceModel, winners: &BTreeMap<&str, &ObjectKey>) -> Verdict {
    let name = &object.spec.model_name;
    match (invalid(object), winners.get(&**name)) {
        (Some(why), _) => Verdict::no(ACCEPTED, "Invalid", why),
        (None, Some(winner)) if *winner != key => {
            let message = format!(
                "modelName {name:?} is served by InferenceModel {}, which is older or first by name; rename or delete one",
                winner.name
            );
            Verdict::no(ACCEPTED, "ModelNameInUse", message)
        }
        (None, _) => Verdict::yes(ACCEPTED, "Accepted", format!("this object routes requests for {name:?}")),
    }
}

/// What the table holds of an accepted model.
pub(crate) fn routed(object: &InferenceModel, targets: Vec<Target>) -> Model {
    Model {
        criticality: criticality(object),
        created: object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        first_byte_timeout: object.spec.first_byte_timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        targets,
        media: policy::media(object.spec.media.as_ref()),
    }
}

/// What is to be said of a model, by the table that holds the pools there are.
pub(crate) fn report(
    key: &ObjectKey,
    object: &InferenceModel,
    accepted: Verdict,
    targets: &[Target],
    table: &RoutingTable,
) -> ModelReport {
    let is_accepted = accepted.holds;
    let ready: Vec<Option<Capability>> = targets.iter().map(|target| table.on_offer(target)).collect();
    let offered = ready.iter().flatten().copied().reduce(Capability::union);
    let declared = targets.iter().map(|target| target.capability).reduce(Capability::union);
    let lost = lost(declared, offered);
    let resolved = resolved_refs(key, targets, table);
    let ready_targets = ready.iter().flatten().count();
    let summary = ModelSummary {
        pools: pools(targets).join(","),
        input: offered.map_or_else(|| "-".into(), |offered| offered.input.to_string()),
        output: offered.map_or_else(|| "-".into(), |offered| offered.output.to_string()),
        ready: if !accepted.holds {
            accepted.reason.clone().into_owned()
        } else if !resolved.holds && ready_targets == 0 {
            resolved.reason.clone().into_owned()
        } else {
            format!("{ready_targets}/{}", targets.len())
        },
    };
    ModelReport {
        uid: object.metadata.uid.clone(),
        generation: object.metadata.generation,
        accepted: is_accepted,
        pools: pools(targets).iter().map(|&pool| pool.to_owned()).collect(),
        on_offer: offered.filter(|_| is_accepted).map(modalities_of).unwrap_or_default(),
        declared: declared.map(modalities_of).unwrap_or_default(),
        lost: lost.filter(|_| is_accepted).map(modalities_of).unwrap_or_default(),
        found: Some(verified::found(targets, table)).filter(|_| is_accepted).map(modalities_of).unwrap_or_default(),
        verdicts: if is_accepted {
            let verified = verified::verified(targets, table);
            [accepted, resolved, available(offered, lost, targets)].into_iter().chain(verified).collect()
        } else {
            vec![accepted, resolved]
        },
        summary,
    }
}

/// What the API server would have refused; objects from files come past none.
fn invalid(object: &InferenceModel) -> Option<String> {
    let spec = &object.spec;
    let weights = spec.target_models.iter().filter(|target| target.weight.is_some()).count();
    if spec.model_name.is_empty() || spec.model_name.len() > 256 {
        return Some("modelName must have 1 to 256 bytes".into());
    }
    if weights != 0 && weights != spec.target_models.len() {
        return Some("weight must be set on every target model or on none".into());
    }
    if let Some(target) =
        spec.target_models.iter().find(|target| target.weight.is_some_and(|weight| !(1..=1_000_000).contains(&weight)))
    {
        return Some(format!("the weight of target model {:?} must be 1 to 1000000", target.name));
    }
    if spec.target_models.len() > 32 {
        return Some("at most 32 target models are allowed".into());
    }
    let homeless = spec.target_models.is_empty() || spec.target_models.iter().any(|target| target.pool_ref.is_none());
    if spec.pool_ref.is_none() && homeless {
        return Some("poolRef is required unless every target model names a pool of its own".into());
    }
    let declared =
        spec.modalities.iter().chain(spec.target_models.iter().filter_map(|target| target.modalities.as_ref()));
    if declared.flat_map(|modalities| &modalities.input).any(|modality| *modality == api::Modality::Embedding) {
        return Some("Embedding is an output modality and cannot be an input".into());
    }
    for target in &spec.target_models {
        if target.name.chars().any(char::is_control) {
            return Some(format!("the name of target model {:?} contains control characters", target.name));
        }
        if target.limits.is_some_and(|limits| limits.context_length == Some(0)) {
            return Some(format!("the contextLength of target model {:?} must be at least 1", target.name));
        }
        if let Some(unknown) = target.family.as_deref().and_then(|family| family.parse::<Family>().err()) {
            let known: Vec<&str> = Family::ALL.iter().map(|family| family.as_str()).collect();
            return Some(format!("{unknown}; expected one of {}", known.join(", ")));
        }
    }
    policy::invalid(spec.media.as_ref()?)
}

/// The models that servers know it by, as its object names them.
pub(crate) fn targets(object: &InferenceModel) -> Vec<Target> {
    let spec = &object.spec;
    let own_pool = spec.pool_ref.as_ref().map(|pool| &*pool.name);
    let default = spec.modalities.as_ref();
    let operations = &*spec.operations;
    if spec.target_models.is_empty() {
        let pool = own_pool.unwrap_or_default();
        return vec![Target {
            name: spec.model_name.as_str().into(),
            pool: pool.into(),
            capability: capability(default, operations),
            family: Family::guess(&spec.model_name),
            limits: Limits::NONE,
            weight: 1,
        }];
    }
    spec.target_models
        .iter()
        .map(|target| Target {
            name: target.name.as_str().into(),
            pool: target.pool_ref.as_ref().map(|pool| &*pool.name).or(own_pool).unwrap_or_default().into(),
            capability: capability(
                target.modalities.as_ref().or(default),
                if target.operations.is_empty() { operations } else { &target.operations },
            ),
            family: target.family.as_deref().map_or_else(|| Family::guess(&target.name), |family| family.parse().ok()),
            limits: policy::limits(target.limits),
            weight: target.weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1).max(1),
        })
        .collect()
}

/// What a declaration means: a side that is not named is text, and operations that are not named are all of them.
fn capability(declared: Option<&Modalities>, operations: &[api::Operation]) -> Capability {
    let operations = match operations {
        [] => OperationSet::ALL,
        named => named.iter().copied().map(policy::operation).collect(),
    };
    let side = |named: &[api::Modality]| {
        if named.is_empty() { ModalitySet::TEXT } else { named.iter().map(|m| modality(*m)).collect() }
    };
    declared
        .map_or(Capability::TEXT, |declared| Capability::new(side(&declared.input), side(&declared.output)))
        .limited_to(operations)
}

fn resolved_refs(key: &ObjectKey, targets: &[Target], table: &RoutingTable) -> Verdict {
    let Some(missing) = pools(targets).into_iter().find(|pool| !table.pools.contains_key(*pool)) else {
        return Verdict::yes("ResolvedRefs", "ResolvedRefs", "every pool exists");
    };
    let message =
        format!("there is no InferencePool {missing} in namespace {}; apply it, or correct poolRef", key.namespace);
    Verdict::no("ResolvedRefs", "PoolNotFound", message)
}

/// What is declared and has no ready endpoint behind it.
fn lost(declared: Option<Capability>, offered: Option<Capability>) -> Option<Capability> {
    let (declared, offered) = (declared?, offered.unwrap_or(Capability::new(ModalitySet::EMPTY, ModalitySet::EMPTY)));
    Some(Capability::new(declared.input.difference(offered.input), declared.output.difference(offered.output)))
}

/// Whether everything that is declared is on offer.
fn available(offered: Option<Capability>, lost: Option<Capability>, targets: &[Target]) -> Verdict {
    let no = |reason, message: String| Verdict::no("Available", reason, message);
    let Some((offered, lost)) = offered.zip(lost) else {
        let pools = pools(targets).join(", ");
        return no("NoEndpoint", format!("no endpoint is ready: see EndpointsReady of InferencePool {pools}"));
    };
    let missing = [("input", lost.input), ("output", lost.output)];
    let missing: Vec<String> = missing
        .into_iter()
        .filter(|(_, set)| !set.is_empty())
        .map(|(how, set)| {
            let is = if set.iter().count() == 1 { "is" } else { "are" };
            format!("{set} {is} declared as {how}, but not offered by any ready endpoint")
        })
        .collect();
    if missing.is_empty() {
        Verdict::yes("Available", "Available", format!("takes {}, gives {}", offered.input, offered.output))
    } else {
        no("ModalityLost", missing.join("; "))
    }
}

/// The names of the targets' pools.
fn pools(targets: &[Target]) -> Vec<&str> {
    Target::pools(targets).into_iter().map(|pool| &**pool).collect()
}

fn criticality(object: &InferenceModel) -> Criticality {
    match object.spec.criticality {
        api::Criticality::Critical => Criticality::Critical,
        api::Criticality::Standard => Criticality::Standard,
        api::Criticality::Sheddable => Criticality::Sheddable,
    }
}

/// The modality that objects call so.
pub fn modality(modality: api::Modality) -> Modality {
    match modality {
        api::Modality::Text => Modality::Text,
        api::Modality::Image => Modality::Image,
        api::Modality::Audio => Modality::Audio,
        api::Modality::Video => Modality::Video,
        api::Modality::Embedding => Modality::Embedding,
    }
}

fn modalities_of(capability: Capability) -> Modalities {
    let list = |set: ModalitySet| api::Modality::ALL.into_iter().filter(|m| set.contains(modality(*m))).collect();
    Modalities { input: list(capability.input), output: list(capability.output) }
}
