//! Which operations a server has: by asking for their paths, or by the list of them in its own description.

use futures::future::join_all;
use http::StatusCode;
use routing::{Operation, OperationSet};

use crate::asker::{Answer, Asker};

/// What a server has paths for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) operations: OperationSet,
    /// Whether a path of vLLM-Omni's own is among them: its list of models is vLLM's.
    pub(crate) is_omni: bool,
}

/// One path of each operation that vLLM, SGLang and their kin have.
const PATHS: [(&str, Operation); 19] = [
    ("/v1/chat/completions", Operation::ChatCompletions),
    ("/v1/completions", Operation::Completions),
    ("/v1/responses", Operation::Responses),
    ("/v1/messages", Operation::Messages),
    ("/v1/embeddings", Operation::Embeddings),
    ("/pooling", Operation::Pooling),
    ("/classify", Operation::Classify),
    ("/score", Operation::Score),
    ("/generative_scoring", Operation::Score),
    ("/v1/rerank", Operation::Rerank),
    ("/v1/audio/transcriptions", Operation::Transcriptions),
    ("/v1/audio/translations", Operation::Translations),
    ("/v1/audio/speech", Operation::Speech),
    ("/v1/images/generations", Operation::ImageGenerations),
    ("/v1/images/edits", Operation::ImageEdits),
    ("/v1/videos/sync", Operation::Videos), // the other is asked with GET as well
    ("/tokenize", Operation::Tokenize),
    ("/generate", Operation::Generate),
    ("/inference/v1/generate", Operation::Generate),
];

/// A path that vLLM-Omni alone has.
const OMNI: &str = "/v1/audio/generate";

impl Mounted {
    /// Asks for each operation by a method that it is not asked with: a path that is there is answered with 405, one that is not with 404.
    /// Nothing is done by it, and it takes vLLM 1 ms a path, where its description takes nearly a second when it is asked for first.
    pub(crate) async fn by_method(asker: &Asker<'_>) -> Option<Self> {
        let mut answers = Vec::new();
        for path in PATHS.into_iter().map(|(path, _)| path).chain([OMNI]) {
            answers.push(is_mounted(asker, path));
        }
        let mut answers = join_all(answers).await;
        let is_omni = answers.pop().flatten() == Some(true);
        let answers: Option<Vec<bool>> = answers.into_iter().collect();
        let there = PATHS.iter().zip(answers?).filter(|(_, is_there)| *is_there);
        let operations: OperationSet = there.map(|((_, operation), _)| *operation).collect();
        // One that serves nothing by this answer does not tell by it: something before it may know no GET of these.
        let serves = operations.iter().any(|operation| operation != Operation::Tokenize);
        serves.then(|| Self { operations: with_unasked(operations), is_omni })
    }

    /// By the description that servers made with FastAPI give of themselves (`/openapi.json`); none where it is no such.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let paths = answer.json["paths"].as_object().filter(|_| answer.is_ok())?;
        let there =
            PATHS.iter().filter(|(path, _)| paths.get(*path).is_some_and(|methods| methods.get("post").is_some()));
        let operations = with_unasked(there.map(|(_, operation)| *operation).collect());
        Some(Self { operations, is_omni: paths.contains_key(OMNI) })
    }
}

/// What cannot be asked for is not said to be missing: a WebSocket is no path of a description.
fn with_unasked(operations: OperationSet) -> OperationSet {
    let hears = operations.contains(Operation::Transcriptions);
    if hears { operations.with(Operation::Realtime) } else { operations }
}

/// None where the answer is neither.
async fn is_mounted(asker: &Asker<'_>, path: &'static str) -> Option<bool> {
    match asker.get(path).await.ok()?.status {
        StatusCode::METHOD_NOT_ALLOWED => Some(true),
        StatusCode::NOT_FOUND => Some(false),
        _ => None,
    }
}
