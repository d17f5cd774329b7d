//! Responses that others follow, known to this server alone, as where vLLM's `VLLM_ENABLE_RESPONSES_API_STORE` is set.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

#[derive(Debug, Default)]
pub(crate) struct Responses(Mutex<BTreeSet<String>>);

impl Responses {
    /// The id of a new one.
    pub(crate) fn make(&self, server: &str) -> String {
        let mut known = self.lock();
        let id = format!("resp_{server}_{}", known.len());
        known.insert(id.clone());
        id
    }

    pub(crate) fn know(&self, id: &str) -> bool {
        self.lock().contains(id)
    }

    pub(crate) fn show(&self, id: &str) -> Response {
        if self.know(id) {
            Json(json!({"id": id, "object": "response", "status": "completed"})).into_response()
        } else {
            unknown(id)
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In vLLM's words (`vllm/entrypoints/openai/responses/serving.py`).
pub(crate) fn unknown(id: &str) -> Response {
    let message = format!("Response with id '{id}' not found.");
    let error =
        json!({"error": {"message": message, "type": "invalid_request_error", "param": "response_id", "code": 404}});
    (StatusCode::NOT_FOUND, Json(error)).into_response()
}
