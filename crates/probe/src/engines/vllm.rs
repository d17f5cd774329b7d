//! vLLM, and what is built on it.
//!
//! It says of no model what it takes. `POST /tokenize` reads the messages of a chat as a chat does, counts the items of each modality against
//! what the model takes at most, and looks at an item's URL only after that; so a message of items that lead nowhere is answered by the
//! count alone, in milliseconds, and nothing is fetched, decoded or generated. Tried on vLLM 0.32 with models of text, image, audio, video and
//! speech (`entrypoints/chat_utils.py`; the answers are recorded in `modelserver-sim/testdata`).

use futures::future::{self, join_all};
use routing::{Found, FoundModel, Known, Modality, Operation, OperationSet, Unfit};
use serde_json::{Value, json};

use crate::asker::{Answer, Asker};
use crate::listing::{Listed, Listing};
use crate::mounted::Mounted;
use crate::{Probed, Settings};

/// How many items a question has: a limit below it is found. One without an option of its own has 999.
const ITEMS: usize = 64;

/// How many models of one server are asked for; adapters and other names of a model are not counted.
const MAX_ASKED: usize = 8;

/// What can be asked for, and the part of a message that asks.
const QUESTIONS: [(Modality, &str); 3] =
    [(Modality::Image, "image_url"), (Modality::Audio, "audio_url"), (Modality::Video, "video_url")];

/// What an answer says of a modality.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Says {
    /// At most so many; none where it is more than were asked for.
    Takes(Option<u32>),
    Refuses,
    Nothing(String),
}

/// What can be found out of a server of this kind.
pub(super) async fn look(asker: &Asker<'_>, listing: &Listing) -> Probed {
    let mut bases: Vec<&Listed> = Vec::new();
    for listed in listing.models.iter().filter(|listed| listed.parent.is_none()) {
        if !bases.iter().any(|base| listed.is_same_as(base)) {
            bases.push(listed);
        }
    }
    let (first, rest) = bases.split_at(bases.len().min(MAX_ASKED));
    let settings = Settings::of_vllm(asker);
    let (version, mounted, settings) =
        future::join3(super::version(asker, "/version"), Mounted::by_method(asker), settings).await;
    let is_omni = mounted.as_ref().is_some_and(|mounted| mounted.is_omni);
    // vLLM-Omni mounts what no model of it can do as well.
    let operations = mounted.filter(|_| !is_omni).map(|mounted| mounted.operations);
    // No closure: the compiler does not see that what one returns may move between threads.
    let mut looks = Vec::new();
    for base in first {
        looks.push(model(asker, base, operations));
    }
    let mut doubts = Vec::new();
    let mut known: Vec<(&Listed, FoundModel)> = Vec::new();
    for (base, (model, of_model)) in first.iter().zip(join_all(looks).await) {
        doubts.extend(of_model);
        known.push((base, model));
    }
    if let Some(next) = rest.first() {
        let more = rest.len() - 1;
        doubts.push(format!("what {} and {more} more take: {MAX_ASKED} models of a server are asked for", next.name));
    }
    if is_omni {
        doubts.push("what it answers with: vLLM-Omni has every path, whatever its model can do".into());
    }
    // Another name of a model takes what the model does, and so does an adapter.
    let of = |entry: &Listed| known.iter().find(|(base, _)| entry.is_same_as(base) || entry.is_adapter_of(base));
    let models = super::models(listing, |entry| match of(entry) {
        Some((_, model)) => FoundModel { parent: entry.parent.clone(), ..model.clone() },
        None => super::listed(entry),
    });
    let engine = if is_omni { "vLLM-Omni" } else { "vLLM" };
    Probed { found: Found { engine: Some(engine.into()), version, models, any_name: false }, settings, doubts }
}

/// A model, and what could not be told of it.
async fn model(asker: &Asker<'_>, listed: &Listed, operations: Option<OperationSet>) -> (FoundModel, Vec<String>) {
    let mut model = super::listed(listed);
    model.input = Known::NOTHING.with(Modality::Embedding, false);
    if let Some(operations) = operations {
        model.operations = Some(operations);
        // What writes down speech may take a text beside it.
        if operations.iter().any(takes_text) {
            model.input = model.input.with(Modality::Text, true);
        }
        model.output = Known::exactly(operations.gives());
    }
    let mut doubts = Vec::new();
    let answers = join_all(QUESTIONS.map(|(modality, kind)| ask(asker, &listed.name, modality, kind))).await;
    for ((modality, _), says) in QUESTIONS.into_iter().zip(answers) {
        match says {
            Says::Takes(limit) => {
                model.input = model.input.with(modality, true);
                model.limits = limit.map_or(model.limits, |limit| model.limits.with_items(modality, limit));
            }
            Says::Refuses => model.input = model.input.with(modality, false),
            Says::Nothing(why) => doubts.push(format!("whether {} takes {modality}: {why}", listed.name)),
        }
    }
    (model, doubts)
}

async fn ask(asker: &Asker<'_>, model: &str, modality: Modality, kind: &str) -> Says {
    match asker.post("/tokenize", &question(model, kind)).await {
        Ok(answer) => Says::of(&answer, modality),
        Err(failure) => Says::Nothing(format!("it {failure}")),
    }
}

/// Of the operations of vLLM's, all but those on speech begin with text.
fn takes_text(operation: Operation) -> bool {
    use Operation::{Realtime, Tokenize, Transcriptions, Translations};
    !matches!(operation, Transcriptions | Translations | Realtime | Tokenize)
}

/// A message of items whose URL is of a scheme that nobody has.
fn question(model: &str, kind: &str) -> Value {
    let item = json!({"type": kind, kind: {"url": "x:"}});
    json!({"model": model, "messages": [{"role": "user", "content": vec![item; ITEMS]}]})
}

// === impl Says ===

impl Says {
    fn of(answer: &Answer, modality: Modality) -> Self {
        let message = answer.error();
        match Unfit::of(message) {
            _ if answer.is_ok() => Self::Nothing("it answers to what cannot be answered".into()),
            Some(Unfit::TextOnly) => Self::Refuses,
            Some(Unfit::Items { modality: of, most }) if of == modality => match most {
                0 => Self::Refuses,
                most => Self::Takes(Some(most)),
            },
            None if message.starts_with("The URL must be either") => Self::Takes(None),
            _ => Self::Nothing(format!("it answers /tokenize with {}", answer.in_words())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_says_one_thing() {
        let error = |message: &str| Answer::of(400, json!({"error": {"message": message, "code": 400}}));
        let image = |answer: &Answer| Says::of(answer, Modality::Image);
        assert_eq!(image(&error("tiny-text is not a multimodal model")), Says::Refuses);
        assert_eq!(image(&error("At most 0 image(s) may be provided in one prompt. (parameter=image)")), Says::Refuses);
        assert_eq!(image(&error("At most 4 image(s) may be provided in one request.")), Says::Takes(Some(4)));
        assert_eq!(image(&error("The URL must be either a HTTP, data or file URL.")), Says::Takes(None));
        for untold in [
            Answer::of(200, json!({"count": 3, "tokens": [1, 2, 3]})),
            Answer::of(404, json!({"detail": "Not Found"})),
            error("At most 0 audio(s) may be provided in one prompt."),
            error("At most none image(s)"),
            error(""),
            Answer::of(500, Value::Null),
        ] {
            assert!(matches!(image(&untold), Says::Nothing(_)), "{untold:?}");
        }
    }
}
