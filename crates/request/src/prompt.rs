//! What of a request a model server's caches could know: its prompt, piece by piece, by hashes and never by its words.
//!
//! Texts are hashed as they stand in the body, a kilobyte at a time from the beginning of each, with the key of whoever asks, so that
//! nobody else knows which two would look alike. Blocks grow with what lies before them, so that the longest prompt is some dozens of them and none ends far
//! from where two prompts part.

use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::quality::FixedState;

/// The prompt of a request, in the order in which servers read it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    pub pieces: Vec<Piece>,
    /// Bytes of text that stand in no piece, so that no cache is asked about them: after the last one, or of no certain place.
    pub rest: u64,
    /// Of what the client says that its caches are to be kept apart by (`cache_salt`).
    pub salt: Option<u64>,
    /// Of the session that its head names.
    pub session: Option<u64>,
}

/// A piece of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A block of text, by the hash of its bytes as they stand in the body: who encodes the same text otherwise has another.
    Text { hash: u64, bytes: u32 },
    /// One of the request's media, by its place among them.
    Media(u32),
}

/// What stands where in a prompt, whatever the order of the body's fields: chat templates write tools first, then what the system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Place {
    Tools,
    System,
    #[default]
    Conversation,
}

/// Writes down a prompt as it is read.
#[derive(Debug)]
pub(crate) struct Writer {
    key: FixedState,
    place: Place,
    rows: [Row; 3],
    rest: u64,
    salt: Option<u64>,
}

/// The pieces of one place.
#[derive(Debug, Default)]
struct Row {
    pieces: Vec<Piece>,
    /// Bytes in them.
    written: u64,
    /// Of the block at hand.
    bytes: u64,
    hash: u64,
    /// The beginning of a unit that was cut.
    unit: Vec<u8>,
}

/// So much is hashed at once.
const UNIT: usize = 1024;

/// A block ends once it has this share of what lies before it.
const GROWTH: u64 = 8;

/// Of a place no more text than this is looked at: llm-d looks at as many tokens (`maxPrefixTokensToMatch`, 131,072).
const MOST: u64 = 512 << 10;

impl Prompt {
    /// Most pieces: of texts a few dozens in each place, and as many again as there are media.
    pub(crate) const MOST_PIECES: usize = 2 * crate::findings::MAX_ITEMS + 3 * 64;
}

impl Place {
    /// Where a field of the root stands.
    pub(crate) fn of_field(name: &str) -> Self {
        match name {
            "tools" | "functions" => Self::Tools,
            "system" | "instructions" => Self::System,
            _ => Self::Conversation,
        }
    }
}

impl Writer {
    pub(crate) fn new(key: u64) -> Self {
        Self { key: FixedState::with_seed(key), place: Place::default(), rows: Default::default(), rest: 0, salt: None }
    }

    /// What comes next stands there.
    pub(crate) fn at(&mut self, place: Place) {
        self.place = place;
    }

    pub(crate) fn is_at(&self, place: Place) -> bool {
        self.place == place
    }

    /// More of a text; `ended` where it ends with this. How it is cut into pieces does not matter.
    pub(crate) fn text(&mut self, bytes: &[u8], ended: bool) {
        self.rest += self.rows[self.place as usize].text(&self.key, bytes, ended);
    }

    /// So many bytes of text whose place is not certain, or that no cache is asked about: fields of a message, files, tokens.
    pub(crate) fn aside(&mut self, bytes: u64) {
        self.rest += bytes;
    }

    pub(crate) fn media(&mut self, number: usize) {
        let row = &mut self.rows[self.place as usize];
        row.end_block();
        row.pieces.extend(u32::try_from(number).ok().map(Piece::Media));
    }

    pub(crate) fn salt(&mut self, salt: &[u8]) {
        self.salt = Some(hash(&self.key, salt));
    }

    pub(crate) fn finish(self) -> Prompt {
        let [tools, system, conversation] = self.rows;
        // Nothing but the last place is open-ended.
        let mut prompt = Prompt { pieces: tools.ended(), rest: self.rest, salt: self.salt, session: None };
        prompt.pieces.extend(system.ended());
        prompt.rest += conversation.bytes;
        prompt.pieces.extend(conversation.pieces);
        prompt
    }
}

