//! The CRDs as files: what the derives leave out or say in a way that API servers do not, mended in one place.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::{InferenceModel, InferencePool, PickerTemplate};

/// Every CRD, as the objects to apply.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![InferencePool::crd(), InferenceModel::crd(), PickerTemplate::crd()]
}

/// A CRD as the JSON to write to a file: with the envelope's properties, without `nullable` (an absent field is absent, and null is
/// no value for it), and without a status.
pub fn manifest(crd: &CustomResourceDefinition) -> Value {
    let mut crd = json!(crd);
    if let Some(crd) = crd.as_object_mut() {
        crd.remove("status");
    }
    // Of ours: which release it is of. InferencePool's own is its owner's.
    if crd["spec"]["group"] == "thalamus.dev" {
        crd["metadata"]["annotations"] = json!({"thalamus.dev/version": env!("CARGO_PKG_VERSION")});
    }
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        mend(schema);
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.insert("apiVersion".into(), json!({"type": "string"}));
            properties.insert("kind".into(), json!({"type": "string"}));
            properties.insert("metadata".into(), json!({"type": "object"}));
        }
    }
    crd
}

fn mend(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            // `nullable` as a schema's keyword; a property of that name would hold an object.
            if map.get("nullable").is_some_and(Value::is_boolean) {
                map.remove("nullable");
            }
            // A doc comment's lines are a source file's width; kubectl breaks lines itself.
            if let Some(Value::String(description)) = map.get_mut("description") {
                *description = description
                    .split("\n\n")
                    .map(|paragraph| paragraph.replace('\n', " "))
                    .collect::<Vec<_>>()
                    .join("\n\n");
            }
            integral(map, "minimum");
            integral(map, "maximum");
            map.values_mut().for_each(mend);
        }
        Value::Array(items) => items.iter_mut().for_each(mend),
        _ => {}
    }
}

/// `1.0` as `1`: the bounds are float in the types and whole in meaning.
#[expect(clippy::cast_possible_truncation, reason = "bounds in these schemas are whole and small")]
fn integral(map: &mut Map<String, Value>, key: &str) {
    if let Some(number) = map.get(key).and_then(Value::as_f64).filter(|number| number.fract() == 0.0) {
        map.insert(key.into(), json!(number as i64));
    }
}

/// Conditions as upstream's generated CRDs have them: a map by type, at most 8, with the limits of `metav1.Condition`.
pub(crate) fn conditions_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When the status last changed."},
                "message": {"type": "string", "maxLength": 32768, "description": "A human-readable message; may be empty."},
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The metadata.generation that the condition was set for.",
                },
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "The reason, in one CamelCase word.",
                },
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether the condition holds."},
                "type": {
                    "type": "string", "maxLength": 316,
                    "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                    "description": "The type of the condition.",
                },
            },
        },
    })
}

/// What may go in: everything but an embedding.
pub(crate) fn input_modalities_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    modalities_schema(crate::Modality::ALL.iter().filter(|modality| **modality != crate::Modality::Embedding))
}

/// What may come out.
pub(crate) fn output_modalities_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    modalities_schema(&crate::Modality::ALL)
}

fn modalities_schema<'m>(modalities: impl IntoIterator<Item = &'m crate::Modality>) -> schemars::Schema {
    let modalities: Vec<_> = modalities.into_iter().collect();
    schemars::json_schema!({
        "type": "array",
        "maxItems": modalities.len(),
        "x-kubernetes-list-type": "set",
        "items": {"type": "string", "enum": modalities},
    })
}
