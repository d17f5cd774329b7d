//! Which operations a server has: by asking for their paths, or by the list of them in its own description.

use futures::future::join_all;
use http::StatusCode;
use request::Resource;
use routing::{Operation, OperationSet};
use serde_json::Value;

use crate::asker::{Answer, Asker};

/// What `/openapi.json` lists. Servers that are made with FastAPI serve one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) operations: OperationSet,
    /// Whether a path of vLLM-Omni's own is among them: its list of models is vLLM's.
    pub(crate) is_omni: bool,
}

/// One path of each operation of vLLM's and SGLang's.
const PATHS: [&str; 18] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/embeddings",
    "/pooling",
    "/classify",
    "/score",
    "/v1/rerank",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos/sync",
    "/tokenize",
    "/generate",
    "/generative_scoring",
];

/// A path that vLLM-Omni alone has.
const OMNI: &str = "/v1/audio/generate";

impl Mounted {
    /// Asks for each operation by a method that it is not asked with: a path that is there is answered with 405, one that is not with 404.
    /// Nothing is done by it, and it takes vLLM 1 ms a path, where its description takes nearly a second when it is asked for first.
    pub(crate) async fn by_method(asker: &Asker<'_>) -> Option<Self> {
        let mut answers = Vec::new();
        for path in PATHS.into_iter().chain([OMNI]) {
            answers.push(is_mounted(asker, path));
        }
        let mut answers = join_all(answers).await;
        let is_omni = answers.pop().flatten() == Some(true);
        let operation = |(path, is_there): (&&str, Option<bool>)| match Resource::of_path(path) {
            Ok(Resource::Operation(operation)) => is_there.map(|is_there| is_there.then_some(operation)),
            _ => Some(None),
        };
        let known: Option<Vec<_>> = PATHS.iter().zip(answers).map(operation).collect();
        let operations: OperationSet = known?.into_iter().flatten().collect();
        // One that serves nothing by this answer does not tell by it: something before it may know no GET of these.
        let serves = operations.iter().any(|operation| operation != Operation::Tokenize);
        serves.then(|| Self { operations: with_unasked(operations), is_omni })
    }

    /// None where it is no such description.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let paths = answer.json["paths"].as_object().filter(|_| answer.is_ok())?;
        let operation = |(path, methods): (&String, &Value)| match Resource::of_path(path) {
            Ok(resource @ Resource::Operation(operation)) => {
                let is_served = |method: &str| methods.get(method.to_ascii_lowercase()).is_some();
                resource.methods().iter().any(|method| is_served(method)).then_some(operation)
            }
            _ => None,
        };
        Some(Self {
            operations: with_unasked(paths.iter().filter_map(operation).collect()),
            is_omni: paths.keys().any(|path| path.starts_with("/v1/omni/") || path == "/v1/audio/generate"),
        })
    }
}

/// What cannot be asked for is not said to be missing: a WebSocket is no path of a description, and what is no operation is not looked for.
fn with_unasked(operations: OperationSet) -> OperationSet {
    let hears = operations.contains(Operation::Transcriptions);
    let operations = if hears { operations.with(Operation::Realtime) } else { operations };
    if operations.is_empty() { operations } else { operations.with(Operation::Other) }
}

/// None where the answer is neither.
async fn is_mounted(asker: &Asker<'_>, path: &'static str) -> Option<bool> {
    match asker.get(path).await.ok()?.status {
        StatusCode::METHOD_NOT_ALLOWED => Some(true),
        StatusCode::NOT_FOUND => Some(false),
        _ => None,
    }
}
