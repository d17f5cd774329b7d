//! The director: reads one snapshot of the table and of the load, and answers.

mod explain;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use request::{InferenceRequest, MediaItem};
use routing::{
    AppProtocol, Capability, Criticality, Draw, Endpoint, Family, Modality, NoRoute, Operation, Requirement, Route,
    RoutingTable,
};
use scheduling::{Ask, Candidate, Exhausted, InSubset, NotSaturated, NotSilent, Profile, Ranking, Subset};

use crate::load::EndpointLoad;
use crate::{LoadBoard, Maker, PossibleMaker, Rejection, policy};

pub use explain::{Considered, Explanation, Outcome as Destination};

/// Decides where requests go.
#[derive(Debug)]
pub struct Director {
    snapshot: ArcSwapOption<Snapshot>,
    board: LoadBoard,
    /// Tried in turn, each less choosy than the one before.
    profiles: [Profile; 3],
}

/// A table, with the load of each endpoint laid beside it, so that a decision looks nothing up.
#[derive(Debug)]
struct Snapshot {
    revision: u64,
    table: Arc<RoutingTable>,
    pools: HashMap<Arc<str>, Vec<Slot>>,
}

#[derive(Debug)]
struct Slot {
    name: Arc<str>,
    endpoint: Endpoint,
    load: Arc<EndpointLoad>,
}

/// Where a request goes.
#[derive(Debug)]
pub struct Decision {
    /// Best first; those after the first are for when it cannot be reached. At least one, at most [`MAX_CHOICES`].
    pub endpoints: Vec<EndpointChoice>,
    /// What the model server is to be asked for; none when the request's own name stays.
    pub target: Option<Arc<str>>,
    pub pool: Arc<str>,
    pub app_protocol: AppProtocol,
    /// What the request's media are estimated to add to the prompt there; none where one of them cannot be told.
    pub media_tokens: Option<u64>,
    /// Of the table that it was made from.
    pub revision: u64,
    pub why: Why,
    /// Counts the request at the first endpoint until it is dropped.
    pub in_flight: InFlight,
}

/// An endpoint that may take the request.
#[derive(Debug, Clone)]
pub struct EndpointChoice {
    pub name: Arc<str>,
    pub address: SocketAddr,
    /// 0 to 1.
    pub score: f32,
    load: Arc<EndpointLoad>,
}

/// What a gateway can reach, as far as it says so; a picker that asks for more would be ignored in silence.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bound<'a> {
    /// The endpoints that it allows.
    pub subset: Option<&'a Subset>,
    /// The pool that its route leads to, where it knows no endpoint of another. A pool that is not in the table binds nobody.
    pub pool: Option<&'a str>,
}

/// How a decision came about, for people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Why {
    pub need: Requirement,
    pub capability: Capability,
    /// Of `tiers`, counted from 1; the tightest is the first.
    pub tier: usize,
    pub tiers: usize,
    /// Endpoints that could take it there.
    pub candidates: usize,
    /// Whether nobody with room was left, so that a full or silent one was taken.
    pub pressed: bool,
}

/// A request under way, at an endpoint or where nobody counts. Dropping it says that it ended.
#[derive(Debug)]
pub struct InFlight(Option<Arc<EndpointLoad>>);

/// What Istio leaves of a pool's name at most, in the name of the Service that it makes for it (`InferencePoolServiceName`).
const CUT_POOL_NAME: usize = 63 - "-ip-".len() - 8;

/// A request is offered to this many endpoints in turn.
pub const MAX_CHOICES: usize = 4;

// === impl Director ===

impl Director {
    /// A director that knows no table yet. `epoch` is any instant before the first request: load is kept relative to it.
    pub fn new(epoch: Instant) -> Self {
        Self { snapshot: ArcSwapOption::empty(), board: LoadBoard::new(epoch), profiles: Profile::in_turn() }
    }

