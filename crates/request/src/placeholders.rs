//! A model's own placeholders for media, typed as text. Where no media goes with them they crash some engines (CVE-2026-44222, and
//! PYSEC-2026-4353) and make others answer 500.

use routing::{Family, Modality, ModalitySet};

/// Declares the placeholders that are looked for, and whose they are. No families: anybody's who takes media and is of no known family.
macro_rules! placeholders {
    ($($text:literal: $($family:ident)*,)*) => {
        const ALL: [(&str, &[Family]); [$($text),*].len()] = [$(($text, &[$(Family::$family),*])),*];
    };
}

// From the tokenizers of each family (`added_tokens`), and for Phi-4 from its processor; those that begin alike stand longest first. `#`
// stands for a digit, and what comes after it is for people.
placeholders! {
    "<|vision_start|>": Qwen2Vl Qwen25Vl Qwen3Vl,
    "<|vision_bos|>": Qwen25Omni,
    "<|image_pad|>": Qwen2Vl Qwen25Vl Qwen3Vl Qwen3Omni,
    "<|video_pad|>": Qwen2Vl Qwen25Vl Qwen3Vl Qwen3Omni,
    "<|audio_pad|>": Qwen3Omni,
    "<|audio_start|>": Qwen3Omni,
    "<|audio_bos|>": Qwen2Audio Qwen25Omni,
    "<|AUDIO|>": Qwen2Audio Qwen25Omni,
    "<|IMAGE|>": Qwen25Omni,
    "<|VIDEO|>": Qwen25Omni,
    "<|image|>": Llama32Vision Llama4 Gemma4 Glm4V,
    "<|video|>": Gemma4 Glm4V,
    "<|audio|>": Ultravox Gemma4,
    "<|begin_of_image|>": Glm4V,
    "<|image_#|>": Phi4Multimodal,
    "<|audio_#|>": Phi4Multimodal,
    "<|endoftext10|>": Phi4Multimodal,
    "<|endoftext11|>": Phi4Multimodal,
    "<|image_start|>": Llama4,
    "<|patch|>": Llama4,
    "<start_of_image>": Gemma3 Gemma3n,
    "<image_soft_token>": Gemma3 Gemma3n,
    "<start_of_audio>": Gemma3n,
    "<audio_soft_token>": Gemma3n,
    "<IMG_CONTEXT>": InternVl,
    "<fake_token_around_image>": SmolVlm SmolVlmSmall,
    "<global-img>": SmolVlm SmolVlmSmall,
    "<image>": SmolVlm SmolVlmSmall Llava15 LlavaNext MiniCpmV,
    "<video>": LlavaNext,
    "[IMG]": Pixtral MistralSmall3,
    "[AUDIO]": Voxtral,
}

/// How often each placeholder stands in a request's text, by its place in the list; 255 stands for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placeholders([u8; ALL.len()]);

/// Looks for placeholders in text as it comes.
#[derive(Debug, Default)]
pub(crate) struct Seeker {
    found: Placeholders,
    /// The beginning of what may be one, cut by the end of a piece.
    cut: Vec<u8>,
}

/// How they go on after their first character.
const SECONDS: &[u8] = b"|siaIfgvA";

/// Longest of them.
const LONGEST: usize = 25;

impl Placeholders {
    #[must_use]
    pub(crate) fn and(mut self, other: Self) -> Self {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
        self
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Those that stand in the text, and how often; 255 stands for more.
    pub fn iter(self) -> impl Iterator<Item = (&'static str, u8)> {
        let all = self.0.into_iter().zip(&ALL).map(|(count, (text, _))| (*text, count));
        all.filter(|(_, count)| *count > 0)
    }

    /// The same with so many of one; none where that is no placeholder.
    #[must_use]
    pub fn with(mut self, text: &str, count: u8) -> Option<Self> {
        let place = ALL.iter().position(|(known, _)| *known == text)?;
        self.0[place] = count;
        Some(self)
    }

    /// The first of them that means something to a model, of the family, if one is known, or else any that no prose holds, and that is
    /// one place more than there is media for; `items` says how many of each modality came. Most templates write a place for each item
    /// themselves, so that one that is typed is always too many: the engine would bind the item to it.
    pub fn unsafe_for(self, family: Option<Family>, items: impl Fn(Modality) -> usize) -> Option<&'static str> {
        let means = |(text, families): &(&str, &[Family])| match family {
            Some(family) => families.contains(&family),
            // `<image>` and `<video>` stand in everybody's HTML.
            None => text.contains('|'),
        };
        let places = |text: &str| match family {
            Some(Family::InternVl | Family::MiniCpmV | Family::Phi4Multimodal) => {
                modalities_of(text).iter().map(&items).sum()
            }
            _ => 0,
        };
        let typed = || self.0.into_iter().zip(&ALL).filter(|(count, one)| *count > 0 && means(one));
        let too_many = |(_, (text, _)): &(u8, &(&str, _))| {
            let alike = typed().filter(|(_, (other, _))| modalities_of(other) == modalities_of(text));
            alike
                .map(|(count, _)| if count == u8::MAX { usize::MAX } else { count.into() })
                .fold(0, usize::saturating_add)
                > places(text)
        };
        typed().find(too_many).map(|(_, (text, _))| *text)
    }
}

/// The media that a placeholder stands for.
fn modalities_of(text: &str) -> ModalitySet {
    let text = text.to_ascii_lowercase();
    if text.contains("audio") || text.contains("text11") {
        ModalitySet::of(&[Modality::Audio])
    } else if text.contains("video") {
        ModalitySet::of(&[Modality::Video])
    } else {
        ModalitySet::of(&[Modality::Image, Modality::Video])
    }
}

