//! The life of one request up to its dispatch, as values: opened with its head, fed its body, finished into a step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use media::NameScope;
use request::{InferenceRequest, Owned, OwnedKind, RequestHead, Resource, Scanner, Splice};
use routing::{
    Capability, Criticality, Draw, Family, ModelName, NoRoute, Operation, PoolName, Route, Target, UnsafeFeature,
};
use scheduling::{Exhausted, Filter, Ranked, SchedulingRequest, Subset, Work};

use crate::content::Content;
use crate::dispatch::{HeaderChanges, MAX_ATTEMPTS, MAX_PER_TARGET};
use crate::snapshot::{KnownEndpoint, Slot, Snapshot};
use crate::{
    Attempt, Director, Dispatch, EndpointId, Plan, Rejection, Reply, RequestHandler, Search, Why, policy, splices,
};

/// A request whose body is being read. Keeps no byte of it.
#[derive(Debug)]
pub struct Transaction {
    pub(crate) handler: Arc<RequestHandler>,
    scanner: Scanner,
}

/// What a gateway can reach, as far as it says so; a picker that asks for more would be ignored in silence.
#[derive(Debug, Clone, Default)]
pub struct Bound {
    /// The endpoints that it allows.
    pub subset: Option<Subset>,
    /// The pool that its route leads to, where it knows no endpoint of another. A pool that is not in the table binds nobody.
    pub pool: Option<String>,
}

/// What an edge is to do next.
#[derive(Debug)]
pub enum Step {
    /// Find out who owns something, and say so: [`OwnerQuestion::answered`].
    FindOwner(Box<OwnerQuestion>),
    /// Answer this.
    Answer(Reply),
    /// Send it there.
    Dispatch(Box<Dispatch>),
}

/// A request about something whose owner is not known.
#[derive(Debug)]
pub struct OwnerQuestion {
    undecided: Undecided,
    owned: Owned,
    among: Vec<KnownEndpoint>,
    /// Somebody made it, who is gone.
    lost: bool,
}

/// A request that was read, and everything that its decision hangs on: one table, one instant, one draw.
#[derive(Debug)]
pub(crate) struct Undecided {
    handler: Arc<RequestHandler>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) request: InferenceRequest,
    bound: Bound,
    /// What the client authorizes by.
    caller: Vec<u8>,
    /// What stands in the place of clients' own names for media, unless the model's owner lets them share.
    uuids: Vec<Splice>,
    pub(crate) now: Instant,
    pub(crate) draw: Draw,
}

/// What was decided.
enum Decided {
    Reply(Reply),
    Plan(Plan),
}

/// An endpoint that can take the request, on the way to being an attempt.
struct Found<'t> {
    ranked: Ranked,
    content: Arc<Content>,
    slot: &'t Slot,
    target: Option<&'t ModelName>,
    capability: Capability,
    tier: usize,
    equals: usize,
    is_swayed: bool,
}

/// Why there is no endpoint to try.
enum Nowhere {
    Exhausted(Exhausted),
    /// Every target would take this word of the text for the place of a media item.
    Placeholder(&'static str),
}

// === impl Transaction ===

impl Transaction {
    pub(crate) fn open(handler: &Arc<RequestHandler>, head: &RequestHead<'_>) -> Result<Self, Rejection> {
        let scanner = Scanner::with_key(head, handler.limits, handler.director.hash_key());
        let scanner = scanner.map_err(|unreadable| handler.reject(unreadable))?;
        if !handler.takes(scanner.resource(), head.path) {
            return Err(handler.reject(Rejection::UnknownPath));
        }
        Ok(Self { handler: Arc::clone(handler), scanner })
    }

    /// What the path asks for, known before the body.
    pub fn resource(&self) -> &Resource {
        self.scanner.resource()
    }

    /// Reads more of the body. After an error the request is over.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        self.scanner.feed(bytes).map_err(|unreadable| self.handler.reject(unreadable))
    }

    /// The body has ended. `caller` is what the client authorizes by, as it stands in its head. The decision is made at the instant that
    /// `clock` gives first; it is read twice more, to say how long the decision took.
    pub fn finish(
        self,
        bound: Bound,
        caller: Option<&[u8]>,
        clock: impl Fn() -> Instant,
        draw: Draw,
    ) -> Result<Step, Rejection> {
        let handler = Arc::clone(&self.handler);
        handler.decide(self.read()?, bound, caller, clock, draw)
    }

    /// The body has ended, and somebody else decides: [`RequestHandler::decide`].
    pub fn read(self) -> Result<InferenceRequest, Rejection> {
        self.scanner.finish().map_err(|unreadable| self.handler.reject(unreadable))
    }
}

