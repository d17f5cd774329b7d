//! What is said of a pool's requests beside models: priorities that a header names, and other names for what is asked for. The words and
//! rules are llm-d's (InferenceObjective and InferenceModelRewrite).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ModelName;

/// Priorities and rewrites of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolPolicy {
    /// By the objective's name, which a request's header gives. Below zero: may be shed when there is not enough for all.
    pub priorities: BTreeMap<Arc<str>, i32>,
    /// By the name that clients ask for.
    pub rewrites: BTreeMap<ModelName, Vec<Rewrite>>,
    /// For every other name.
    pub rewrite_any: Vec<Rewrite>,
}

/// What a model server is asked for instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    pub name: ModelName,
    /// Share relative to the others; at least 1.
    pub weight: u32,
}

impl PoolPolicy {
    /// What a name becomes: the rule for it, or else the one for every name. Empty when it stays.
    pub fn rewrites_of(&self, model: &str) -> &[Rewrite] {
        self.rewrites.get(model).unwrap_or(&self.rewrite_any)
    }
}
