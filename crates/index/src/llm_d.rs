//! llm-d's objectives and rewrites, as a pool's policy.
//!
//! Of several rewrite rules for a request one fires: one for its very name before one for every name, then one of the older object, then the
//! first in its list. Upstream sorts by age alone and unstably; here objects of one age go by name, so that the same cluster always means the
//! same.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::llm_d::{InferenceModelRewrite, InferenceObjective, ObjectivePoolRef, RewriteRule, RewriteTarget};
use routing::{ModelName, PoolPolicy, Rewrite};

use crate::observe::{Index, ObjectKey};

/// What is said of a pool.
pub(crate) fn policy(index: &Index, pool: &ObjectKey) -> PoolPolicy {
    let is_here = |reference: &ObjectivePoolRef| {
        reference.name == pool.name
            && reference.group.as_deref().is_none_or(|group| group.starts_with("inference.networking."))
    };
    let objectives = index.objectives.in_namespace(&pool.namespace).filter(|(_, one)| is_here(&one.spec.pool_ref));
    let mut policy = PoolPolicy {
        priorities: objectives.map(|(key, one)| (Arc::from(&*key.name), priority(one))).collect(),
        ..PoolPolicy::default()
    };
    let mut rewrites: Vec<(&ObjectKey, &InferenceModelRewrite)> =
        index.rewrites.in_namespace(&pool.namespace).filter(|(_, one)| is_here(&one.spec.pool_ref)).collect();
    // The youngest first, and each object's last rule first: what is written later below takes the place of what was there.
    rewrites.sort_by_key(|(key, one)| Reverse((one.metadata.creation_timestamp.as_ref().map(|time| time.0), *key)));
    for rule in rewrites.iter().flat_map(|(_, one)| one.spec.rules.iter().rev()) {
        let targets = targets(&rule.targets);
        // A rule without a target would leave requests without a model; it says nothing.
        if targets.is_empty() {
            continue;
        }
        apply(rule, &targets, &mut policy.rewrites, &mut policy.rewrite_any);
    }
    policy
}

fn apply(
    rule: &RewriteRule,
    targets: &[Rewrite],
    exact: &mut BTreeMap<ModelName, Vec<Rewrite>>,
    any: &mut Vec<Rewrite>,
) {
    if rule.matches.is_empty() {
        *any = targets.to_vec();
    }
    for one in &rule.matches {
        match &one.model {
            Some(model) => _ = exact.insert(model.value.as_str().into(), targets.to_vec()),
            None => *any = targets.to_vec(),
        }
    }
}

fn priority(objective: &InferenceObjective) -> i32 {
    objective.spec.priority.unwrap_or(0)
}

/// Weights as upstream counts them: none means equal shares, and where some are set, those without are never chosen.
fn targets(targets: &[RewriteTarget]) -> Vec<Rewrite> {
    let weighted = targets.iter().any(|target| target.weight.is_some());
    let named = targets.iter().filter(|target| !target.model_rewrite.is_empty());
    named
        .filter_map(|target| {
            let weight = if weighted { u32::try_from(target.weight?).ok().filter(|weight| *weight > 0)? } else { 1 };
            Some(Rewrite { name: target.model_rewrite.as_str().into(), weight })
        })
        .collect()
}
