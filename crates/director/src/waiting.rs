//! A request that waits for room, between two steps.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use routing::{Draw, ModelName, Offers, PoolName, Route, Tier};
use scheduling::{Asks, Filter, Lane};

use crate::attempt::micros;
use crate::queue::{NoPlace, Ticket};
use crate::transaction::Undecided;
use crate::{NoRoom, Plan, Rejection, RequestHandler, Step, Timer};

/// A request that no endpoint has room for now. It gives up its place when it is dropped.
#[derive(Debug)]
pub struct Waiting {
    pub(crate) undecided: Box<Undecided>,
    pub(crate) ticket: Ticket,
}

impl Waiting {
    /// Ready once it may be its turn.
    pub fn poll_turn(&self, context: &mut Context<'_>) -> Poll<()> {
        self.ticket.poll(context)
    }

    /// How long it waits at most.
    pub fn deadline(&self) -> Instant {
        self.ticket.deadline()
    }

    /// It may be its turn: decides again, by what is known now. It may have to wait on, in its old place.
    pub fn go_on(self, clock: impl Fn() -> Instant) -> Result<Step, Rejection> {
        let Self { undecided, mut ticket } = self;
        let handler = Arc::clone(&undecided.handler);
        let step = if ticket.take_call() {
            undecided.again(ticket, clock)
        } else {
            let waited = clock().saturating_duration_since(ticket.since());
            Err(Rejection::MadeWay { waited, no_room: undecided.no_room() })
        };
        step.map_err(|rejection| handler.reject(rejection))
    }

    /// Its time is up.
    pub fn expired(self, now: Instant) -> Rejection {
        let waited = now.saturating_duration_since(self.ticket.since());
        let rejection = Rejection::WaitedTooLong { waited, no_room: self.undecided.no_room() };
        self.undecided.handler.reject(rejection)
    }