    /// Decides where one request goes. Reads one snapshot of the table and waits for nothing.
    pub fn direct(
        &self,
        request: &InferenceRequest,
        bound: Bound<'_>,
        now: Instant,
        draw: Draw,
    ) -> Result<Decision, Rejection> {
        let snapshot = self.snapshot.load_full().ok_or(Rejection::NotSynced)?;
        let route = snapshot.table.route(request.model.as_deref(), request.requires);
        let route = route.map_err(|no_route| Rejection::no_route(no_route, request))?;
        match route.model {
            Some((name, model)) => policy::check(name, model, request)?,
            None => policy::check_undeclared(request)?,
        }
        self.decide(&snapshot, route, request, bound, now, draw)
    }

    /// Sends a request to a pool as it is, whatever models are declared.
    pub(crate) fn direct_as_is(
        &self,
        pool: &str,
        request: &InferenceRequest,
        bound: Bound<'_>,
        now: Instant,
        draw: Draw,
    ) -> Result<Decision, Rejection> {
        let snapshot = self.snapshot.load_full().ok_or(Rejection::NotSynced)?;
        let route = snapshot.table.route_as_is(pool, request.requires);
        let route = route.map_err(|no_route| Rejection::no_route(no_route, request))?;
        self.decide(&snapshot, route, request, bound, now, draw)
    }

    /// Sends a request about a job to whoever made it. Where nobody is known as its maker and only one endpoint could be, that one is.
    pub(crate) fn direct_job(
        &self,
        id: &str,
        maker: Option<&Maker>,
        request: &InferenceRequest,
        bound: Bound<'_>,
    ) -> Result<Decision, Rejection> {
        let snapshot = self.snapshot.load_full().ok_or(Rejection::NotSynced)?;
        let (pool, slot) = match maker {
            Some(maker) => snapshot.slot_of(maker).ok_or_else(|| Rejection::LostJob { id: id.to_owned() })?,
            None => snapshot.only_maker().ok_or_else(|| Rejection::UnknownJob { id: id.to_owned() })?,
        };
        if snapshot.bound_to(bound).is_some_and(|own| own != pool) {
            return Err(Rejection::no_route(NoRoute::pool_elsewhere(&[pool]), request));
        }
        if bound.subset.is_some_and(|subset| !subset.allows(slot.endpoint.address)) {
            let (pools, exhausted) = (vec![pool.to_string()], Exhausted::Filtered(InSubset::NAME));
            return Err(Rejection::NoEndpoints { model: None, pools, need: request.requires, exhausted });
        }
        let why = Why {
            need: request.requires,
            capability: Capability::ANY,
            tier: 1,
            tiers: 1,
            candidates: 1,
            pressed: false,
        };
        let choice = EndpointChoice {
            name: Arc::clone(&slot.name),
            address: slot.endpoint.address,
            score: 1.0,
            load: Arc::clone(&slot.load),
        };
        Ok(Decision {
            in_flight: InFlight::at(&choice.load),
            endpoints: vec![choice],
            target: None,
            app_protocol: snapshot.app_protocol(pool),
            pool: Arc::clone(pool),
            media_tokens: Some(0),
            revision: snapshot.revision,
            why,
        })
    }

    /// Every endpoint that may have made a job.
    pub(crate) fn makers(&self) -> Vec<PossibleMaker> {
        let Some(snapshot) = self.snapshot.load_full() else { return Vec::new() };
        let of = |(pool, slot): (&Arc<str>, &Slot)| PossibleMaker {
            maker: Maker { pool: Arc::clone(pool), endpoint: Arc::clone(&slot.name) },
            address: slot.endpoint.address,
            app_protocol: snapshot.app_protocol(pool),
        };
        snapshot.makers().map(of).collect()
    }

