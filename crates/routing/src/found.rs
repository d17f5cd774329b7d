//! What a model server was found to be when it was asked, as far as that could be told.

use crate::{Capability, Limits, Modality, ModalitySet, ModelName, OperationSet};

/// One model server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// What it is, as people call it; none where it is not recognised.
    pub engine: Option<String>,
    pub version: Option<String>,
    /// What it lists, each name once, in its order.
    pub models: Vec<FoundModel>,
    /// Whether it answers to any name, whatever it lists.
    pub any_name: bool,
    /// What could not be told and why, in sentences for people.
    pub doubts: Vec<String>,
}

/// One model of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundModel {
    pub name: ModelName,
    /// The model that this is an adapter of.
    pub parent: Option<ModelName>,
    pub input: Known,
    pub output: Known,
    /// None where that could not be told.
    pub operations: Option<OperationSet>,
    pub limits: Limits,
}

/// Modalities that are surely there, and such as surely are not; of the others nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    yes: ModalitySet,
    no: ModalitySet,
}

// === impl Found ===

impl Found {
    /// The model of this name.
    pub fn model(&self, name: &str) -> Option<&FoundModel> {
        self.models.iter().find(|model| *model.name == *name)
    }

    /// `vLLM 0.32.0`; `not recognised` where it is not.
    pub fn what(&self) -> String {
        match (&self.engine, &self.version) {
            (Some(engine), Some(version)) => format!("{engine} {version}"),
            (Some(engine), None) => engine.clone(),
            (None, _) => "not recognised".to_owned(),
        }
    }
}

// === impl FoundModel ===

impl FoundModel {
    /// A model of which its name alone is known.
    pub fn new(name: impl Into<ModelName>) -> Self {
        Self {
            name: name.into(),
            parent: None,
            input: Known::NOTHING,
            output: Known::NOTHING,
            operations: None,
            limits: Limits::NONE,
        }
    }

    /// What of a declaration stands: all but what surely is not there.
    #[must_use]
    pub fn narrow(&self, declared: Capability) -> Capability {
        Capability {
            input: declared.input.difference(self.input.no),
            output: declared.output.difference(self.output.no),
            operations: self.operations.map_or(declared.operations, |own| declared.operations.intersection(own)),
        }
    }

    /// What it is taken to offer where nobody declares anything: what may be there is, since an engine refuses better than a guess does.
    pub fn capability(&self) -> Capability {
        self.narrow(Capability::ANY)
    }
}

// === impl Known ===

impl Known {
    pub const NOTHING: Self = Self { yes: ModalitySet::EMPTY, no: ModalitySet::EMPTY };

    /// These and no others.
    pub const fn exactly(these: ModalitySet) -> Self {
        Self { yes: these, no: ModalitySet::ALL.difference(these) }
    }

    /// That a modality is there, or is not.
    #[must_use]
    pub const fn with(self, modality: Modality, is_there: bool) -> Self {
        let it = ModalitySet::EMPTY.with(modality);
        if is_there {
            Self { yes: self.yes.union(it), no: self.no.difference(it) }
        } else {
            Self { yes: self.yes.difference(it), no: self.no.union(it) }
        }
    }

    /// Whether it is there; none where nobody knows.
    pub const fn has(self, modality: Modality) -> Option<bool> {
        match (self.yes.contains(modality), self.no.contains(modality)) {
            (false, false) => None,
            (yes, _) => Some(yes),
        }
    }

    pub const fn yes(self) -> ModalitySet {
        self.yes
    }

    pub const fn no(self) -> ModalitySet {
        self.no
    }
}
