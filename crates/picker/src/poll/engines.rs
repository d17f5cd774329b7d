//! Engines' metrics as load: which series say what. An engine is recognised by what it exposes; what it does not say is not known.

use director::{AdaptersRead, Reading};
use scheduling::Scraped;

/// What a series tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tells {
    /// Requests in the queue; of several series the sum.
    Waiting,
    /// Those of them that wait for room, where that is told apart: others wait for what keeps nobody else waiting, such as a place for their adapter.
    WaitingForRoom,
    /// Requests being worked on; the sum.
    Running,
    /// Share of the KV cache in use; the fullest.
    KvCache,
    /// What was got done since the start; the sum. Counted as it is done: what an engine counts when a request ends stands still through a
    /// long answer.
    Progress,
    /// Tokens of a block of the KV cache, and how many blocks there are.
    BlockTokens,
    Blocks,
    /// When the process started, in seconds since 1970.
    Started,
}

use Tells::{BlockTokens, Blocks, KvCache, Progress, Running, Started, Waiting, WaitingForRoom};

/// A series by its name, and by a label where one name stands for several things.
type Series = (&'static str, Option<(&'static str, &'static str)>, Tells);

/// Sources: vLLM `vllm/v1/metrics/loggers.py` (the second name of the cache is of releases before 0.10); SGLang `srt/metrics/collector.py`; TensorRT-LLM `tensorrt_llm/metrics/collector.py`; Triton with the TensorRT-LLM backend, and alone
/// (`docs/user_guide/metrics.md`); llama.cpp `tools/server/README.md`.
const SERIES: &[Series] = &[
    ("vllm:num_requests_waiting", None, Waiting),
    ("vllm:num_requests_waiting_by_reason", Some(("reason", "capacity")), WaitingForRoom),
    ("vllm:num_requests_running", None, Running),
    ("vllm:kv_cache_usage_perc", None, KvCache),
    ("vllm:gpu_cache_usage_perc", None, KvCache),
    ("vllm:generation_tokens_total", None, Progress),
    ("vllm:prompt_tokens_total", None, Progress),
    ("vllm:request_success_total", None, Progress),
    ("process_start_time_seconds", None, Started),
    ("sglang:num_queue_reqs", None, Waiting),
    ("sglang:num_running_reqs", None, Running),
    ("sglang:token_usage", None, KvCache),
    ("sglang:realtime_tokens_total", None, Progress),
    ("trtllm_num_requests_waiting", None, Waiting),
    ("trtllm_num_requests_running", None, Running),
    ("trtllm_kv_cache_utilization", None, KvCache),
    ("trtllm_kv_cache_tokens_per_block", None, BlockTokens),
    ("trtllm_kv_cache_max_blocks", None, Blocks),
    ("nv_trt_llm_request_metrics", Some(("request_type", "waiting")), Waiting),
    ("nv_trt_llm_request_metrics", Some(("request_type", "scheduled")), Running),
    ("nv_trt_llm_kv_cache_block_metrics", Some(("kv_cache_block_type", "fraction")), KvCache),
    ("nv_trt_llm_kv_cache_block_metrics", Some(("kv_cache_block_type", "tokens_per")), BlockTokens),
    ("nv_trt_llm_kv_cache_block_metrics", Some(("kv_cache_block_type", "max")), Blocks),
    ("nv_inference_pending_request_count", None, Waiting),
    ("llamacpp:requests_deferred", None, Waiting),
    ("llamacpp:requests_processing", None, Running),
    ("llamacpp:kv_cache_usage_ratio", None, KvCache),
    ("llamacpp:n_decode_total", None, Progress),
];

/// How the names of engines' series begin: of thousands of lines nearly all are others'.
const BEGINNINGS: [&str; 7] =
    ["vllm:", "sglang", "trtllm_", "nv_trt_llm_", "nv_inference_", "llamacpp:", "process_start_time_seconds"];

/// Series whose labels say how large a KV cache is: tokens of a block, blocks, and whether prefixes are kept at all.
const CACHE_CONFIGS: [(&str, [&str; 2], &str); 3] = [
    ("vllm:cache_config_info", ["block_size", "num_gpu_blocks"], "enable_prefix_caching"),
    ("sglang:cache_config_info", ["page_size", "num_pages"], ""),
    ("sglang_cache_config_info", ["page_size", "num_pages"], ""),
];

/// Whose labels name the adapters that vLLM works with and that wait, and how many it works with at once; its value is when that was so
/// (`vllm/v1/metrics/loggers.py`, `info_labels`). There is a series for each combination that ever was.
const ADAPTERS: &str = "vllm:lora_requests_info";

/// In the year 2065, in seconds since 1970. Several API servers of one engine add their times up (`multiprocess_mode="sum"`, of which vLLM says
/// itself that it may be wrong): which series is the last cannot be told then.
const LATEST: f64 = 3e9;

/// No more adapters of one server, and no more of a name, are kept.
const MAX_ADAPTERS: usize = 256;
const MAX_NAME: usize = 256;

/// Reads the Prometheus text format. A server with several engines has a series for each.
pub(crate) fn reading(text: &str) -> Reading {
    let mut reading = Reading::default();
    let (mut block_tokens, mut blocks) = (None, None);
    let mut told: Option<(&str, f64)> = None;
    let mut for_room: Option<u32> = None;
    let Scraped { waiting, running, kv_cache_usage } = &mut reading.scraped;
    for line in text.lines().filter(|line| BEGINNINGS.iter().any(|beginning| line.starts_with(beginning))) {
        let Some((name, labels, value)) = series(line) else { continue };
        if let Some(tokens) = cache_config(name, labels) {
            reading.kv_tokens = Some(reading.kv_tokens.unwrap_or(0).saturating_add(tokens));
            continue;
        }
        if name == ADAPTERS && told.is_none_or(|(_, at)| value > at) {
            told = Some((labels, value));
            continue;
        }
        let Some(tells) = tells(name, labels) else { continue };
        match tells {
            Waiting => *waiting = Some(waiting.unwrap_or(0).saturating_add(count(value))),
            WaitingForRoom => for_room = Some(for_room.unwrap_or(0).saturating_add(count(value))),
            Running => *running = Some(running.unwrap_or(0).saturating_add(count(value))),
            KvCache => *kv_cache_usage = Some(kv_cache_usage.unwrap_or(0.0).max(ratio(value))),
            Progress => reading.progress = Some(reading.progress.unwrap_or(0).saturating_add(total(value))),
            BlockTokens => block_tokens = Some(total(value)),
            Blocks => blocks = Some(total(value)),
            Started => reading.started = Some(value),
        }
    }
    *waiting = for_room.or(*waiting);
    let of_blocks = block_tokens.zip(blocks).map(|(tokens, blocks)| tokens.saturating_mul(blocks));
    reading.kv_tokens = reading.kv_tokens.or(of_blocks);
    reading.adapters = told.filter(|(_, at)| *at < LATEST).and_then(|(labels, _)| adapters(labels));
    reading
}

fn adapters(labels: &str) -> Option<AdaptersRead> {
    let most = quoted(labels, "max_lora")?.parse().ok()?;
    let mut named: Vec<String> = Vec::new();
    for name in ["running_lora_adapters", "waiting_lora_adapters"]
        .into_iter()
        .flat_map(|key| quoted(labels, key).unwrap_or_default().split(',').map(str::trim))
    {
        if named.len() == MAX_ADAPTERS {
            break;
        }
        let is_name = !name.is_empty() && name.len() <= MAX_NAME;
        if is_name && !named.iter().any(|known| known == name) {
            named.push(name.to_owned());
        }
    }
    Some(AdaptersRead { most, named })
}

/// Tokens of a KV cache whose configuration this is; none where prefixes are not kept.
fn cache_config(name: &str, labels: &str) -> Option<u64> {
    let (_, keys, keeps) = CACHE_CONFIGS.iter().find(|(known, ..)| *known == name)?;
    if label(labels, keeps).is_some_and(|keeps| keeps.eq_ignore_ascii_case("false")) {
        return Some(0);
    }
    let [tokens, blocks] = keys.map(|key| label(labels, key)?.parse::<u64>().ok());
    Some(tokens?.saturating_mul(blocks?))
}

fn tells(name: &str, labels: &str) -> Option<Tells> {
    // Newer pages of SGLang spell the beginning of its names with `_`.
    let of_sglang = name.strip_prefix("sglang_");
    let same = |known: &str| known == name || of_sglang.is_some_and(|rest| known.strip_prefix("sglang:") == Some(rest));
    let has = |label: Option<(&str, &str)>| label.is_none_or(|(key, value)| has_label(labels, key, value));
    SERIES.iter().find(|(known, label, _)| same(known) && has(*label)).map(|(.., tells)| *tells)
}

/// Whether `key="value"` stands among the labels.
fn has_label(labels: &str, key: &str, value: &str) -> bool {
    label(labels, key) == Some(value)
}

/// The value of a label.
fn label<'l>(labels: &'l str, key: &str) -> Option<&'l str> {
    let after = |label: &'l str| label.trim_start().strip_prefix(key)?.strip_prefix("=\"");
    labels.split(['{', ',']).find_map(after)?.split('"').next()
}

