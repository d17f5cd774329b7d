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

/// How much a request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Size {
    /// Of its prompt, as far as that can be told without a tokenizer.
    pub tokens: u64,
    /// The same, at four bytes of text a token or more: what is learned of other prompts refuses none.
    cautious: u64,
    items: [u32; Modality::ALL.len()],
}

/// What a request brings more of than is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exceeded {
    Context { limit: u32, tokens: u64 },
    Items { modality: Modality, limit: u32, items: u32 },
}

/// A cautious estimate of tokens surely exceeds a limit where it is more than this many times that. Four bytes at least are counted for a token; text that
/// is written as `\uXXXX` throughout has nine, runs of spaces have more.
const SURELY: u64 = 4;

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

    /// What both take.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        self.each_with(other, u32::min)
    }

    /// What one of them takes, as far as a single request can ask for it.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        self.each_with(other, u32::max)
    }

    fn each_with(mut self, other: Self, choose: fn(u32, u32) -> u32) -> Self {
        self.context = choose(self.context, other.context);
        for (own, other) in self.items.iter_mut().zip(other.items) {
            *own = choose(*own, other);
        }
        self
    }

    /// What a request of this size surely exceeds.
    pub fn exceeded_by(self, size: Size) -> Option<Exceeded> {
        let of_items = |modality: Modality| {
            let (limit, items) = (self.items(modality)?, size.items[modality as usize]);
            (items > limit).then_some(Exceeded::Items { modality, limit, items })
        };
        let of_context = || {
            let (limit, tokens) = (self.context()?, size.cautious);
            (tokens > u64::from(limit) * SURELY).then_some(Exceeded::Context { limit, tokens })
        };
        Modality::ALL.into_iter().find_map(of_items).or_else(of_context)
    }

    /// Whether a request of this size is likely to be within them: near the context length an engine alone knows.
    pub fn seem_to_hold(self, size: Size) -> bool {
        self.context().is_none_or(|limit| size.tokens <= u64::from(limit))
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

// === impl Size ===

impl Size {
    pub const fn of(tokens: u64) -> Self {
        Self { tokens, cautious: tokens, items: [0; Modality::ALL.len()] }
    }

    /// Of which no more than so many are counted where something is refused for its length.
    #[must_use]
    pub fn cautiously(self, tokens: u64) -> Self {
        Self { cautious: tokens.min(self.tokens), ..self }
    }

    /// With one item more.
    #[must_use]
    pub const fn with_item(mut self, modality: Modality) -> Self {
        self.items[modality as usize] = self.items[modality as usize].saturating_add(1);
        self
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

/// `takes at most 4 image items in a request, and this one has 5`.
impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Items { modality, limit, items } => {
                write!(f, "takes at most {limit} {modality} items in a request, and this one has {items}")
            }
            Self::Context { limit, tokens } => {
                write!(f, "has a context length of {limit} tokens, and the prompt is estimated to have {tokens}")
            }
        }
    }
}