// === impl OwnerQuestion ===

impl OwnerQuestion {
    pub fn owned(&self) -> &Owned {
        &self.owned
    }

    pub fn among(&self) -> &[KnownEndpoint] {
        &self.among
    }

    /// Goes on with what was found.
    pub fn answered(self, search: Search, clock: impl Fn() -> Instant) -> Result<Step, Rejection> {
        let Self { undecided, owned, lost, .. } = self;
        let handler = Arc::clone(&undecided.handler);
        let step = match search {
            Search::Found(owner) => {
                handler.owners.remember(owned, owner.clone());
                undecided.decided(Some(&owner), clock)
            }
            Search::Nobody => {
                Err(if lost { Rejection::LostOwned { owned } } else { Rejection::UnknownOwned { owned } })
            }
            Search::Unfinished => Err(Rejection::SearchUnfinished { owned }),
        };
        step.map_err(|rejection| handler.reject(rejection))
    }
}

// === impl Undecided ===

impl Undecided {
    pub(crate) fn new(
        handler: &Arc<RequestHandler>,
        request: InferenceRequest,
        bound: Bound,
        caller: Option<&[u8]>,
        now: Instant,
        draw: Draw,
    ) -> Result<Self, Rejection> {
        let snapshot = handler.director.snapshot().ok_or(Rejection::NotSynced)?;
        let caller = caller.unwrap_or_default().to_vec();
        let uuids = splices::uuids(&request, &handler.namespace, &caller);
        Ok(Self { handler: Arc::clone(handler), snapshot, request, bound, caller, uuids, now, draw })
    }

    pub(crate) fn step(self, clock: impl Fn() -> Instant) -> Result<Step, Rejection> {
        let Some(owned) = self.owned() else { return self.decided(None, clock) };
        let remembered = self.handler.owners.owner(owned);
        if let Some(owner) = remembered.as_ref().filter(|owner| self.snapshot.slot_of(owner).is_some()) {
            return self.decided(Some(owner), clock);
        }
        let owned = owned.clone();
        let mut among = self.snapshot.makers_of(owned.kind);
        if self.request.resource.owned_by_one().is_none() {
            // It names a model: whoever does not serve that made nothing for it, and is not shown what the client authorizes by.
            let pools: Vec<PoolName> = self.route()?.pools().into_iter().cloned().collect();
            among.retain(|endpoint| pools.contains(&endpoint.state.id().pool));
        }
        if let Some(pool) = self.bound_to() {
            among.retain(|endpoint| endpoint.state.id().pool == *pool);
        }
        let lost = remembered.is_some();
        match &*among {
            // Where only one could be, that one is; unless another is known to have been.
            [only] if !lost => {
                let only = only.state.id().clone();
                self.decided(Some(&only), clock)
            }
            [] if lost => Err(Rejection::LostOwned { owned }),
            [] => Err(Rejection::UnknownOwned { owned }),
            _ => Ok(Step::FindOwner(Box::new(OwnerQuestion { undecided: self, owned, among, lost }))),
        }
    }

    /// What it is about that only its owner knows.
    fn owned(&self) -> Option<&Owned> {
        self.request.resource.owned_by_one().or(self.request.follows.as_ref())
    }

    fn decided(self, owner: Option<&EndpointId>, clock: impl Fn() -> Instant) -> Result<Step, Rejection> {
        let began = clock();
        let observer = &self.handler.observer;
        Ok(match self.decide(owner)? {
            Decided::Reply(reply) => {
                observer.answered(&self.request, &reply);
                Step::Answer(reply)
            }
            Decided::Plan(plan) => {
                let attempt = plan.begin(0, self.now);
                let took: Duration = clock().saturating_duration_since(began);
                observer.dispatched(&self.request, &plan, took);
                Step::Dispatch(Box::new(Dispatch { plan, attempt }))
            }
        })
    }