/// The value of a label that may hold commas; as it is written, up to the quotation mark that ends it.
fn quoted<'l>(labels: &'l str, key: &str) -> Option<&'l str> {
    let mut rest = labels;
    loop {
        rest = &rest[rest.find(['{', ','])? + 1..];
        if let Some(value) = rest.trim_start().strip_prefix(key).and_then(|rest| rest.strip_prefix("=\"")) {
            let mut is_escaped = false;
            let end = value.bytes().position(|byte| {
                let ends = byte == b'"' && !is_escaped;
                is_escaped = byte == b'\\' && !is_escaped;
                ends
            });
            return value.get(..end?);
        }
    }
}

/// `name{labels} value timestamp` in parts. Labels may hold spaces and braces in quotes, so the value is what follows the last brace.
fn series(line: &str) -> Option<(&str, &str, f64)> {
    let name = &line[..line.find(['{', ' '])?];
    let end = line.rfind('}').map_or(name.len(), |brace| brace + 1);
    let value = line[end..].split_whitespace().next()?.parse().ok()?;
    Some((name, &line[name.len()..end], value))
}

fn count(value: f64) -> u32 {
    u32::try_from(total(value)).unwrap_or(u32::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates, and NaN becomes 0"
)]
fn total(value: f64) -> u64 {
    value as u64
}