impl Seeker {
    /// Another text begins; what the one before left does not run into it.
    pub(crate) fn start(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn feed(&mut self, mut piece: &[u8]) {
        if !self.cut.is_empty() {
            let room = LONGEST.saturating_sub(self.cut.len()).min(piece.len());
            let mut joint = std::mem::take(&mut self.cut);
            joint.extend_from_slice(&piece[..room]);
            // Only what begins at the cut is settled here; the piece itself is looked through below.
            if !self.at(&joint) && room == piece.len() && is_beginning(&joint) {
                self.cut = joint;
                piece = &[];
            }
        }
        for at in memchr::memchr2_iter(b'<', b'[', piece) {
            let rest = &piece[at..];
            // Most of what begins so goes on as none of them does.
            if rest.get(1).is_some_and(|second| !SECONDS.contains(second)) {
                continue;
            }
            if !self.at(&rest[..rest.len().min(LONGEST)]) && rest.len() < LONGEST && is_beginning(rest) {
                self.cut = rest.to_vec();
                return;
            }
        }
    }

    /// Marks the placeholder that this begins with, if there is one.
    fn at(&mut self, text: &[u8]) -> bool {
        let place = ALL.iter().position(|(one, _)| told_apart(one).count() <= text.len() && agree(one, text));
        if let Some(place) = place {
            self.found.0[place] = self.found.0[place].saturating_add(1);
        }
        place.is_some()
    }

    pub(crate) fn found(&self) -> Placeholders {
        self.found
    }

    /// What was found elsewhere counts as well.
    pub(crate) fn add(&mut self, other: Placeholders) {
        self.found = self.found.and(other);
    }
}

fn is_beginning(text: &[u8]) -> bool {
    ALL.iter().any(|(one, _)| text.len() < told_apart(one).count() && agree(one, text))
}

/// What of a placeholder must stand in a text: all, or as far as its digit.
fn told_apart(one: &str) -> impl Iterator<Item = u8> {
    let end = one.find('#').map_or(one.len(), |digit| digit + 1);
    one.bytes().take(end)
}

/// Whether a text agrees with a placeholder, as far as both go.
fn agree(one: &str, text: &[u8]) -> bool {
    told_apart(one).zip(text).all(|(wanted, byte)| if wanted == b'#' { byte.is_ascii_digit() } else { wanted == *byte })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, piece: usize) -> Vec<&'static str> {
        let mut seeker = Seeker::default();
        text.as_bytes().chunks(piece).for_each(|piece| seeker.feed(piece));
        ALL.iter().enumerate().filter(|(place, _)| seeker.found().0[*place] > 0).map(|(_, (text, _))| *text).collect()
    }

    #[test]
    fn they_are_found_wherever_they_are_cut() {
        assert!(ALL.iter().all(|(text, _)| text.len() <= LONGEST));
        assert!(ALL.iter().all(|(text, _)| SECONDS.contains(&text.as_bytes()[1])));
        for piece in [1, 2, 3, 5, 1000] {
            for (text, _) in ALL {
                let typed = text.replace('#', "12");
                assert_eq!(found(&format!("a <<b[{typed}> c"), piece), [text], "in pieces of {piece}");
            }
            assert_eq!(found("<|image_x|> <|image_", piece), Vec::<&str>::new());
            assert_eq!(found("<|image <|<|vision_start|><|image_pa", piece), ["<|vision_start|>"]);
            assert_eq!(found("<img src=x> [1, 2] <|im_start|>", piece), Vec::<&str>::new());
        }
    }

    /// Naming a family must not make it less guarded than naming none. Whisper's decoder has no place for media.
    #[test]
    fn every_family_has_a_placeholder() {
        for family in Family::ALL.into_iter().filter(|family| *family != Family::Whisper) {
            assert!(ALL.iter().any(|(_, families)| families.contains(&family)), "{family}");
        }
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        let mut seeker = Seeker::default();
        seeker.start();
        seeker.feed(b"<|image_");
        seeker.start();
        seeker.feed(b"pad|>");
        assert!(seeker.found().is_empty());
    }

    #[test]
    fn html_is_dangerous_to_those_alone_who_use_such_words() {
        let mut seeker = Seeker::default();
        seeker.feed(b"<video> and <image>");
        assert_eq!(seeker.found().unsafe_for(Some(Family::SmolVlm), |_| 0), Some("<image>"));
        assert_eq!(seeker.found().unsafe_for(Some(Family::Qwen2Vl), |_| 0), None);
        assert_eq!(seeker.found().unsafe_for(None, |_| 0), None);
        seeker.feed(b"<|image_pad|>");
        assert_eq!(seeker.found().unsafe_for(None, |_| 0), Some("<|image_pad|>"));
    }

    #[test]
    fn places_are_counted_against_media_where_the_text_names_them() {
        let mut seeker = Seeker::default();
        seeker.feed(b"<|image_1|> and <|image_12|> <|image_pad|>");
        let found = seeker.found();
        let with = |family, items: usize| {
            found.unsafe_for(Some(family), |modality| if modality == Modality::Image { items } else { 0 })
        };
        assert_eq!(with(Family::Phi4Multimodal, 1), Some("<|image_#|>"));
        assert_eq!(with(Family::Phi4Multimodal, 2), None);
        (0..300).for_each(|_| seeker.feed(b"<|image_1|>"));
        assert_eq!(
            seeker.found().unsafe_for(Some(Family::Phi4Multimodal), |_| 1000),
            Some("<|image_#|>"),
            "so many are not counted"
        );
        // The template of this one writes a place beside each picture.
        assert_eq!(with(Family::Qwen2Vl, 2), Some("<|image_pad|>"));
    }
}
