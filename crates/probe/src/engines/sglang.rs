//! SGLang. It mounts every path whatever its model can do, and says in flags what that is; of video it says nothing.

use futures::future;
use routing::{Found, FoundModel, Known, Limits, Modality, ModalitySet, Operation, OperationSet};
use serde_json::Value;

use crate::asker::{Answer, Asker};
use crate::listing::{Listing, tokens};
use crate::mounted::Mounted;
use crate::{Probed, Settings, words};

/// None where it does not say more than its list.
pub(super) async fn look(asker: &Asker<'_>, listing: &Listing) -> Option<Probed> {
    // Newer names first; the answer to the second holds every argument of the server, keys among them, and is read by field.
    let info = either(asker, "/model_info", "/get_model_info");
    let server = either(asker, "/server_info", "/get_server_info");
    let (info, server, mounted) = future::join3(info, server, Mounted::by_method(asker)).await;
    let (info, server) = (info?, server.unwrap_or_default());
    let operations = operations(info["is_generation"].as_bool(), mounted.as_ref());
    let input = input(&info, &server);
    let output = operations.map_or(Known::NOTHING, |all| Known::exactly(all.gives()));
    let limits = limits(&server["limit_mm_data_per_request"]);
    let unknown =
        [Modality::Image, Modality::Audio, Modality::Video].into_iter().filter(|one| input.has(*one).is_none());
    let doubts = unknown.map(|modality| format!("whether it takes {modality}: this release of SGLang does not say"));
    let models = super::models(listing, |entry| {
        let model = super::listed(entry);
        let limits = model.limits.context().map_or(limits, |tokens| limits.with_context(tokens));
        FoundModel { input, output, operations, limits, ..model }
    });
    let found = Found { engine: Some("SGLang".into()), version: words(&server["version"]), models, any_name: false };
    Some(Probed { found, settings: Settings::of_sglang(&server), doubts: doubts.collect() })
}

async fn either(asker: &Asker<'_>, newer: &'static str, older: &'static str) -> Option<Value> {
    for path in [newer, older] {
        if let Some(answer) = asker.get(path).await.ok().filter(Answer::is_ok) {
            return Some(answer.json).filter(Value::is_object);
        }
    }
    None
}

fn operations(is_generation: Option<bool>, mounted: Option<&Mounted>) -> Option<OperationSet> {
    use Operation::{Classify, Embeddings, Pooling, Rerank, Score, Tokenize};
    let about: OperationSet = [Embeddings, Pooling, Classify, Rerank, Score].into_iter().collect();
    let mounted = mounted?.operations;
    Some(if is_generation? {
        mounted.iter().filter(|operation| !about.contains(*operation)).collect()
    } else {
        mounted.intersection(about.with(Tokenize))
    })
}

fn input(info: &Value, server: &Value) -> Known {
    let text = Known::new(ModalitySet::TEXT, ModalitySet::of(&[Modality::Embedding]));
    // One that is told to be, or found to be, of text alone.
    let is_of_text = server["language_model_only"] == true || server["enable_multimodal"] == false;
    let flags = [("has_image_understanding", Modality::Image), ("has_audio_understanding", Modality::Audio)];
    let told = flags.map(|(flag, modality)| (modality, info[flag].as_bool()));
    if is_of_text || told.iter().all(|(_, has)| *has == Some(false)) {
        return Known::exactly(ModalitySet::TEXT);
    }
    told.into_iter().fold(text, |known, (modality, has)| has.map_or(known, |has| known.with(modality, has)))
}

fn limits(of: &Value) -> Limits {
    [Modality::Image, Modality::Audio, Modality::Video].into_iter().fold(Limits::NONE, |limits, modality| {
        tokens(&of[modality.as_str()]).map_or(limits, |items| limits.with_items(modality, items))
    })
}
