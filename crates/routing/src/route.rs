//! The answer of a table: tiers of targets, or why there is none.

use crate::{
    Capability, Draw, Family, Fit, Limits, Missing, Model, ModelName, PoolName, PoolPolicy, Requirement, Target,
};

/// Where a request may go, the tightest fit first.
#[derive(Debug)]
pub struct Route<'t> {
    /// The declared model, or none where a pool is asked as it is.
    pub model: Option<(&'t ModelName, &'t Model)>,
    tiers: Vec<Tier<'t>>,
}

/// Targets that fit equally well.
#[derive(Debug)]
pub struct Tier<'t> {
    choices: Vec<Choice<'t>>,
}

/// A target as a request sees it. The name is none where the request's own model name stays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'t> {
    name: Option<&'t ModelName>,
    pool: &'t PoolName,
    capability: Capability,
    family: Option<Family>,
    limits: Limits,
    weight: u32,
}

/// Why a request has no route. Each variant carries what an answer to the client needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    #[error("the model {model:?} does not exist{}", near_names(near))]
    UnknownModel { model: String, near: Vec<String> },

    #[error("the model {model:?} does not exist: no InferenceModel is declared, so requests cannot be routed to pools {}", pools.join(" and "))]
    Undeclared { model: String, pools: Vec<String> },

    #[error("{}", uncovered(model, *offered, *missing, alternatives))]
    Uncovered { model: String, offered: Capability, missing: Missing, alternatives: Vec<String> },

    #[error("the request names no model, and requests are routed by model here")]
    NoModelNamed,

    #[error("no pool is served here")]
    NothingServed,

    #[error(
        "the model {model:?} serves this request from pool {}, which this picker does not serve; use that pool's route",
        pools.join(" or ")
    )]
    OutOfScope { model: String, pools: Vec<String> },

    #[error("this request belongs to pool {}, which this picker does not serve; use that pool's route", pools.join(" or "))]
    PoolOutOfScope { pools: Vec<String> },
}

// === impl NoRoute ===

impl NoRoute {
    /// That a model is served by these pools, and none of them is here.
    pub fn out_of_scope(model: &str, pools: &[impl ToString]) -> Self {
        Self::OutOfScope { model: model.to_owned(), pools: pools.iter().map(ToString::to_string).collect() }
    }

    /// The same of what names no model that is declared.
    pub fn pool_out_of_scope(pools: &[impl ToString]) -> Self {
        Self::PoolOutOfScope { pools: pools.iter().map(ToString::to_string).collect() }
    }
}

// === impl Route ===

impl<'t> Route<'t> {
    pub(crate) fn of_model(name: &'t ModelName, model: &'t Model, need: Requirement) -> Option<Self> {
        let mut fitting: Vec<(Fit, &'t Target)> =
            model.targets.iter().filter_map(|target| Some((target.capability.fit(need)?, target))).collect();
        // Declared beats assumed. A server that serves everything by assumption most often does not know a path that another target names.
        let names = |target: &Target| target.capability.declares_operations();
        if fitting.iter().any(|(_, target)| names(target)) {
            fitting.retain(|(_, target)| names(target));
        }
        // Stable: equals keep the order of the object.
        fitting.sort_by_key(|(fit, _)| std::cmp::Reverse(*fit));
        let tiers: Vec<Tier<'t>> = fitting
            .chunk_by(|a, b| a.0 == b.0)
            .map(|equals| Tier { choices: equals.iter().map(|(_, target)| Choice::of(target)).collect() })
            .collect();
        (!tiers.is_empty()).then_some(Self { model: Some((name, model)), tiers })
    }

    /// A pool asked as it is, whatever is said of it.
    pub(crate) fn as_it_is(pool: &'t PoolName, need: Requirement) -> Self {
        let choice =
            Choice { name: None, pool, capability: Capability::ANY, family: None, limits: Limits::NONE, weight: 1 };
        let fit = Capability::ANY.fit(need);
        Self { model: None, tiers: fit.map(|_| Tier { choices: vec![choice] }).into_iter().collect() }
    }

    /// A pool that no model refers to, asked as it is, or by the other names that its policy has for the model.
    pub(crate) fn undeclared(
        pool: &'t PoolName,
        policy: &'t PoolPolicy,
        model: Option<&str>,
        need: Requirement,
    ) -> Self {
        let choice = |name, weight| Choice {
            name,
            pool,
            capability: Capability::ANY,
            family: None,
            limits: Limits::NONE,
            weight,
        };
        let rewrites = model.map(|model| policy.rewrites_of(model)).unwrap_or_default();
        let choices = match rewrites {
            [] => vec![choice(None, 1)],
            some => some.iter().map(|rewrite| choice(Some(&rewrite.name), rewrite.weight)).collect(),
        };
        let fit = Capability::ANY.fit(need);
        Self { model: None, tiers: fit.map(|_| Tier { choices }).into_iter().collect() }
    }

    /// What of the route leads to one pool, or where else it leads.
    pub fn within(&self, pool: &str) -> Result<Self, NoRoute> {
        let here = |tier: &Tier<'t>| {
            let choices: Vec<_> = tier.choices.iter().copied().filter(|choice| *choice.pool == *pool).collect();
            (!choices.is_empty()).then_some(Tier { choices })
        };
        let tiers: Vec<_> = self.tiers.iter().filter_map(here).collect();
        match self.model {
            Some((model, _)) if tiers.is_empty() => Err(NoRoute::out_of_scope(model, &self.pools())),
            None if tiers.is_empty() => Err(NoRoute::pool_out_of_scope(&self.pools())),
            _ => Ok(Self { model: self.model, tiers }),
        }
    }

