//! What is written into a body in the place of what stands there.

use std::fmt::Write as _;
use std::sync::Arc;

use media::NameScope;
use request::{InferenceRequest, MediaItem, Splice, UuidAt};
use routing::{MediaPolicy, ModelName, UnsafeFeature};

use crate::EndpointState;

/// Names for a request's media, by which an engine that has one in its cache answers from it, whoever asks.
pub(crate) struct Uuids {
    /// In the place of the client's own, unless the model's owner lets clients share them: names that no other caller, and no request for another
    /// model, can name.
    given: Vec<Splice>,
    /// Beside media that have none, where the model's owner wants it: of their content, so that nobody can give another the same.
    missing: Vec<Splice>,
}

/// What a target's servers are sent: its own name for the model, and these names for media.
pub(crate) fn of<'s>(
    request: &InferenceRequest,
    target: Option<&ModelName>,
    uuids: impl Iterator<Item = &'s Splice>,
) -> Arc<[Splice]> {
    let target = target.filter(|target| request.model.as_deref() != Some(target));
    let renamed = target.zip(request.model_span.as_ref()).map(|(target, span)| span.renamed(target));
    let mut all: Vec<Splice> = uuids.cloned().chain(renamed).collect();
    all.sort_by_key(|splice| splice.range.start);
    all.into()
}

impl Uuids {
    pub(crate) fn of(request: &InferenceRequest, policy: Option<&MediaPolicy>, scope: NameScope<'_>) -> Self {
        let allows = |feature| policy.is_some_and(|policy| policy.allowed.contains(&feature));
        if allows(UnsafeFeature::SharedUuids) {
            return Self { given: Vec::new(), missing: Vec::new() };
        }
        let own = |item: &MediaItem| match &item.uuid {
            Some(UuidAt::Given(at)) => Some(Splice::json_string(at.clone(), &hex(&item.identity?.within(scope)))),
            _ => None,
        };
        let mut given: Vec<Splice> = request.media.iter().filter_map(own).collect();
        // A part with several fields has one name.
        given.dedup_by(|a, b| a.range == b.range);
        let of_content = |item: &MediaItem| match item.uuid {
            Some(UuidAt::Missing(at)) => {
                let media_type = item.media_type.as_deref().unwrap_or_default();
                let name = item.identity?.name_of_content(item.modality, media_type)?;
                Some(Splice::json_field(at, "uuid", &hex(&name)))
            }
            _ => None,
        };
        // Not every release of vLLM counts what it is told to do with media among what they are.
        let is_plain = request.unsafe_features.iter().all(|found| found.feature != UnsafeFeature::ProcessorArguments);
        let writes = is_plain && policy.is_some_and(|policy| policy.writes_uuids);
        let missing = if writes { request.media.iter().filter_map(of_content).collect() } else { Vec::new() };
        Self { given, missing }
    }

    /// Those that an endpoint is sent.
    pub(crate) fn at(&self, endpoint: &EndpointState) -> impl Iterator<Item = &Splice> {
        let missing = if self.differ_at(endpoint) { &*self.missing } else { &[] };
        self.given.iter().chain(missing)
    }

    /// Whether it is sent others than one whose engine takes none.
    pub(crate) fn differ_at(&self, endpoint: &EndpointState) -> bool {
        !self.missing.is_empty() && endpoint.takes_uuids()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}
