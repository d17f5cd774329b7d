//! Which attempts a request gets, and in which order: over endpoints, then targets, then tiers.

use std::sync::Arc;
use std::time::Duration;

use media::NameScope;
use request::{InferenceRequest, Owned, OwnedKind, Resource, Splice};
use routing::{Capability, Limits, ModelName, NoRoute, Offers, Operation, OrderedTarget, PoolName, Route, Size};
use scheduling::{Choice, Exhausted, Filter, Ranked, SchedulingRequest, Work};

use crate::content::{self, Content};
use crate::dispatch::{HeaderChanges, MAX_ATTEMPTS, MAX_PER_TARGET};
use crate::snapshot::Slot;
use crate::splices::{self, Uuids};
use crate::transaction::Undecided;
use crate::{Asked, Attempt, EndpointId, Plan, Rejection, Why, policy};

/// An endpoint that can take the request, on the way to being an attempt.
struct Found<'t> {
    ranked: Ranked,
    content: Arc<Content>,
    slot: &'t Slot,
    target: Option<&'t ModelName>,
    capability: Capability,
    tier: usize,
    equals: usize,
    choice: Choice,
    /// What the cheapest like it costs.
    least: f32,
    /// What is taken there at once.
    limits: Limits,
    /// What is asked for there, where that is an adapter.
    adapter: Option<&'t str>,
}

/// Why there is no endpoint to try.
enum Nowhere {
    Exhausted(Exhausted),
    /// Every target would take this word of the text for the place of a media item.
    Placeholder(&'static str),
}

/// A saving below this is no reason to go to the next wider tier, in milliseconds.
const WORTH_A_TIER: f32 = 10.0;

/// Nor one of this share of what it costs there: costs are estimates.
const SHARE_WORTH_A_TIER: f32 = 0.1;

impl Undecided {
    /// The way to the owner of what the path names, whatever models are declared.
    pub(crate) fn to_owner(&self, what: &Owned, owner: &EndpointId) -> Result<Plan, Rejection> {
        let lost = || Rejection::LostOwned { owned: what.clone() };
        let slot = self.snapshot.slot_of(owner).ok_or_else(lost)?;
        let pool = &owner.pool;
        if self.bound_to().is_some_and(|bound| bound != pool) {
            return Err(self.no_route(NoRoute::pool_out_of_scope(&[pool])));
        }
        if self.bound.subset.as_ref().is_some_and(|subset| !subset.allows(slot.endpoint.address)) {
            let (pools, exhausted) = (vec![pool.to_string()], Exhausted::Filtered(Filter::Subset));
            return Err(Rejection::NoEndpoints { model: None, pools, need: self.request.requires, exhausted });
        }
        let attempt = self.attempt(slot, None, &Arc::default(), (&Arc::default(), Work::default()));
        let need = self.request.requires;
        let why = Why {
            need,
            capability: Capability::ANY,
            tier: 1,
            tiers: 1,
            candidates: 1,
            choice: Choice::Cheapest,
            lacks: None,
        };
        let asked = self.counted_by(None, None, 0);
        Ok(self.plan_of(vec![attempt], Some(0), None, why, asked))
    }

    /// The attempts that the route allows, over endpoints, then targets, then tiers; only that of the owner where there is one.
    pub(crate) fn plan(&self, route: &Route<'_>, owner: Option<&EndpointId>) -> Result<Plan, Rejection> {
        let within;
        let route = match self.bound_to() {
            Some(pool) => {
                within = route.within(pool).map_err(|no_route| self.no_route(no_route))?;
                &within
            }
            None => route,
        };
        let found = self.find(route, owner).map_err(|nowhere| match (nowhere, owner, self.owned()) {
            (Nowhere::Placeholder(token), ..) => {
                policy::placeholder_refused(self.request.model.as_deref().unwrap_or_default(), token)
            }
            (Nowhere::Exhausted(Exhausted::NoEndpoints), Some(owner), Some(what)) => {
                Rejection::OwnerCannotServe { owned: what.clone(), pool: owner.pool.to_string() }
            }
            (Nowhere::Exhausted(exhausted), ..) => self.no_endpoints(route, exhausted),
        })?;
        let first = &found[0];
        let why = Why {
            need: self.request.requires,
            capability: first.capability,
            tier: first.tier,
            tiers: route.tiers().len(),
            candidates: first.equals,
            choice: first.choice,
            lacks: first.ranked.lacks,
        };
        if owner.is_none() && matches!(why.lacks, Some(Filter::Queue | Filter::Room)) && self.priority(route) < 0 {
            return Err(self.saturated(route));
        }
        let media_tokens = first.content.media_tokens;
        let mut attempts: Vec<Attempt> = Vec::with_capacity(found.len());
        let uuids = Uuids::of(
            &self.request,
            route.model.map(|(_, model)| &model.media),
            self.scope(),
            self.director().hash_key(),
        );
        for Found { slot, target, content, ranked, limits, adapter, .. } in &found {
            let is_sent_the_same = |(_, at): &(&Attempt, &Found<'_>)| {
                let is_of_one_pool = at.slot.state.id().pool == slot.state.id().pool;
                at.target == *target && is_of_one_pool && uuids.adds_names_at(at.slot) == uuids.adds_names_at(slot)
            };
            let model = target.map(|target| &**target).or(self.request.model.as_deref());
            let known = attempts.iter().zip(&found).find(is_sent_the_same).map(|(known, _)| Arc::clone(&known.splices));
            let splices = known.unwrap_or_else(|| splices::of(&self.request, *target, uuids.at(slot, model)));
            let attempt = self.attempt(slot, *target, &splices, (content, ranked.parts.work));
            attempts.push(Attempt { limits: *limits, adapter: adapter.map(ModelName::from), ..attempt });
        }
        let first_byte_timeout = route.model.and_then(|(_, model)| model.first_byte_timeout);
        let pool = &first.slot.state.id().pool;
        let asked = self.counted_by(self.known_model(route, Some(pool)), first.target.cloned(), self.priority(route));
        Ok(self.plan_of(attempts, media_tokens, first_byte_timeout, why, asked))
    }

