//! Dashboards and alerts, each a table here and a file in `manifests/monitoring` and in the chart.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

struct Dashboard {
    file: &'static str,
    title: &'static str,
    /// Names of labels that it can be narrowed by, beside the namespace.
    by: &'static [(&'static str, &'static str)],
    rows: &'static [(&'static str, &'static [Panel])],
}

/// One plot. What is shown only when something happened says so in its description, which begins with "Only when".
struct Panel {
    title: &'static str,
    description: &'static str,
    /// As Grafana calls it.
    unit: &'static str,
    /// Legend and expression.
    lines: &'static [(&'static str, &'static str)],
}

struct Alert {
    name: &'static str,
    /// What is looked at, and from which value on it is bad.
    expression: &'static str,
    bad: &'static str,
    lasts: &'static str,
    severity: &'static str,
    summary: &'static str,
    what_to_do: &'static str,
}

const fn panel(
    title: &'static str,
    unit: &'static str,
    description: &'static str,
    lines: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel { title, description, unit, lines }
}

const OVERVIEW: Dashboard = Dashboard {
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
                    "From the decision to the first byte of the answer, with the time that a request waited for room.",
                    &[
                        (
                            "median",
                            r#"histogram_quantile(0.5, sum by (le) (rate(llm_d_epp_request_ttft_seconds_bucket{namespace=~"$namespace"}[$__rate_interval])))"#,
                        ),
                        (
                            "99th percentile",
                            r#"histogram_quantile(0.99, sum by (le) (rate(llm_d_epp_request_ttft_seconds_bucket{namespace=~"$namespace"}[$__rate_interval])))"#,
                        ),
                    ],
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
                        r#"sum by (pool, tier) (rate(thalamus_picker_decisions_total{namespace=~"$namespace",pool=~"$pool"}[$__rate_interval]))"#,
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
                            r#"max by (name) (llm_d_epp_ready_endpoints{namespace=~"$namespace",name=~"$pool"})"#,
                        ),
                        (
                            "{{pool}}, healthy",
                            r#"max by (pool) (sum by (pool, pod) (thalamus_picker_endpoint_healthy{namespace=~"$namespace",pool=~"$pool"}))"#,
                        ),
                    ],
                ),
                panel(
                    "How full",
                    "percentunit",
                    "The larger of queue / 5 and KV cache / 0.95, on average over endpoints. From 1 on requests wait in the picker.",
                    &[(
                        "{{inference_pool}}",
                        r#"max by (inference_pool) (llm_d_epp_flow_control_pool_saturation{namespace=~"$namespace",inference_pool=~"$pool"})"#,
                    )],
                ),
                panel(
                    "Waiting",
                    "short",
                    "Requests that wait in pickers for room.",
                    &[(
                        "{{inference_pool}}",
                        r#"sum by (inference_pool) (llm_d_epp_flow_control_queue_size{namespace=~"$namespace",inference_pool=~"$pool"})"#,
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

const PICKER: Dashboard = Dashboard {
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
                    &[
                        (
                            "median",
                            r#"histogram_quantile(0.5, sum by (le) (rate(thalamus_picker_decision_seconds_bucket{namespace=~"$namespace",pod=~"$pod"}[$__rate_interval])))"#,
                        ),
                        (
                            "99th percentile",
                            r#"histogram_quantile(0.99, sum by (le) (rate(thalamus_picker_decision_seconds_bucket{namespace=~"$namespace",pod=~"$pod"}[$__rate_interval])))"#,
                        ),
                    ],
                ),
                panel(
                    "Size of bodies",
                    "bytes",
                    "",
                    &[(
                        "99th percentile",
                        r#"histogram_quantile(0.99, sum by (le) (rate(thalamus_picker_request_bytes_bucket{namespace=~"$namespace",pod=~"$pod"}[$__rate_interval])))"#,
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
                    "Requests at model servers, and such as wait for room.",
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

const MODEL: Dashboard = Dashboard {
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
                    "Answers that stream and such as come whole.",
                    &[(
                        "99th percentile, streaming: {{streaming}}",
                        r#"histogram_quantile(0.99, sum by (le, streaming) (rate(llm_d_epp_request_ttft_seconds_bucket{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval])))"#,
                    )],
                ),
                panel(
                    "Whole answers",
                    "s",
                    "",
                    &[
                        (
                            "median",
                            r#"histogram_quantile(0.5, sum by (le) (rate(llm_d_epp_request_duration_seconds_bucket{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval])))"#,
                        ),
                        (
                            "99th percentile",
                            r#"histogram_quantile(0.99, sum by (le) (rate(llm_d_epp_request_duration_seconds_bucket{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval])))"#,
                        ),
                    ],
                ),
                panel(
                    "A token",
                    "s",
                    "Time for each token after the first, of streamed answers that say how many they have.",
                    &[(
                        "median",
                        r#"histogram_quantile(0.5, sum by (le) (rate(llm_d_epp_request_streaming_tpot_seconds_bucket{namespace=~"$namespace",model_name=~"$model_name"}[$__rate_interval])))"#,
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

const DASHBOARDS: [&Dashboard; 3] = [&OVERVIEW, &PICKER, &MODEL];

const ALERTS: [Alert; 10] = [
    Alert {
        name: "ThalamusErrors",
        expression: "(sum by (namespace) (rate(llm_d_epp_request_error_total[5m])) or sum by (namespace) (rate(llm_d_epp_request_total[5m])) * 0) / sum by (namespace) (rate(llm_d_epp_request_total[5m]))",
        bad: "> 0.05",
        lasts: "10m",
        severity: "warning",
        summary: "More than 5 % of requests in {{ $labels.namespace }} get an error.",
        what_to_do: "The dashboard shows them by code; docs/errors.md says what each means.",
    },
    Alert {
        name: "ThalamusManyErrors",
        expression: "(sum by (namespace) (rate(llm_d_epp_request_error_total[5m])) or sum by (namespace) (rate(llm_d_epp_request_total[5m])) * 0) / sum by (namespace) (rate(llm_d_epp_request_total[5m]))",
        bad: "> 0.2",
        lasts: "5m",
        severity: "critical",
        summary: "More than 20 % of requests in {{ $labels.namespace }} get an error.",
        what_to_do: "The dashboard shows them by code; docs/errors.md says what each means.",
    },
    Alert {
        name: "ThalamusPoolWithoutEndpoints",
        expression: "max by (namespace, name) (llm_d_epp_ready_endpoints)",
        bad: "< 1",
        lasts: "5m",
        severity: "critical",
        summary: "Pool {{ $labels.name }} in {{ $labels.namespace }} has no ready endpoint.",
        what_to_do: "kubectl thalamus status says which pods there are and why they are not ready.",
    },
    Alert {
        name: "ThalamusEndpointUnhealthy",
        expression: "min by (namespace, pool, endpoint) (thalamus_picker_endpoint_healthy)",
        bad: "< 1",
        lasts: "5m",
        severity: "warning",
        summary: "Endpoint {{ $labels.endpoint }} of {{ $labels.pool }} fails, is silent, or does not get on with its work.",
        what_to_do: "kubectl thalamus top says which of them; requests go to others as long as there are any. Restart an engine that is stuck.",
    },
    Alert {
        name: "ThalamusPoolFull",
        expression: "max by (namespace, inference_pool) (llm_d_epp_flow_control_pool_saturation)",
        bad: ">= 1",
        lasts: "10m",
        severity: "warning",
        summary: "Pool {{ $labels.inference_pool }} in {{ $labels.namespace }} is full, and requests wait.",
        what_to_do: "Add model servers, or let models of a wider pool take some of it.",
    },
    Alert {
        name: "ThalamusContradicted",
        expression: "sum by (namespace, pool, of) (increase(thalamus_picker_contradictions_total[15m]))",
        bad: "> 0",
        lasts: "15m",
        severity: "warning",
        summary: "Only when a model server of {{ $labels.pool }} refuses {{ $labels.of }}, which it is believed to take.",
        what_to_do: "kubectl get inferencemodels shows in VERIFIED what contradicts what; mend the declaration or the server's flags.",
    },
    Alert {
        name: "ThalamusPickerMissing",
        expression: "absent(llm_d_epp_info)",
        bad: "> 0",
        lasts: "5m",
        severity: "critical",
        summary: "No picker is scraped.",
        what_to_do: "kubectl get pods -l app.kubernetes.io/name=thalamus-picker -A, and whether Prometheus selects the PodMonitor.",
    },
    Alert {
        name: "ThalamusTableOld",
        expression: "max by (namespace, pod) (thalamus_picker_table_age_seconds)",
        bad: "> 300",
        lasts: "1m",
        severity: "warning",
        summary: "{{ $labels.pod }} has not heard from a controller for five minutes. It decides by the last table.",
        what_to_do: "docs/operating.md: pickers without a controller.",
    },
    Alert {
        name: "ThalamusNoLeader",
        expression: "sum(thalamus_controller_leader)",
        bad: "< 1",
        lasts: "5m",
        severity: "critical",
        summary: "No controller leads: nothing that is applied takes effect.",
        what_to_do: "kubectl -n thalamus-system logs deployment/thalamus-controller; the Lease thalamus-controller says who led last.",
    },
    Alert {
        name: "ThalamusScrapesFail",
        expression: "sum by (namespace) (rate(thalamus_picker_scrapes_total{outcome=\"failed\"}[5m])) / sum by (namespace) (rate(thalamus_picker_scrapes_total[5m]))",
        bad: "> 0.5",
        lasts: "10m",
        severity: "warning",
        summary: "Only when scrapes failed: most of the model servers in {{ $labels.namespace }} show no metrics, so load is what this picker sent.",
        what_to_do: "Whether pods serve /metrics on the target port, and a NetworkPolicy lets pickers reach it.",
    },
];

/// Each file by its path from the root.
pub(crate) fn files() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for dashboard in DASHBOARDS {
        let json = serde_json::to_string_pretty(&dashboard.json())? + "\n";
        for folder in ["manifests/monitoring/dashboards", "charts/thalamus/monitoring"] {
            files.insert(PathBuf::from(format!("{folder}/{}.json", dashboard.file)), json.clone());
        }
    }
    let groups = json!({"groups": [{"name": "thalamus", "rules": ALERTS.iter().map(Alert::json).collect::<Vec<_>>()}]});
    let spec = serde_saphyr::to_string(&groups).context("writing alerts")?;
    files.insert(PathBuf::from("charts/thalamus/monitoring/alerts.yaml"), spec);
    let rule = json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "thalamus"}, "spec": groups,
    });
    let rule = serde_saphyr::to_string(&rule).context("writing alerts")?;
    let heading = "# Written by `cargo xtask codegen` from xtask/src/monitoring.rs. Do not edit.\n";
    files.insert(PathBuf::from("manifests/monitoring/alerts.yaml"), format!("{heading}{rule}"));
    Ok(files)
}

/// A third of Grafana's width.
const WIDTH: usize = 8;
const HEIGHT: usize = 8;

impl Dashboard {
    fn json(&self) -> Value {
        let mut panels = Vec::new();
        let mut top = 0;
        for (title, row) in self.rows {
            let id = panels.len() + 1;
            panels.push(json!({"id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
                "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}}));
            top += 1;
            for (number, panel) in row.iter().enumerate() {
                let place = json!({"h": HEIGHT, "w": WIDTH, "x": number % 3 * WIDTH, "y": top + number / 3 * HEIGHT});
                panels.push(panel.json(panels.len() + 1, &place));
            }
            top += row.len().div_ceil(3) * HEIGHT;
        }
        let mut variables = vec![
            json!({"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}),
            variable("namespace", "thalamus_picker_table_revision", ""),
        ];
        variables.extend(self.by.iter().map(|(label, of)| variable(label, of, r#"{namespace=~"$namespace"}"#)));
        json!({
            "uid": self.file, "title": self.title, "tags": ["thalamus"], "schemaVersion": 39, "editable": true, "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"}, "templating": {"list": variables}, "panels": panels,
            "links": [{"title": "Thalamus", "type": "dashboards", "tags": ["thalamus"], "asDropdown": true, "includeVars": true, "keepTime": true}],
        })
    }
}

/// A label of this metric to narrow by. Pools are in a label that llm-d calls `name`.
fn variable(label: &str, of: &str, narrowed: &str) -> Value {
    let of_label = if label == "pool" { "name" } else { label };
    json!({
        "name": label, "label": label.replace('_', " "), "type": "query", "multi": true, "includeAll": true, "allValue": ".*",
        "current": {"text": "All", "value": "$__all"}, "refresh": 2, "sort": 1, "datasource": source(),
        "query": {"query": format!("label_values({of}{narrowed}, {of_label})"), "refId": "values"},
    })
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Panel {
    fn json(&self, id: usize, place: &Value) -> Value {
        let letters = 'A'..='Z';
        let targets: Vec<Value> = self
            .lines
            .iter()
            .zip(letters)
            .map(|((legend, expression), letter)| {
                json!({"refId": letter, "expr": expression, "legendFormat": legend, "datasource": source(), "range": true})
            })
            .collect();
        json!({
            "id": id, "type": "timeseries", "title": self.title, "description": self.description, "gridPos": place,
            "datasource": source(), "targets": targets,
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0, "custom": {"fillOpacity": 8, "showPoints": "never"}}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        })
    }
}

impl Alert {
    fn json(&self) -> Value {
        json!({
            "alert": self.name, "expr": format!("{} {}", self.expression, self.bad), "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary.trim_start_matches("Only when "), "description": self.what_to_do},
        })
    }
}
