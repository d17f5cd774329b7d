//! What is written into a body in the place of what stands there.

use std::fmt::Write as _;
use std::sync::Arc;

use media::NameScope;
use request::{InferenceRequest, MediaItem, Splice};
use routing::ModelName;

/// What a target's servers are sent: its own name for the model, and these names for media.
pub(crate) fn of(request: &InferenceRequest, target: Option<&ModelName>, uuids: &[Splice]) -> Arc<[Splice]> {
    let target = target.filter(|target| request.model.as_deref() != Some(target));
    let renamed = target.zip(request.model_span.as_ref()).map(|(target, span)| span.renamed(target));
    if uuids.is_empty() {
        return renamed.into_iter().collect();
    }
    let mut all: Vec<Splice> = uuids.iter().cloned().chain(renamed).collect();
    all.sort_by_key(|splice| splice.range.start);
    all.into()
}

/// Names for media that no other caller, and no request for another model, can name: an engine that has one in its cache answers from it,
/// whoever asks.
pub(crate) fn uuids(request: &InferenceRequest, namespace: &str, caller: &[u8]) -> Vec<Splice> {
    let scope = NameScope { namespace, model: request.model.as_deref().unwrap_or_default(), caller };
    let own = |item: &MediaItem| {
        let mut name = String::with_capacity(64);
        for byte in item.identity?.within(scope) {
            let _ = write!(name, "{byte:02x}");
        }
        Some(Splice::json_string(item.uuid_at.clone()?, &name))
    };
    let mut uuids: Vec<Splice> = request.media.iter().filter(|item| item.uuid_at.is_some()).filter_map(own).collect();
    // A part with several fields has one name.
    uuids.dedup_by(|a, b| a.range == b.range);
    uuids
}
