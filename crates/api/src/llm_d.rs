//! llm-d's objects that say something of a pool's requests: `llm-d.ai/v1alpha2`, and before that `inference.networking.x-k8s.io/v1alpha2`
//! with the same content. They are read where their CRDs are installed; none of them is ours to install or to write to.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// The groups that serve them, the one that counts first.
pub const GROUPS: [&str; 2] = ["llm-d.ai", "inference.networking.x-k8s.io"];
pub const VERSION: &str = "v1alpha2";

/// A priority that requests of a pool name in a header.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[kube(group = "llm-d.ai", version = "v1alpha2", kind = "InferenceObjective", namespaced, schema = "disabled")]
#[serde(rename_all = "camelCase")]
pub struct InferenceObjectiveSpec {
    pub pool_ref: ObjectivePoolRef,
    /// 0 when absent; below that requests may be shed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
}

/// Other names for what is asked for.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[kube(group = "llm-d.ai", version = "v1alpha2", kind = "InferenceModelRewrite", namespaced, schema = "disabled")]
#[serde(rename_all = "camelCase")]
pub struct InferenceModelRewriteSpec {
    pub pool_ref: ObjectivePoolRef,
    #[serde(default)]
    pub rules: Vec<RewriteRule>,
}

/// A pool of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectivePoolRef {
    #[serde(default)]
    pub group: Option<String>,
    pub name: String,
}

/// What becomes of the requests that it matches: one of the targets, by weight.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RewriteRule {
    /// None: every request.
    #[serde(default)]
    pub matches: Vec<RewriteMatch>,
    #[serde(default)]
    pub targets: Vec<RewriteTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RewriteMatch {
    #[serde(default)]
    pub model: Option<RewriteModel>,
}

/// The model as it is asked for, to the letter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RewriteModel {
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RewriteTarget {
    #[serde(default)]
    pub model_rewrite: String,
    #[serde(default)]
    pub weight: Option<i32>,
}
