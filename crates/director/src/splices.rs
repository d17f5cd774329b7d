//! What is written into a body in the place of what stands there.

use std::fmt::Write as _;
use std::sync::Arc;

use media::{Identity, NameScope};
use request::{InferenceRequest, MediaItem, Splice, UuidAt};
use routing::{MediaPolicy, ModelName, UnsafeFeature};

use crate::snapshot::Slot;

/// Names for a request's media, by which an engine that has one in its cache answers from it, whoever asks.
pub(crate) struct Uuids<'r> {
    namespace: &'r str,
    /// Which clients do not know.
    secret: u64,
    /// In the place of the client's own, unless the model's owner lets clients share them: names that no other caller, and no request for another
    /// model, can name.
    given: Vec<Splice>,
    /// Media that are to have a name and have none.
    missing: Vec<&'r MediaItem>,
}

/// What a target's servers are sent: its own name for the model, and these names for media.
pub(crate) fn of(request: &InferenceRequest, target: Option<&ModelName>, uuids: Vec<Splice>) -> Arc<[Splice]> {
    let target = target.filter(|target| request.model.as_deref() != Some(target));
    let renamed = target.zip(request.model_span.as_ref()).map(|(target, span)| span.renamed(target));
    let mut all = uuids;
    all.extend(renamed);
    all.sort_by_key(|splice| splice.range.start);
    all.into()
}

impl<'r> Uuids<'r> {
    pub(crate) fn of(
        request: &'r InferenceRequest,
        policy: Option<&MediaPolicy>,
        scope: NameScope<'r>,
        secret: u64,
    ) -> Self {
        let allows = |feature| policy.is_some_and(|policy| policy.allowed.contains(&feature));
        let own = |item: &MediaItem| match &item.uuid {
            Some(UuidAt::Given(at)) => Some(Splice::json_string(at.clone(), &hex(&item.identity?.within(scope)))),
            _ => None,
        };
        let shared = allows(UnsafeFeature::SharedUuids);
        let mut given: Vec<Splice> = if shared { Vec::new() } else { request.media.iter().filter_map(own).collect() };
        // A part with several fields has one name.
        given.dedup_by(|a, b| a.range == b.range);
        let missing = if policy.is_some_and(|policy| policy.writes_uuids) { missing(request) } else { Vec::new() };
        Self { namespace: scope.namespace, secret, given, missing }
    }

    /// Those that an endpoint is sent.
    pub(crate) fn at(&self, slot: &Slot, model: Option<&str>) -> Vec<Splice> {
        let missing = if self.adds_names_at(slot) { &*self.missing } else { &[] };
        // Adapters see with the eyes of the model that they are of.
        let found = slot.endpoint.found.as_ref().zip(model).and_then(|(found, model)| found.model(model));
        let base = found.and_then(|found| found.parent.as_deref()).or(model).unwrap_or_default();
        let of_content = |item: &&MediaItem| {
            let place = [self.namespace, &slot.state.id().pool, base, item.modality.as_str()];
            item.named(&hex(&item.identity?.name_of_content(self.secret, place)?))
        };
        self.given.iter().cloned().chain(missing.iter().filter_map(of_content)).collect()
    }

    /// Whether it is sent names that are missing.
    pub(crate) fn adds_names_at(&self, slot: &Slot) -> bool {
        !self.missing.is_empty() && slot.endpoint.found.as_ref().is_some_and(|found| found.takes_uuids())
    }
}

/// The media that can be named by their content; none of them, unless all have a name then: vLLM fails where models see pictures and films as one
/// kind of thing (Kimi-K2.5) and some of them have none.
fn missing(request: &InferenceRequest) -> Vec<&MediaItem> {
    // Not every release counts what it is told to do with media among what they are.
    let is_plain = request
        .unsafe_features
        .iter()
        .all(|found| !matches!(found.feature, UnsafeFeature::ProcessorArguments | UnsafeFeature::FrameLists));
    let mut missing = Vec::new();
    for item in &request.media {
        match (&item.uuid, item.identity) {
            (Some(UuidAt::Given(_)), _) => {}
            (Some(UuidAt::Missing(_)), Some(Identity::Content(_))) if is_plain => missing.push(item),
            _ => return Vec::new(),
        }
    }
    missing
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}
