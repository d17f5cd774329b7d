//! vLLM's refusals, word for word.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use routing::{Modality, ModalitySet};
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
    Err(if multimodal { at_most_none(lacking) } else { not_multimodal(&model.name) })
}

/// What no model of this server is for.
pub(crate) fn not_mounted() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({"detail": "Not Found"}))).into_response()
}

fn not_multimodal(model: &str) -> Response {
    refuse(StatusCode::BAD_REQUEST, "BadRequestError", &format!("{model} is not a multimodal model"), None)
}

fn at_most_none(modality: Modality) -> Response {
    let message = format!("At most 0 {modality}(s) may be provided in one prompt. (parameter={modality})");
    refuse(StatusCode::BAD_REQUEST, "BadRequestError", &message, Some(modality.as_str()))
}

pub(crate) fn bad_json(why: &dyn std::fmt::Display) -> Response {
    refuse(StatusCode::BAD_REQUEST, "Bad Request", &why.to_string(), Some("body.1"))
}

fn refuse(status: StatusCode, kind: &str, message: &str, param: Option<&str>) -> Response {
    let error = json!({"error": {"message": message, "type": kind, "param": param, "code": status.as_u16()}});
    (status, Json(error)).into_response()
}
