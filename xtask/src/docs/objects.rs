//! Every field of our objects, and every annotation, as a page.

use std::fmt::Write as _;

use serde_json::Value;

pub(crate) fn page() -> String {
    let mut page = String::from(
        "# Objects\n\n\
         <!-- Written by `cargo xtask codegen` from crates/api. Do not edit. -->\n\n\
         `kubectl explain inferencemodels.spec` says the same. InferencePool is the Gateway API Inference Extension's own.\n",
    );
    for crd in api::crds().iter().filter(|crd| crd.spec.group == "thalamus.dev") {
        let manifest = api::manifest(crd);
        let version = &manifest["spec"]["versions"][0];
        _ = write!(
            page,
            "\n## {}\n\n{}/{}\n\n| field | type | default | meaning |\n|---|---|---|---|\n",
            crd.spec.names.kind,
            crd.spec.group,
            version["name"].as_str().unwrap_or_default(),
        );
        let schema = &version["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            fields(&mut page, part, &schema[part]);
        }
    }
    page += "\n## Annotations and labels\n\n| name | meaning |\n|---|---|\n";
    annotations(&mut page);
    page
}

fn fields(page: &mut String, path: &str, schema: &Value) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let (mut kind, mut inner) = (field["type"].as_str().unwrap_or("any").to_owned(), field);
        let mut at = format!("{path}.{name}");
        if kind == "array" {
            inner = &field["items"];
            kind = format!("list of {}", inner["type"].as_str().unwrap_or("any"));
            at += "[]";
        } else if field["additionalProperties"].is_object() {
            inner = &field["additionalProperties"];
            kind = String::from("map");
            at += ".*";
        }
        let values: Vec<&str> = inner["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !values.is_empty() {
            kind = format!("{}{}", if kind.starts_with("list") { "list of " } else { "" }, values.join(", "));
        }
        let default = match (&field["default"], required.contains(&name.as_str())) {
            (Value::Null, true) => "required".to_owned(),
            (Value::Null, false) => String::new(),
            (value, _) => format!("`{value}`"),
        };
        let meaning = field["description"].as_str().unwrap_or_default();
        let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        _ = writeln!(page, "| `{path}.{name}` | {kind} | {default} | {meaning} |");
        if inner["properties"].is_object() {
            fields(page, &at, inner);
        }
    }
}

/// What stands before each constant in its file is what it means.
fn annotations(page: &mut String) {
    let mut meaning: Vec<&str> = Vec::new();
    for line in include_str!("../../../crates/api/src/annotations.rs").lines() {
        if let Some(said) = line.strip_prefix("/// ") {
            meaning.push(said);
        } else {
            let name = line.strip_prefix("pub const ").and_then(|rest| rest.split('"').nth(1));
            if let Some(name) = name.filter(|name| name.contains('/')) {
                _ = writeln!(page, "| `{name}` | {} |", meaning.join(" ").replace('|', "\\|"));
            }
            meaning.clear();
        }
    }
}
