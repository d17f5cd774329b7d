//! What a path asks for. Gateways may put a prefix before it, so the end of the path decides.

use std::borrow::Cow;

use routing::Operation;

use crate::{Owned, OwnedKind, Unreadable};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// An operation on what the body carries.
    Operation(Operation),
    /// `GET /v1/models`: every model in scope; with `?all=true` also those that nobody serves now.
    Models { all: bool },
    /// `GET /v1/models/{id}`; `all` as above. Names may hold slashes.
    Model { id: String, all: bool },
    /// `/v1/videos/{id}`, `/v1/responses/{id}` and what is below them: what only its owner knows.
    Owned(Owned),
    /// `/v1/responses/{id}/cancel`.
    Cancel(Owned),
    /// A path by which model servers are managed, not used.
    Administrative,
    /// Any other path.
    Unknown,
}

/// Ends of paths, and what they ask for; of two that match the longer comes first.
const ENDS: [(&str, Operation); 27] = [
    ("/chat/completions", Operation::ChatCompletions),
    ("/chat/completions/batch", Operation::ChatCompletions),
    ("/completions", Operation::Completions),
    ("/responses", Operation::Responses),
    ("/messages/count_tokens", Operation::Messages),
    ("/messages", Operation::Messages),
    ("/embeddings", Operation::Embeddings),
    ("/v2/embed", Operation::Embeddings),
    ("/pooling", Operation::Pooling),
    ("/classify", Operation::Classify),
    ("/score", Operation::Score),
    ("/generative_scoring", Operation::Score),
    ("/rerank", Operation::Rerank),
    ("/audio/transcriptions", Operation::Transcriptions),
    ("/audio/translations", Operation::Translations),
    ("/audio/speech", Operation::Speech),
    ("/audio/speech/batch", Operation::Speech),
    // vLLM-Omni's; it comes before `/generate`, which makes text.
    ("/audio/generate", Operation::Speech),
    ("/images/generations", Operation::ImageGenerations),
    ("/images/edits", Operation::ImageEdits),
    ("/images/variations", Operation::ImageEdits),
    ("/videos/sync", Operation::Videos),
    ("/videos", Operation::Videos),
    ("/realtime", Operation::Realtime),
    ("/tokenize", Operation::Tokenize),
    ("/detokenize", Operation::Tokenize),
    ("/generate", Operation::Generate),
];