    /// Its turn, or false once its time is up.
    pub(crate) async fn turn(&self, timer: Option<&dyn Timer>) -> bool {
        let mut timeout: Option<Pin<Box<dyn Future<Output = ()> + Send>>> =
            timer.map(|timer| timer.until(self.deadline()));
        std::future::poll_fn(|context| {
            if self.poll_turn(context).is_ready() {
                return Poll::Ready(true);
            }
            match &mut timeout {
                Some(timeout) => timeout.as_mut().poll(context).map(|()| false),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Undecided {
    /// None where it goes as planned; where all are full or others came first, it waits. One that is called comes first itself.
    pub(crate) fn asks_to_wait(
        &self,
        route: &Route<'_>,
        plan: &Plan,
        is_called: bool,
    ) -> Result<Option<Asks>, Rejection> {
        let queue = self.director().queue();
        let is_full = plan.why.lacks == Some(Filter::Queue);
        if self.handler.queue.requests == 0 || !is_full && (is_called || queue.len() == 0) {
            return Ok(None);
        }
        let priority = self.priority(route);
        // Of those alone that could use the same endpoint.
        let first = plan.first();
        let endpoint = self.snapshot.slot_of(first.endpoint()).map(|slot| &slot.endpoint);
        let could = |lane: &Lane| endpoint.is_some_and(|endpoint| lane.could_use(endpoint));
        if !is_full && !queue.is_before(first.pool(), priority, could) {
            return Ok(None);
        }
        let profiles = self.director().profiles();
        if !self.profile(&profiles, route).filters.contains(&Filter::Queue) {
            return Ok(None);
        }
        if priority < 0 {
            return Err(self.saturated(route));
        }
        let flow = self.request.flow.or(self.request.prompt.session);
        let of_caller = || self.caller.iter().fold(0, |hash, byte| Draw::mixed(hash, u64::from(*byte)));
        let lane = Arc::new(self.lane(route));
        let work = micros(plan.first().work.all());
        Ok(Some(Asks { lane, priority, flow: flow.unwrap_or_else(of_caller), work }))
    }

    /// Those that can go to the same endpoints as this request.
    fn lane(&self, route: &Route<'_>) -> Lane {
        let (mut models, mut size) = (Vec::new(), None);
        for target in route.tiers().iter().flat_map(Tier::targets) {
            let asked = self.asked(&self.content_at(route, &target), &target);
            let model = self.listed(&target);
            let mut offers = Offers::of_model(model);
            let mut offered = self.snapshot.slots(target.pool()).iter().filter_map(|slot| offers.at(&slot.endpoint));
            if offered.any(|offer| offer.limits.exceeded_by(asked.size).is_some()) {
                size = Some(asked.size);
            }
            models.extend(model.map(ModelName::from));
        }
        models.sort();
        models.dedup();
        Lane {
            pools: self.pools_of(route),
            need: self.request.requires,
            models,
            size,
            subset: self.bound.subset.clone(),
        }
    }

    pub(crate) fn enter(&self, asks: Asks) -> Result<Ticket, Rejection> {
        let RequestHandler { queue: limits, budget, .. } = &*self.handler;
        // Where memory runs short, small bodies wait all the same: as many as there are places for.
        if budget.is_half_full() && budget.is_large(self.request.bytes, limits.requests) {
            return Err(Rejection::TooLargeToWait { no_room: self.no_room() });
        }
        let queue = self.director().queue();
        let pools = asks.lane.pools.clone();
        let ticket = queue
            .enter(asks, *limits, self.now)
            .map_err(|NoPlace { waiting }| Rejection::QueueFull { waiting, no_room: self.no_room() })?;
        // Room that came while it was decided that there is none has called nobody.
        for pool in &pools {
            if self.snapshot.slots(pool).iter().any(|slot| slot.state.has_room_at(self.now)) {
                queue.room_in(pool, 1);
            }
        }
        // And one in a table that came meanwhile.
        if self.director().snapshot().is_none_or(|now| !Arc::ptr_eq(&now, &self.snapshot)) {
            queue.look_again();
        }
        Ok(ticket)
    }

    fn no_room(&self) -> NoRoom {
        self.no_room_on(self.route().ok().as_ref())
    }

    /// What is to be said of it where it finds no room on its route.
    pub(crate) fn no_room_on(&self, route: Option<&Route<'_>>) -> NoRoom {
        let pools = route.map(|route| self.pools_of(route)).unwrap_or_default();
        NoRoom {
            model: route.and_then(|route| self.known_model(route, pools.first())),
            is_inference: self.is_inference(),
            retry_after: self.retry_after(&pools),
            priority: route.map_or(0, |route| self.priority(route)),
            pool: pools.into_iter().next(),
        }
    }

    /// When there should be room: what waits here and there, at the speed at which the endpoints of its pools get work done.
    fn retry_after(&self, pools: &[PoolName]) -> Duration {
        let states = pools.iter().flat_map(|pool| self.snapshot.slots(pool)).map(|slot| &slot.state);
        let (work, speed) = states.fold((0.0, 0.0), |(work, speed), state| {
            let load = state.load(self.now);
            (work + load.queued + load.untold, speed + state.backlog.work_a_second())
        });
        let seconds = (work + self.director().queue().work(pools)) / speed;
        // Nothing was measured where it is no number.
        Duration::from_secs_f32(if seconds.is_finite() { seconds.ceil().clamp(1.0, 60.0) } else { 1.0 })
    }

    /// Where it can go: what its gateway can reach of where it would.
    fn pools_of(&self, route: &Route<'_>) -> Vec<PoolName> {
        match self.bound_to() {
            Some(pool) => vec![pool.clone()],
            None => route.pools().into_iter().cloned().collect(),
        }
    }

    /// It waited, and decides by what is known now.
    pub(crate) fn again(self, ticket: Ticket, clock: impl Fn() -> Instant) -> Result<Step, Rejection> {
        let snapshot = self.handler.director.snapshot().ok_or(Rejection::NotSynced)?;
        let now = clock();
        Self { snapshot, now, ..self }.decided(None, Some(ticket), clock)
    }
}
