//! The life of one request up to its dispatch, as values: opened with its head, fed its body, finished into a step.

use std::sync::Arc;
use std::time::Instant;

use request::{InferenceRequest, Owned, RequestHead, Resource, Scanner};
use routing::{Criticality, Draw, NoRoute, Operation, PoolName, Route, Target};
use scheduling::{Asks, Profile, Profiles, Subset};

use crate::life::Life;
use crate::queue::Ticket;
use crate::snapshot::{KnownEndpoint, Snapshot};
use crate::{
    Decision, Director, Dispatch, EndpointId, Plan, Rejection, Reply, RequestHandler, Search, Settled, Trace, Waiting,
    policy,
};

/// A request whose body is being read. Keeps no byte of it.
#[derive(Debug)]
pub struct Transaction {
    pub(crate) handler: Arc<RequestHandler>,
    scanner: Scanner,
    trace: Trace,
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
    /// Wait for room, and go on: [`Waiting::go_on`].
    Wait(Box<Waiting>),
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
    pub(crate) handler: Arc<RequestHandler>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) request: InferenceRequest,
    pub(crate) bound: Bound,
    /// What the client authorizes by.
    pub(crate) caller: Vec<u8>,
    /// When it had been read, and when it was last decided.
    pub(crate) since: Instant,
    pub(crate) now: Instant,
    pub(crate) draw: Draw,
    pub(crate) trace: Trace,
}

// === impl Step ===

impl Step {
    /// What to do, where nothing is to be found out or waited for before; else the step as it was, for [`RequestHandler::settle`].
    pub fn at_once(self) -> Result<Settled, Self> {
        match self {
            Self::Answer(reply) => Ok(Settled::Answer(reply)),
            Self::Dispatch(dispatch) => Ok(Settled::Dispatch(dispatch)),
            Self::FindOwner(_) | Self::Wait(_) => Err(self),
        }
    }
}

/// What was decided.
enum Decided {
    Reply(Reply),
    Plan(Plan),
    /// No endpoint has room, or others came first.
    Wait(Asks),
}

// === impl Transaction ===

impl Transaction {
    pub(crate) fn open(handler: &Arc<RequestHandler>, head: &RequestHead<'_>) -> Result<Self, Rejection> {
        let scanner = Scanner::with_key(head, handler.limits, handler.director.hash_key());
        let scanner = scanner.map_err(|unreadable| handler.reject(unreadable))?;
        if !handler.takes(scanner.resource(), head.path) {
            return Err(handler.reject(Rejection::UnknownPath));
        }
        Ok(Self { handler: Arc::clone(handler), scanner, trace: Trace::default() })
    }

    /// The same, and whoever hears of this trace hears of it: see [`RequestHandler::follow`].
    #[must_use]
    pub fn traced(self, trace: Trace) -> Self {
        Self { trace, ..self }
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
        let (handler, trace) = (Arc::clone(&self.handler), self.trace.clone());
        handler.decide_traced(self.read()?, bound, caller, trace, clock, draw)
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
                undecided.decided(Some(&owner), None, clock)
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
        trace: Trace,
        now: Instant,
        draw: Draw,
    ) -> Result<Self, Rejection> {
        let snapshot = handler.director.snapshot().ok_or(Rejection::NotSynced)?;
        let caller = caller.unwrap_or_default().to_vec();
        Ok(Self { handler: Arc::clone(handler), snapshot, request, bound, caller, since: now, now, draw, trace })
    }

