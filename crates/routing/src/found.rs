//! What a model server was found to be when it was asked, as far as that could be told.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Capability, Endpoint, Limits, Modality, ModalitySet, ModelName, Operation, OperationSet};

/// One model server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Found {
    /// What it is, as people call it; none where it is not recognised.
    pub engine: Option<String>,
    pub version: Option<String>,
    /// What it lists.
    pub models: BTreeMap<ModelName, FoundModel>,
    /// Whether it answers to any name, whatever it lists.
    pub any_name: bool,
}

/// One model of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FoundModel {
    /// The model that this is an adapter of.
    pub parent: Option<ModelName>,
    pub input: Known,
    pub output: Known,
    /// None where that could not be told.
    pub operations: Option<OperationSet>,
    pub limits: Limits,
}

/// What a model can do somewhere, and how much of it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    pub capability: Capability,
    pub limits: Limits,
    /// Whether it is an adapter of another model there.
    pub is_adapter: bool,
}

/// Modalities that are surely there, and such as surely are not; of the others nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Known {
    yes: ModalitySet,
    no: ModalitySet,
}

// === impl Found ===

impl Found {
    /// What it does for a request of this model; or, where none is named, for one that no endpoint of its pool lists: a list that has not what
    /// everybody asks for does not decide, since some engines load an adapter when it is asked for. None where it does not serve the model.
    pub fn offer(&self, model: Option<&str>) -> Option<Offer> {
        match model {
            Some(model) => self.model(model).map(FoundModel::offer),
            None => Some(self.of_any_name().map_or(Offer::ANYTHING, FoundModel::offer)),
        }
    }

    /// What answers to a name.
    pub fn model(&self, name: &str) -> Option<&FoundModel> {
        self.models.get(name).or_else(|| self.of_any_name())
    }

    /// One that answers to any name does so with its one model.
    fn of_any_name(&self) -> Option<&FoundModel> {
        self.models.values().next().filter(|_| self.any_name)
    }

    /// What is known of a server that was asked again. What could not be told this time is what it was, as long as it is the same release with the
    /// same models: one that is busy for a moment has not forgotten what it takes.
    #[must_use]
    pub fn remembering(mut self, before: &Self) -> Self {
        let is_same = (&self.engine, &self.version) == (&before.engine, &before.version);
        if is_same && self.models.keys().eq(before.models.keys()) {
            for (model, before) in self.models.values_mut().zip(before.models.values()) {
                model.remember(before);
            }
        }
        self
    }

    /// Whether it takes any kind of media under a name (`uuid`) as it does without one: vLLM, of which earlier releases fail on sounds that have one
    /// (vllm#43415), and read some base64 more leniently than this picker does.
    pub fn takes_uuids(&self) -> bool {
        let mut numbers =
            self.version.as_deref().unwrap_or_default().split('.').map_while(|part| part.parse::<u32>().ok());
        let version = [numbers.next(), numbers.next(), numbers.next()];
        self.engine.as_deref() == Some("vLLM") && version[2].is_some() && version >= [Some(0), Some(32), Some(0)]
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
    /// What of a declaration stands: all but what surely is not there.
    #[must_use]
    pub fn narrow(&self, declared: Capability) -> Capability {
        Capability {
            input: declared.input.difference(self.input.no),
            output: declared.output.difference(self.output.no),
            operations: self.operations.map_or(declared.operations, |own| {
                // What no operation is was not looked for.
                declared.operations.intersection(own.with(Operation::Other))
            }),
        }
    }

    fn remember(&mut self, before: &Self) {
        let untold = Modality::ALL.into_iter().filter(|modality| self.input.has(*modality).is_none());
        for (modality, limit) in untold.filter_map(|modality| Some((modality, before.limits.items(modality)?))) {
            self.limits = self.limits.with_items(modality, limit);
        }
        self.input = self.input.or(before.input);
        self.output = self.output.or(before.output);
        self.operations = self.operations.or(before.operations);
    }

    fn offer(&self) -> Offer {
        Offer { capability: self.capability(), limits: self.limits, is_adapter: self.parent.is_some() }
    }

    /// What it is taken to offer where nobody declares anything: what may be there is, since an engine refuses better than a guess does.
    pub fn capability(&self) -> Capability {
        self.narrow(Capability::ANY)
    }
}

/// What endpoints offer of one model, looked up once for those that were found to be the same: thousands are.
#[derive(Debug)]
pub struct Offers<'m> {
    model: Option<&'m str>,
    last: Option<(*const Found, Option<Offer>)>,
}

impl<'m> Offers<'m> {
    /// Of a model, as for [`Found::offer`].
    pub const fn of_model(model: Option<&'m str>) -> Self {
        Self { model, last: None }
    }

