//! Dashboards and alerts, each a table here and a file in `manifests/monitoring` and in the chart.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use director::Code;
use serde_json::{Value, json};

mod alerts;
mod dashboards;

use alerts::ALERTS;
use dashboards::{MODEL, OVERVIEW, PICKER};

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

const DASHBOARDS: [&Dashboard; 3] = [&OVERVIEW, &PICKER, &MODEL];

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
            "alert": self.name, "expr": format!("{} {}", self.expression.replace("$FAULTS", &faults()), self.bad), "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {"summary": sentence(self.summary), "description": self.what_to_do},
        })
    }
}

/// Codes that are no client's fault: ours, and a model server's.
fn faults() -> String {
    let ours = Code::ALL.iter().filter(|code| code.status().is_server_error()).map(|code| code.as_str());
    ours.chain(["model_server_5xx"]).collect::<Vec<_>>().join("|")
}

/// What is said once it has happened.
fn sentence(summary: &str) -> String {
    let rest = summary.trim_start_matches("Only when ");
    let (first, rest) = rest.split_at(1);
    first.to_uppercase() + rest
}
