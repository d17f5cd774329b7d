//! What real vLLM servers were asked, so that the simulator can be asked the same and held against their answers: `testdata/vllm.json`, which
//! `cargo xtask engines --only check --record` writes.

use serde_json::{Value, json};

/// A server of the recordings: its name, which is its model's as well, and what a simulator is told to be it.
pub const SERVERS: [(&str, &str); 7] = [
    ("text", "text=text:text:chat completions,completions,responses,messages,score,tokenize:32768"),
    ("vision", "vision=text,image,video:text:chat completions,completions,responses,messages,score,tokenize:32768"),
    ("limited", "limited=text,image<=2:text:chat completions,completions,responses,messages,score,tokenize:4096"),
    ("audio", "audio=text,audio:text:chat completions,completions,responses,messages,score,tokenize:32768"),
    ("omni", "omni=text,image,audio,video:text:chat completions,completions,responses,messages,score,tokenize:32768"),
    ("whisper", "whisper=audio<=1:text:transcriptions,translations,tokenize:64"),
    ("embed", "embed=text:embedding:embeddings,pooling,score,rerank,tokenize:32768"),
];

/// A question that no server takes for another.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    pub server: &'static str,
    pub path: &'static str,
    /// None for a GET.
    pub body: Option<Value>,
}

/// What came back, as far as a simulator is held to it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Recorded {
    pub server: String,
    pub path: String,
    /// What was asked, in short.
    pub asked: String,
    pub status: u16,
    /// Of an error, `type`, `message` and `param`; of FastAPI's, `detail`.
    pub error: Value,
}

/// All of them.
pub fn questions() -> Vec<Question> {
    let ask = |server, path, body| Question { server, path, body: Some(body) };
    let items = |kind: &str, count: usize| vec![json!({"type": kind, kind: {"url": "x:"}}); count];
    let mut all = Vec::new();
    for (server, _) in SERVERS {
        for path in ["/v1/chat/completions", "/v1/embeddings", "/v1/audio/transcriptions", "/rerank", "/version"] {
            all.push(Question { server, path, body: None });
        }
        for kind in ["image_url", "audio_url", "video_url"] {
            for (path, count) in [("/tokenize", 64), ("/v1/chat/completions", 1), ("/v1/chat/completions", 3)] {
                let messages = json!([{"role": "user", "content": items(kind, count)}]);
                all.push(ask(server, path, json!({"model": server, "max_tokens": 1, "messages": messages})));
            }
        }
        let letters = |model: &str, count: usize| json!({"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "x".repeat(count)}]});
        all.push(ask(server, "/v1/chat/completions", letters(server, 2)));
        all.push(ask(server, "/v1/chat/completions", letters("nobody", 2)));
        all.push(ask(server, "/tokenize", letters("nobody", 2)));
        all.push(ask(server, "/v1/completions", json!({"model": server, "max_tokens": 1, "prompt": "hi"})));
        if server == "limited" {
            all.push(ask(server, "/v1/chat/completions", letters(server, 5_000)));
        }
    }
    all
}

impl Question {
    /// In short: the method, the model, and what its message holds.
    pub fn asked(&self) -> String {
        let Some(body) = &self.body else { return "GET".into() };
        let model = body["model"].as_str().unwrap_or_default();
        match (&body["messages"][0]["content"], &body["prompt"]) {
            (Value::Array(parts), _) => {
                format!("{model}: {} {}", parts.len(), parts[0]["type"].as_str().unwrap_or_default())
            }
            (Value::String(text), _) | (_, Value::String(text)) => format!("{model}: {} letters", text.len()),
            _ => model.to_owned(),
        }
    }

    /// What a simulator is held to of an answer.
    pub fn recorded(&self, status: u16, answer: &Value) -> Recorded {
        let error = &answer["error"];
        let error = match (status, error.is_object()) {
            (200, _) => Value::Null,
            (_, true) => json!({"type": error["type"], "message": error["message"], "param": error["param"]}),
            _ => json!({"detail": answer["detail"]}),
        };
        Recorded { server: self.server.into(), path: self.path.into(), asked: self.asked(), status, error }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{Options, Sim};

    #[tokio::test]
    async fn the_simulator_answers_as_the_real_one_did() {
        let text = include_str!("../testdata/vllm.json");
        let recorded: Vec<Recorded> = serde_json::from_str(text).unwrap();
        let asked = questions();
        assert_eq!(recorded.len(), asked.len(), "cargo xtask engines --only check --record");
        let mut differs = Vec::new();
        for (question, recorded) in asked.iter().zip(recorded) {
            let (_, spec) = SERVERS.iter().find(|(server, _)| *server == question.server).unwrap();
            let options =
                Options { name: "sim".into(), models: vec![spec.parse().unwrap()], latency: Duration::ZERO, slots: 1 };
            let request = match &question.body {
                Some(body) => Request::post(question.path).body(Body::from(body.to_string())).unwrap(),
                None => Request::get(question.path).body(Body::empty()).unwrap(),
            };
            let response = Sim::new(options).router().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let answer = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            let answer = serde_json::from_slice(&answer).unwrap_or(Value::Null);
            let said = question.recorded(status, &answer);
            if said != recorded {
                differs.push(format!("{said:?}\n  instead of {recorded:?}"));
            }
        }
        assert!(differs.is_empty(), "{}", differs.join("\n"));
    }
}
