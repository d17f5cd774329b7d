//! Which engine it is, and how each is asked.
//!
//! What is read of engines other than vLLM is taken from their sources: SGLang 0.5.23 (`srt/entrypoints/http_server.py`), llama.cpp
//! (`tools/server`, as llama_cpp_python 0.3.36 has it), Ollama 0.33 (`server/routes.go`, `api/types.go`), vLLM-Omni 0.30
//! (`entrypoints/openai/api_server.py`), TGI and TEI (`router/src`), LocalAI 4.9, Xinference, Infinity 0.0.77 and Speaches; and OpenRouter's
//! model list, whose shape others copy.

use std::collections::BTreeMap;

use routing::{Found, FoundModel, ModelName};

use crate::asker::{Answer, Asker};
use crate::listing::{CONTEXT, Listed, Listing};
use crate::mounted::Mounted;
use crate::{Failure, Probed, words};

mod hugging_face;
mod llama_cpp;
mod ollama;
mod sglang;
mod stated;
mod vllm;

/// Who calls itself what in a list of models.
const OWNERS: [(&str, &str); 12] = [
    ("vllm", "vLLM"),
    ("sglang", "SGLang"),
    ("llamacpp", "llama.cpp"),
    ("me", "llama-cpp-python"),
    ("tensorrt_llm", "TensorRT-LLM"),
    ("system", "NVIDIA NIM"),
    ("Triton Inference Server", "Triton"),
    ("lmdeploy", "LMDeploy"),
    ("xinference", "Xinference"),
    ("infinity", "Infinity"),
    ("kokoro", "Kokoro-FastAPI"),
    ("library", "Ollama"),
];

/// Everything that can be told of a server with a list of models.
pub(crate) async fn look(asker: &Asker<'_>, listing: &Listing) -> Probed {
    let owner = listing.models.first().map_or("", |listed| &*listed.owned_by);
    let engine = OWNERS.iter().find(|(word, _)| *word == owner).map(|(_, engine)| *engine);
    let found = match engine {
        Some("vLLM") => return vllm::look(asker, listing).await,
        Some("SGLang") => sglang::look(asker, listing).await,
        Some("llama.cpp") => llama_cpp::look(asker, listing).await,
        Some("Ollama") | None => match ollama::look(asker, listing).await {
            Some(found) => Some(found),
            None => hugging_face::look(asker, listing).await,
        },
        Some(_) => None,
    };
    if let Some(found) = found {
        return found;
    }
    let richer = if engine.is_none() { richer(asker).await } else { None };
    match richer {
        Some(found) => found,
        None => {
            let mounted = asker.get("/openapi.json").await.ok().and_then(|answer| Mounted::of(&answer));
            stated(engine, listing, mounted.as_ref())
        }
    }
}

/// Lists that say more than OpenAI's, at paths of their own.
async fn richer(asker: &Asker<'_>) -> Option<Probed> {
    for (path, engine) in [("/v1/models/capabilities", "LocalAI"), ("/api/v0/models", "LM Studio")] {
        let listing = asker.get(path).await.ok().and_then(|answer| Listing::of(&answer));
        if let Some(listing) = listing.filter(|listing| !listing.models.is_empty()) {
            return Some(stated(Some(engine), &listing, None));
        }
    }
    None
}

/// The same of one without.
pub(crate) async fn without_list(asker: &Asker<'_>) -> Result<Probed, Failure> {
    let found = hugging_face::look(asker, &Listing::default()).await;
    found.ok_or_else(|| Failure::NoModelServer { path: "/v1/models", what: "status 404".into() })
}

/// What the entries of its list say themselves.
fn stated(engine: Option<&str>, listing: &Listing, mounted: Option<&Mounted>) -> Probed {
    let models = models(listing, |entry| stated::model(entry, mounted));
    let unknown = models.iter().filter(|(_, model)| model.input.yes().is_empty());
    let doubts = unknown.map(|(name, _)| format!("what {name} takes: its server does not say")).collect();
    Probed {
        found: Found { engine: engine.map(str::to_owned), models, ..Found::default() },
        doubts: few(doubts),
        ..Probed::default()
    }
}

/// Each model of a list, by what is known of an entry.
fn models(listing: &Listing, model: impl Fn(&Listed) -> FoundModel) -> BTreeMap<ModelName, FoundModel> {
    listing.models.iter().map(|entry| (entry.name.clone(), model(entry))).collect()
}

/// A model of which a list says its parent and its context length.
fn listed(listed: &Listed) -> FoundModel {
    let mut model = FoundModel { parent: listed.parent.clone(), ..FoundModel::default() };
    if let Some(tokens) = listed.tokens(CONTEXT) {
        model.limits = model.limits.with_context(tokens);
    }
    model
}

/// As many as a person reads.
fn few(mut doubts: Vec<String>) -> Vec<String> {
    const SHOWN: usize = 8;
    if doubts.len() > SHOWN {
        let more = doubts.len() - (SHOWN - 1);
        doubts.truncate(SHOWN - 1);
        doubts.push(format!("and the same of {more} more"));
    }
    doubts
}

/// What a server says under `version` there.
async fn version(asker: &Asker<'_>, path: &'static str) -> Option<String> {
    let answer = asker.get(path).await.ok().filter(Answer::is_ok)?;
    words(&answer.json["version"])
}