    fn find<'t>(&'t self, route: &Route<'t>, owner: Option<&EndpointId>) -> Result<Vec<Found<'t>>, Nowhere> {
        let director = &self.handler.director;
        let (now, mut draw) = (director.stamp(self.now), self.draw);
        let profiles = director.profiles();
        let profile = self.profile(&profiles, route);
        let mut exhausted = None;
        let mut typed = None;
        let policy = route.model.map(|(_, model)| &model.media);
        let mut found: Vec<Found<'t>> = Vec::with_capacity(MAX_ATTEMPTS);
        let mut unspoilt = 0;
        for (number, tier) in route.tiers().iter().enumerate() {
            for target in tier.order(&mut draw) {
                if let Some(token) = policy::placeholder(policy, target.capability(), target.family(), &self.request) {
                    typed = Some(token);
                    continue;
                }
                let slots = self.snapshot.slots(target.pool());
                let content = Arc::new(self.content_at(route, &target));
                let asked = self.asked(&content, &target);
                let allowed = |slot: &Slot| owner.is_none_or(|owner| slot.state.id() == owner);
                let candidates = slots.iter().enumerate().filter(|(_, slot)| allowed(slot));
                let mut offers = Offers::of_model(self.listed(&target));
                let candidates = candidates.map(|(place, slot)| slot.candidate(place, now, &content, &mut offers));
                match profile.run(&asked, candidates, MAX_PER_TARGET, &mut draw) {
                    Ok(ranking) => {
                        unspoilt += ranking.iter().filter(|ranked| ranked.lacks.is_none()).count();
                        let listed = self.listed(&target);
                        found.extend(ranking.iter().map(|ranked| {
                            let offer = offers.at(&slots[ranked.place].endpoint);
                            let limits = offer.map_or(Limits::NONE, |offer| offer.limits);
                            Found {
                                ranked: *ranked,
                                limits: target.limits().intersection(limits),
                                adapter: listed.filter(|_| offer.is_some_and(|offer| offer.is_adapter)),
                                content: Arc::clone(&content),
                                slot: &slots[ranked.place],
                                target: target.name(),
                                capability: target.capability(),
                                tier: number + 1,
                                equals: ranking.equals,
                                choice: ranking.choice,
                                least: ranking.least,
                            }
                        }));
                    }
                    // One that came further says more.
                    Err(why) => exhausted = exhausted.max(Some(why)),
                }
                if unspoilt >= MAX_ATTEMPTS {
                    break;
                }
            }
            // One more tier than what there is enough of: it may cost much less there.
            if unspoilt >= MAX_ATTEMPTS && number > 0 {
                break;
            }
        }
        let tiers = order_of_tiers(&found);
        // Stable: in a tier, targets stay as the draw has them.
        found.sort_by_key(|found| (found.ranked.demotion, tiers.get(found.tier).copied()));
        found.truncate(MAX_ATTEMPTS);
        match (found.is_empty(), exhausted, typed) {
            (false, ..) => Ok(found),
            (true, None, Some(token)) => Err(Nowhere::Placeholder(token)),
            (true, exhausted, _) => Err(Nowhere::Exhausted(exhausted.unwrap_or(Exhausted::NoEndpoints))),
        }
    }

    /// What the servers of a target would cache of the request.
    pub(crate) fn content_at(&self, route: &Route<'_>, target: &OrderedTarget<'_>) -> Content {
        let policy = route.model.map(|(_, model)| &model.media);
        let density = self.snapshot.density(target.pool());
        Content::of(&self.request, target.name(), target.family(), self.scope(), policy, density)
    }

    /// Where the client's own names for media hold.
    fn scope(&self) -> NameScope<'_> {
        let model = self.request.model.as_deref().unwrap_or_default();
        NameScope { namespace: &self.handler.namespace, model, caller: &self.caller }
    }

