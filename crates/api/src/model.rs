//! InferenceModel: a name that clients ask for, and the targets behind it by what they take and give.
//!
//! Fields that upstream's retired InferenceModel had keep its names and meaning.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat their keys, as they must")]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::crds::{conditions_schema, input_modalities_schema, output_modalities_schema};

/// A model as clients know it, and which model servers serve which of its requests.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "thalamus.dev",
    version = "v1alpha1",
    kind = "InferenceModel",
    plural = "inferencemodels",
    shortname = "infmodel",
    namespaced,
    status = "InferenceModelStatus",
    derive = "PartialEq",
    doc = "A model as clients know it, and which model servers serve which of its requests.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelName"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".status.summary.pools", priority = 1),
    printcolumn(name = "Input", type_ = "string", json_path = ".status.summary.input"),
    printcolumn(name = "Output", type_ = "string", json_path = ".status.summary.output"),
    printcolumn(name = "Criticality", type_ = "string", json_path = ".spec.criticality", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.summary.ready"),
    printcolumn(
        name = "Verified",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Verified")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "message": "weight must be set on every target model or on none",
        "rule": "!has(self.targetModels) || self.targetModels.all(t, has(t.weight)) || self.targetModels.all(t, !has(t.weight))",
        "fieldPath": ".targetModels",
    },
    {
        "message": "poolRef is required unless every target model names a pool of its own",
        "rule": "has(self.poolRef) || (has(self.targetModels) && size(self.targetModels) > 0 && self.targetModels.all(t, has(t.poolRef)))",
    },
]))]
pub struct InferenceModelSpec {
    /// What clients send as `model`. Unique in the namespace: of several objects with the same name the oldest serves, the others say so in
    /// their status. Immutable.
    #[schemars(
        length(min = 1, max = 256),
        extend("x-kubernetes-validations" = [{"message": "modelName cannot be changed; create another InferenceModel", "rule": "self == oldSelf"}])
    )]
    pub model_name: String,

    /// How important requests are when capacity is short. Sheddable ones get 429 when every endpoint that could
    /// serve them is saturated.
    #[serde(default)]
    pub criticality: Criticality,

    /// The pool of target models that do not name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<PoolRef>,

    /// The modalities of target models that do not declare their own. Defaults to text in, text out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modalities: Option<Modalities>,

    /// The operations of target models that do not declare their own. Defaults to every operation that no target of the model
    /// declares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "set"))]
    pub operations: Vec<Operation>,

    /// The models behind the name. A request goes to the target that accepts all it carries with the fewest modalities to spare; equals
    /// share by weight; looser ones step in when tighter ones have no healthy endpoint, are full, or would take clearly longer. Without any,
    /// modelName itself is requested from poolRef.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic"))]
    pub target_models: Vec<TargetModel>,

    /// What a request may carry. Modalities that are not listed are not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaPolicy>,

    /// How long a model server may take to send the first byte of its answer, in seconds, for requests over the picker's HTTP port; then the
    /// request gets 504. Defaults to the picker's --first-byte-timeout, which has no limit by default, since a long
    /// prefill is not a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub first_byte_timeout_seconds: Option<u32>,
}

/// A model that the servers of a pool serve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetModel {
    /// The name by which the model server knows it; `model` in the body is rewritten to it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The pool that serves it. Defaults to the model's poolRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<PoolRef>,

    /// Its input and output modalities. Defaults to the model's modalities, and without those to text in, text out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modalities: Option<Modalities>,

    /// The operations that it serves, such as Transcriptions and Translations for a Whisper server, which has no chat. Defaults to the model's
    /// operations, and without those to every operation that no target of the model declares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "set"))]
    pub operations: Vec<Operation>,

    /// The model family that it belongs to, used to estimate the tokens of media: Qwen2.5-VL, InternVL, Whisper and so on.
    /// Guessed from the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub family: Option<String>,

    /// How much one request may bring. Of two targets that accept what a request carries, one that accepts so much of it comes first; what is more
    /// than any target accepts is refused. The controller finds the limits of model servers out where they say them; what is set here narrows those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<TargetLimits>,

    /// Share of the requests among targets that fit equally well, relative to their weights. On every target or on none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: Option<i32>,
}