    fn decide(
        &self,
        snapshot: &Snapshot,
        route: Route<'_>,
        request: &InferenceRequest,
        bound: Bound<'_>,
        now: Instant,
        draw: Draw,
    ) -> Result<Decision, Rejection> {
        let route = &match snapshot.bound_to(bound) {
            Some(pool) => route.within(pool).map_err(|no_route| Rejection::no_route(no_route, request))?,
            None => route,
        };
        let ask = Ask { need: request.requires, subset: bound.subset };
        let mut exhausted = Exhausted::NoEndpoints;
        for (number, profile) in self.profiles.iter().enumerate() {
            match Self::choose(snapshot, route, profile, &ask, request, now, draw, &self.board) {
                Ok(decision) => return Ok(Decision { why: Why { pressed: number > 0, ..decision.why }, ..decision }),
                Err(Exhausted::Filtered(NotSaturated::NAME)) if sheddable(route, request, &snapshot.table) => {
                    return Err(Rejection::saturated(route, request));
                }
                // The next profile does without this filter.
                Err(why @ Exhausted::Filtered(NotSaturated::NAME | NotSilent::NAME)) => exhausted = why,
                Err(why) => return Err(Rejection::no_endpoints(route, request, why, &snapshot.table)),
            }
        }
        Err(Rejection::no_endpoints(route, request, exhausted, &snapshot.table))
    }

    /// The first tier, and in it the first target of the draw, that has an endpoint for the request.
    #[expect(clippy::too_many_arguments, reason = "the loop's whole state; a struct of it would be named once")]
    fn choose(
        snapshot: &Snapshot,
        route: &Route<'_>,
        profile: &Profile,
        ask: &Ask<'_>,
        request: &InferenceRequest,
        now: Instant,
        mut draw: Draw,
        board: &LoadBoard,
    ) -> Result<Decision, Exhausted> {
        let mut why_not = Exhausted::NoEndpoints;
        for (number, tier) in route.tiers().iter().enumerate() {
            for target in tier.order(&mut draw) {
                let slots = snapshot.pools.get(target.pool()).map_or(&[][..], Vec::as_slice);
                let candidates = slots.iter().enumerate().map(|(place, slot)| slot.candidate(place, board, now));
                match profile.run(ask, candidates, &mut draw) {
                    Ok(ranking) => {
                        let why = Why {
                            need: ask.need,
                            capability: target.capability(),
                            tier: number + 1,
                            tiers: route.tiers().len(),
                            candidates: ranking.iter().count(),
                            pressed: false,
                        };
                        let media_tokens = media_tokens(request, target.family());
                        let pool = target.pool();
                        return Ok(decision(snapshot, pool, target.name(), slots, &ranking, media_tokens, why));
                    }
                    // A pool that is full says more than one that is empty, and both more than none at all.
                    Err(exhausted) if why_not != Exhausted::Filtered(NotSaturated::NAME) => {
                        if exhausted != Exhausted::NoEndpoints {
                            why_not = exhausted;
                        }
                    }
                    Err(_) => {}
                }
            }
        }
        Err(why_not)
    }

    /// Counts a request at the endpoint with this address, whatever was decided; answers whose that is.
    pub(crate) fn served(&self, decision: &mut Decision, address: SocketAddr) -> Option<Maker> {
        let server =
            |pool: &Arc<str>, endpoint: &Arc<str>| Maker { pool: Arc::clone(pool), endpoint: Arc::clone(endpoint) };
        // Nearly always it is the first, where it counts already.
        if decision.endpoints[0].address == address {
            return Some(server(&decision.pool, &decision.endpoints[0].name));
        }
        let snapshot = self.snapshot.load_full()?;
        let slot = snapshot.slot_at(address);
        decision.in_flight = slot.map_or(InFlight(None), |(_, slot)| InFlight::at(&slot.load));
        slot.map(|(pool, slot)| server(pool, &slot.name))
    }

