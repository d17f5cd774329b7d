//! PickerTemplate: how the controller runs the pickers of managed pools.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat their keys, as they must")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, LocalObjectReference, ResourceRequirements, Toleration};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the pickers of managed pools are run. A pool names a template with the annotation thalamus.dev/picker-template; otherwise the one called
/// default in its namespace is used, and if there is none the controller's defaults.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "thalamus.dev",
    version = "v1alpha1",
    kind = "PickerTemplate",
    plural = "pickertemplates",
    namespaced,
    derive = "PartialEq",
    doc = "How the pickers of managed pools are run. A pool names a template with the annotation thalamus.dev/picker-template; otherwise the one called default in its namespace is used, and if there is none the controller's defaults.",
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.autoscaling.maxReplicas"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PickerTemplateSpec {
    /// How many pickers each pool has. Defaults to 2. Ignored if autoscaling is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<i32>,

    /// Lets a HorizontalPodAutoscaler choose the number of pickers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<PickerAutoscaling>,

    /// The image. Defaults to the controller's choice, which changes when the controller is upgraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,

    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// CPU and memory. Defaults to requests of 500m and 256Mi, and a memory limit of 2Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Also serve plain HTTP, for clients without a gateway, on port 8080 of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<bool>,

    /// A Secret of type kubernetes.io/tls with the certificate to present to gateways. Self-signed by default; gateways do not
    /// verify it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,

    /// A ConfigMap whose key policy.yaml says which requests are scheduled otherwise than where they cost least: a SchedulingPolicy, or an
    /// EndpointPickerConfig of llm-d's router. A change of it is taken up within a minute or two, and one that cannot be read then changes nothing; pickers
    /// do not start without it, nor with one that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub policy_config_map_name: Option<String>,

    /// Largest accepted request body, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 4_294_967_296_i64))]
    pub max_body_bytes: Option<i64>,

    /// Most bytes of request bodies that a picker holds at once. Should stay well below its memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576, max = 1_099_511_627_776_i64))]
    pub max_buffered_bytes: Option<i64>,

    /// Most requests that wait in a picker while every endpoint that could serve them is full; one more gets 429. Defaults to 4096. 0 sends them to full
    /// endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_waiting: Option<i32>,

    /// How long a request waits so at most before it gets 429, in seconds. Defaults to 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_wait_seconds: Option<i32>,

    /// Name fallback endpoints to gateways. Envoy tries them in order; agentgateway rejects every such answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallbacks: Option<bool>,

    /// Send requests with an unknown path to the pool as they are: unread, with no media policy, except for paths by which model servers
    /// are managed. By default they get 404.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_paths: Option<bool>,

    /// Which unknown paths go to the pool so, and no others: a path each, such as /healthz, or with * at its end how paths begin, such as
    /// /v1/mine/*.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(regex(pattern = r"^/\S{0,255}$")))]
    pub other_path_list: Vec<String>,

    /// How long requests in flight may take to finish when a picker is replaced, in seconds. Defaults to 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: Option<i32>,

    /// Variables of OpenTelemetry's, whose names begin with OTEL_: where pickers send spans of requests, and of how many. OTEL_EXPORTER_OTLP_ENDPOINT
    /// names a collector; without one no spans are sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"], "x-kubernetes-validations" = [{
        "message": "only variables whose names begin with OTEL_ can be set",
        "rule": "self.all(variable, variable.name.startsWith('OTEL_'))",
    }]))]
    pub env: Vec<EnvVar>,

    /// Labels that a node must have to run pickers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that pickers tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,

    /// The priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Additional labels for the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,

    /// Additional annotations for the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,
}

/// How the number of pickers follows their load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "message": "minReplicas must not be above maxReplicas",
    "rule": "!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
}]))]
pub struct PickerAutoscaling {
    /// The least number of pickers. Defaults to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: Option<i32>,

    /// The greatest number of pickers.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,

    /// How many requests in flight a picker should have on average: the metric thalamus_picker_requests_in_flight, which an adapter such
    /// as prometheus-adapter must serve as a custom metric of pods. Without it, pickers are scaled by CPU, at 70 % of their request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_in_flight: Option<i32>,
}