#[expect(clippy::cast_possible_truncation, reason = "a ratio")]
fn ratio(value: f64) -> f32 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        text: &str,
        waiting: Option<u32>,
        running: Option<u32>,
        kv_cache_usage: Option<f32>,
        progress: Option<u64>,
    ) {
        let scraped = Scraped { waiting, running, kv_cache_usage };
        let found = reading(text);
        assert_eq!((found.scraped, found.progress), (scraped, progress), "{text}");
    }

    #[test]
    fn what_a_cache_holds_and_since_when() {
        let check = |text: &str, kv_tokens, started| {
            let found = reading(text);
            assert_eq!((found.kv_tokens, found.started), (kv_tokens, started), "{text}");
        };
        let vllm = |more: &str| {
            format!("vllm:cache_config_info{{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"1000\"{more}}} 1.0\n")
        };
        check(&vllm(",enable_prefix_caching=\"True\""), Some(16_000), None);
        check(&vllm(",enable_prefix_caching=\"False\""), Some(0), None);
        check(&format!("{}{}", vllm(""), vllm("")), Some(32_000), None);
        check("vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"None\"} 1\n", None, None);
        check(
            "sglang:cache_config_info{page_size=\"1\",num_pages=\"500\"} 1\nprocess_start_time_seconds 1.7e9\n",
            Some(500),
            Some(1.7e9),
        );
        check("trtllm_kv_cache_tokens_per_block 32\ntrtllm_kv_cache_max_blocks 100\n", Some(3200), None);
        check("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 10\n", None, None);
    }

    #[test]
    fn the_last_word_on_adapters_holds() {
        let line = |running: &str, waiting: &str, at: &str| {
            format!(
                "vllm:lora_requests_info{{max_lora=\"2\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"{waiting}\"}} {at}\n"
            )
        };
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let of = |text: &str| reading(text).adapters;
        let text = [line("", "", "1.7e9"), line("a,b", "c", "1.7000002e9"), line("a", "", "1.7000001e9")].concat();
        assert_eq!(of(&text), Some(AdaptersRead { most: 2, named: owned(&["a", "b", "c"]) }));
        // As vLLM 0.32.0 says it with `--max-loras 1` of a request that runs, then of nothing, then of the two that had waited for it.
        let real = "vllm:lora_requests_info{max_lora=\"1\",running_lora_adapters=\"one\",waiting_lora_adapters=\"one\"} 1.7960479067313077e+09\n\
            vllm:lora_requests_info{max_lora=\"1\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"} 1.7960479067408745e+09\n\
            vllm:lora_requests_info{max_lora=\"1\",running_lora_adapters=\"two\",waiting_lora_adapters=\"two\"} 1.7960479148073041e+09\n";
        assert_eq!(of(real), Some(AdaptersRead { most: 1, named: owned(&["two"]) }));
        assert_eq!(of(&line("a", "", "3.5e9")), None, "two processes have added up");
        assert_eq!(of(&line("", "", "1")), Some(AdaptersRead { most: 2, ..AdaptersRead::default() }));
        let many = (0..9999).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(of(&line(&"x".repeat(999), &many, "1")).unwrap().named.len(), MAX_ADAPTERS);
        assert_eq!(of("vllm:lora_requests_info{max_lora=\"many\"} 1\nvllm:lora_requests_info{ 1\n"), None);
        assert_eq!(of("vllm:num_requests_running 1\n"), None);
        let inside = "vllm:lora_requests_info{running_lora_adapters=\"q\\\",max_lora=\\\"9\",max_lora=\"1\"} 1\n";
        assert_eq!(of(inside).unwrap().most, 1, "what stands in quotes is no label");
    }

    #[test]
    fn engines_add_up_and_the_fullest_cache_counts() {
        let text = "# HELP vllm:num_requests_running n\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a } 9\"} 3.0\n\
            vllm:num_requests_running{engine=\"1\",model_name=\"a\"} 4.0 1700000000\n\
            vllm:num_requests_waiting{engine=\"0\"} 2\n\
            vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 1\n\
            vllm:num_requests_waiting_by_reason{reason=\"deferred\"} 1\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n\
            vllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n\
            vllm:generation_tokens_total{engine=\"0\"} 1e3\n\
            vllm:request_success_total{finished_reason=\"stop\"} 5\n\
            vllm:num_requests_running_total NaN\n\
            process_cpu_seconds_total 7\n";
        check(text, Some(1), Some(7), Some(0.75), Some(1005));
    }

    #[test]
    fn each_engine_is_known_by_its_own_names() {
        check(
            "sglang:num_queue_reqs{model_name=\"m\"} 9\nsglang:num_running_reqs 3\nsglang:token_usage 0.5\nsglang:prompt_tokens_total 7\nsglang:realtime_tokens_total{mode=\"decode\"} 8\n",
            Some(9),
            Some(3),
            Some(0.5),
            Some(8),
        );
        check(
            "sglang_num_queue_reqs 9\nsglang_num_running_reqs 3\nsglang_token_usage 0.5\n",
            Some(9),
            Some(3),
            Some(0.5),
            None,
        );
        check(
            "trtllm_num_requests_waiting 1\ntrtllm_num_requests_running 2\ntrtllm_kv_cache_utilization 0.25\n",
            Some(1),
            Some(2),
            Some(0.25),
            None,
        );
        check(
            "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 4\n\
             nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 5\n\
             nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\",version=\"1\"} 64\n\
             nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.5\n",
            Some(4),
            Some(5),
            Some(0.5),
            None,
        );
        check("nv_inference_pending_request_count{model=\"m\",version=\"1\"} 6\n", Some(6), None, None, None);
        check("llamacpp:requests_processing 1\nllamacpp:requests_deferred 2\n", Some(2), Some(1), None, None);
    }

    #[test]
    fn what_is_not_said_is_not_known() {
        check("process_cpu_seconds_total 7\nhttp_requests_total 9\n", None, None, None, None);
        check("vllm:num_requests_running 0\n", None, Some(0), None, None);
        check("vllm:\nvllm:num_requests_waiting\nvllm:num_requests_waiting{ x\n", None, None, None, None);
        check("vllm:num_requests_waiting -5\nvllm:num_requests_running 1e99\n", Some(0), Some(u32::MAX), None, None);
        check("vllm:kv_cache_usage_perc{} NaN\n", None, None, Some(0.0), None);
    }
}
