//! InferenceModel: a name that clients ask for, and the targets behind it by what they take and give.
//!
//! Fields that upstream's retired InferenceModel had keep its names and meaning.

#![expect(clippy::duplicated_attributes, reason = "printer columns repeat their keys, as they must")]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::crds::{conditions_schema, input_modalities_schema, output_modalities_schema};

/// A model as clients know it, and which model servers take which of its requests.
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
    doc = "A model as clients know it, and which model servers take which of its requests.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelName"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".status.summary.pools", priority = 1),
    printcolumn(name = "Input", type_ = "string", json_path = ".status.summary.input"),
    printcolumn(name = "Output", type_ = "string", json_path = ".status.summary.output"),
    printcolumn(name = "Criticality", type_ = "string", json_path = ".spec.criticality", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.summary.ready"),
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
    /// What clients send as `model`. Unique in the namespace: of several objects with one name the oldest serves, the others say so in
    /// their status. It cannot be changed.
    #[schemars(
        length(min = 1, max = 256),
        extend("x-kubernetes-validations" = [{"message": "modelName cannot be changed; create another InferenceModel", "rule": "self == oldSelf"}])
    )]
    pub model_name: String,

    /// How much requests matter when there is not enough for all. Sheddable ones are refused with 429 when every endpoint that could
    /// take them is saturated.
    #[serde(default)]
    pub criticality: Criticality,

    /// The pool of the target models that name none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<PoolRef>,

    /// What the target models take and give that do not say it themselves. Text to text when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modalities: Option<Modalities>,

    /// The operations that the target models serve which do not say it themselves. When absent, every one that no target of the model
    /// names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "set"))]
    pub operations: Vec<Operation>,

    /// The models behind the name. A request goes to the target that takes all it carries with the fewest modalities to spare; equals
    /// share by weight; looser ones step in when tighter ones have no endpoint or are full. Without any, modelName itself is asked for
    /// in poolRef.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic"))]
    pub target_models: Vec<TargetModel>,

    /// What a request may carry. A modality that is not named is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaPolicy>,

    /// How long a model server may take to the first byte of its answer, in seconds, where clients come by the picker's HTTP port; the
    /// request is then answered with 504. As the picker's --first-byte-timeout says when absent, which is no limit by default: a long
    /// prompt is no fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub first_byte_timeout_seconds: Option<u32>,
}

/// A model that the servers of a pool know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetModel {
    /// What the model server is asked for; `model` in the body is rewritten to it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The pool that serves it, when it is not the one above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<PoolRef>,

    /// What it takes and gives. The model's modalities when absent, text to text when those are absent too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modalities: Option<Modalities>,

    /// The operations that it serves, such as Transcriptions and Translations for a Whisper server, which has no chat. The model's
    /// operations when absent; when those are absent too, every one that no target of the model names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "set"))]
    pub operations: Vec<Operation>,

    /// The family of models that it belongs to, by which the tokens of media are estimated: Qwen2.5-VL, InternVL, Whisper and so on.
    /// Guessed from the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub family: Option<String>,

    /// Share of the requests among targets that fit equally well, relative to their weights. On every target or on none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: Option<i32>,
}

/// Names an InferencePool of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolRef {
    /// The pool's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What goes in and what comes out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Modalities {
    /// What a request may carry. Text when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "input_modalities_schema")]
    pub input: Vec<Modality>,

    /// What an answer may be made of. Text when absent.
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

/// What a request asks for, by its path.
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

/// Something that can harm a model server when a stranger uses it, and that is refused unless it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum UnsafeFeature {
    Embeds,
    #[serde(rename = "FileURLs")]
    FileUrls,
    ProcessorArguments,
    FrameLists,
    PlaceholderTokens,
    EngineInternals,
    #[serde(rename = "SharedUUIDs")]
    SharedUuids,
}

/// How much a request matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Criticality {
    Critical,
    #[default]
    Standard,
    Sheddable,
}

/// Limits by modality, and what is let through although it can do harm.
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

    /// What is let through although it can crash, stall or open a model server: tensors in the place of media (Embeds), file: URLs
    /// (FileURLs), mm_processor_kwargs and media_io_kwargs in a request (ProcessorArguments), videos as lists of pictures (FrameLists),
    /// a model's own placeholders typed as text (PlaceholderTokens), and inner forms of its engine (EngineInternals). None when absent.
    /// With SharedUUIDs the names that clients give to media (uuid) mean the same for all of them; else each client's are its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 7, "x-kubernetes-list-type" = "set"))]
    pub allow: Vec<UnsafeFeature>,
}

/// Limits on the items of one modality in one request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaRule {
    /// How many items a request may carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4096))]
    pub max_items: Option<i32>,

    /// How large an item may be as it is encoded in the request: bytes, or a quantity such as `20Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = "^[0-9]{1,15}(k|M|G|Ki|Mi|Gi)?$"))]
    pub max_item_bytes: Option<String>,

    /// Width times height of an inline item, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub max_pixels: Option<i64>,

    /// The shorter side of an inline item, in pixels, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub min_side: Option<i32>,

    /// How long an inline item may last, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_seconds: Option<i32>,

    /// Formats of inline items, told by their content: PNG, JPEG, GIF, WebP, AVIF, HEIF, BMP, TIFF, PDF, WAV, MP3, FLAC, OGG, M4A, MP4,
    /// QuickTime, WebM, Matroska. Any when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 18, "x-kubernetes-list-type" = "set"), inner(length(min = 1, max = 32)))]
    pub formats: Vec<String>,

    /// Where items may come from: `Inline` in the request, or a `URL` that the model server fetches. Both when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 2, "x-kubernetes-list-type" = "set"))]
    pub sources: Vec<MediaSource>,

    /// Hosts that URLs may name; `*.example.com` for every host below example.com. Any when absent, but for private ones: localhost,
    /// names without a dot, of the cluster and of metadata services, and addresses that are not on the internet must be named here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 74, "x-kubernetes-list-type" = "set"), inner(length(min = 1, max = 253), regex(pattern = "^(\\*\\.)?[A-Za-z0-9]([-A-Za-z0-9.:]*[A-Za-z0-9])?$")))]
    pub allowed_hosts: Vec<String>,

    /// Schemes that URLs may have. Both when absent.
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

/// What is served of the model now.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferenceModelStatus {
    /// The modalities on offer now, with a ready endpoint behind each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modalities: Option<Modalities>,

    /// The modalities that the targets are declared to take and give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<Modalities>,

    /// The modalities that are declared and have no ready endpoint behind them now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Modalities>,

    /// The same in words, for kubectl's columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<ModelSummary>,

    /// Accepted (the object is in use), ResolvedRefs (every pool it names exists), Available (every modality that is declared is on
    /// offer), Programmed (every connected picker knows it).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// The status in words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ModelSummary {
    /// The pools of the targets.
    pub pools: String,
    /// Input modalities on offer now.
    pub input: String,
    /// Output modalities on offer now.
    pub output: String,
    /// How many targets have a ready endpoint, as in `3/4`, or in a word what is wrong.
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
