//! What a target offers, what a request needs, and how tightly one fits the other.

use std::cmp::Reverse;
use std::fmt;

use crate::{ModalitySet, Operation, OperationSet};

/// What a target or an endpoint offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capability {
    pub input: ModalitySet,
    pub output: ModalitySet,
    pub operations: OperationSet,
}

/// What a request needs, read from its path and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub operation: Operation,
    pub input: ModalitySet,
    pub output: ModalitySet,
}

/// What of a requirement is not on offer; nothing when each part of it is, but not together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Missing {
    pub operation: Option<Operation>,
    pub input: ModalitySet,
    pub output: ModalitySet,
}

/// How well a capability that covers a requirement fits it: the fewer modalities to spare, the greater; among equals, the fewer
/// operations to spare.
///
/// Precedence between targets is this `Ord` and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    spare_modalities: Reverse<u32>,
    spare_operations: Reverse<u32>,
}

// === impl Capability ===

impl Capability {
    /// What a target offers that declares nothing.
    pub const TEXT: Self = Self::new(ModalitySet::TEXT, ModalitySet::TEXT);

    /// Anything at all: what is assumed of a pool that no model refers to, since nobody said otherwise.
    pub const ANY: Self = Self::new(ModalitySet::ALL, ModalitySet::ALL);

    /// These modalities in every operation.
    pub const fn new(input: ModalitySet, output: ModalitySet) -> Self {
        Self { input, output, operations: OperationSet::ALL }
    }

    #[must_use]
    pub const fn limited_to(self, operations: OperationSet) -> Self {
        Self { operations, ..self }
    }

    /// Whether the operations are named, rather than assumed to be all.
    pub fn declares_operations(self) -> bool {
        self.operations != OperationSet::ALL
    }

    /// The fit of this capability for `need`, or none when something is missing.
    pub fn fit(self, need: Requirement) -> Option<Fit> {
        self.covers(need).then(|| Fit {
            spare_modalities: Reverse(
                self.input.difference(need.input).len() + self.output.difference(need.output).len(),
            ),
            spare_operations: Reverse(self.operations.len() - 1),
        })
    }

    pub const fn covers(self, need: Requirement) -> bool {
        self.operations.contains(need.operation)
            && self.input.is_superset(need.input)
            && self.output.is_superset(need.output)
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self {
            input: self.input.union(other.input),
            output: self.output.union(other.output),
            operations: self.operations.union(other.operations),
        }
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self {
            input: self.input.intersection(other.input),
            output: self.output.intersection(other.output),
            operations: self.operations.intersection(other.operations),
        }
    }
}

/// `text+image → text`, and `audio → text for transcriptions` where not every operation is served.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, output, operations } = self;
        let limits = if *operations == OperationSet::ALL { String::new() } else { format!(" for {operations}") };
        f.pad(&format!("{input} → {output}{limits}"))
    }
}

// === impl Requirement ===

impl Requirement {
    pub const fn new(operation: Operation, input: ModalitySet, output: ModalitySet) -> Self {
        Self { operation, input, output }
    }

    /// What of this requirement `offered` lacks.
    pub fn missing_from(self, offered: Capability) -> Missing {
        Missing {
            operation: Some(self.operation).filter(|operation| !offered.operations.contains(*operation)),
            input: self.input.difference(offered.input),
            output: self.output.difference(offered.output),
        }
    }
}

/// The modalities alone; what a request asks for is said beside it.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} → {}", self.input, self.output))
    }
}

// === impl Fit ===

impl Fit {
    /// How many modalities the capability has that the request does not need.
    pub const fn spare(self) -> u32 {
        self.spare_modalities.0
    }
}