/// How much one request may bring to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetLimits {
    /// The context length, in tokens: of a prompt and its answer together. Prompts are estimated, so near the limit the model server decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub context_length: Option<u32>,

    /// How many items of a modality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<MaxItems>,
}

/// How many items of each modality a request may carry. Modalities that are not listed are not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MaxItems {
    /// Pictures.
    #[serde(rename = "Image", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4096))]
    pub image: Option<u32>,

    /// Clips or recordings.
    #[serde(rename = "Audio", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4096))]
    pub audio: Option<u32>,

    /// Videos.
    #[serde(rename = "Video", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4096))]
    pub video: Option<u32>,
}

/// Names an InferencePool of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolRef {
    /// The pool's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Input and output modalities.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Modalities {
    /// What a request may carry. Defaults to text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "input_modalities_schema")]
    pub input: Vec<Modality>,

    /// What an answer may consist of. Defaults to text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "output_modalities_schema")]
    pub output: Vec<Modality>,
}

/// A kind of content. Embedding is an output only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Modality {
    Text,
    Image,
    Audio,
    Video,
    Embedding,
}

/// What a request asks a model server to do, as its path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Operation {
    ChatCompletions,
    Completions,
    Responses,
    Messages,
    Embeddings,
    Pooling,
    Classify,
    Score,
    Rerank,
    Transcriptions,
    Translations,
    Speech,
    ImageGenerations,
    ImageEdits,
    Videos,
    Realtime,
    Tokenize,
    Generate,
}

/// A feature that can harm a model server when used by untrusted clients. Refused unless allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum UnsafeFeature {
    Embeds,
    #[serde(rename = "FileURLs")]
    FileUrls,
    ProcessorArguments,
    FrameLists,
    PlaceholderTokens,
    EngineInternals,
    UnlistedFields,
    #[serde(rename = "SharedUUIDs")]
    SharedUuids,
}

/// How important a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Criticality {
    Critical,
    #[default]
    Standard,
    Sheddable,
}

/// Limits per modality, and unsafe features to allow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MediaPolicy {
    /// Limits on pictures.
    #[serde(rename = "Image", default, skip_serializing_if = "Option::is_none")]
    pub image: Option<MediaRule>,

    /// Limits on audio.
    #[serde(rename = "Audio", default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<MediaRule>,

    /// Limits on videos.
    #[serde(rename = "Video", default, skip_serializing_if = "Option::is_none")]
    pub video: Option<MediaRule>,

    /// Features to allow although they can crash, stall or compromise a model server: tensors in place of media (Embeds), file: URLs
    /// (FileURLs), mm_processor_kwargs and media_io_kwargs in a request (ProcessorArguments), videos as lists of frames (FrameLists),
    /// a model's own placeholder tokens in text (PlaceholderTokens), fields internal to its engine (EngineInternals), and fields
    /// of engines' own interfaces that the picker does not know (UnlistedFields). None by default.
    /// With SharedUUIDs, the names that clients give to media (uuid) are shared between clients; otherwise they are private to each client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 8, "x-kubernetes-list-type" = "set"))]
    pub allow: Vec<UnsafeFeature>,

    /// Gives inline media that carry no `uuid` one derived from their content, where the model server was found to be vLLM 0.32 or later, so that it need not
    /// hash them, and every server knows an item by the same name. Costs what changing a body costs. Off by default.
    #[serde(rename = "writeUUIDs", default, skip_serializing_if = "std::ops::Not::not")]
    pub write_uuids: bool,
}