    /// Of which model.
    pub const fn model(&self) -> Option<&'m str> {
        self.model
    }

    /// What one offers: anything but what it says itself, or was found, not to do. None where it does not serve the model.
    pub fn at(&mut self, endpoint: &Endpoint) -> Option<Offer> {
        let offer = match &endpoint.found {
            Some(found) => self.of(found),
            None => Some(Offer::ANYTHING),
        };
        // Few say anything themselves, and this is asked of every endpoint for every request.
        let Some(own) = endpoint.capability else { return offer };
        offer.map(|offer| Offer { capability: offer.capability.intersection(own), ..offer })
    }

    #[inline]
    fn of(&mut self, found: &Arc<Found>) -> Option<Offer> {
        // Compared, and never followed.
        let place = Arc::as_ptr(found);
        match self.last {
            Some((last, offer)) if std::ptr::eq(last, place) => offer,
            _ => {
                let offer = found.offer(self.model);
                self.last = Some((place, offer));
                offer
            }
        }
    }
}

// === impl Offer ===

impl Offer {
    /// Where nothing is known.
    pub const ANYTHING: Self = Self { capability: Capability::ANY, limits: Limits::NONE, is_adapter: false };
}

// === impl Known ===

impl Known {
    pub const NOTHING: Self = Self { yes: ModalitySet::EMPTY, no: ModalitySet::EMPTY };

    /// These are there, and those are not; what is said to be both is there.
    pub const fn new(yes: ModalitySet, no: ModalitySet) -> Self {
        Self { yes, no: no.difference(yes) }
    }

    /// These and no others.
    pub const fn exactly(these: ModalitySet) -> Self {
        Self::new(these, ModalitySet::ALL)
    }

    /// That a modality is there, or is not.
    #[must_use]
    pub const fn with(self, modality: Modality, is_there: bool) -> Self {
        let it = ModalitySet::EMPTY.with(modality);
        let (yes, no) = if is_there { (it, ModalitySet::EMPTY) } else { (ModalitySet::EMPTY, it) };
        Self { yes, no }.or(self)
    }

    /// What this says, and of the rest what another says.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self { yes: self.yes.union(other.yes.difference(self.no)), no: self.no.union(other.no.difference(self.yes)) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(version: &str, input: Known, limits: Limits) -> Found {
        let model = FoundModel { input, limits, ..FoundModel::default() };
        Found { version: Some(version.into()), models: BTreeMap::from([("m".into(), model)]), ..Found::default() }
    }

    #[test]
    fn names_are_for_releases_that_take_them() {
        for (engine, version, expected) in [
            ("vLLM", "0.32.0", true),
            ("vLLM", "0.32.1.dev3+g1234", true),
            ("vLLM", "1.0.0", true),
            ("vLLM", "0.31.9", false),
            ("vLLM", "0.32.0rc1", false),
            ("vLLM", "dev", false),
            ("vLLM", "", false),
            ("SGLang", "0.50.0", false),
        ] {
            let found = Found { engine: Some(engine.into()), version: Some(version.into()), ..Found::default() };
            assert_eq!(found.takes_uuids(), expected, "{engine} {version}");
        }
        assert!(!Found::default().takes_uuids());
    }

    #[test]
    fn what_is_not_told_again_is_what_it_was_and_what_is_told_is_not() {
        let told = Known::NOTHING.with(Modality::Image, true).with(Modality::Audio, false);
        let before = found("1", told, Limits::NONE.with_items(Modality::Image, 4));
        let busy = found("1", Known::NOTHING, Limits::NONE);
        assert_eq!(busy.clone().remembering(&before), before);
        let blind = found("1", Known::NOTHING.with(Modality::Image, false), Limits::NONE);
        let now = blind.clone().remembering(&before);
        assert_eq!(now.models["m"].input, Known::NOTHING.with(Modality::Image, false).with(Modality::Audio, false));
        assert_eq!(now.models["m"].limits, Limits::NONE);
        let newer = found("2", Known::NOTHING, Limits::NONE);
        assert_eq!(newer.clone().remembering(&before), newer, "another release");
    }

    #[test]
    fn unknown_narrows_nothing_and_no_narrows_what_is_declared() {
        let model = FoundModel {
            input: Known::NOTHING.with(Modality::Image, false),
            operations: Some([Operation::ChatCompletions].into_iter().collect()),
            ..FoundModel::default()
        };
        let narrowed = model.narrow(Capability::ANY);
        assert!(!narrowed.input.contains(Modality::Image) && narrowed.input.contains(Modality::Video));
        assert!(narrowed.operations.contains(Operation::Other) && !narrowed.operations.contains(Operation::Speech));
    }
}
