//! What spans say, by the names of OpenTelemetry's conventions (for HTTP, and for generative AI) and of llm-d's picker (`mm.*`); what only we
//! know is under `thalamus.*`.

use director::{Attempt, AttemptReport, Decision, Ending, Outcome, Rejection, RequestReport, Usage};
use http::StatusCode;
use opentelemetry::{KeyValue, Value};
use request::InferenceRequest;
use routing::{Modality, Operation};

/// No more of a name that a client made up.
const MOST_OF_A_NAME: usize = 128;

/// Modalities that the conventions count tokens of.
const COUNTED: [(Modality, &str, &str); 3] = [
    (Modality::Text, "gen_ai.usage.text.input_tokens", "gen_ai.usage.text.output_tokens"),
    (Modality::Image, "gen_ai.usage.image.input_tokens", "gen_ai.usage.image.output_tokens"),
    (Modality::Audio, "gen_ai.usage.audio.input_tokens", "gen_ai.usage.audio.output_tokens"),
];

/// How a span ended, for those who look for errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Unset,
    Error(String),
}

/// What the conventions call an operation, where they have a word for it.
pub(crate) fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::ChatCompletions | Operation::Responses | Operation::Messages | Operation::Realtime => "chat",
        Operation::Completions => "text_completion",
        Operation::Embeddings => "embeddings",
        Operation::ImageGenerations | Operation::ImageEdits | Operation::Videos | Operation::Speech => {
            "generate_content"
        }
        other => other.as_str(),
    }
}

pub(crate) fn model(request: &InferenceRequest) -> Option<String> {
    request.model.as_ref().map(|name| name.chars().take(MOST_OF_A_NAME).collect())
}

pub(crate) fn of_request(request: &InferenceRequest) -> Vec<KeyValue> {
    let InferenceRequest { requires, media, .. } = request;
    let mut all = vec![
        KeyValue::new("gen_ai.operation.name", operation(requires.operation)),
        KeyValue::new("thalamus.operation", requires.operation.as_str()),
        KeyValue::new("thalamus.input", requires.input.to_string()),
        KeyValue::new("thalamus.output", requires.output.to_string()),
        KeyValue::new("http.request.body.size", number(request.bytes)),
    ];
    all.extend(model(request).map(|model| KeyValue::new("gen_ai.request.model", model)));
    let modalities: Vec<&str> = Modality::ALL
        .into_iter()
        .filter(|modality| media.iter().any(|item| item.modality == *modality))
        .map(Modality::as_str)
        .collect();
    if !modalities.is_empty() {
        all.push(KeyValue::new("mm.modality", modalities.join(",")));
        let known = media.iter().filter(|item| item.identity.is_some()).count();
        all.push(KeyValue::new("mm.hash_count", number(known as u64)));
    }
    all
}

pub(crate) fn of_decision(decision: &Decision<'_>) -> Vec<KeyValue> {
    let plan = decision.plan;
    let first = plan.first();
    let mut all = vec![
        KeyValue::new("thalamus.why", plan.why.to_string()),
        KeyValue::new("thalamus.pool", first.pool().to_string()),
        KeyValue::new("thalamus.endpoint", first.endpoint().name.to_string()),
        KeyValue::new("thalamus.tier", number(plan.why.tier as u64)),
        KeyValue::new("thalamus.tiers", number(plan.why.tiers as u64)),
        KeyValue::new("thalamus.candidates", number(plan.why.candidates as u64)),
        KeyValue::new("thalamus.attempts.planned", number(plan.attempts.len() as u64)),
        KeyValue::new("thalamus.table.revision", number(plan.revision)),
        KeyValue::new("thalamus.work.ms", f64::from(first.work.all())),
        KeyValue::new("thalamus.work.saved.ms", f64::from(first.work.saved)),
    ];
    let tokens = first.estimated_tokens();
    all.push(KeyValue::new("thalamus.estimated_tokens", number(tokens.all)));
    all.extend(tokens.media.map(|tokens| KeyValue::new("thalamus.estimated_tokens.media", number(tokens))));
    all
}

