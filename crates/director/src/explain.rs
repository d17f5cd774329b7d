//! Why a request goes where it goes: the decision taken apart, for a person. Nothing of it is on the way of a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use request::InferenceRequest;
use routing::{Draw, Offers};
use scheduling::Explained;

use crate::transaction::Undecided;
use crate::{Bound, Plan, Rejection, Trace, Transaction};

/// What would become of a request, and what every endpoint that is looked at has to do with it.
#[derive(Debug)]
pub struct Explanation {
    pub request: InferenceRequest,
    pub revision: u64,
    /// Where it would go, or why nowhere. Nothing of it has begun.
    pub outcome: Result<Plan, Rejection>,
    /// Whether it would wait first, until there is room.
    pub waits: bool,
    /// In the order of the tiers, and in each as the draw has it.
    pub candidates: Vec<Considered>,
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
    /// The filter that left it out, or what the request costs there.
    pub verdict: Explained,
}

impl Transaction {
    /// Decides as [`Transaction::finish`] does for a request about a model, and says how: by the same draw the same, as long as nothing else changes.
    /// Counts no request. Fails where there is nothing to
    /// explain: the body is unreadable, or there is no table.
    pub fn explain(self, now: Instant, draw: Draw) -> Result<Explanation, Rejection> {
        let handler = Arc::clone(&self.handler);
        let undecided = Undecided::new(&handler, self.read()?, Bound::default(), None, Trace::default(), now, draw)?;
        let outcome = undecided.route().and_then(|route| {
            let plan = undecided.plan(&route, None)?;
            let waits = undecided.asks_to_wait(&route, &plan, false)?.is_some();
            Ok((plan, waits))
        });
        let waits = matches!(outcome, Ok((_, true)));
        let outcome = outcome.map(|(plan, _)| plan);
        let (candidates, revision) = (undecided.considered(), undecided.snapshot.revision);
        Ok(Explanation { request: undecided.request, revision, outcome, waits, candidates })
    }
}

impl Undecided {
    fn considered(&self) -> Vec<Considered> {
        let mut considered = Vec::new();
        let need = self.request.requires;
        let Ok(route) = self.snapshot.table.route(self.request.model.as_deref(), need) else { return considered };
        let (director, mut draw) = (self.director(), self.draw);
        let now = director.stamp(self.now);
        let profiles = director.profiles();
        let profile = self.profile(&profiles, &route);
        for (number, tier) in route.tiers().iter().enumerate() {
            for target in tier.order(&mut draw) {
                let content = self.content_at(&route, &target);
                let asked = self.asked(&content, &target);
                let mut offers = Offers::of_model(self.listed(&target));
                for (place, slot) in self.snapshot.slots(target.pool()).iter().enumerate() {
                    considered.push(Considered {
                        tier: number + 1,
                        target: target.name().map(ToString::to_string),
                        pool: target.pool().to_string(),
                        endpoint: slot.state.id().name.to_string(),
                        address: slot.endpoint.address,
                        verdict: profile.explain(&asked, &slot.candidate(place, now, &content, &mut offers)),
                    });
                }
            }
        }
        considered
    }
}