    /// Decides by this table from now on. Requests under way keep the decision they have.
    pub fn replace_table(&self, revision: u64, table: Arc<RoutingTable>) {
        self.board.keep_only(&table.addresses());
        let slot = |(name, endpoint): (&Arc<str>, &Endpoint)| Slot {
            name: Arc::clone(name),
            endpoint: *endpoint,
            load: self.board.of(endpoint.address),
        };
        let pools = table
            .pools
            .iter()
            .map(|(name, pool)| (Arc::clone(name), pool.endpoints.iter().map(slot).collect()))
            .collect();
        self.snapshot.store(Some(Arc::new(Snapshot { revision, table, pools })));
    }

    /// The table that decisions are made from, and its revision.
    pub fn table(&self) -> Option<(u64, Arc<RoutingTable>)> {
        self.snapshot.load().as_ref().map(|snapshot| (snapshot.revision, Arc::clone(&snapshot.table)))
    }

    pub fn board(&self) -> &LoadBoard {
        &self.board
    }
}

fn decision(
    snapshot: &Snapshot,
    pool: &Arc<str>,
    target: Option<&Arc<str>>,
    slots: &[Slot],
    ranking: &Ranking<'_>,
    media_tokens: Option<u64>,
    why: Why,
) -> Decision {
    let choice = |scored: &scheduling::Scored<'_>| EndpointChoice {
        name: Arc::clone(scored.candidate.name),
        address: scored.candidate.endpoint.address,
        score: scored.score,
        load: Arc::clone(&slots[scored.candidate.place].load),
    };
    let endpoints: Vec<EndpointChoice> = ranking.iter().take(MAX_CHOICES).map(choice).collect();
    Decision {
        in_flight: InFlight::at(&endpoints[0].load),
        endpoints,
        target: target.map(Arc::clone),
        pool: Arc::clone(pool),
        app_protocol: snapshot.app_protocol(pool),
        media_tokens,
        revision: snapshot.revision,
        why,
    }
}

/// The sum over all items, or none where one of them cannot be told.
fn media_tokens(request: &InferenceRequest, family: Option<Family>) -> Option<u64> {
    let estimate = |item: &MediaItem| media::tokens::estimate(family?, item.modality, &item.facts);
    request.media.iter().map(estimate).sum()
}

impl Snapshot {
    fn app_protocol(&self, pool: &str) -> AppProtocol {
        self.table.pools.get(pool).map(|pool| pool.app_protocol).unwrap_or_default()
    }

    /// The pool that a gateway is bound to. It may have cut a long name to fit a Service's.
    fn bound_to(&self, bound: Bound<'_>) -> Option<&Arc<str>> {
        let name = bound.pool?;
        let exact = self.table.pools.get_key_value(name).map(|(pool, _)| pool);
        let mut cut = self.table.pools.keys().filter(|pool| name.len() >= CUT_POOL_NAME && pool.starts_with(name));
        exact.or_else(|| cut.next().filter(|_| cut.next().is_none()))
    }

    fn slot_of(&self, maker: &Maker) -> Option<(&Arc<str>, &Slot)> {
        let (pool, slots) = self.pools.get_key_value(&maker.pool)?;
        slots.iter().find(|slot| slot.name == maker.endpoint).map(|slot| (pool, slot))
    }

    fn slot_at(&self, address: SocketAddr) -> Option<(&Arc<str>, &Slot)> {
        let mut all = self.pools.iter().flat_map(|(pool, slots)| slots.iter().map(move |slot| (pool, slot)));
        all.find(|(_, slot)| slot.endpoint.address == address)
    }

    /// Every endpoint that makes videos.
    fn makers(&self) -> impl Iterator<Item = (&Arc<str>, &Slot)> {
        let makes_videos = |pool: &Arc<str>| {
            let mut targets = self.table.models.values().flat_map(|model| &model.targets).filter(|t| t.pool == *pool);
            self.table.models.is_empty()
                || targets.any(|target| {
                    target.capability.operations.contains(Operation::Videos)
                        && target.capability.output.contains(Modality::Video)
                })
        };
        let pools = self.pools.iter().filter(move |(pool, _)| makes_videos(pool));
        pools.flat_map(|(pool, slots)| slots.iter().map(move |slot| (pool, slot)))
    }

