//! Filters: which endpoints may take a request at all.

use crate::{Ask, Candidate};

/// Keeps or removes one candidate.
pub trait Filter: Send + Sync + std::fmt::Debug {
    /// A lower-case word for logs and metric labels.
    fn name(&self) -> &'static str;

    fn keep(&self, ask: &Ask<'_>, candidate: &Candidate<'_>) -> bool;
}

/// The endpoint's own word covers what the request needs.
#[derive(Debug)]
pub struct Covers;

/// The endpoint is among those the gateway allows, if it named any.
#[derive(Debug)]
pub struct InSubset;

/// The server gives some sign of life.
#[derive(Debug)]
pub struct NotSilent;

/// Another request would not only wait there.
#[derive(Debug)]
pub struct NotSaturated;

impl Covers {
    pub const NAME: &str = "capability";
}

impl InSubset {
    pub const NAME: &str = "subset";
}

impl NotSilent {
    pub const NAME: &str = "silent";
}

impl NotSaturated {
    pub const NAME: &str = "saturated";
}

impl Filter for Covers {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn keep(&self, ask: &Ask<'_>, candidate: &Candidate<'_>) -> bool {
        candidate.endpoint.covers(ask.need)
    }
}

impl Filter for InSubset {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn keep(&self, ask: &Ask<'_>, candidate: &Candidate<'_>) -> bool {
        ask.subset.is_none_or(|subset| subset.allows(candidate.endpoint.address))
    }
}

impl Filter for NotSilent {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn keep(&self, _: &Ask<'_>, candidate: &Candidate<'_>) -> bool {
        !candidate.load.is_silent()
    }
}

impl Filter for NotSaturated {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn keep(&self, _: &Ask<'_>, candidate: &Candidate<'_>) -> bool {
        !candidate.load.is_saturated()
    }
}
