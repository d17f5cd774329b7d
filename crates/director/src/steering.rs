//! Headers by which gateways, routers, sidecars and engines tell each other where a request goes and how it is treated there. Never a
//! client's to say: they are taken out of every request, over both edges.

use std::borrow::Cow;

/// Names in lower case, with hyphens; one that ends in `*` stands for all that begin so. Each with who acts on it, and how.
pub const STEERING_HEADERS: &[(&str, &str)] = &[
    ("config-profile", "AIBrix's gateway: chooses its routing profile (pkg/plugins/gateway/types.go)"),
    (
        "endpoint-load-metrics-format",
        "vLLM: tells its load in the answer (entrypoints/openai/chat_completion/api_router.py)",
    ),
    ("external-filter", "AIBrix's gateway: leaves out pods by an expression (gateway_req_body.go)"),
    ("prefill-target-pod*", "AIBrix: the pod that prefills (pd_disaggregation.go)"),
    ("routing-strategy", "AIBrix's gateway: chooses its algorithm (types.go)"),
    ("target-pod*", "AIBrix's Envoy: the address to connect to (config/gateway/gateway.yaml, ORIGINAL_DST)"),
    (
        "test-epp-endpoint-selection",
        "pickers under conformance tests: chooses the endpoint (llm-d-router scheduling/test)",
    ),
    ("x-ai-eg-*", "Envoy AI Gateway: routes by it after it has read a body (internalapi.go)"),
    ("x-aibrix-config-profile", "AIBrix's gateway, as config-profile"),
    ("x-data-parallel-host-port", "llm-d's sidecar: chooses a rank (pkg/sidecar/proxy/data_parallel.go)"),
    ("x-data-parallel-rank", "vLLM, SGLang, Dynamo: chooses a rank (vllm/entrypoints/generate/base/serving.py)"),
    ("x-dp-rank", "Dynamo: chooses a rank"),
    ("x-dynamo-dp-rank", "Dynamo: chooses a rank"),
    ("x-dynamo-interactivity-pool", "Dynamo: chooses a pool of workers"),
    ("x-dynamo-prefill-*", "Dynamo: chooses the worker or the rank that prefills"),
    ("x-dynamo-principal-id", "Dynamo's agent runtime: whose request it is"),
    ("x-dynamo-tenant-id", "Dynamo's agent runtime: whose request it is"),
    ("x-dynamo-token-ids", "Dynamo: the prompt that caches are looked up for"),
    ("x-dynamo-worker-instance-id", "Dynamo: chooses a worker"),
    ("x-enable-local-updates", "Dynamo: switches its bookkeeping of load off"),
    ("x-encoder-hosts-ports", "llm-d's sidecar: sends the media to any of these hosts (pkg/common/routing/common.go)"),
    ("x-envoy-hedge-on-per-try-timeout", "Envoy's router: sends a request again while it is being worked on"),
    ("x-envoy-max-retries", "Envoy's router: sends a request so often"),
    ("x-envoy-original-dst-host", "Envoy's ORIGINAL_DST clusters: the address to connect to"),
    ("x-envoy-retriable-header-names", "Envoy's router: what is sent again"),
    ("x-envoy-retriable-status-codes", "Envoy's router: what is sent again"),
    ("x-envoy-retry-grpc-on", "Envoy's router: what is sent again"),
    ("x-envoy-retry-on", "Envoy's router: what is sent again"),
    ("x-envoy-upstream-alt-stat-name", "Envoy's router: names a metric"),
    ("x-envoy-upstream-rq-timeout-alt-response", "Envoy's router: another status for a timeout"),
    ("x-forwarded-path", "llm-d's picker: reads it in the place of the path (pkg/common/request/headers.go)"),
    (
        "x-gateway-destination-endpoint*",
        "gateways with an endpoint picker: the address to connect to, and those allowed",
    ),
    ("x-gateway-model-name-rewrite", "llm-d's picker: another model than the body names (consts.go)"),
    (
        "x-kv-cache-source-host-port",
        "llm-d's sidecar: the engine fetches its cache from this host (pkg/common/routing/common.go)",
    ),
    ("x-llm-d-model-name-rewrite", "llm-d's picker, as x-gateway-model-name-rewrite"),
    ("x-original-path", "llm-d's picker: reads it in the place of the path"),
    (
        "x-override-*",
        "SGLang: written over fields of the body, bootstrap_host among them (srt/entrypoints/openai/request_headers.py)",
    ),
    ("x-prefill-dp-rank", "Dynamo: chooses a rank"),
    ("x-prefill-instance-id", "Dynamo: chooses the worker that prefills"),
    (
        "x-prefiller-host-port",
        "llm-d's sidecar: posts the whole prompt to this host (pkg/sidecar/proxy/chat_completions.go)",
    ),
    ("x-smg-target-worker", "SGLang's gateway: chooses a worker (header_utils.rs)"),
    ("x-worker-instance-id", "Dynamo: chooses a worker"),
];

/// Whether a header is one of them, in any case and with underscores as well: some servers read these as hyphens.
pub(crate) fn is_steering(name: &str) -> bool {
    let is_plain = name.bytes().all(|byte| byte != b'_' && !byte.is_ascii_uppercase());
    let name = if is_plain { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase().replace('_', "-")) };
    // Sorted: it can only be the last row that stands before it, since no row lies among those that another stands for.
    let beginning = |row: &'static str| row.strip_suffix('*').unwrap_or(row);
    let place = STEERING_HEADERS.partition_point(|(row, _)| beginning(row) <= &*name);
    place.checked_sub(1).is_some_and(|before| {
        let row = STEERING_HEADERS[before].0;
        name.strip_prefix(beginning(row)).is_some_and(|rest| rest.is_empty() || row.ends_with('*'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_every_row_is_found_in_any_spelling() {
        assert!(STEERING_HEADERS.is_sorted_by(|(a, _), (b, _)| a < b));
        for (row, _) in STEERING_HEADERS {
            let name = row.replace('*', "x");
            assert!(is_steering(&name), "{name}");
            assert!(is_steering(&name.to_ascii_uppercase()) && is_steering(&name.replace('-', "_")), "{name}");
            if let Some(beginning) = row.strip_suffix('*') {
                let all = ["", "0", "zzz", "-y"].map(|rest| format!("{beginning}{rest}"));
                assert!(all.iter().all(|name| is_steering(name)), "{all:?}");
            }
        }
    }

    #[test]
    fn what_clients_send_stays() {
        for name in [
            "accept",
            "authorization",
            "content-type",
            "traceparent",
            "user-agent",
            "x-api-key",
            "x-request-id",
            "x-session-id",
            "x-stainless-lang",
            "x-llm-d-inference-objective",
            "x-gateway-inference-objective",
            "x-data-parallel",
            "x-overrides",
            "x-envoy-upstream-rq-timeout-ms",
            "targets",
            "a",
            "zzz",
            "",
        ] {
            assert!(!is_steering(name), "{name}");
        }
    }
}