    pub(crate) fn asked<'a>(&'a self, content: &Content, target: &OrderedTarget<'a>) -> SchedulingRequest<'a> {
        SchedulingRequest {
            need: self.request.requires,
            size: self.size(content),
            limits: target.limits(),
            subset: self.bound.subset.as_ref(),
            content: content.home(),
        }
    }

    /// What the endpoints of a target are asked for, where some of them list it: see [`routing::Found::offer`].
    pub(crate) fn listed<'a>(&'a self, target: &OrderedTarget<'a>) -> Option<&'a str> {
        let model = target.name().map(|name| &**name).or(self.request.model.as_deref())?;
        self.snapshot.listed(target.pool(), model)
    }

    /// How much one prompt of it brings, as far as that can be told: of several in one request each has the limits to itself, and speech is cut into
    /// pieces that fit.
    fn size(&self, content: &Content) -> Size {
        if !content::is_one_prompt(&self.request) {
            return Size::default();
        }
        let items = self.request.media.iter().map(|item| item.modality);
        items.fold(Size::of(content.tokens).cautiously(content.cautious), Size::with_item)
    }

    fn attempt(
        &self,
        slot: &Slot,
        target: Option<&ModelName>,
        splices: &Arc<[Splice]>,
        (content, work): (&Arc<Content>, Work),
    ) -> Attempt {
        Attempt {
            state: Arc::clone(&slot.state),
            address: slot.endpoint.address,
            app_protocol: self.snapshot.app_protocol(&slot.state.id().pool),
            target: target.cloned(),
            splices: Arc::clone(splices),
            work,
            limits: Limits::NONE,
            adapter: None,
            content: Arc::clone(content),
        }
    }

    /// The model that is asked for, where it is declared, or a server of this pool lists it.
    pub(crate) fn known_model(&self, route: &Route<'_>, pool: Option<&PoolName>) -> Option<ModelName> {
        match route.model {
            Some((name, _)) => Some(name.clone()),
            None => self.snapshot.listed_name(pool?, self.request.model.as_deref()?),
        }
    }

    /// Whether a model is asked for something.
    pub(crate) fn is_inference(&self) -> bool {
        matches!(self.request.resource, Resource::Operation(_))
    }

    fn counted_by(&self, model: Option<ModelName>, target: Option<ModelName>, priority: i32) -> Asked {
        let InferenceRequest { requires, stream, bytes, .. } = &self.request;
        Asked {
            model,
            target,
            priority,
            operation: requires.operation,
            is_inference: self.is_inference(),
            input: requires.input,
            is_streamed: *stream,
            bytes: *bytes,
        }
    }

    fn plan_of(
        &self,
        attempts: Vec<Attempt>,
        media_tokens: Option<u64>,
        first_byte_timeout: Option<Duration>,
        why: Why,
        asked: Asked,
    ) -> Plan {
        let makes = match self.request.resource {
            Resource::Operation(Operation::Videos) => Some(OwnedKind::Video),
            Resource::Operation(Operation::Responses) => Some(OwnedKind::Response),
            _ => None,
        };
        Plan {
            attempts,
            headers: HeaderChanges::default(),
            media_tokens,
            revision: self.snapshot.revision,
            why,
            first_byte_timeout,
            waited: Duration::ZERO,
            makes,
            // The first event of a response says that it was created, which is not that it was read.
            streams: self.request.stream && self.request.requires.operation != Operation::Responses,
            asked,
            life: None,
            owners: Arc::clone(&self.handler.owners),
            observer: Arc::clone(&self.handler.observer),
        }
    }
}

/// How late each tier comes, by its number: a wider fit before a tighter one where the request would cost less there by what is worth talking of. A tighter one
/// is kept free for nobody, a wider one for those that nobody else can take.
fn order_of_tiers(found: &[Found<'_>]) -> Vec<usize> {
    let last = found.iter().map(|found| found.tier).max().unwrap_or(0);
    let mut costs = vec![f32::INFINITY; last + 1];
    let first = found.first().map_or(0, |found| found.tier);
    // Of each tier that endpoint which would be tried first. What a wider one has in its caches, because it had to step in once, is no reason to stay there.
    for Found { tier, ranked, least, .. } in found.iter().rev().filter(|found| found.ranked.demotion == 0) {
        costs[*tier] = if *tier == first { *least } else { ranked.cost_anew };
    }
    #[expect(clippy::cast_precision_loss, reason = "a table has few tiers")]
    let worth = |tier: usize| costs[tier] + WORTH_A_TIER.max(costs[tier] * SHARE_WORTH_A_TIER) * tier as f32;
    let mut order: Vec<usize> = (0..=last).collect();
    order.sort_by(|one, other| worth(*one).total_cmp(&worth(*other)));
    let mut places = vec![0; last + 1];
    for (place, tier) in order.into_iter().enumerate() {
        places[tier] = place;
    }
    places
}
