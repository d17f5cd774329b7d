//! What spans say, by the names of OpenTelemetry's conventions (for HTTP, and for generative AI) and of llm-d's picker (`mm.*`); what only we
//! know is under `thalamus.*`.

use director::{Attempt, AttemptReport, Ending, EndpointId, Left, Outcome, Plan, Rejection, RequestReport, Usage};
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

/// How a span ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) status: Option<StatusCode>,
    /// Ours, or an answer's status; and whether somebody here is to blame.
    pub(crate) error: Option<(String, bool)>,
    pub(crate) ending: Option<&'static str>,
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
    let shown = |name: &String| name.chars().filter(|one| !one.is_control()).take(MOST_OF_A_NAME).collect();
    request.model.as_ref().map(shown)
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

pub(crate) fn of_decision(plan: &Plan) -> Vec<KeyValue> {
    let first = plan.first();
    let mut all = vec![
        KeyValue::new("thalamus.why", plan.why.to_string()),
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

/// What a client asked by: one of HTTP's methods, or another.
pub(crate) fn of_method(method: &str) -> KeyValue {
    const KNOWN: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"];
    KeyValue::new("http.request.method", KNOWN.into_iter().find(|known| *known == method).unwrap_or("_OTHER"))
}

/// The first is 1.
pub(crate) fn of_attempt(number: u64, operation: &'static str, attempt: &Attempt) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::new("thalamus.attempt", self::number(number)),
        KeyValue::new("gen_ai.operation.name", operation),
    ];
    all.extend(attempt.target.as_ref().map(|target| KeyValue::new("gen_ai.request.model", target.to_string())));
    all
}

/// Where it went is known only when it has ended: a gateway may have chosen another endpoint.
pub(crate) fn of_attempt_ended(report: &AttemptReport<'_>) -> (Vec<KeyValue>, End) {
    let mut all = of_endpoint(report.endpoint);
    all.push(KeyValue::new("server.address", report.address.ip().to_string()));
    all.push(KeyValue::new("server.port", i64::from(report.address.port())));
    let end = End { ending: Some(report.ending.as_str()), ..of_ending(report.ending, report.status) };
    (all, end)
}

fn of_ending(ending: Ending, status: Option<StatusCode>) -> End {
    let error = match (ending, status) {
        // Of a client's span every refusal is an error (semantic conventions for HTTP).
        (Ending::Complete, Some(status)) if status.as_u16() >= 400 => Some(status.as_str().to_owned()),
        // Nobody is to blame who goes away.
        (Ending::Complete | Ending::Abandoned, _) => None,
        (ending, _) => Some(ending.as_str().to_owned()),
    };
    End { status, error: error.map(|error| (error, true)), ending: None }
}

pub(crate) fn of_attempt_left(why: Left) -> End {
    match why {
        Left::Unseen => End { ending: Some("unseen"), ..End::default() },
        Left::ServedElsewhere(status, ending) => End { ending: Some("served_elsewhere"), ..of_ending(ending, status) },
    }
}

pub(crate) fn of_answer(answered: StatusCode) -> End {
    let error = answered.is_server_error().then(|| (answered.as_str().to_owned(), true));
    End { status: Some(answered), error, ending: None }
}

/// Its code, and nothing of its message, which may name what a client wrote.
pub(crate) fn of_refusal(rejection: &Rejection) -> End {
    let status = rejection.status();
    // Of a server's span a mistake of the client's is no error (semantic conventions for HTTP).
    End {
        status: Some(status),
        error: Some((rejection.code().as_str().to_owned(), status.is_server_error())),
        ending: None,
    }
}

pub(crate) fn of_request_ended(report: &RequestReport<'_>) -> (Vec<KeyValue>, End) {
    let mut all = report.endpoint.map(of_endpoint).unwrap_or_default();
    // Nothing is seen of bodies that a gateway keeps to itself.
    if report.bytes > 0 {
        all.push(KeyValue::new("http.response.body.size", number(report.bytes)));
    }
    all.extend(of_usage(&report.usage));
    let end = match report.outcome {
        Outcome::Answered(answered) => of_answer(answered),
        Outcome::Failed(code) => {
            End { status: report.status, error: Some((code.as_str().to_owned(), true)), ending: None }
        }
        Outcome::Abandoned => End { status: report.status, ending: Some(ABANDONED), ..End::default() },
    };
    (all, end)
}

/// The client went away, or its gateway did.
pub(crate) const ABANDONED: &str = Ending::Abandoned.as_str();

impl End {
    pub(crate) fn attributes(&self) -> Vec<KeyValue> {
        let Self { status, error, ending } = self;
        let mut all = Vec::new();
        all.extend(status.map(|status| KeyValue::new("http.response.status_code", i64::from(status.as_u16()))));
        all.extend(error.as_ref().map(|(kind, _)| KeyValue::new("error.type", kind.clone())));
        all.extend(ending.map(|ending| KeyValue::new("thalamus.ending", ending)));
        all
    }
}

fn of_endpoint(endpoint: &EndpointId) -> Vec<KeyValue> {
    vec![
        KeyValue::new("thalamus.pool", endpoint.pool.to_string()),
        KeyValue::new("thalamus.endpoint", endpoint.name.to_string()),
    ]
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

fn number(number: u64) -> Value {
    Value::I64(i64::try_from(number).unwrap_or(i64::MAX))
}
