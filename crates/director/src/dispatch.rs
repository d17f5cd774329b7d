//! What goes out: the attempts in order, each with what it changes in the request.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use request::{OwnedKind, Splice};
use routing::{AppProtocol, Capability, Limits, ModelName, PoolName, Requirement, Unfit};
use scheduling::{Choice, Filter, Work};

use crate::board::{EndpointId, EndpointState};
use crate::content::Content;
use crate::life::{Asked, Life};
use crate::owners::Owners;
use crate::refusals;
use crate::steering::is_steering;
use crate::{Observer, Rejection, RunningAttempt};

/// Where a request goes. The first attempt has begun: it counts at its endpoint from the decision on.
#[derive(Debug)]
pub struct Dispatch {
    pub plan: Plan,
    pub attempt: RunningAttempt,
}

/// What an edge may try, in order.
#[derive(Debug)]
pub struct Plan {
    /// Over endpoints, then targets, then tiers; those with room first. At least one, at most [`MAX_ATTEMPTS`].
    pub attempts: Vec<Attempt>,
    pub headers: HeaderChanges,
    /// What the request's media are estimated to add to the prompt; none where one of them cannot be told.
    pub media_tokens: Option<u64>,
    /// Of the table that it was made from.
    pub revision: u64,
    pub why: Why,
    /// How long an endpoint may take to the first byte of its answer, where the model's owner says.
    pub first_byte_timeout: Option<Duration>,
    /// For how long it waited for room.
    pub waited: Duration,
    /// What the answer may say that its model server made.
    pub makes: Option<OwnedKind>,
    /// Whether the answer comes as a stream of events.
    pub(crate) streams: bool,
    pub asked: Asked,
    /// From its first attempt on.
    pub(crate) life: Option<Arc<Life>>,
    pub(crate) owners: Arc<Owners>,
    pub(crate) observer: Arc<dyn Observer>,
}

/// One endpoint that may take the request, and what it is sent.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub(crate) state: Arc<EndpointState>,
    pub address: SocketAddr,
    pub app_protocol: AppProtocol,
    /// What the model server is asked for; none where the request's own name stays.
    pub target: Option<ModelName>,
    /// What changes in the body, in its order.
    pub splices: Arc<[Splice]>,
    /// What the request asked of it when that was decided.
    pub work: Work,
    /// What it takes at once, as far as is known.
    pub(crate) limits: Limits,
    /// The adapter that it is asked for, where it is one there.
    pub(crate) adapter: Option<ModelName>,
    pub(crate) content: Arc<Content>,
}

/// How long a prompt seems to be, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EstimatedTokens {
    pub all: u64,
    /// What its media add; none where one of them cannot be told.
    pub media: Option<u64>,
}

/// What changes in the head of a request, whichever attempt it is.
#[derive(Debug, Default)]
pub struct HeaderChanges {
    pub set: Vec<(HeaderName, HeaderValue)>,
}

/// How a decision came about, for people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Why {
    pub need: Requirement,
    pub capability: Capability,
    /// Of `tiers`, counted from 1; the tightest is the first.
    pub tier: usize,
    pub tiers: usize,
    /// Endpoints that could take it as well there.
    pub candidates: usize,
    /// Of these.
    pub choice: Choice,
    /// What all of them lack, so that one was taken that had better not be.
    pub lacks: Option<Filter>,
}

/// So many attempts are planned for a request, of these so many at one target.
pub const MAX_ATTEMPTS: usize = 8;
pub(crate) const MAX_PER_TARGET: usize = 4;

// === impl Attempt ===

impl Attempt {
    /// How long the prompt seems to be to its model.
    pub fn estimated_tokens(&self) -> EstimatedTokens {
        EstimatedTokens { all: self.content.tokens, media: self.content.media_tokens }
    }

    pub fn endpoint(&self) -> &EndpointId {
        self.state.id()
    }

    pub fn pool(&self) -> &PoolName {
        &self.state.id().pool
    }
}

// === impl HeaderChanges ===

impl HeaderChanges {
    /// Whether a header that the client sent does not go out: see [`crate::STEERING_HEADERS`].
    pub fn removes(name: &str) -> bool {
        is_steering(name)
    }
}

// === impl Plan ===

impl Plan {
    pub fn first(&self) -> &Attempt {
        &self.attempts[0]
    }

    /// The attempts to which the very same bytes can be sent as to the first.
    pub fn alike(&self) -> impl Iterator<Item = &Attempt> {
        let first = self.first();
        self.attempts.iter().take_while(|attempt| attempt.splices == first.splices && attempt.pool() == first.pool())
    }

    /// Begins the attempt after `last`, if there is one; whoever asks says next how that one ended.
    pub fn next_after(&self, last: &RunningAttempt, at: Instant) -> Option<RunningAttempt> {
        self.has_more_after(last).then(|| self.begin(last.number + 1, at))
    }

    /// Whether any attempt is left after `last`.
    pub fn has_more_after(&self, last: &RunningAttempt) -> bool {
        last.number + 1 < self.attempts.len()
    }

    /// Begins the next attempt after `last` whose endpoint may take what the one of `last` refused; whoever asks says next how that one ended.
    pub fn next_that_may_take(&self, unfit: Unfit, last: &RunningAttempt, at: Instant) -> Option<RunningAttempt> {
        let later = self.attempts.iter().enumerate().skip(last.number + 1);
        let mut others = later.filter(|(_, attempt)| refusals::may_take(unfit, attempt.limits, last.limits));
        others.next().map(|(number, _)| self.begin(number, at))
    }

    /// Makes the same attempt once more: its endpoint cannot have seen it.
    pub fn again(&self, last: RunningAttempt, at: Instant) -> RunningAttempt {
        let number = last.number;
        last.unseen();
        self.begin(number, at)
    }

    pub(crate) fn begin(&self, number: usize, at: Instant) -> RunningAttempt {
        RunningAttempt::begin(self, number, at)
    }

    /// Says that the request is answered with an error of ours after all.
    pub fn failed(&self, rejection: Rejection) -> Rejection {
        if let Some(life) = &self.life {
            life.failed(rejection.code());
        }
        self.observer.failed(self, &rejection);
        rejection
    }
}

// === impl Why ===

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { need, capability, tier, tiers, candidates, choice, lacks } = self;
        let spare = capability.fit(*need).map_or(0, routing::Fit::spare);
        write!(f, "{need} fits {capability}")?;
        match spare {
            0 => write!(f, " exactly")?,
            spare => write!(f, " with {spare} to spare")?,
        }
        let (chosen, why) = match choice {
            Choice::Cheapest => ("cheapest", ""),
            Choice::Cached => ("cheapest", " for what it has in its cache"),
            Choice::Home => ("at home in one", ""),
            Choice::Copy => ("one", " that is to have what is often asked for"),
        };
        write!(f, ", tier {tier} of {tiers}, {chosen} of {candidates}{why}")?;
        match lacks {
            None => Ok(()),
            Some(Filter::Adapter) => write!(f, " (all work with other adapters)"),
            Some(Filter::Queue | Filter::Room) => write!(f, " (all are full)"),
            Some(Filter::Answering) => write!(f, " (all failed recently)"),
            Some(Filter::Willing) => write!(f, " (all refused the like of late)"),
            Some(Filter::Context) => write!(f, " (the prompt seems too long for all)"),
            Some(_) => write!(f, " (none is responsive)"),
        }
    }
}
