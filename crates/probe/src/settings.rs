//! Settings of a server that are worth routing by, as far as it says them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use crate::asker::{Answer, Asker};
use crate::listing::tokens;
use crate::words;

/// What is none was not said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Tokens of a block of its KV cache.
    pub block_tokens: Option<u32>,
    /// Blocks of all of it.
    pub blocks: Option<u32>,
    pub data_parallel_ranks: Option<u32>,
    /// What it does of a request, where others do the rest: `prefill` or `decode`.
    pub role: Option<String>,
    /// Where it tells what its KV cache holds.
    pub kv_events: Vec<KvEvents>,
}

/// A publisher of KV events (vLLM, `--kv-events-config`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEvents {
    /// As the server has it, so that `*` stands for every address of its own.
    pub endpoint: String,
    /// Where events that were missed can be had.
    pub replay: Option<String>,
    pub topic: String,
}

/// As many publishers as a server is believed to have: one for each data-parallel rank.
const MAX_PUBLISHERS: usize = 64;

impl Settings {
    /// Of vLLM: in its metrics, and in a list of publishers that newer releases have.
    pub(crate) async fn of_vllm(asker: &Asker<'_>) -> Self {
        let (metrics, sources) = futures::future::join(asker.get("/metrics"), asker.get("/kv_event_sources")).await;
        let mut settings =
            metrics.ok().filter(Answer::is_ok).map(|answer| Self::of_metrics(&answer.text)).unwrap_or_default();
        let sources = sources.ok().filter(Answer::is_ok).map(|answer| answer.json).unwrap_or_default();
        let publishers = sources.as_object().into_iter().flat_map(serde_json::Map::values);
        settings.kv_events = publishers.filter_map(KvEvents::of).take(MAX_PUBLISHERS).collect();
        settings
    }

    fn of_metrics(text: &str) -> Self {
        let number = |line: &str, name: &str| label(line, name)?.parse().ok();
        let info = text.lines().find(|line| line.starts_with("vllm:cache_config_info{"));
        let engines = text.lines().filter(|line| line.starts_with("vllm:num_requests_running{"));
        let engines: BTreeSet<&str> = engines.filter_map(|line| label(line, "engine")).collect();
        Self {
            block_tokens: info.and_then(|line| number(line, "block_size")),
            blocks: info.and_then(|line| number(line, "num_gpu_blocks")),
            data_parallel_ranks: u32::try_from(engines.len()).ok().filter(|ranks| *ranks > 0),
            ..Self::default()
        }
    }

    /// Of SGLang's `/server_info`.
    pub(crate) fn of_sglang(info: &Value) -> Self {
        let block_tokens = tokens(&info["page_size"]);
        // An argument, which is JSON itself.
        let publisher = info["kv_events_config"].as_str().and_then(|config| serde_json::from_str(config).ok());
        let publisher = publisher.unwrap_or_else(|| info["kv_events_config"].clone());
        let blocks =
            tokens(&info["max_total_num_tokens"]).zip(block_tokens).and_then(|(all, one)| all.checked_div(one));
        Self {
            block_tokens,
            blocks,
            data_parallel_ranks: tokens(&info["dp_size"]),
            role: words(&info["disaggregation_mode"]).filter(|role| matches!(&**role, "prefill" | "decode")),
            kv_events: KvEvents::of(&publisher).into_iter().collect(),
        }
    }

    /// `512 KV blocks of 32 tokens, 2 ranks, prefill, KV events at tcp://*:5557 (replay tcp://*:5558)`; empty where nothing was said.
    pub fn in_words(&self) -> String {
        let Self { block_tokens, blocks, data_parallel_ranks, role, kv_events } = self;
        let mut all: Vec<String> = Vec::new();
        match (blocks, block_tokens) {
            (Some(blocks), Some(tokens)) => all.push(format!("{blocks} KV blocks of {tokens} tokens")),
            (None, Some(tokens)) => all.push(format!("KV blocks of {tokens} tokens")),
            _ => {}
        }
        all.extend(data_parallel_ranks.filter(|ranks| *ranks > 1).map(|ranks| format!("{ranks} ranks")));
        all.extend(role.clone());
        for KvEvents { endpoint, replay, .. } in kv_events {
            let mut events = format!("KV events at {endpoint}");
            if let Some(replay) = replay {
                _ = write!(events, " (replay {replay})");
            }
            all.push(events);
        }
        all.join(", ")
    }
}