impl Row {
    /// Says how many of the bytes are too many.
    fn text(&mut self, key: &FixedState, bytes: &[u8], ended: bool) -> u64 {
        let room = MOST.saturating_sub(self.written + self.bytes + self.unit.len() as u64);
        let taken = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let (mut rest, beyond) = bytes.split_at(taken);
        if !self.unit.is_empty() {
            let (missing, after) = rest.split_at(rest.len().min(UNIT - self.unit.len()));
            self.unit.extend_from_slice(missing);
            rest = after;
            if self.unit.len() == UNIT || ended {
                let unit = std::mem::take(&mut self.unit);
                self.add(key, &unit);
                self.unit = unit;
                self.unit.clear();
            }
        }
        let (units, rest) = rest.as_chunks::<UNIT>();
        for unit in units {
            self.add(key, unit);
        }
        if ended && !rest.is_empty() {
            self.add(key, rest);
        } else {
            self.unit.extend_from_slice(rest);
        }
        beyond.len() as u64
    }

    fn add(&mut self, key: &FixedState, unit: &[u8]) {
        self.hash = chained(self.hash, hash(key, unit));
        self.bytes += unit.len() as u64;
        if self.bytes >= UNIT as u64 && self.bytes * GROWTH >= self.written {
            self.write();
        }
    }

    /// The block at hand ends here, however short it is.
    fn end_block(&mut self) {
        if self.bytes > 0 {
            self.write();
        }
    }

    fn write(&mut self) {
        let (bytes, hash) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.hash));
        self.written += bytes;
        self.pieces.push(Piece::Text { hash, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) });
    }

    fn ended(mut self) -> Vec<Piece> {
        self.end_block();
        self.pieces
    }
}

/// A word's hash.
pub(crate) fn hash_of(key: u64, word: &str) -> u64 {
    hash(&FixedState::with_seed(key), word.as_bytes())
}

fn hash(key: &FixedState, bytes: &[u8]) -> u64 {
    let mut hasher = key.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// Units of a block have one hash.
fn chained(before: u64, next: u64) -> u64 {
    (before.rotate_left(23) ^ next).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&[u8]]) -> Prompt {
        let mut writer = Writer::new(7);
        let last = texts.len() - 1;
        texts.iter().enumerate().for_each(|(number, text)| writer.text(text, number == last));
        writer.finish()
    }

    fn bytes_of(piece: &Piece) -> u64 {
        if let Piece::Text { bytes, .. } = piece { u64::from(*bytes) } else { 0 }
    }

    #[test]
    fn cuts_do_not_matter_and_the_key_does() {
        let text: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let whole = of(&[&text]);
        for size in [1, 7, 1023, 1024, 1025, 70_000] {
            assert_eq!(of(&text[..200_000].chunks(size).collect::<Vec<_>>()), of(&[&text[..200_000]]), "{size}");
        }
        let mut other = Writer::new(8);
        other.text(&text, true);
        assert_ne!(other.finish().pieces[0], whole.pieces[0]);
        let written: u64 = whole.pieces.iter().map(bytes_of).sum();
        assert!(written <= MOST && written + whole.rest == text.len() as u64, "{written}");
    }

    #[test]
    fn the_longest_prompt_is_some_dozens_of_blocks_and_prompts_part_near_where_they_differ() {
        let text = vec![b'a'; 2 << 20];
        let whole = of(&[&text]);
        assert!(whole.pieces.len() < 64, "{}", whole.pieces.len());
        for differs in [5_000, 60_000, 400_000] {
            let mut other = text.clone();
            other[differs] = b'b';
            let other = of(&[&other]);
            let same = whole.pieces.iter().zip(&other.pieces).take_while(|(one, other)| one == other);
            let bytes: u64 = same.map(|(piece, _)| bytes_of(piece)).sum();
            assert!(bytes <= differs as u64 && bytes * 4 >= differs as u64 * 3, "{bytes} of {differs}");
        }
    }

    #[test]
    fn media_part_texts_and_places_stand_in_the_order_of_the_prompt() {
        let mut writer = Writer::new(7);
        writer.text(b"what is this?", true);
        writer.media(0);
        writer.text(b"and", true);
        writer.at(Place::System);
        writer.text(b"be brief", true);
        writer.at(Place::Tools);
        writer.text(b"weather", true);
        let Prompt { pieces, rest, salt, .. } = writer.finish();
        let bytes: Vec<_> = pieces.iter().map(bytes_of).collect();
        assert_eq!((bytes, rest, salt), (vec![7, 8, 13, 0], 3, None));
    }
}