    /// The tiers, the tightest first; at least one.
    pub fn tiers(&self) -> &[Tier<'t>] {
        &self.tiers
    }

    /// The pools of every tier, each once, in order.
    pub fn pools(&self) -> Vec<&'t PoolName> {
        let mut pools: Vec<&'t PoolName> = Vec::new();
        for choice in self.tiers.iter().flat_map(|tier| &tier.choices) {
            if !pools.contains(&choice.pool) {
                pools.push(choice.pool);
            }
        }
        pools
    }
}

// === impl Tier ===

impl<'t> Tier<'t> {
    /// The targets in the order of the object.
    pub fn targets(&self) -> impl Iterator<Item = OrderedTarget<'t>> {
        self.choices.iter().copied().map(OrderedTarget)
    }

    /// The targets in the order they are to be tried: the first is drawn by weight, and so is each next one among the rest.
    pub fn order(&self, draw: &mut Draw) -> Vec<OrderedTarget<'t>> {
        let mut rest: Vec<Choice<'t>> = self.choices.clone();
        let mut order = Vec::with_capacity(rest.len());
        while !rest.is_empty() {
            let total: u64 = rest.iter().map(|choice| u64::from(choice.weight)).sum();
            let mut point = draw.below(total.max(1));
            let hit = rest.iter().position(|choice| match point.checked_sub(u64::from(choice.weight)) {
                Some(left) => {
                    point = left;
                    false
                }
                None => true,
            });
            order.push(OrderedTarget(rest.remove(hit.unwrap_or(0))));
        }
        order
    }
}

/// A target, in whichever order.
#[derive(Debug, Clone, Copy)]
pub struct OrderedTarget<'t>(Choice<'t>);

impl<'t> OrderedTarget<'t> {
    /// What the model server is asked for; none where the request's own name stays.
    pub fn name(&self) -> Option<&'t ModelName> {
        self.0.name
    }

    pub fn pool(&self) -> &'t PoolName {
        self.0.pool
    }

    pub fn capability(&self) -> Capability {
        self.0.capability
    }

    pub fn family(&self) -> Option<Family> {
        self.0.family
    }

    /// What its object says of how much one request may bring.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }
}

impl<'t> Choice<'t> {
    fn of(target: &'t Target) -> Self {
        let Target { name, pool, capability, family, limits, weight } = target;
        Self { name: Some(name), pool, capability: *capability, family: *family, limits: *limits, weight: *weight }
    }
}

// === NoRoute in words ===

fn near_names(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; did you mean {}?", quoted(names)),
    }
}

fn uncovered(model: &str, offered: Capability, missing: Missing, alternatives: &[String]) -> String {
    let mut text = if let Some(operation) = missing.operation {
        format!("model {model:?} serves {}, not {operation}", offered.operations)
    } else if !missing.input.is_empty() {
        format!("model {model:?} takes {}, not {}", offered.input.in_words(), missing.input.in_words())
    } else if !missing.output.is_empty() {
        format!("model {model:?} answers with {}, not {}", offered.output.in_words(), missing.output.in_words())
    } else {
        format!("no target of model {model:?} supports this combination of input and output")
    };
    if !alternatives.is_empty() {
        text += &format!("; {} could take it", quoted(alternatives));
    }
    text
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}
