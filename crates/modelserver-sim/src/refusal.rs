//! vLLM's refusals, word for word.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use routing::{Modality, ModalitySet, Operation};
use serde_json::json;

use crate::ModelSpec;
use crate::reading::Reading;

/// The model that a request is for, or the refusal of a server that has none such or cannot take what the request carries.
#[expect(clippy::result_large_err, reason = "a response is what is to be sent, and this is no hot path")]
pub(crate) fn admit<'m>(models: &'m [ModelSpec], request: &Reading) -> Result<&'m ModelSpec, Response> {
    let named = match &request.model {
        None => models.first(),
        Some(name) => models.iter().find(|model| model.name == *name),
    };
    let Some(model) = named else {
        let aliases: Vec<&str> = models.iter().map(|model| &*model.name).collect();
        let name = request.model.as_deref().unwrap_or_default();
        let message = format!("The model `{name}` does not exist. Valid aliases: {}.", aliases.join(", "));
        return Err(refuse(StatusCode::NOT_FOUND, "NotFoundError", &message, Some("model")));
    };
    if !model.capability.operations.contains(request.requires.operation) {
        return Err(not_mounted());
    }
    let media = request.requires.input.difference(ModalitySet::TEXT);
    let Some(lacking) = media.difference(model.capability.input).iter().next() else { return Ok(model) };
    let multimodal = !model.capability.input.difference(ModalitySet::TEXT).is_empty();
    Err(if multimodal { at_most(0, lacking) } else { not_multimodal(&model.name) })
}

/// What the model takes, and more of it than it takes at once; or an item that cannot be had.
#[expect(clippy::result_large_err, reason = "a response is what is to be sent, and this is no hot path")]
pub(crate) fn within_limits(model: &ModelSpec, request: &Reading) -> Result<(), Response> {
    for modality in Modality::ALL {
        // As vLLM has it where nobody says otherwise.
        let limit = model.limits.items(modality).unwrap_or(999);
        let items = request.items.iter().filter(|item| item.modality == modality).count();
        if items > limit as usize {
            return Err(at_most(limit, modality));
        }
    }
    if request.items.iter().any(|item| item.leads_nowhere) {
        let message = "The URL must be either a HTTP, data or file URL.";
        return Err(refuse(StatusCode::BAD_REQUEST, "BadRequestError", message, None));
    }
    match model.limits.context() {
        Some(context) if request.text > context as usize && request.requires.operation != Operation::Tokenize => {
            let value = u64::from(context) + 1;
            let message = format!(
                "This model's maximum context length is {context} tokens. However, your prompt contains at least {value} input tokens, which \
                 exceeds this limit even without any output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, \
                 value={value})"
            );
            Err(refuse(StatusCode::BAD_REQUEST, "BadRequestError", &message, Some("input_tokens")))
        }
        _ => Ok(()),
    }
}

/// What no model of this server is for.
pub(crate) fn not_mounted() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({"detail": "Not Found"}))).into_response()
}

/// What is asked for by another method.
pub(crate) fn not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, Json(json!({"detail": "Method Not Allowed"}))).into_response()
}

fn not_multimodal(model: &str) -> Response {
    refuse(StatusCode::BAD_REQUEST, "BadRequestError", &format!("{model} is not a multimodal model"), None)
}

fn at_most(limit: u32, modality: Modality) -> Response {
    let message = format!("At most {limit} {modality}(s) may be provided in one prompt. (parameter={modality})");
    refuse(StatusCode::BAD_REQUEST, "BadRequestError", &message, Some(modality.as_str()))
}

pub(crate) fn bad_json(why: &dyn std::fmt::Display) -> Response {
    refuse(StatusCode::BAD_REQUEST, "Bad Request", &why.to_string(), Some("body.1"))
}

fn refuse(status: StatusCode, kind: &str, message: &str, param: Option<&str>) -> Response {
    let error = json!({"error": {"message": message, "type": kind, "param": param, "code": status.as_u16()}});
    (status, Json(error)).into_response()
}
