//! The objects users apply, as `kubectl explain` shows them: every doc comment on a field here is what a person reads there.
//!
//! ```text
//!  InferencePool   inference.networking.k8s.io/v1   upstream's, to the letter: which pods, which ports, which picker
//!  InferenceModel  thalamus.dev/v1alpha1            ours: a name clients ask for, and what takes which modality behind it
//!  PickerTemplate  thalamus.dev/v1alpha1            ours: how the controller runs the pickers of managed pools
//! ```
//!
//! Invariants: nothing here can talk to a cluster, and nothing of ours goes into InferencePool's spec. The CRD files in `crds/` are
//! written from these types by `cargo xtask codegen`.

pub mod annotations;
mod crds;
pub mod llm_d;
mod model;
mod picker;
mod pool;

pub use crds::{crds, manifest};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
pub use model::{
    Criticality, InferenceModel, InferenceModelSpec, InferenceModelStatus, MaxItems, MediaPolicy, MediaRule,
    MediaSource, Modalities, Modality, ModelSummary, Operation, PoolRef, TargetLimits, TargetModel, UnsafeFeature,
    UrlScheme,
};
pub use picker::{PickerAutoscaling, PickerTemplate, PickerTemplateSpec};
pub use pool::{
    AppProtocol, EndpointPickerRef, FailureMode, InferencePool, InferencePoolSpec, InferencePoolStatus,
    ParentReference, ParentStatus, PoolSelector, Port, PortNumber,
};

/// The name under which our controller writes status.
pub const CONTROLLER_NAME: &str = "thalamus.dev/controller";
