//! Why a request goes where it goes: the decision taken apart, for a person. Nothing of it is on the way of a request.

use std::net::SocketAddr;
use std::time::Instant;

use request::InferenceRequest;
use routing::{Draw, Requirement};
use scheduling::{Ask, Explained};

use super::{Bound, Director};
use crate::Rejection;

/// What would become of a request, and what every endpoint that is looked at has to do with it.
#[derive(Debug)]
pub struct Explanation {
    pub need: Requirement,
    pub revision: u64,
    pub outcome: Result<Outcome, Rejection>,
    /// In the order of the tiers, and in each as the draw has it.
    pub candidates: Vec<Considered>,
}

/// Where it would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub endpoint: String,
    pub address: SocketAddr,
    pub pool: String,
    pub target: Option<String>,
    pub why: String,
}

/// An endpoint that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Considered {
    /// Counted from 1; the tightest fit is the first.
    pub tier: usize,
    pub target: Option<String>,
    pub pool: String,
    pub endpoint: String,
    pub address: SocketAddr,
    /// The filter that left it out, or its scores.
    pub verdict: Explained,
}

impl Director {
    /// Decides as [`Director::direct`] does, and says how. Counts no request.
    pub fn explain(&self, request: &InferenceRequest, now: Instant, draw: Draw) -> Explanation {
        let outcome = self.direct(request, Bound::default(), now, draw).map(|decision| Outcome {
            endpoint: decision.endpoints[0].name.to_string(),
            address: decision.endpoints[0].address,
            pool: decision.pool.to_string(),
            target: decision.target.as_deref().map(str::to_owned),
            why: decision.why.to_string(),
        });
        let mut explanation = Explanation { need: request.requires, revision: 0, outcome, candidates: Vec::new() };
        let Some(snapshot) = self.snapshot.load_full() else { return explanation };
        explanation.revision = snapshot.revision;
        let Ok(route) = snapshot.table.route(request.model.as_deref(), request.requires) else { return explanation };
        let (ask, mut draw) = (Ask { need: request.requires, subset: None }, draw);
        for (number, tier) in route.tiers().iter().enumerate() {
            for target in tier.order(&mut draw) {
                for (place, slot) in snapshot.pools.get(target.pool()).into_iter().flatten().enumerate() {
                    explanation.candidates.push(Considered {
                        tier: number + 1,
                        target: target.name().map(ToString::to_string),
                        pool: target.pool().to_string(),
                        endpoint: slot.name.to_string(),
                        address: slot.endpoint.address,
                        verdict: self.profiles[0].explain(&ask, &slot.candidate(place, &self.board, now)),
                    });
                }
            }
        }
        explanation
    }
}
