//! `GET /v1/models`, which every engine has, each with more or less in it.

use std::collections::BTreeSet;

use routing::ModelName;
use serde_json::Value;

use crate::asker::Answer;

/// How many models one server is taken to have.
pub(crate) const MAX_MODELS: usize = 256;

/// The longest name; an InferenceModel's has as many bytes.
const MAX_NAME: usize = 256;

/// Where entries say the context length: vLLM's and SGLang's, LM Studio's and those of OpenRouter's shape.
pub(crate) const CONTEXT: &[&str] = &["max_model_len", "max_context_length", "context_length"];

/// What a server lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listing {
    pub(crate) models: Vec<Listed>,
    /// How many were passed over: too many, without a name, or with one that is no name.
    pub(crate) passed_over: usize,
}

/// One model of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: ModelName,
    pub(crate) parent: Option<ModelName>,
    /// What it is made from: two names of one model have the same.
    pub(crate) root: Option<String>,
    pub(crate) owned_by: String,
    /// The whole entry.
    pub(crate) entry: Value,
}

/// What of a list stays as long as its server does: when an entry was made is said anew each time.
pub(crate) type Entries = Vec<(ModelName, Option<ModelName>, Option<String>, Option<u32>)>;

impl Listing {
    pub(crate) fn entries(self) -> Entries {
        let of = |listed: Listed| (listed.tokens(CONTEXT), listed);
        self.models
            .into_iter()
            .map(of)
            .map(|(context, listed)| (listed.name, listed.parent, listed.root, context))
            .collect()
    }

    /// None where it is not a list of models.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let entries = answer.json["data"].as_array().filter(|_| answer.is_ok())?;
        let mut known = BTreeSet::new();
        let all = entries.iter().filter_map(Listed::of);
        let models: Vec<Listed> = all.filter(|listed| known.insert(listed.name.clone())).take(MAX_MODELS).collect();
        Some(Self { passed_over: entries.len() - models.len(), models })
    }
}

impl Listed {
    fn of(entry: &Value) -> Option<Self> {
        let is_name = |name: &&str| !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(crate::is_shown);
        let name = |key: &str| entry[key].as_str().filter(is_name);
        Some(Self {
            name: name("id")?.into(),
            parent: name("parent").map(ModelName::from),
            root: name("root").map(str::to_owned),
            owned_by: name("owned_by").unwrap_or_default().to_owned(),
            entry: entry.clone(),
        })
    }

    /// Whether both are names of one model.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.name == other.name || (self.parent == other.parent && self.root.is_some() && self.root == other.root)
    }

    pub(crate) fn is_adapter_of(&self, base: &Self) -> bool {
        self.parent.as_ref() == Some(&base.name)
    }

    /// A number of tokens under one of these keys.
    pub(crate) fn tokens(&self, keys: &[&str]) -> Option<u32> {
        keys.iter().find_map(|key| tokens(&self.entry[*key]))
    }
}

/// A number of tokens that can be one.
pub(crate) fn tokens(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|tokens| u32::try_from(tokens).ok()).filter(|tokens| (1..u32::MAX).contains(tokens))
}
