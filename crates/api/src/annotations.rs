//! What pods and pools may say about themselves.

/// Modalities this pod takes, comma-separated (`text,image`). Narrows what its pool's targets declare.
pub const INPUT_MODALITIES: &str = "thalamus.dev/input-modalities";

/// Modalities this pod answers with, comma-separated. Narrows what its pool's targets declare.
pub const OUTPUT_MODALITIES: &str = "thalamus.dev/output-modalities";

/// Operations this pod serves, comma-separated and as InferenceModel spells them (`Transcriptions,Translations`). Narrows what its pool's
/// targets declare.
pub const OPERATIONS: &str = "thalamus.dev/operations";

/// Upstream's: which of the pool's target ports are served, comma-separated. Absent: all. Empty: none.
pub const ACTIVE_PORTS: &str = "inference.networking.k8s.io/active-ports";

/// llm-d's name for the same; it wins over the older one where both are given.
pub const ACTIVE_PORTS_LLM_D: &str = "llm-d.ai/active-ports";

/// On a pool, whether the controller runs its picker: `managed` or `unmanaged`. Absent: as the controller's flag --manage-namespace says
/// of the namespace.
pub const PICKER: &str = "thalamus.dev/picker";

/// On a managed pool, the PickerTemplate of its namespace by which its picker is run.
pub const PICKER_TEMPLATE: &str = "thalamus.dev/picker-template";

/// On an object of a managed picker: with the value `true`, and no other, the controller neither changes nor removes it, whatever becomes of it,
/// until the annotation is gone. So its owner can take one object back, for as long as the pool is there: it goes with the pool all the same.
pub const HANDS_OFF: &str = "thalamus.dev/hands-off";
