//! Filters: which endpoints can take a request, and which had better.

use std::fmt;

use crate::{Candidate, SchedulingRequest};

/// Keeps or removes one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// What the endpoint says of itself, and was found to do, covers what the request needs.
    Capability,
    /// The endpoint is among those that the gateway allows, if it named any.
    Subset,
    /// The request surely brings no more than is taken at once.
    Limits,
    /// The server gives some sign of life, and gets on with its work.
    Responsive,
    /// What it was sent of late, it answered.
    Answering,
    /// Of late it refused nothing of what the request carries.
    Willing,
    /// The prompt seems to fit into the context length.
    Context,
    /// Another request had better wait here than in its queue.
    Queue,
    /// Another request would not only wait there.
    Room,
    /// The adapter that is asked for is worked with there, or may be beside the others.
    Adapter,
}

impl Filter {
    pub const ALL: [Self; 10] = [
        Self::Capability,
        Self::Subset,
        Self::Limits,
        Self::Responsive,
        Self::Answering,
        Self::Willing,
        Self::Context,
        Self::Queue,
        Self::Room,
        Self::Adapter,
    ];

    /// Whether it is about the request as much as about the endpoint: whoever waits, or says why there is no room, looks at the others first.
    pub(crate) const fn is_of_the_request(self) -> bool {
        matches!(self, Self::Willing | Self::Context | Self::Adapter)
    }

    /// A lower-case word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capability => "capability",
            Self::Subset => "subset",
            Self::Limits => "limits",
            Self::Willing => "willing",
            Self::Context => "context",
            Self::Responsive => "responsive",
            Self::Answering => "answering",
            Self::Queue => "queue",
            Self::Adapter => "adapter",
            Self::Room => "room",
        }
    }

    /// Whether an endpoint that fails it cannot take the request. One that fails another filter is asked when nobody better is left.
    pub const fn is_required(self) -> bool {
        matches!(self, Self::Capability | Self::Subset | Self::Limits)
    }

    pub fn keeps(self, request: &SchedulingRequest<'_>, candidate: &Candidate<'_>) -> bool {
        match self {
            Self::Capability => candidate.offer.is_some_and(|offer| offer.capability.covers(request.need)),
            Self::Limits => request.limits_at(candidate).exceeded_by(request.size).is_none(),
            Self::Context => request.limits_at(candidate).seem_to_hold(request.size),
            Self::Willing => request.need.input.intersection(candidate.health.refuses).is_empty(),
            Self::Subset => request.subset.is_none_or(|subset| subset.allows(candidate.endpoint.address)),
            Self::Responsive => candidate.health.responsive,
            Self::Answering => candidate.health.answering,
            Self::Adapter => candidate.has_adapter_place,
            Self::Queue => !candidate.load.is_full(),
            Self::Room => !candidate.load.is_saturated(),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