pub(crate) fn of_attempt(place: usize, attempt: &Attempt) -> Vec<KeyValue> {
    let mut all = vec![KeyValue::new("thalamus.attempt", number(place as u64 + 1))];
    all.extend(attempt.target.as_ref().map(|target| KeyValue::new("gen_ai.request.model", target.to_string())));
    all
}

/// Known with certainty only when it has ended: a gateway may have chosen another endpoint.
pub(crate) fn of_attempt_ended(report: &AttemptReport<'_>) -> (Vec<KeyValue>, End) {
    let mut all = vec![
        KeyValue::new("server.address", report.address.ip().to_string()),
        KeyValue::new("server.port", i64::from(report.address.port())),
        KeyValue::new("thalamus.pool", report.endpoint.pool.to_string()),
        KeyValue::new("thalamus.endpoint", report.endpoint.name.to_string()),
        KeyValue::new("thalamus.ending", report.ending.as_str()),
    ];
    all.extend(report.status.map(status));
    all.extend(of_usage(&report.usage));
    let end = match (report.ending, report.status) {
        // Of a client's span every refusal is an error (semantic conventions for HTTP).
        (Ending::Complete, Some(status)) if status.as_u16() >= 400 => End::Error(status.as_str().to_owned()),
        // Nobody is to blame who goes away.
        (Ending::Complete | Ending::Abandoned, _) => End::Unset,
        (ending, _) => End::Error(ending.as_str().to_owned()),
    };
    (all, end)
}

pub(crate) fn of_answer(answered: StatusCode) -> (Vec<KeyValue>, End) {
    let end = if answered.is_server_error() { End::Error(answered.as_str().to_owned()) } else { End::Unset };
    (vec![status(answered)], end)
}

/// Its code, and nothing of its message, which may name what a client wrote.
pub(crate) fn of_refusal(rejection: &Rejection) -> (Vec<KeyValue>, End) {
    let code = rejection.code().as_str();
    let all = vec![status(rejection.status()), KeyValue::new("error.type", code)];
    // Of a server's span a mistake of the client's is none (semantic conventions for HTTP).
    (all, if rejection.status().is_server_error() { End::Error(code.to_owned()) } else { End::Unset })
}

pub(crate) fn of_request_ended(report: &RequestReport<'_>) -> (Vec<KeyValue>, End) {
    let mut all = vec![KeyValue::new("http.response.body.size", number(report.bytes))];
    all.extend(of_usage(&report.usage));
    let end = match report.outcome {
        Outcome::Answered(answered) => {
            let (said, end) = of_answer(answered);
            all.extend(said);
            end
        }
        Outcome::Failed(code) => {
            all.push(KeyValue::new("error.type", code.as_str()));
            End::Error(code.as_str().to_owned())
        }
        Outcome::Abandoned => {
            all.push(KeyValue::new("thalamus.ending", Ending::Abandoned.as_str()));
            End::Unset
        }
    };
    (all, end)
}

fn of_usage(usage: &Usage) -> Vec<KeyValue> {
    let mut all = Vec::new();
    let mut say = |name: &'static str, tokens: Option<u64>| {
        all.extend(tokens.map(|tokens| KeyValue::new(name, number(tokens))));
    };
    say("gen_ai.usage.input_tokens", usage.input);
    say("gen_ai.usage.output_tokens", usage.output);
    say("gen_ai.usage.cache_read.input_tokens", usage.cached);
    for (modality, input, output) in COUNTED {
        say(input, usage.input_of(modality));
        say(output, usage.output_of(modality));
    }
    all
}

fn status(status: StatusCode) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status.as_u16()))
}

fn number(number: u64) -> Value {
    Value::I64(i64::try_from(number).unwrap_or(i64::MAX))
}
