//! PickerTemplate: how the controller runs the pickers of managed pools.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat their keys, as they must")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the pickers of managed pools are run. A pool names one with the annotation thalamus.dev/picker-template; else the one called
/// default in its namespace is used, and without that the controller's defaults.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "thalamus.dev",
    version = "v1alpha1",
    kind = "PickerTemplate",
    plural = "pickertemplates",
    namespaced,
    derive = "PartialEq",
    doc = "How the pickers of managed pools are run. A pool names one with the annotation thalamus.dev/picker-template; else the one called default in its namespace is used, and without that the controller's defaults.",
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.autoscaling.maxReplicas"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PickerTemplateSpec {
    /// How many pickers each pool has. Two when absent. Not used where autoscaling is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<i32>,

    /// Lets a HorizontalPodAutoscaler choose how many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<PickerAutoscaling>,

    /// The image. The controller's own choice when absent, which is what its upgrades replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,

    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// CPU and memory. 500m and 256Mi are asked for, and 2Gi is the limit, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Also serve plain HTTP, for clients without a gateway, on port 8080 of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<bool>,

    /// A Secret of type kubernetes.io/tls whose certificate gateways see. One that is self-signed is made when absent; gateways do not
    /// verify it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,

    /// Largest request body that is taken, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 4_294_967_296_i64))]
    pub max_body_bytes: Option<i64>,

    /// Most bytes of request bodies that a picker holds at once. It should stay well below its memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576, max = 1_099_511_627_776_i64))]
    pub max_buffered_bytes: Option<i64>,

    /// Name fallbacks to gateways. Envoy walks them; agentgateway refuses every such answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallbacks: Option<bool>,

    /// Send requests whose path is not known to the pool, as they are: unread, with no media policy, but for paths by which model servers
    /// are managed. They are refused with 404 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_paths: Option<bool>,

    /// How long requests under way may take to end when a picker is replaced, in seconds. 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: Option<i32>,

    /// Labels of nodes that pickers may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that pickers do not mind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,

    /// Their priority among pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// More labels for the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,

    /// More annotations for the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,
}

/// How many pickers there are, by how much they have to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "message": "minReplicas must not be above maxReplicas",
    "rule": "!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
}]))]
pub struct PickerAutoscaling {
    /// Two when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: Option<i32>,

    /// Most that there are.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,

    /// How many requests under way a picker should have on average: the metric thalamus_picker_requests_in_flight, which an adapter such
    /// as prometheus-adapter must serve as a custom metric of pods. Without it, CPU is what counts, at 70 % of what is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_in_flight: Option<i32>,
}