impl KvEvents {
    /// As `--kv-events-config` has it; none where it is turned off.
    fn of(config: &Value) -> Option<Self> {
        let is_off = config["enable_kv_cache_events"] == false || config["publisher"] == "null";
        let endpoint = words(&config["endpoint"]).filter(|_| !is_off)?;
        Some(Self {
            endpoint,
            replay: words(&config["replay_endpoint"]),
            topic: words(&config["topic"]).unwrap_or_default(),
        })
    }
}

/// The value of a label, in a line of Prometheus's text format.
fn label<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let labels = line.split_once('{')?.1;
    let begin = labels.match_indices(name).find(|(at, _)| {
        (*at == 0 || labels.as_bytes()[at - 1] == b',') && labels[at + name.len()..].starts_with("=\"")
    })?;
    labels[begin.0 + name.len() + 2..].split('"').next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn vllms_metrics_say_how_large_its_cache_is_and_how_many_ranks_it_has() {
        let text = "# HELP\nvllm:num_requests_running{engine=\"0\",model_name=\"m\"} 0.0\n\
                    vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 0.0\n\
                    vllm:cache_config_info{block_size=\"32\",engine=\"0\",mm_block_size=\"7\",num_gpu_blocks=\"512\"} 1.0\n";
        let settings = Settings::of_metrics(text);
        assert_eq!(settings.in_words(), "512 KV blocks of 32 tokens, 2 ranks");
        assert_eq!(Settings::of_metrics("vllm:cache_config_info{num_gpu_blocks=\"None\"} 1"), Settings::default());
        assert_eq!(Settings::of_metrics("vllm:cache_config_info{block_size"), Settings::default());
        assert_eq!(Settings::default().in_words(), "");
    }

    #[test]
    fn sglang_says_it_in_its_arguments() {
        let info = json!({"page_size": 16, "max_total_num_tokens": 1600, "dp_size": 2, "disaggregation_mode": "prefill",
            "kv_events_config": "{\"publisher\":\"zmq\",\"endpoint\":\"tcp://*:5557\",\"topic\":\"kv\"}"});
        let settings = Settings::of_sglang(&info);
        assert_eq!(settings.in_words(), "100 KV blocks of 16 tokens, 2 ranks, prefill, KV events at tcp://*:5557");
        let plain = json!({"page_size": 1, "dp_size": 1, "disaggregation_mode": "null", "kv_events_config": null});
        assert_eq!(Settings::of_sglang(&plain).in_words(), "KV blocks of 1 tokens");
        assert_eq!(Settings::of_sglang(&json!({"page_size": 0, "max_total_num_tokens": 8})).blocks, None);
        assert_eq!(Settings::of_sglang(&Value::Null), Settings::default());
    }

    #[test]
    fn publishers_that_are_off_are_none() {
        let on = json!({"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://*:5601", "replay_endpoint": "tcp://*:5701", "topic": "kv-events"});
        let publisher = KvEvents::of(&on).unwrap();
        assert_eq!((&*publisher.topic, publisher.replay.as_deref()), ("kv-events", Some("tcp://*:5701")));
        for off in [
            json!({}),
            json!({"endpoint": "tcp://*:1", "publisher": "null"}),
            json!({"endpoint": "tcp://*:1", "enable_kv_cache_events": false}),
            Value::Null,
        ] {
            assert_eq!(KvEvents::of(&off), None, "{off}");
        }
    }
}
