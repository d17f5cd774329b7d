//! Answers, in the shape that clients of each operation expect.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use routing::{Modality, Operation};
use serde_json::{Value, json};

/// What an answer is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) operation: Operation,
    pub(crate) counts_only: bool,
    pub(crate) gives_audio: bool,
    /// Of a response.
    pub(crate) id: &'a str,
    pub(crate) model: &'a str,
    pub(crate) said: &'a str,
    pub(crate) facts: &'a Value,
}

/// A second of silence, to the ear of whoever does not look closely.
pub(crate) fn wav() -> Vec<u8> {
    let mut wav =
        b"RIFF\x64\x1f\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\x40\x1f\0\0".to_vec();
    wav.resize(wav.len() + 8000, 128);
    wav
}

impl Answer<'_> {
    /// As one JSON object.
    pub(crate) fn json(self) -> Value {
        let mut answer = self.shape();
        if let Value::Object(fields) = &mut answer {
            fields.entry("model").or_insert_with(|| json!(self.model));
            fields.entry("sim").or_insert_with(|| self.facts.clone());
        }
        answer
    }

    fn shape(self) -> Value {
        let Self { model, said, .. } = self;
        let usage = json!({"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12});
        match self.operation {
            Operation::Embeddings => json!({"id": "sim-0", "object": "list", "usage": usage, "created": 0,
                "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2, 0.3]}]}),
            Operation::Pooling => {
                json!({"id": "sim-0", "object": "list", "data": [{"object": "pooling", "index": 0, "data": [0.1, 0.2]}]})
            }
            Operation::Classify => {
                json!({"id": "sim-0", "object": "list", "data": [{"index": 0, "label": "yes", "probs": [0.9, 0.1], "num_classes": 2}]})
            }
            Operation::Score => {
                json!({"id": "sim-0", "object": "list", "data": [{"object": "score", "index": 0, "score": 0.5}]})
            }
            Operation::Rerank => {
                json!({"id": "sim-0", "results": [{"index": 0, "document": {"text": "a"}, "relevance_score": 0.5}]})
            }
            Operation::Tokenize => json!({"count": 3, "max_model_len": 4096, "tokens": [1, 2, 3]}),
            Operation::Completions => json!({"id": "sim-0", "object": "text_completion", "created": 0, "usage": usage,
                "choices": [{"index": 0, "text": said, "finish_reason": "stop"}]}),
            Operation::Transcriptions | Operation::Translations => {
                json!({"text": said, "usage": {"type": "duration", "seconds": 1}})
            }
            Operation::ImageGenerations | Operation::ImageEdits => {
                json!({"created": 0, "data": [{"b64_json": BASE64_STANDARD.encode(said)}]})
            }
            Operation::Generate => {
                json!({"text": said, "meta_info": {"id": "sim-0", "finish_reason": {"type": "stop"}}})
            }
            Operation::Messages if self.counts_only => json!({"input_tokens": 8}),
            Operation::Messages => json!({"id": "msg_sim", "type": "message", "role": "assistant",
                "content": [{"type": "text", "text": said}], "stop_reason": "end_turn", "stop_sequence": null,
                "usage": {"input_tokens": 8, "output_tokens": 4}}),
            Operation::Responses => self.response("completed"),
            _ => {
                let mut message = json!({"role": "assistant", "content": said});
                if self.gives_audio {
                    message["audio"] = json!({"id": "audio-sim", "data": BASE64_STANDARD.encode(wav()), "transcript": said, "expires_at": 0});
                }
                json!({"id": "sim-0", "object": "chat.completion", "created": 0, "usage": usage, "model": model,
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
            }
        }
    }

    fn response(self, status: &str) -> Value {
        let output = json!([{"id": "msg_sim", "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": self.said, "annotations": []}]}]);
        json!({"id": self.id, "object": "response", "created_at": 0, "status": status, "model": self.model,
            "output": if status == "completed" { output } else { json!([]) }, "parallel_tool_calls": true,
            "tool_choice": "auto", "tools": [], "metadata": {}, "sim": self.facts})
    }

    /// As server-sent events: a word at a time.
    pub(crate) fn events(self) -> Vec<String> {
        let Self { model, said, facts, .. } = self;
        let words = || said.split_inclusive(' ');
        let named = |event: Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
        let plain = |event: Value| format!("data: {event}\n\n");
        match self.operation {
            Operation::Messages => {
                let message = json!({"id": "msg_sim", "type": "message", "role": "assistant", "model": model, "content": [],
                    "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 8, "output_tokens": 1}, "sim": facts});
                let mut events = vec![json!({"type": "message_start", "message": message})];
                events.push(
                    json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                );
                events.extend(words().map(|word| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})));
                events.push(json!({"type": "content_block_stop", "index": 0}));
                events.push(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 4}}));
                events.push(json!({"type": "message_stop"}));
                events.into_iter().map(named).collect()
            }
            Operation::Responses => {
                let delta = |(number, word): (usize, &str)| {
                    json!({"type": "response.output_text.delta", "item_id": "msg_sim", "output_index": 0, "content_index": 0,
                        "delta": word, "sequence_number": number + 1, "logprobs": []})
                };
                let mut events = vec![
                    json!({"type": "response.created", "sequence_number": 0, "response": self.response("in_progress")}),
                ];
                events.extend(words().enumerate().map(delta));
                events.push(json!({"type": "response.completed", "sequence_number": 99, "response": self.response("completed")}));
                events.into_iter().map(named).collect()
            }
            Operation::Transcriptions => {
                let mut events: Vec<Value> = words()
                    .map(|word| json!({"type": "transcript.text.delta", "delta": word, "logprobs": []}))
                    .collect();
                events.push(json!({"type": "transcript.text.done", "text": said, "sim": facts}));
                events.into_iter().map(plain).chain(["data: [DONE]\n\n".to_owned()]).collect()
            }
            _ => {
                let chunk = |delta: Value, finish: Option<&str>| {
                    json!({"id": "sim-0", "object": "chat.completion.chunk", "created": 0, "model": model, "sim": facts,
                        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
                };
                let mut events: Vec<Value> = words().map(|word| chunk(json!({"content": word}), None)).collect();
                events.push(chunk(json!({}), Some("stop")));
                events.into_iter().map(plain).chain(["data: [DONE]\n\n".to_owned()]).collect()
            }
        }
    }

    pub(crate) fn is_binary(self) -> bool {
        self.operation == Operation::Speech
    }

    pub(crate) fn gives(output: routing::ModalitySet) -> bool {
        output.contains(Modality::Audio)
    }
}