    pub(crate) fn step(self, clock: impl Fn() -> Instant) -> Result<Step, Rejection> {
        let Some(owned) = self.owned() else { return self.decided(None, None, clock) };
        let remembered = self.handler.owners.owner(owned);
        if let Some(owner) = remembered.as_ref().filter(|owner| self.snapshot.slot_of(owner).is_some()) {
            return self.decided(Some(owner), None, clock);
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
                self.decided(Some(&only), None, clock)
            }
            [] if lost => Err(Rejection::LostOwned { owned }),
            [] => Err(Rejection::UnknownOwned { owned }),
            _ => Ok(Step::FindOwner(Box::new(OwnerQuestion { undecided: self, owned, among, lost }))),
        }
    }

    /// What it is about that only its owner knows.
    pub(crate) fn owned(&self) -> Option<&Owned> {
        self.request.resource.owned_by_one().or(self.request.follows.as_ref())
    }

    pub(crate) fn decided(
        self,
        owner: Option<&EndpointId>,
        mut ticket: Option<Ticket>,
        clock: impl Fn() -> Instant,
    ) -> Result<Step, Rejection> {
        let began = clock();
        let observer = &self.handler.observer;
        Ok(match self.decide(owner, ticket.is_some())? {
            Decided::Wait(asks) => {
                let ticket = match ticket {
                    Some(mut ticket) => {
                        ticket.enter_again(asks);
                        ticket
                    }
                    None => self.enter(asks)?,
                };
                Step::Wait(Box::new(Waiting { undecided: Box::new(self), ticket }))
            }
            Decided::Reply(reply) => {
                observer.answered(&self.request, &reply);
                if let Some(trace) = self.trace.hears() {
                    trace.answered(reply.status);
                }
                Step::Answer(reply)
            }
            Decided::Plan(mut plan) => {
                if let Some(ticket) = &mut ticket {
                    ticket.goes(plan.first().pool());
                    plan.waited = self.now.saturating_duration_since(ticket.since());
                }
                let since = self.now.checked_sub(plan.waited).unwrap_or(self.now);
                plan.life = Some(Life::begin(plan.asked.clone(), since, Arc::clone(observer), self.trace.clone()));
                let ended = clock();
                let attempt = plan.begin(0, ended);
                observer.dispatched(&self.request, &plan, ended.saturating_duration_since(began));
                if let Some(trace) = self.trace.hears() {
                    trace.decided(&Decision { plan: &plan, since: self.since, began, ended });
                }
                Step::Dispatch(Box::new(Dispatch { plan, attempt }))
            }
        })
    }

    fn decide(&self, owner: Option<&EndpointId>, is_called: bool) -> Result<Decided, Rejection> {
        let Self { handler, snapshot, request, .. } = self;
        let namespace = &handler.namespace;
        let is_one_pool = snapshot.table.models.is_empty() && snapshot.table.pools.len() <= 1;
        let route = match &request.resource {
            // Where nobody declared a model and there is one pool, its own servers know which they have: what they were found to have, or what they say.
            Resource::Models { all } if !is_one_pool || !snapshot.found().is_empty() => {
                return Ok(Decided::Reply(Reply::models(snapshot, *all, namespace)));
            }
            Resource::Model { id, all } if !is_one_pool => {
                if !snapshot.table.models.contains_key(&**id) {
                    return Err(self.no_route(snapshot.table.unknown_model(id)));
                }
                let reply = Reply::model(snapshot, id, *all, namespace);
                return reply.map(Decided::Reply).ok_or_else(|| Rejection::NotServedNow { model: id.clone() });
            }
            Resource::Model { id, .. } => match Reply::found(snapshot, id, namespace) {
                Some(reply) => return Ok(Decided::Reply(reply)),
                None => self.route()?,
            },
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
        let plan = self.plan(&route, owner)?;
        // An owner is the only one that can take it, however full it is.
        let asks = if owner.is_some() { None } else { self.asks_to_wait(&route, &plan, is_called)? };
        Ok(asks.map_or(Decided::Plan(plan), Decided::Wait))
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

    pub(crate) fn bound_to(&self) -> Option<&PoolName> {
        self.snapshot.pool_named(self.bound.pool.as_deref()?)
    }

    /// How important the request is: the priority of its objective, or, where it names none that is known, what its model's criticality stands for. Below
    /// zero it may be shed. The objective is of the first pool of the route that knows it.
    pub(crate) fn priority(&self, route: &Route<'_>) -> i32 {
        let table = &self.snapshot.table;
        let of_objective = self.request.objective.as_deref().and_then(|objective| {
            let policies = route.pools().into_iter().filter_map(|pool| table.pools.get(pool));
            policies.into_iter().find_map(|pool| pool.policy.priorities.get(objective).copied())
        });
        of_objective.unwrap_or(match route.model.map(|(_, model)| model.criticality) {
            Some(Criticality::Sheddable) => -1,
            Some(Criticality::Standard) | None => 0,
            Some(Criticality::Critical) => 1,
        })
    }

    /// The name of the model that is asked for, said or not.
    fn model_of<'r>(&'r self, route: &Route<'r>) -> Option<&'r str> {
        route.model.map(|(name, _)| &**name).or(self.request.model.as_deref())
    }

    /// What it is scheduled by.
    pub(crate) fn profile<'p>(&self, profiles: &'p Profiles, route: &Route<'_>) -> &'p Profile {
        profiles.of(self.model_of(route), self.priority(route))
    }

    pub(crate) fn saturated(&self, route: &Route<'_>) -> Rejection {
        Rejection::Saturated { model: self.request.model.clone(), no_room: self.no_room_on(Some(route)) }
    }

    pub(crate) fn no_route(&self, no_route: NoRoute) -> Rejection {
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

    pub(crate) fn director(&self) -> &Director {
        &self.handler.director
    }
}

#[cfg(test)]
mod tests;
