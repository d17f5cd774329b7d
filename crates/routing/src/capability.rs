//! What a target offers, what a request needs, and how tightly one fits the other.

use std::cmp::Reverse;
use std::fmt;

use crate::{Modality, ModalitySet};

/// What a target or an endpoint offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capability {
    pub input: ModalitySet,
    pub output: ModalitySet,
}

/// What a request needs, read from its path and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Requirement {
    pub input: ModalitySet,
    pub output: ModalitySet,
}

/// How well a capability that covers a requirement fits it: the fewer modalities to spare, the greater.
///
/// Precedence between targets is this `Ord` and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit(Reverse<u32>);

// === impl Capability ===

impl Capability {
    /// What a target offers that declares nothing.
    pub const TEXT: Self = Self { input: ModalitySet::TEXT, output: ModalitySet::TEXT };

    /// Anything at all: what is assumed of a pool that no model refers to, since nobody said otherwise.
    pub const ANY: Self = Self { input: ModalitySet::ALL, output: ModalitySet::ALL };

    /// The fit of this capability for `need`, or none when something is missing.
    pub fn fit(self, need: Requirement) -> Option<Fit> {
        self.covers(need).then(|| {
            let spare = self.input.difference(need.input).len() + self.output.difference(need.output).len();
            Fit(Reverse(spare))
        })
    }

    pub const fn covers(self, need: Requirement) -> bool {
        self.input.is_superset(need.input) && self.output.is_superset(need.output)
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self { input: self.input.union(other.input), output: self.output.union(other.output) }
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self { input: self.input.intersection(other.input), output: self.output.intersection(other.output) }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} → {}", self.input, self.output))
    }
}

// === impl Requirement ===

impl Requirement {
    /// What of this requirement `offered` lacks.
    #[must_use]
    pub const fn missing_from(self, offered: Capability) -> Self {
        Self { input: self.input.difference(offered.input), output: self.output.difference(offered.output) }
    }

    #[must_use]
    pub const fn with_input(self, modality: Modality) -> Self {
        Self { input: self.input.with(modality), output: self.output }
    }

    #[must_use]
    pub const fn with_output(self, modality: Modality) -> Self {
        Self { input: self.input, output: self.output.with(modality) }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} → {}", self.input, self.output))
    }
}

// === impl Fit ===

impl Fit {
    /// How many modalities the capability has that the request does not need.
    pub const fn spare(self) -> u32 {
        self.0.0
    }
}