/// Segments of the paths by which model servers and routers before them are managed, and of those that say what a server is made of. They
/// are open even where an API key is asked for (vLLM's key protects `/v1`, `/v2`, `/inference` and `/cohere` alone), so they never pass.
///
/// Read from the route tables of vLLM 0.10 to 0.33 (`entrypoints/**/api_router.py`), vLLM-Omni 0.30 (`entrypoints/openai/api_server.py`), SGLang 0.4
/// to 0.5.23 (`srt/entrypoints/http_server.py`, `multimodal_gen/runtime/entrypoints`), its router 0.1 to 0.3 and smg 1.13 (`server.rs`),
/// TensorRT-LLM (`serve/openai_server.py`, `openai_disagg_server.py`), Triton (`http_server.cc`), llama.cpp (`tools/server/server.cpp`), LMDeploy
/// (`serve/openai/endpoints`) and TGI (`router/src/server.rs`); and words that no server of them has alone and none that infers would have
/// (`debug`, `kill`, `shutdown`).
#[rustfmt::skip]
const ADMINISTRATIVE: [&str; 145] = [
    "_control", "_resource_governor", "abort", "abort_request", "abort_requests", "add_external_corpus", "add_lora", "add_worker",
    "api-doc", "attach_hicache_storage_backend", "begin_weight_update", "clear_hicache_storage_backend", "clear_kv_blocks",
    "close_session", "cluster_info", "collective_rpc", "configure_logging", "continue_generation", "cors-proxy", "cudasharedmemory",
    "data_transceiver_state", "debug", "delete_lora", "destroy_weights_update_group", "detach_hicache_storage_backend", "distserve",
    "docs", "dump_expert_distribution_record", "dumper", "end_weight_update", "energy_metrics", "engine_metrics", "evict",
    "fault_tolerance", "finish_weight_update", "flush_cache", "freeze_gc", "get_hicache_l3_cache_layout", "get_load", "get_loads",
    "get_model_info", "get_remote_instance_transfer_engine_info", "get_server_info", "get_transfer_engine_info", "get_weight_version",
    "get_weights_by_name", "get_weights_checksum", "get_world_size", "heap_profile", "hicache", "init_weight_transfer_engine",
    "init_weights_send_group_for_remote_instance", "init_weights_update_group", "invocations", "is_paused", "is_scaling_elastic_ep",
    "is_sleeping", "kill", "kv_cache_events", "kv_cache_hints", "kv_event_sources", "list_external_corpora", "list_loras",
    "list_workers", "load", "load_lora_adapter", "load_lora_adapter_from_tensors", "loads", "lora-adapters", "merge_lora_weights",
    "metrics", "model_info", "open_session", "openapi.json", "openapi.yaml", "pause", "pause_generation", "pd_role_switch",
    "perf_metrics", "props", "query_dp_ranks", "redoc", "register_dp_rank", "register_transfer_engine_info", "release_kv_cache_memory",
    "release_memory", "release_memory_occupation", "remote_instance_transfer_engine_info", "remove_external_corpus", "remove_lora",
    "remove_worker", "reset_encoder_cache", "reset_mm_cache", "reset_prefix_cache", "resume", "resume_memory",
    "resume_memory_occupation", "save_remote_model", "save_sharded_model", "scale_elastic_ep", "scheduler_receive_meta_data",
    "scheduler_receive_url", "send_weights_to_remote_instance", "server_info", "set_internal_state", "set_lora", "set_trace_level",
    "shutdown", "shutdown_weight_transfer_engine", "sleep", "slots", "slow_down", "start_draft_weight_update",
    "start_expert_distribution_record", "start_profile", "start_weight_update", "start_worker", "steady_clock_offset",
    "stop_expert_distribution_record", "stop_profile", "stop_worker", "swagger", "swagger.json", "systemsharedmemory", "terminate",
    "terminate_all", "tokenizer_info", "unload", "unload_lora_adapter", "unmerge_lora_weights", "update_weight_version",
    "update_weights", "update_weights_from_disk", "update_weights_from_distributed", "update_weights_from_ipc",
    "update_weights_from_tensor", "update_weights_from_tensor_checker", "wake_up", "wakeup", "wasm", "weight_checker", "weight_info",
    "weight_version", "weights_checker", "workers",
];

/// The same where it takes two segments in a row to tell: Ollama's `/api` (`server/routes.go`), Triton's repository, tracing and logging, llama.cpp's
/// and the routers' own.
#[rustfmt::skip]
const ADMINISTRATIVE_PAIRS: [(&str, &str); 36] = [
    ("api", "blobs"), ("api", "copy"), ("api", "create"), ("api", "delete"), ("api", "experimental"), ("api", "me"), ("api", "ps"),
    ("api", "pull"), ("api", "push"), ("api", "show"), ("api", "signout"), ("api", "status"), ("api", "tags"), ("api", "user"),
    ("api", "version"), ("ha", "config"), ("ha", "policies"), ("ha", "rate-limit"), ("ha", "shutdown"), ("ha", "status"),
    ("models", "load"), ("models", "sse"), ("models", "unload"), ("nodes", "add"), ("nodes", "remove"),
    ("nodes", "status"), ("nodes", "terminate"), ("trace", "setting"), ("v1", "license"), ("v1", "manifest"), ("v1", "metadata"),
    ("v1", "rl"), ("v1", "tokenizers"), ("v1", "version"), ("v2", "logging"), ("v2", "repository"),
];

/// How the one segment begins that engines match by its beginning (`^/metrics(?P<path>.*)$` in vLLM, SGLang and LMDeploy).
const METRICS: &str = "metrics";

