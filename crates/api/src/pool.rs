//! InferencePool, as `inference.networking.k8s.io/v1` defines it in release 1.6: every field, limit, default, pattern and rule.
//!
//! Users' clusters may hold upstream's CRD instead of ours; both describe the same objects. Ours adds printer columns.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat their keys, as they must")]

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::crds::conditions_schema;

/// A group of model servers that serve the same models, and the endpoint picker that chooses among them.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "inference.networking.k8s.io",
    version = "v1",
    kind = "InferencePool",
    plural = "inferencepools",
    shortname = "infpool",
    namespaced,
    status = "InferencePoolStatus",
    derive = "PartialEq",
    doc = "A group of model servers that serve the same models, and the endpoint picker that chooses among them.",
    annotation(
        "api-approved.kubernetes.io",
        "https://github.com/kubernetes-sigs/gateway-api-inference-extension/pull/1173"
    ),
    annotation("inference.networking.k8s.io/bundle-version", "v1.6.0"),
    printcolumn(name = "Picker", type_ = "string", json_path = ".spec.endpointPickerRef.name"),
    printcolumn(
        name = "Resolved",
        type_ = "string",
        priority = 1,
        json_path = r#".status.parents[?(@.controllerName=="thalamus.dev/controller")].conditions[?(@.type=="ResolvedRefs")].status"#
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.parents[?(@.controllerName=="thalamus.dev/controller")].conditions[?(@.type=="Programmed")].status"#
    ),
    printcolumn(
        name = "Endpoints",
        type_ = "string",
        json_path = r#".status.parents[?(@.controllerName=="thalamus.dev/controller")].conditions[?(@.type=="EndpointsReady")].message"#
    ),
    printcolumn(
        name = "Gateways",
        type_ = "string",
        priority = 1,
        json_path = r#".status.parents[?(@.parentRef.kind=="Gateway")].parentRef.name"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolSpec {
    /// Which pods of this namespace are model servers of the pool.
    pub selector: PoolSelector,

    /// The ports on which each pod serves. Every pod and port is an endpoint of its own, so a pod that runs one server per
    /// data-parallel rank lists one port per rank.
    #[schemars(extend(
        "minItems" = 1,
        "maxItems" = 8,
        "x-kubernetes-list-type" = "atomic",
        "x-kubernetes-validations" = [{
            "message": "port number must be unique",
            "rule": "self.all(p1, self.exists_one(p2, p1.number==p2.number))",
        }]
    ))]
    pub target_ports: Vec<Port>,

    /// The protocol of the model servers on every target port: `http` for HTTP/1.1 in plain text, `kubernetes.io/h2c` for HTTP/2 with
    /// prior knowledge in plain text.
    #[serde(default)]
    pub app_protocol: AppProtocol,

    /// The endpoint picker that a gateway asks which pod gets a request. Without it a gateway balances on its own, or rejects the
    /// pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_picker_ref: Option<EndpointPickerRef>,
}

/// Selects pods by their labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolSelector {
    /// Labels a pod must have, all of them.
    #[schemars(schema_with = "match_labels_schema")]
    pub match_labels: BTreeMap<String, String>,
}

/// A port of a pod or of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    /// The number, 1 to 65535.
    pub number: PortNumber,
}

/// A port number. Its schema is int32, since API servers know no uint16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortNumber(pub u16);

/// The protocol of model servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum AppProtocol {
    #[default]
    #[serde(rename = "http")]
    Http,
    #[serde(rename = "kubernetes.io/h2c")]
    H2c,
}

/// The endpoint picker of a pool, in the pool's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "message": "port is required when kind is 'Service' or unspecified (defaults to 'Service')",
    "rule": "self.kind != 'Service' || has(self.port)",
}]))]
pub struct EndpointPickerRef {
    /// The API group of the picker's kind; empty for the core group.
    #[serde(default)]
    #[schemars(
        length(min = 0, max = 253),
        regex(pattern = "^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub group: String,

    /// The kind, usually a Service. An ExternalName Service is not supported.
    #[serde(default = "service")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
    pub kind: String,

    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The port of the Service, not of its pods. Required for a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,

    /// What a gateway does when the picker cannot be reached: `FailClose` drops the request, `FailOpen` sends it to a pod of the
    /// gateway's own choice. A pool whose pods differ needs `FailClose`: only the picker knows which of them accept images.
    #[serde(default)]
    pub failure_mode: FailureMode,
}

/// What happens when the picker cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum FailureMode {
    FailOpen,
    #[default]
    FailClose,
}

/// Which gateways and controllers use the pool, and its state with each.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolStatus {
    /// One entry for each gateway or controller that the pool is attached to, each written by its owner alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic"))]
    pub parents: Vec<ParentStatus>,
}

/// The state of the pool with one parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The parent: a Gateway, or, in Thalamus' entry, the picker's Service.
    pub parent_ref: ParentReference,

    /// The controller that writes this entry, as DOMAIN/PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(
            pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\\/[A-Za-z0-9\\/\\-._~%!$&'()*+,;=:]+$"
        )
    )]
    pub controller_name: Option<String>,

    /// The conditions of the pool as seen by the parent: Accepted, ResolvedRefs and others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// A parent of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParentReference {
    /// The API group of the parent's kind.
    #[serde(default = "gateway_group")]
    #[schemars(
        length(min = 0, max = 253),
        regex(pattern = "^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub group: String,

    /// The kind.
    #[serde(default = "gateway")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
    pub kind: String,

    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The namespace; the pool's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

fn service() -> String {
    "Service".into()
}

fn gateway() -> String {
    "Gateway".into()
}

fn gateway_group() -> String {
    "gateway.networking.k8s.io".into()
}

fn match_labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 64,
        "additionalProperties": {
            "type": "string",
            "minLength": 0,
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        },
    })
}

impl JsonSchema for PortNumber {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PortNumber".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535})
    }
}

impl ParentStatus {
    /// Whether this entry is ours to write.
    pub fn is_ours(&self) -> bool {
        self.controller_name.as_deref() == Some(crate::CONTROLLER_NAME)
    }
}
