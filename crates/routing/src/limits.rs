//! How much of something is taken at once: tokens of a prompt, items of a modality.

use std::fmt;

use crate::Modality;

/// What one request may bring: the context length in tokens, and how many items of each modality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Tokens of a prompt and its answer together; [`Limits::UNTOLD`] where nobody says.
    context: u32,
    /// By modality.
    items: [u32; Modality::ALL.len()],
}

// === impl Limits ===

impl Limits {
    /// Stands for no limit.
    const UNTOLD: u32 = u32::MAX;

    /// Nothing is limited, or nobody says how.
    pub const NONE: Self = Self { context: Self::UNTOLD, items: [Self::UNTOLD; Modality::ALL.len()] };

    #[must_use]
    pub const fn with_context(self, tokens: u32) -> Self {
        Self { context: tokens, ..self }
    }

    #[must_use]
    pub const fn with_items(mut self, modality: Modality, items: u32) -> Self {
        self.items[modality as usize] = items;
        self
    }

    /// The context length in tokens; none where nobody says.
    pub const fn context(self) -> Option<u32> {
        told(self.context)
    }

    /// How many items of a modality one request may carry; none where nobody says.
    pub const fn items(self, modality: Modality) -> Option<u32> {
        told(self.items[modality as usize])
    }
}

const fn told(limit: u32) -> Option<u32> {
    if limit == Limits::UNTOLD { None } else { Some(limit) }
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

/// `context 4096, image ≤ 4`; `-` where nothing is limited.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = self.context().map(|tokens| format!("context {tokens}"));
        let items = |modality| Some(format!("{modality} ≤ {}", self.items(modality)?));
        let words: Vec<String> = context.into_iter().chain(Modality::ALL.into_iter().filter_map(items)).collect();
        f.pad(&if words.is_empty() { "-".to_owned() } else { words.join(", ") })
    }
}