    /// The one endpoint that makes videos, if it is the only one.
    fn only_maker(&self) -> Option<(&Arc<str>, &Slot)> {
        let mut all = self.makers();
        let first = all.next()?;
        all.next().is_none().then_some(first)
    }
}

/// Whether the request may be shed: its objective has a priority below zero, or, where it names none that is known, its model is
/// sheddable. The objective is of the first pool of the route that knows it.
fn sheddable(route: &Route<'_>, request: &InferenceRequest, table: &RoutingTable) -> bool {
    let priority = request.objective.as_deref().and_then(|objective| {
        let policies = route.pools().into_iter().filter_map(|pool| table.pools.get(pool));
        policies.into_iter().find_map(|pool| pool.policy.priorities.get(objective).copied())
    });
    match priority {
        Some(priority) => priority < 0,
        None => route.model.is_some_and(|(_, model)| model.criticality == Criticality::Sheddable),
    }
}

impl Slot {
    fn candidate(&self, place: usize, board: &LoadBoard, now: Instant) -> Candidate<'_> {
        Candidate { name: &self.name, endpoint: &self.endpoint, load: board.read(&self.load).believed_at(now), place }
    }
}

// === impl Decision ===

impl Decision {
    /// The model to write into the body, when it is another than the request's.
    pub fn rewrite<'d>(&'d self, request: &InferenceRequest) -> Option<&'d str> {
        self.target.as_deref().filter(|target| request.model.as_deref() != Some(target))
    }

    /// Counts the request at another of its endpoints, because the one before could not be reached.
    pub fn move_to(&mut self, choice: usize) {
        if let Some(choice) = self.endpoints.get(choice) {
            self.in_flight = InFlight::at(&choice.load);
        }
    }
}

impl InFlight {
    fn at(load: &Arc<EndpointLoad>) -> Self {
        load.begin();
        Self(Some(Arc::clone(load)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(load) = &self.0 {
            load.end();
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { need, capability, tier, tiers, candidates, pressed } = self;
        let spare = capability.fit(*need).map_or(0, routing::Fit::spare);
        write!(f, "{need} fits {capability}")?;
        match spare {
            0 => write!(f, " exactly")?,
            spare => write!(f, " with {spare} to spare")?,
        }
        write!(f, ", tier {tier} of {tiers}, best of {candidates} by load")?;
        if *pressed { write!(f, " (none has room)") } else { Ok(()) }
    }
}

impl Rejection {
    fn no_route(no_route: NoRoute, request: &InferenceRequest) -> Self {
        let part = match &no_route {
            NoRoute::Uncovered { missing, .. } if !missing.input.is_empty() => {
                request.media.iter().find(|item| missing.input.contains(item.modality)).map(|item| item.at.clone())
            }
            _ => None,
        };
        let asks_by_field = request.requires.operation == Operation::ChatCompletions;
        Self::NoRoute { no_route, part, asks_by_field }
    }

    fn no_endpoints(route: &Route<'_>, request: &InferenceRequest, exhausted: Exhausted, table: &RoutingTable) -> Self {
        if let Some((model, _)) = route.model
            && let Some(elsewhere) = table.elsewhere.get(model)
            && route.pools().iter().all(|pool| elsewhere.contains(pool))
        {
            return Self::no_route(NoRoute::elsewhere(model, &route.pools()), request);
        }
        let pools = route.pools().iter().map(ToString::to_string).collect();
        Self::NoEndpoints { model: request.model.clone(), pools, need: request.requires, exhausted }
    }

    fn saturated(route: &Route<'_>, request: &InferenceRequest) -> Self {
        Self::Saturated { model: request.model.clone(), pools: route.pools().iter().map(ToString::to_string).collect() }
    }
}

#[cfg(test)]
mod tests;