impl Resource {
    /// Reads a path with its query. What is percent-encoded is decoded once, as model servers do before they look.
    ///
    /// # Errors
    /// When readers may disagree on what the path names: empty or dotted segments, backslashes, control characters. A slash at the end of
    /// a path that is known is forgiven; see [`without_slash`].
    pub fn of_path(path_and_query: &str) -> Result<Self, Unreadable> {
        // Nearly all are one of these to the letter.
        if let Some(end) = path_and_query.strip_prefix("/v1")
            && let Some((_, operation)) = ENDS.iter().find(|(known, _)| *known == end)
        {
            return Ok(Self::Operation(*operation));
        }
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        // As it is written: an encoded one is not taken away again before a model server reads it.
        let ends_in_slash = path.len() > 1 && path.ends_with('/');
        let path = percent_decoded(path);
        let odd = |byte: u8| byte <= b' ' || byte >= 0x7f || matches!(byte, b'\\' | b'?' | b'#');
        if path.bytes().any(odd) {
            return Err(Unreadable::OddPath);
        }
        let path = if ends_in_slash { &path[..path.len() - 1] } else { &path };
        let Some(relative) = path.strip_prefix('/') else { return Err(Unreadable::OddPath) };
        if relative.is_empty() && !ends_in_slash {
            return Ok(Self::Unknown);
        }
        let mut rest = relative;
        let mut after_v1 = None;
        let mut before = "";
        loop {
            let (segment, more) = rest.split_once('/').map_or((rest, None), |(segment, more)| (segment, Some(more)));
            if matches!(segment, "" | "." | "..") {
                return Err(Unreadable::OddPath);
            }
            if before == "v1" && after_v1.is_none() {
                after_v1 = Some((segment, more));
            }
            let Some(more) = more else { break };
            (before, rest) = (segment, more);
        }
        let path = &path[..=relative.len()];
        match Self::of_sound(path, after_v1, query) {
            // What the slash means to a path that nobody knows nobody knows.
            Self::Unknown if ends_in_slash => Err(Unreadable::OddPath),
            resource => Ok(resource),
        }
    }

    /// Of a path without a slash at its end; what follows its first `v1` is the segment and what comes after.
    fn of_sound(path: &str, after_v1: Option<(&str, Option<&str>)>, query: &str) -> Self {
        match after_v1 {
            // Names may hold slashes, and even look like other paths.
            Some(("models", Some(id))) => return Self::Model { id: id.to_owned(), all: asks_for_all(query) },
            Some(("models", None)) => return Self::Models { all: asks_for_all(query) },
            Some(("videos", Some(rest))) if rest != "sync" => return Self::owned(OwnedKind::Video, rest),
            // Operations of their own, which no engine has.
            Some(("responses", Some("compact" | "input_tokens"))) => return Self::Unknown,
            Some(("responses", Some(rest))) => return Self::owned(OwnedKind::Response, rest),
            // Without `v1` engines have the list alone.
            None if path == "/models" => return Self::Models { all: asks_for_all(query) },
            _ => {}
        }
        match ENDS.iter().find(|(end, _)| path.ends_with(end)) {
            // Below `/v1/rl/engine` a path goes to every server of smg's.
            Some((_, operation)) if !path.contains("/v1/rl/") => Self::Operation(*operation),
            _ if is_administrative(path) => Self::Administrative,
            _ => Self::Unknown,
        }
    }

    fn owned(kind: OwnedKind, path: &str) -> Self {
        let (id, rest) = path.split_once('/').unwrap_or((path, ""));
        let what = Owned { kind, id: id.to_owned() };
        if kind == OwnedKind::Response && rest == "cancel" { Self::Cancel(what) } else { Self::Owned(what) }
    }

