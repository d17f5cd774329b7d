//! Why no endpoint of a route can take a request.

use routing::{Capability, Exceeded, Limits, NoRoute, Offers, Route, Tier};
use scheduling::{Exhausted, Filter};

use crate::Rejection;
use crate::transaction::Undecided;

impl Undecided {
    pub(crate) fn no_endpoints(&self, route: &Route<'_>, exhausted: Exhausted) -> Rejection {
        if let Some((model, _)) = route.model
            && self.snapshot.table.pools_of_models.contains_key(model)
            && route.pools().iter().all(|pool| !self.snapshot.table.pools.contains_key(*pool))
        {
            return self.no_route(NoRoute::out_of_scope(model, &route.pools()));
        }
        let refusal = match exhausted {
            Exhausted::Filtered(Filter::Limits) => self.exceeded(route),
            Exhausted::Filtered(Filter::Capability) => self.uncovered(route),
            _ => None,
        };
        refusal.unwrap_or_else(|| {
            let pools = route.pools().iter().map(ToString::to_string).collect();
            let need = self.request.requires;
            Rejection::NoEndpoints { model: self.request.model.clone(), pools, need, exhausted }
        })
    }

    /// That the request brings more than whoever takes most of it.
    fn exceeded(&self, route: &Route<'_>) -> Option<Rejection> {
        let mut loosest: Option<(Limits, Exceeded)> = None;
        for target in route.tiers().iter().flat_map(Tier::targets) {
            let asked = self.asked(&self.content_at(route, &target), &target);
            let mut offers = Offers::of_model(self.listed(&target));
            for slot in self.snapshot.slots(target.pool()) {
                let able = offers.at(&slot.endpoint).filter(|offer| offer.capability.covers(asked.need));
                let Some(limits) = able.map(|offer| asked.limits.intersection(offer.limits)) else { continue };
                let Some(exceeded) = limits.exceeded_by(asked.size) else { continue };
                if loosest.is_none_or(|(known, _)| known.union(limits) != known) {
                    loosest = Some((limits, exceeded));
                }
            }
        }
        let (_, exceeded) = loosest?;
        let at = match exceeded {
            Exceeded::Items { modality, limit, .. } => {
                let items = self.request.media.iter().filter(|item| item.modality == modality);
                items.skip(limit as usize).map(|item| item.at.clone()).next()
            }
            Exceeded::Context { .. } => None,
        };
        let model = self.request.model.clone().unwrap_or_default();
        Some(Rejection::Exceeds { model, exceeded, at })
    }

    /// That every pool has endpoints, all of them were asked, and none takes it: trying again does not help. What is merely declared of pods may be
    /// about to come back.
    fn uncovered(&self, route: &Route<'_>) -> Option<Rejection> {
        let mut offered: Option<Capability> = None;
        for target in route.tiers().iter().flat_map(Tier::targets) {
            let slots = self.snapshot.slots(target.pool());
            if slots.is_empty() || slots.iter().any(|slot| slot.endpoint.found.is_none()) {
                return None;
            }
            let mut offers = Offers::of_model(self.listed(&target));
            let own = slots.iter().filter_map(|slot| offers.at(&slot.endpoint));
            let own = own.map(|offer| target.capability().intersection(offer.capability));
            offered = offered.into_iter().chain(own).reduce(Capability::union);
        }
        let offered = offered?;
        let missing = self.request.requires.missing_from(offered);
        let model = self.request.model.clone().unwrap_or_default();
        Some(self.no_route(NoRoute::Uncovered { model, offered, missing, alternatives: Vec::new() }))
    }
}
