//! Modalities, and sets of them.

use std::fmt;
use std::str::FromStr;

/// A kind of content that a request carries or an answer is made of.
///
/// The names are those that model servers use as keys (`image`, `audio`, `video`), with text and embeddings beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Modality {
    Text,
    Image,
    Audio,
    Video,
    /// A vector that stands for the input; an output only.
    Embedding,
}

/// A set of modalities; one byte, copied freely. Written `text+image`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ModalitySet(u8);

/// A word that names no modality.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown modality {0:?}; expected text, image, audio, video or embedding")]
pub struct UnknownModality(pub String);

// === impl Modality ===

impl Modality {
    /// Every modality, in the order they are written.
    pub const ALL: [Self; 5] = [Self::Text, Self::Image, Self::Audio, Self::Video, Self::Embedding];

    /// The lower-case word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Embedding => "embedding",
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Modality {
    type Err = UnknownModality;

    fn from_str(word: &str) -> Result<Self, UnknownModality> {
        Self::ALL
            .into_iter()
            .find(|modality| modality.as_str().eq_ignore_ascii_case(word.trim()))
            .ok_or_else(|| UnknownModality(word.trim().chars().take(64).collect()))
    }
}

// === impl ModalitySet ===

impl ModalitySet {
    pub const EMPTY: Self = Self(0);
    pub const TEXT: Self = Self::of(&[Modality::Text]);
    pub const ALL: Self = Self::of(&Modality::ALL);

    pub const fn of(modalities: &[Modality]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < modalities.len() {
            bits |= 1 << modalities[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Reads a comma-separated list such as `text, image`. Empty items are skipped, so an empty list is the empty set.
    pub fn parse_list(list: &str) -> Result<Self, UnknownModality> {
        list.split(',').filter(|word| !word.trim().is_empty()).map(str::parse::<Modality>).collect()
    }

    pub const fn contains(self, modality: Modality) -> bool {
        self.0 & (1 << modality as u8) != 0
    }

    pub const fn is_superset(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    #[must_use]
    pub const fn with(self, modality: Modality) -> Self {
        self.union(Self::of(&[modality]))
    }

    pub fn iter(self) -> impl Iterator<Item = Modality> {
        Modality::ALL.into_iter().filter(move |modality| self.contains(*modality))
    }

    /// As a person would say it: `text`, `text and image`, `text, image and audio`; `nothing` when empty.
    pub fn in_words(self) -> String {
        let words: Vec<&str> = self.iter().map(Modality::as_str).collect();
        match words.as_slice() {
            [] => "nothing".into(),
            [one] => (*one).into(),
            [init @ .., last] => format!("{} and {last}", init.join(", ")),
        }
    }
}

impl FromIterator<Modality> for ModalitySet {
    fn from_iter<I: IntoIterator<Item = Modality>>(modalities: I) -> Self {
        modalities.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Display for ModalitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Modality::as_str).collect();
        f.pad(&if words.is_empty() { "-".to_owned() } else { words.join("+") })
    }
}

impl fmt::Debug for ModalitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests;