    /// The methods that it is asked with.
    pub const fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Operation(Operation::Realtime) => &["GET"],
            Self::Operation(_) | Self::Cancel(_) => &["POST"],
            Self::Models { .. } | Self::Model { .. } => &["GET", "HEAD"],
            Self::Owned(_) => &["GET", "HEAD", "DELETE"],
            Self::Administrative => &[],
            // A path that nobody knows is passed at its owner's wish, to be used and not to be changed.
            Self::Unknown => &["POST", "GET", "HEAD", "OPTIONS"],
        }
    }

    /// What it is about that only its owner knows.
    pub const fn owned_by_one(&self) -> Option<&Owned> {
        match self {
            Self::Owned(what) | Self::Cancel(what) => Some(what),
            _ => None,
        }
    }

    pub const fn operation(&self) -> Operation {
        match self {
            Self::Operation(operation) => *operation,
            Self::Owned(what) | Self::Cancel(what) => match what.kind {
                OwnedKind::Video => Operation::Videos,
                OwnedKind::Response => Operation::Responses,
            },
            Self::Models { .. } | Self::Model { .. } | Self::Administrative | Self::Unknown => Operation::Other,
        }
    }

    /// Whether a path speaks Anthropic's API, whose errors have a shape of their own; also one that is refused as odd.
    pub fn is_anthropic(path_and_query: &str) -> bool {
        let path = percent_decoded(path_and_query.split('?').next().unwrap_or_default());
        let path = path.trim_end_matches('/');
        path.ends_with("/messages") || path.ends_with("/messages/count_tokens")
    }
}

/// Whether a pair of a query has this name, however it is written.
pub fn is_parameter(pair: &str, name: &str) -> bool {
    percent_decoded(pair.split('=').next().unwrap_or_default()) == name
}

/// The path and query without a slash at the end of the path, if there is one: engines answer it with a redirect to their own address.
pub fn without_slash(path_and_query: &str) -> Option<String> {
    let (path, query) =
        path_and_query.split_once('?').map_or((path_and_query, None), |(path, query)| (path, Some(query)));
    let path = path.strip_suffix('/').filter(|path| !path.is_empty())?;
    Some(query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")))
}

/// Whether a path manages servers, by its whole segments: one that merely begins as such a segment does is somebody's own.
fn is_administrative(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let mut before = "";
    path.split('/').any(|segment| {
        let pair = (std::mem::replace(&mut before, segment), segment);
        segment.starts_with(METRICS)
            || ADMINISTRATIVE.binary_search(&segment).is_ok()
            || ADMINISTRATIVE_PAIRS.binary_search(&pair).is_ok()
    })
}

fn asks_for_all(query: &str) -> bool {
    parameter(query, "all").is_some_and(|all| all == "true" || all == "1")
}

/// A parameter of a query, decoded; the first of that name.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    parameters(query, name).next()
}

/// Every parameter of that name.
pub(crate) fn parameters(query: &str, name: &str) -> impl Iterator<Item = String> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(key) == name).then(|| percent_decoded(&value.replace('+', " ")).into_owned())
    })
}