/// Limits on the items of one modality in one request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaRule {
    /// How many items a request may carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4096))]
    pub max_items: Option<i32>,

    /// How large an item may be, decoded: bytes, or a quantity such as `20Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = "^[0-9]{1,15}(k|M|G|Ki|Mi|Gi)?$"))]
    pub max_item_bytes: Option<String>,

    /// Maximum width times height of an inline item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub max_pixels: Option<i64>,

    /// Minimum length of the shorter side of an inline item, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub min_side: Option<i32>,

    /// How long an inline item may last, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_seconds: Option<i32>,

    /// Formats of inline items, detected from their content: PNG, JPEG, GIF, WebP, AVIF, HEIF, BMP, TIFF, PDF, WAV, MP3, FLAC, OGG, M4A, MP4,
    /// QuickTime, WebM, Matroska. Any by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 18, "x-kubernetes-list-type" = "set"), inner(length(min = 1, max = 32)))]
    pub formats: Vec<String>,

    /// Where items may come from: `Inline` in the request, or a `URL` that the model server fetches. Both by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 2, "x-kubernetes-list-type" = "set"))]
    pub sources: Vec<MediaSource>,

    /// Hosts that URLs may name; `*.example.com` for every host below example.com. Any by default, except private ones: localhost,
    /// names without a dot, names of the cluster and of metadata services, and addresses that are not public must be listed here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 74, "x-kubernetes-list-type" = "set"), inner(length(min = 1, max = 253), regex(pattern = "^(\\*\\.)?[A-Za-z0-9]([-A-Za-z0-9.:]*[A-Za-z0-9])?$")))]
    pub allowed_hosts: Vec<String>,

    /// Hosts whose objects never change under one name, such as `*.s3.eu-west-1.amazonaws.com`: URLs that are signed anew for each request (S3, Google
    /// Cloud Storage, Azure, CloudFront) count as one item, so that a request goes where the item is cached. None by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 74, "x-kubernetes-list-type" = "set"), inner(length(min = 1, max = 253), regex(pattern = "^(\\*\\.)?[A-Za-z0-9]([-A-Za-z0-9.:]*[A-Za-z0-9])?$")))]
    pub immutable_hosts: Vec<String>,

    /// Schemes that URLs may have. Both by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 2, "x-kubernetes-list-type" = "set"))]
    pub schemes: Vec<UrlScheme>,
}

/// How a URL is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UrlScheme {
    #[serde(rename = "http")]
    Http,
    #[serde(rename = "https")]
    Https,
}

/// Where a media item comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MediaSource {
    Inline,
    #[serde(rename = "URL")]
    Url,
}

/// What is currently served of the model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferenceModelStatus {
    /// The modalities currently offered, each by at least one ready endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modalities: Option<Modalities>,

    /// The modalities that the targets declare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<Modalities>,

    /// The modalities that are declared, but currently offered by no ready endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Modalities>,

    /// The modalities that are declared, and that a model server was found to take or give when it was asked. What is declared and neither found nor
    /// lost could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Modalities>,

    /// The same in words, for kubectl's columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<ModelSummary>,

    /// Accepted (the object is in use), ResolvedRefs (every pool it names exists), Available (every declared modality is
    /// offered), Verified (no model server contradicts what is declared; absent where none was asked), Programmed (every connected picker uses it).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// The status in words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ModelSummary {
    /// The pools of the targets.
    pub pools: String,
    /// Input modalities currently offered.
    pub input: String,
    /// Output modalities currently offered.
    pub output: String,
    /// How many targets have a ready endpoint, such as `3/4`, or a word for what is wrong.
    pub ready: String,
}

// === impl Operation ===

impl Operation {
    pub const ALL: [Self; 18] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Responses,
        Self::Messages,
        Self::Embeddings,
        Self::Pooling,
        Self::Classify,
        Self::Score,
        Self::Rerank,
        Self::Transcriptions,
        Self::Translations,
        Self::Speech,
        Self::ImageGenerations,
        Self::ImageEdits,
        Self::Videos,
        Self::Realtime,
        Self::Tokenize,
        Self::Generate,
    ];

    /// Its name in objects and annotations.
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

// === impl Modality ===

impl Modality {
    pub const ALL: [Self; 5] = [Self::Text, Self::Image, Self::Audio, Self::Video, Self::Embedding];
}
