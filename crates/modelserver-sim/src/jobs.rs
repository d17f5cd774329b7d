//! Videos as jobs: made at once, and known to this server alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

#[derive(Debug, Default)]
pub(crate) struct Jobs(Mutex<BTreeMap<String, Value>>);

impl Jobs {
    /// Makes a job, and says so.
    pub(crate) fn make(&self, server: &str, model: &str) -> Value {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = format!("video_{server}_{}", jobs.len());
        let job = json!({"id": id, "object": "video", "model": model, "status": "completed", "progress": 100,
            "created_at": 0, "seconds": "4", "size": "720x1280"});
        jobs.insert(id, job.clone());
        job
    }

    pub(crate) fn show(&self, id: &str) -> Response {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get(id).map_or_else(|| unknown(id), |job| Json(job.clone()).into_response())
    }

    pub(crate) fn content(&self, id: &str) -> Response {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.contains_key(id) {
            ([(header::CONTENT_TYPE, "video/mp4")], format!("the video {id}")).into_response()
        } else {
            unknown(id)
        }
    }

    pub(crate) fn delete(&self, id: &str) -> Response {
        let gone = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let deleted = || Json(json!({"id": id, "object": "video.deleted", "deleted": true})).into_response();
        gone.map_or_else(|| unknown(id), |_| deleted())
    }
}

fn unknown(id: &str) -> Response {
    let error = json!({"error": {"message": format!("Video {id} not found"), "type": "NotFoundError", "param": null, "code": 404}});
    (StatusCode::NOT_FOUND, Json(error)).into_response()
}