/// `%73` as `s`; what is no encoded byte stays as it is.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let encoded = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(encoded.unwrap_or(*first));
        rest = if encoded.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Resource) {
        assert_eq!(Resource::of_path(path), Ok(expected), "{path}");
    }

    #[test]
    fn the_end_of_the_path_decides() {
        use Operation::*;
        for (path, operation) in [
            ("/v1/chat/completions", ChatCompletions),
            ("/team-a/openai/v1/chat/completions?api-version=1", ChatCompletions),
            ("/v1/completions", Completions),
            ("/v1/chat/completion%73", ChatCompletions),
            ("/v1%2Fchat/completions", ChatCompletions),
            ("/v1/responses", Responses),
            ("/v1/messages", Messages),
            ("/v1/messages/count_tokens", Messages),
            ("/v1/audio/transcriptions", Transcriptions),
            ("/v1/images/edits", ImageEdits),
            ("/v1/videos", Videos),
            ("/v1/videos/sync", Videos),
            ("/v2/rerank", Rerank),
            ("/score", Score),
            ("/inference/v1/generate", Generate),
            ("/generate", Generate),
            ("/v1/realtime?model=x", Realtime),
        ] {
            check(path, Resource::Operation(operation));
        }
    }

    #[test]
    fn models_and_jobs_have_names() {
        check("/v1/models", Resource::Models { all: false });
        check("/v1/models?all=true", Resource::Models { all: true });
        check("/v1/models/Qwen/Qwen2-VL", Resource::Model { id: "Qwen/Qwen2-VL".into(), all: false });
        check("/v1/models/a%2Fscore?all=1", Resource::Model { id: "a/score".into(), all: true });
        check("/v1/videos/video_1", Resource::owned(OwnedKind::Video, "video_1"));
        check("/v1/responses/resp_1", Resource::owned(OwnedKind::Response, "resp_1"));
        let resp_1 = Owned { kind: OwnedKind::Response, id: "resp_1".into() };
        check("/openai/v1/responses/resp_1/cancel", Resource::Cancel(resp_1));
        check("/v1/responses/input_tokens", Resource::Unknown);
        check("/v1/responses/compact", Resource::Unknown);
        check("/v1/videos/video_1/content?variant=x", Resource::owned(OwnedKind::Video, "video_1"));
    }

    #[test]
    fn anthropics_shape_holds_for_odd_paths_too() {
        for path in ["/v1/messages", "/v1//messages/?x", "/a/v1/messages/count_tokens"] {
            assert!(Resource::is_anthropic(path), "{path}");
        }
        assert!(!Resource::is_anthropic("/v1/chat/completions?x=/messages"));
    }

    #[test]
    fn what_manages_servers_is_told_from_what_is_unknown() {
        for path in [
            "/sleep",
            "/wake_up",
            "/v1/load_lora_adapter",
            "/collective_rpc",
            "/metrics",
            "/update_weights_from_disk",
            "/slee%70",
            "/SLEEP",
            "/prefix/wake_up",
            "/metrics/x",
            "/metricsx",
            "/api/pull",
            "/v2/repository/models/m/load",
            "/slots/3",
            "/distserve/p2p_connect",
            "/v1/rl/engine/generate",
            "/workers/1",
            "/debug/pprof/heap",
        ] {
            check(path, Resource::Administrative);
        }
        // What only begins as such a path does is somebody's own (the conformance suite asks for the first).
        for path in [
            "/weighted-two-pools-test",
            "/release-notes",
            "/loader/x",
            "/docs-of-mine",
            "/start",
            "/startup",
            "/api/items",
            "/v1/versions",
            "/",
            "/health",
            "/v1/files",
            "/v1/rerank/x",
            "/100%/%zz%4",
            "/chat",
        ] {
            check(path, Resource::Unknown);
        }
    }

    #[test]
    fn the_lists_are_in_order_and_in_small_letters() {
        assert!(ADMINISTRATIVE.is_sorted() && ADMINISTRATIVE_PAIRS.is_sorted());
        let words =
            ADMINISTRATIVE.iter().chain(ADMINISTRATIVE_PAIRS.iter().flat_map(|(first, second)| [first, second]));
        for word in words {
            assert!(!word.is_empty() && !word.contains('/') && *word == word.to_ascii_lowercase(), "{word}");
        }
    }

    #[test]
    fn paths_that_readers_disagree_on_are_refused() {
        for path in [
            "",
            "v1/x",
            "/v1//chat/completions",
            "/v1/./completions",
            "/v1/../sleep",
            "/v1/%2e%2e/sleep",
            r"/v1\completions",
            "/v1/chat/completions//",
            "/v1/completions/%2f",
            "/unknown/",
            "/v1/chat/completions%2f",
            "/v1/chat%00",
            "/v1/a%3fb",
            "/v1/é",
            "//",
        ] {
            assert_eq!(Resource::of_path(path), Err(Unreadable::OddPath), "{path}");
        }
    }

    #[test]
    fn a_slash_at_the_end_is_forgiven_and_taken_away() {
        let chat = Resource::of_path("/v1/chat/completions");
        assert_eq!(Resource::of_path("/v1/chat/completions/"), chat);
        assert_eq!(Resource::of_path("/v1/chat/completions/?a=b/"), chat);
        assert_eq!(Resource::of_path("/v1/models/"), Ok(Resource::Models { all: false }));
        assert_eq!(without_slash("/v1/chat/completions/?a=b/"), Some("/v1/chat/completions?a=b/".into()));
        assert_eq!(without_slash("/v1/models/"), Some("/v1/models".into()));
        for path in ["/v1/models", "/v1/models?a=/", "/"] {
            assert_eq!(without_slash(path), None, "{path}");
        }
    }
}
