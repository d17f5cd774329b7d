//! What each dashboard shows.

use super::{Dashboard, panel};

/// A quantile of a histogram's series that have these labels.
macro_rules! quantile {
    ($quantile:literal, $histogram:literal, $labels:literal) => {
        concat!(
            "histogram_quantile(",
            $quantile,
            ", sum by (le) (rate(",
            $histogram,
            "_bucket",
            $labels,
            "[$__rate_interval])))"
        )
    };
}

macro_rules! median_and_99th {
    ($histogram:literal, $labels:literal) => {
        &[
            ("median", quantile!("0.5", $histogram, $labels)),
            ("99th percentile", quantile!("0.99", $histogram, $labels)),
        ]
    };
}

pub(super) const OVERVIEW: Dashboard = Dashboard {
    file: "thalamus-overview",
    title: "Thalamus: overview",
    by: &[("pool", "llm_d_epp_ready_endpoints")],
    rows: &[
        (
            "What comes and how it goes",
            &[
                panel(
                    "Requests",
                    "reqps",
                    "Those that went to an endpoint or were refused, by model.",
                    &[(
                        "{{model_name}}",
                        r#"sum by (model_name) (rate(llm_d_epp_request_total{namespace=~"$namespace"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Errors",
                    "percentunit",
                    "The share of requests that got an error, ours or a model server's.",
                    &[(
                        "errors",
                        r#"(sum(rate(llm_d_epp_request_error_total{namespace=~"$namespace"}[$__rate_interval])) or vector(0)) / sum(rate(llm_d_epp_request_total{namespace=~"$namespace"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Time to first byte",
                    "s",
                    "From the decision to the first byte of the answer, with the time that a request waited for room, where answers pass the picker.",
                    median_and_99th!("llm_d_epp_request_ttft_seconds", r#"{namespace=~"$namespace"}"#),
                ),
            ],
        ),
        (
            "Modalities",
            &[
                panel(
                    "What requests carry",
                    "reqps",
                    "Modalities of requests that went to an endpoint.",
                    &[(
                        "{{input}} → {{output}}",
                        r#"sum by (input, output) (rate(thalamus_picker_decisions_total{namespace=~"$namespace",pool=~"$pool"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Where they go",
                    "reqps",
                    "By pool and tier: the tightest fit is the first. Many in a later tier say that the first is full or gone.",
                    &[(
                        "{{pool}}, tier {{tier}}",
                        r#"sum by (namespace, pool, tier) (rate(thalamus_picker_decisions_total{namespace=~"$namespace",pool=~"$pool"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Refused",
                    "reqps",
                    "By code: docs/errors.md says what each means and what to do.",
                    &[(
                        "{{reason}}",
                        r#"sum by (reason) (rate(thalamus_picker_rejections_total{namespace=~"$namespace"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Media",
                    "short",
                    "Items a second, by modality, and whether they are in the request or behind a URL.",
                    &[(
                        "{{modality}}, {{source}}",
                        r#"sum by (modality, source) (rate(thalamus_picker_media_items_total{namespace=~"$namespace"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Tokens",
                    "short",
                    "A second, as model servers count them, where answers pass the picker.",
                    &[(
                        "{{is}}, {{modality}}",
                        r#"sum by (is, modality) (rate(thalamus_picker_tokens_total{namespace=~"$namespace",pool=~"$pool"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Contradictions",
                    "short",
                    "Only when a model server refused what it was believed to take. Status of its InferenceModel says which and what.",
                    &[(
                        "{{pool}}: {{of}}",
                        r#"sum by (pool, of) (increase(thalamus_picker_contradictions_total{namespace=~"$namespace",pool=~"$pool"}[1h]))"#,
                    )],
                ),
            ],
        ),
        (
            "Pools",
            &[
                panel(
                    "Endpoints",
                    "short",
                    "Ready ones, and those of them that are healthy.",
                    &[
                        (
                            "{{name}}",
                            r#"max by (namespace, name) (llm_d_epp_ready_endpoints{namespace=~"$namespace",name=~"$pool"})"#,
                        ),
                        (
                            "{{pool}}, healthy",
                            r#"max by (namespace, pool) (sum by (namespace, pool, pod) (thalamus_picker_endpoint_healthy{namespace=~"$namespace",pool=~"$pool"}))"#,
                        ),
                    ],
                ),
                panel(
                    "How full",
                    "percentunit",
                    "Of each endpoint the larger of its queue / 5 and its KV cache / 0.95, on average. Where all are full, requests wait in the picker.",
                    &[(
                        "{{inference_pool}}",
                        r#"max by (namespace, inference_pool) (llm_d_epp_flow_control_pool_saturation{namespace=~"$namespace",inference_pool=~"$pool"})"#,
                    )],
                ),
                panel(
                    "Waiting",
                    "short",
                    "Requests that wait in pickers for room.",
                    &[(
                        "{{inference_pool}}",
                        r#"sum by (namespace, inference_pool) (llm_d_epp_flow_control_queue_size{namespace=~"$namespace",inference_pool=~"$pool"})"#,
                    )],
                ),
                panel(
                    "Queues",
                    "short",
                    "Requests in endpoints' own queues.",
                    &[(
                        "{{model_server_endpoint}}",
                        r#"max by (model_server_endpoint) (llm_d_epp_per_endpoint_queue_size{namespace=~"$namespace",name=~"$pool"})"#,
                    )],
                ),
                panel(
                    "Work",
                    "s",
                    "Estimated work at an endpoint that has not come to its first byte.",
                    &[(
                        "{{endpoint}}",
                        r#"sum by (endpoint) (thalamus_picker_endpoint_queued_seconds{namespace=~"$namespace",pool=~"$pool"})"#,
                    )],
                ),
                panel(
                    "Caches",
                    "short",
                    "Tokens believed to be in an endpoint's KV cache.",
                    &[(
                        "{{endpoint}}",
                        r#"max by (endpoint) (thalamus_picker_endpoint_cached_tokens{namespace=~"$namespace",pool=~"$pool"})"#,
                    )],
                ),
            ],
        ),
    ],
};

pub(super) const PICKER: Dashboard = Dashboard {
    file: "thalamus-picker",
    title: "Thalamus: one picker",
    by: &[("pod", "thalamus_picker_table_revision")],
    rows: &[
        (
            "Decisions",
            &[
                panel(
                    "Decisions",
                    "reqps",
                    "",
                    &[(
                        "{{pod}}",
                        r#"sum by (pod) (rate(thalamus_picker_decisions_total{namespace=~"$namespace",pod=~"$pod"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Time for one",
                    "s",
                    "Of a request that has been read.",
                    median_and_99th!("thalamus_picker_decision_seconds", r#"{namespace=~"$namespace",pod=~"$pod"}"#),
                ),
                panel(
                    "Size of bodies",
                    "bytes",
                    "",
                    &[(
                        "99th percentile",
                        quantile!("0.99", "thalamus_picker_request_bytes", r#"{namespace=~"$namespace",pod=~"$pod"}"#),
                    )],
                ),
                panel(
                    "Attempts",
                    "reqps",
                    "How attempts ended, by the hundred of their status; 0 where none came.",
                    &[(
                        "{{ending}}, {{status}}",
                        r#"sum by (ending, status) (rate(thalamus_picker_attempts_total{namespace=~"$namespace",pod=~"$pod"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Failed",
                    "reqps",
                    "Only when requests that went to an endpoint got an error of ours.",
                    &[(
                        "{{reason}}",
                        r#"sum by (reason) (rate(thalamus_picker_failures_total{namespace=~"$namespace",pod=~"$pod"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Work that caches spare",
                    "percentunit",
                    "The share of requests' work that is believed to be in endpoints' caches.",
                    &[(
                        "spared",
                        r#"sum(rate(thalamus_picker_work_seconds_total{namespace=~"$namespace",pod=~"$pod",is="spared"}[$__rate_interval])) / sum(rate(thalamus_picker_work_seconds_total{namespace=~"$namespace",pod=~"$pod"}[$__rate_interval]))"#,
                    )],
                ),
            ],
        ),
        (
            "The process",
            &[
                panel(
                    "Table's age",
                    "s",
                    "Since the controller was last heard from; 0 while it is connected.",
                    &[("{{pod}}", r#"thalamus_picker_table_age_seconds{namespace=~"$namespace",pod=~"$pod"}"#)],
                ),
                panel(
                    "Under way",
                    "short",
                    "Requests at model servers, and those that wait for room.",
                    &[
                        (
                            "{{pod}}, at servers",
                            r#"thalamus_picker_requests_in_flight{namespace=~"$namespace",pod=~"$pod"}"#,
                        ),
                        (
                            "{{pod}}, waiting",
                            r#"thalamus_picker_requests_waiting{namespace=~"$namespace",pod=~"$pod"}"#,
                        ),
                    ],
                ),
                panel(
                    "Bodies held",
                    "bytes",
                    "No more than --max-buffered-bytes.",
                    &[("{{pod}}", r#"thalamus_picker_buffered_bytes{namespace=~"$namespace",pod=~"$pod"}"#)],
                ),
                panel(
                    "Connections",
                    "short",
                    "Open, by port.",
                    &[("{{pod}}, {{port}}", r#"thalamus_picker_connections{namespace=~"$namespace",pod=~"$pod"}"#)],
                ),
                panel(
                    "Scrapes",
                    "ops",
                    "Of model servers' metrics.",
                    &[(
                        "{{outcome}}",
                        r#"sum by (outcome) (rate(thalamus_picker_scrapes_total{namespace=~"$namespace",pod=~"$pod"}[$__rate_interval]))"#,
                    )],
                ),
                panel("Controllers", "short", "One of them leads.", &[("{{pod}}", "thalamus_controller_leader")]),
            ],
        ),
    ],
};

pub(super) const MODEL: Dashboard = Dashboard {
    file: "thalamus-model",
    title: "Thalamus: one model",
    by: &[("model_name", "llm_d_epp_request_total")],
    rows: &[
        (
            "Requests",
            &[
                panel(
                    "Requests",
                    "reqps",
                    "By what model servers are asked for.",
                    &[(
                        "{{target_model_name}}",
                        r#"sum by (target_model_name) (rate(llm_d_epp_request_total{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Under way",
                    "short",
                    "",
                    &[(
                        "{{target_model_name}}",
                        r#"sum by (target_model_name) (llm_d_epp_request_running{namespace=~"$namespace",model_name=~"$model_name"})"#,
                    )],
                ),
                panel(
                    "Errors",
                    "reqps",
                    "Only when there were errors of ours or of model servers, by code.",
                    &[(
                        "{{error_code}}",
                        r#"sum by (error_code) (rate(llm_d_epp_request_error_total{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval]))"#,
                    )],
                ),
            ],
        ),
        (
            "How long",
            &[
                panel(
                    "Time to first byte",
                    "s",
                    "Answers that stream and those that come whole, where answers pass the picker.",
                    &[(
                        "99th percentile, streaming: {{streaming}}",
                        r#"histogram_quantile(0.99, sum by (le, streaming) (rate(llm_d_epp_request_ttft_seconds_bucket{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval])))"#,
                    )],
                ),
                panel(
                    "Whole answers",
                    "s",
                    "",
                    median_and_99th!(
                        "llm_d_epp_request_duration_seconds",
                        r#"{namespace=~"$namespace",model_name=~"$model_name"}"#
                    ),
                ),
                panel(
                    "A token",
                    "s",
                    "Time for each token after the first, of streamed answers that say how many they have, where answers pass the picker.",
                    &[(
                        "median",
                        quantile!(
                            "0.5",
                            "llm_d_epp_request_streaming_tpot_seconds",
                            r#"{namespace=~"$namespace",model_name=~"$model_name"}"#
                        ),
                    )],
                ),
            ],
        ),
        (
            "Tokens",
            &[
                panel(
                    "Of prompts",
                    "short",
                    "",
                    &[(
                        "on average",
                        r#"sum(rate(llm_d_epp_request_input_tokens_sum{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval])) / sum(rate(llm_d_epp_request_input_tokens_count{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "Of answers",
                    "short",
                    "",
                    &[(
                        "on average",
                        r#"sum(rate(llm_d_epp_request_output_tokens_sum{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval])) / sum(rate(llm_d_epp_request_output_tokens_count{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval]))"#,
                    )],
                ),
                panel(
                    "From caches",
                    "percentunit",
                    "Only when model servers say it (vLLM: --enable-prompt-tokens-details): the share of prompts that they had in a cache.",
                    &[(
                        "cached",
                        r#"sum(rate(llm_d_epp_request_cached_tokens_sum{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval])) / sum(rate(llm_d_epp_request_input_tokens_sum{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval]))"#,
                    )],
                ),
            ],
        ),
    ],
};