    fn decide(&self, owner: Option<&EndpointId>) -> Result<Decided, Rejection> {
        let Self { handler, snapshot, request, .. } = self;
        let namespace = &handler.namespace;
        let is_one_pool = snapshot.table.models.is_empty() && snapshot.table.pools.len() <= 1;
        let route = match &request.resource {
            // Where nobody declared a model and there is one pool, its own servers know which they have.
            Resource::Models { all } if !is_one_pool => {
                return Ok(Decided::Reply(Reply::models(snapshot, *all, namespace)));
            }
            Resource::Model { id, all } if !is_one_pool => {
                if !snapshot.table.models.contains_key(&**id) {
                    return Err(self.no_route(snapshot.table.unknown_model(id)));
                }
                let reply = Reply::model(snapshot, id, *all, namespace);
                return reply.map(Decided::Reply).ok_or_else(|| Rejection::NotServedNow { model: id.clone() });
            }
            Resource::Owned(what) | Resource::Cancel(what) => {
                let owner = owner.ok_or_else(|| Rejection::UnknownOwned { owned: what.clone() })?;
                return self.to_owner(what, owner).map(Decided::Plan);
            }
            Resource::Administrative | Resource::Unknown => {
                let pool = &handler.other_paths.as_ref().ok_or(Rejection::UnknownPath)?.pool;
                snapshot.table.route_as_is(pool, request.requires).map_err(|no_route| self.no_route(no_route))?
            }
            _ => self.route()?,
        };
        self.plan(&route, owner).map(Decided::Plan)
    }

