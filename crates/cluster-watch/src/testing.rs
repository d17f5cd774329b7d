//! What tests share: an API server of a few lines.

use http::Response;
use kube::client::Body;
use serde_json::{Value, json};

/// Its answer: the object, or, with any other status than 200, that it failed.
pub fn answer(status: u16, object: &Value) -> http::Result<Response<Body>> {
    let failure = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": "no", "reason": "no"});
    let body = if status == 200 { object } else { &failure };
    Response::builder().status(status).body(Body::from(body.to_string().into_bytes()))
}
