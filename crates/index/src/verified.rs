//! Whether model servers do what is declared of them, by what they were found to be.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use routing::{Capability, Endpoint, Modality, ModalitySet, OperationSet, Pool, RoutingTable, Target};

use crate::condition::Verdict;

pub(crate) const VERIFIED: &str = "Verified";

/// So many contradictions are told; a pool has them by the hundred.
const TOLD: usize = 3;

/// What was found of a model's targets. None where no server of theirs has answered.
pub(crate) fn verified(targets: &[Target], table: &RoutingTable) -> Option<Verdict> {
    let (mut asked, mut all) = (0, 0);
    let (mut wrong, mut unknown) = (Vec::new(), ModalitySet::EMPTY);
    for target in targets {
        let Some(pool) = table.pools.get(&target.pool) else { continue };
        all += pool.endpoints.len();
        asked += pool.endpoints.values().filter(|endpoint| endpoint.found.is_some()).count();
        let name = pool.listed(&target.name);
        if name.is_none() {
            wrong.extend(nobody_lists(target, pool));
        }
        for (endpoint_name, endpoint) in &pool.endpoints {
            wrong.extend(contradiction(endpoint_name, endpoint, target, name));
            unknown = unknown.union(untold(endpoint, target, name));
        }
    }
    if asked == 0 {
        return None;
    }
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(TOLD);
        wrong.truncate(TOLD);
        let mut message = wrong.join("; ");
        if more > 0 {
            _ = write!(message, "; and {more} more");
        }
        return Some(Verdict::no(VERIFIED, "Contradicted", message));
    }
    let mut message = format!("{asked} of {all} endpoints answered, and none contradicts what is declared");
    if !unknown.is_empty() {
        _ = write!(message, "; unknown for some endpoints: {}", unknown.in_words());
    }
    Some(Verdict::yes(VERIFIED, "Verified", message))
}

/// What servers of these targets were surely found to take and give, of what is declared.
pub(crate) fn found(targets: &[Target], table: &RoutingTable) -> Capability {
    let nothing = Capability::new(ModalitySet::EMPTY, ModalitySet::EMPTY).limited_to(OperationSet::EMPTY);
    let of_target = |target: &Target| {
        let endpoints = table.pools.get(&target.pool).into_iter().flat_map(|pool| pool.endpoints.values());
        let models = endpoints.filter_map(|endpoint| endpoint.found.as_ref()?.model(&target.name));
        let models = models.map(|model| Capability::new(model.input.yes(), model.output.yes()));
        models.map(|model| model.intersection(target.capability)).fold(nothing, Capability::union)
    };
    targets.iter().map(of_target).fold(nothing, Capability::union)
}

/// That servers of a pool list models, where none lists the target's.
fn nobody_lists(target: &Target, pool: &Pool) -> Option<String> {
    let found = || pool.endpoints.values().filter_map(|endpoint| endpoint.found.as_ref());
    if found().next().is_none() || found().any(|found| found.any_name) {
        return None;
    }
    let names: BTreeSet<&str> = found().flat_map(|found| found.models.keys()).map(|name| &**name).collect();
    let names: Vec<&str> = names.into_iter().take(TOLD).collect();
    let lists = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    Some(format!("no server of pool {} lists the model {}; they list {lists}", target.pool, target.name))
}

/// What an endpoint was found not to do that its target declares and it does not take back itself.
fn contradiction(name: &str, endpoint: &Endpoint, target: &Target, model: Option<&str>) -> Option<String> {
    let found = endpoint.found.as_ref()?;
    let offer = found.offer(model)?;
    let declared = endpoint.capability.map_or(target.capability, |own| target.capability.intersection(own));
    let (input, output) =
        (declared.input.difference(offer.capability.input), declared.output.difference(offer.capability.output));
    let operations = Some(declared.operations).filter(|_| declared.declares_operations());
    let operations =
        operations.map(|all| all.iter().filter(|one| !offer.capability.operations.contains(*one)).collect());
    let operations: OperationSet = operations.unwrap_or(OperationSet::EMPTY);
    let what = if !input.is_empty() {
        format!("does not accept {}", input.in_words())
    } else if !output.is_empty() {
        format!("does not answer with {}", output.in_words())
    } else if !operations.is_empty() {
        format!("does not serve {operations}")
    } else {
        let context = target.limits.context().zip(offer.limits.context()).filter(|(declared, found)| found < declared);
        let (declared, found) = context?;
        format!("has a context length of {found} tokens, not {declared}")
    };
    Some(format!("{name} ({}) {what}, as {} declares", found.what(), target.name))
}

/// What is declared of a target and nobody could tell of an endpoint that answered.
fn untold(endpoint: &Endpoint, target: &Target, model: Option<&str>) -> ModalitySet {
    // Of a model that nobody lists, one that answers to any name says something all the same.
    let name = model.unwrap_or(&target.name);
    let Some(model) = endpoint.found.as_ref().and_then(|found| found.model(name)) else {
        return ModalitySet::EMPTY;
    };
    let is_untold = |modality: &Modality| model.input.has(*modality).is_none();
    target.capability.input.iter().filter(is_untold).collect()
}