    /// The tiers for the model that is asked for, once its owner's policy is held against the request.
    pub(crate) fn route(&self) -> Result<Route<'_>, Rejection> {
        let model = self.request.model.as_deref().or_else(|| self.only_model_of_sessions());
        let route = self.snapshot.table.route(model, self.request.requires);
        let route = route.map_err(|no_route| self.no_route(no_route))?;
        match route.model {
            Some((name, model)) => policy::check(name, model, &self.request, &self.handler.private_domains)?,
            None => policy::check_undeclared(&self.request, &self.handler.private_domains)?,
        }
        Ok(route)
    }

    /// A session may name its model later, in its first event: where one model takes sessions, it is that.
    fn only_model_of_sessions(&self) -> Option<&str> {
        let need = self.request.requires;
        if need.operation != Operation::Realtime {
            return None;
        }
        let declares = |target: &Target| target.capability.declares_operations() && target.capability.covers(need);
        let models = self.snapshot.table.models.iter().filter(|(_, model)| model.targets.iter().any(declares));
        let mut names = models.map(|(name, _)| &**name);
        names.next().filter(|_| names.next().is_none())
    }

    /// The way to the owner of what the path names, whatever models are declared.
    fn to_owner(&self, what: &Owned, owner: &EndpointId) -> Result<Plan, Rejection> {
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
        let why =
            Why { need, capability: Capability::ANY, tier: 1, tiers: 1, candidates: 1, is_swayed: false, lacks: None };
        Ok(self.plan_of(vec![attempt], Some(0), None, why))
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
            is_swayed: first.is_swayed,
            lacks: first.ranked.lacks,
        };
        if why.lacks == Some(Filter::Room) && self.is_sheddable(route) {
            let pools = route.pools().iter().map(ToString::to_string).collect();
            return Err(Rejection::Saturated { model: self.request.model.clone(), pools });
        }
        let media_tokens = first.content.media_tokens;
        let mut attempts: Vec<Attempt> = Vec::with_capacity(found.len());
        let shared = route.model.is_some_and(|(_, model)| model.media.allowed.contains(&UnsafeFeature::SharedUuids));
        let uuids = if shared { &[][..] } else { &self.uuids };
        for Found { slot, target, content, ranked, .. } in &found {
            let known = attempts.iter().find(|known| known.target.as_ref() == *target);
            let splices =
                known.map_or_else(|| splices::of(&self.request, *target, uuids), |known| Arc::clone(&known.splices));
            attempts.push(self.attempt(slot, *target, &splices, (content, ranked.work)));
        }
        let first_byte_timeout = route.model.and_then(|(_, model)| model.first_byte_timeout);
        Ok(self.plan_of(attempts, media_tokens, first_byte_timeout, why))
    }

    fn find<'t>(&'t self, route: &Route<'t>, owner: Option<&EndpointId>) -> Result<Vec<Found<'t>>, Nowhere> {
        let director = &self.handler.director;
        let (now, mut draw) = (director.stamp(self.now), self.draw);
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
                let content = Arc::new(self.content_at(target.name(), target.family()));
                let asked = self.asked(&content);
                let allowed = |slot: &Slot| owner.is_none_or(|owner| slot.state.id() == owner);
                let candidates = slots.iter().enumerate().filter(|(_, slot)| allowed(slot));
                let candidates = candidates.map(|(place, slot)| slot.candidate(place, now, &content));
                match director.profile.run(&asked, candidates, MAX_PER_TARGET, &mut draw) {
                    Ok(ranking) => {
                        unspoilt += ranking.iter().filter(|ranked| ranked.lacks.is_none()).count();
                        found.extend(ranking.iter().map(|ranked| Found {
                            ranked: *ranked,
                            content: Arc::clone(&content),
                            slot: &slots[ranked.place],
                            target: target.name(),
                            capability: target.capability(),
                            tier: number + 1,
                            equals: ranking.equals,
                            is_swayed: ranking.is_swayed,
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
    pub(crate) fn content_at(&self, target: Option<&ModelName>, family: Option<Family>) -> Content {
        let model = self.request.model.as_deref().unwrap_or_default();
        let scope = NameScope { namespace: &self.handler.namespace, model, caller: &self.caller };
        Content::of(&self.request, target, family, scope)
    }

    pub(crate) fn asked(&self, content: &Content) -> SchedulingRequest<'_> {
        SchedulingRequest { need: self.request.requires, subset: self.bound.subset.as_ref(), content: content.home() }
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
            content: Arc::clone(content),
        }
    }

    fn plan_of(
        &self,
        attempts: Vec<Attempt>,
        media_tokens: Option<u64>,
        first_byte_timeout: Option<Duration>,
        why: Why,
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
            makes,
            // The first event of a response says that it was created, which is not that it was read.
            streams: self.request.stream && self.request.requires.operation != Operation::Responses,
            owners: Arc::clone(&self.handler.owners),
            observer: Arc::clone(&self.handler.observer),
        }
    }

    fn bound_to(&self) -> Option<&PoolName> {
        self.snapshot.pool_named(self.bound.pool.as_deref()?)
    }

    /// Whether the request may be shed: its objective has a priority below zero, or, where it names none that is known, its model is
    /// sheddable. The objective is of the first pool of the route that knows it.
    fn is_sheddable(&self, route: &Route<'_>) -> bool {
        let table = &self.snapshot.table;
        let priority = self.request.objective.as_deref().and_then(|objective| {
            let policies = route.pools().into_iter().filter_map(|pool| table.pools.get(pool));
            policies.into_iter().find_map(|pool| pool.policy.priorities.get(objective).copied())
        });
        match priority {
            Some(priority) => priority < 0,
            None => route.model.is_some_and(|(_, model)| model.criticality == Criticality::Sheddable),
        }
    }

    fn no_route(&self, no_route: NoRoute) -> Rejection {
        let item = match &no_route {
            NoRoute::Uncovered { missing, .. } if !missing.input.is_empty() => {
                self.request.media.iter().find(|item| missing.input.contains(item.modality))
            }
            _ => None,
        };
        Rejection::NoRoute {
            no_route,
            part: item.map(|item| item.at.clone()),
            is_document: item.is_some_and(|item| item.is_document),
            asks_by_field: self.request.names_output,
        }
    }

    fn no_endpoints(&self, route: &Route<'_>, exhausted: Exhausted) -> Rejection {
        if let Some((model, _)) = route.model
            && self.snapshot.table.pools_of_models.contains_key(model)
            && route.pools().iter().all(|pool| !self.snapshot.table.pools.contains_key(*pool))
        {
            return self.no_route(NoRoute::out_of_scope(model, &route.pools()));
        }
        let pools = route.pools().iter().map(ToString::to_string).collect();
        let need = self.request.requires;
        Rejection::NoEndpoints { model: self.request.model.clone(), pools, need, exhausted }
    }

    pub(crate) fn director(&self) -> &Director {
        &self.handler.director
    }
}

/// A saving below this is none, in milliseconds.
const WORTH_A_TIER: f32 = 20.0;

/// How late each tier comes, by its number: a wider fit before a tighter one where the request would cost less than half there, and that is worth
/// talking of. A tighter one is kept free for nobody, a wider one for those that nobody else can take.
fn order_of_tiers(found: &[Found<'_>]) -> Vec<usize> {
    let last = found.iter().map(|found| found.tier).max().unwrap_or(0);
    let mut costs = vec![f32::INFINITY; last + 1];
    let first = found.first().map_or(0, |found| found.tier);
    // Of each tier that endpoint which would be tried first. What a wider one has in its caches, because it had to step in once, is no reason to stay there.
    for Found { tier, ranked, .. } in found.iter().rev().filter(|found| found.ranked.demotion == 0) {
        costs[*tier] = if *tier == first { ranked.cost } else { ranked.cost_anew };
    }
    #[expect(clippy::cast_precision_loss, reason = "a table has few tiers")]
    let worth = |tier: usize| (costs[tier] + WORTH_A_TIER) * 2_f32.powf(tier as f32);
    let mut order: Vec<usize> = (0..=last).collect();
    order.sort_by(|one, other| worth(*one).total_cmp(&worth(*other)));
    let mut places = vec![0; last + 1];
    for (place, tier) in order.into_iter().enumerate() {
        places[tier] = place;
    }
    places
}

#[cfg(test)]
mod tests;
