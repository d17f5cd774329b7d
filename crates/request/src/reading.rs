//! From tokens of JSON to what routing needs: the model, the modalities in and out, the media, streaming.
//!
//! Content comes as a string or a list, parts as objects or bare strings, with a `type` that may be missing or come last, media as an
//! object or a bare string, `null` media with a `uuid`. Media counts in every role and turn. `grammar` says what stands where.

use std::fmt::Write as _;

use media::{Identity, Spelling, TextReader};
use routing::{Modality, ModalitySet, Operation, UnsafeFeature};

use crate::fields::{MAX_FIELDS, Shape};
use crate::findings::{Findings, MAX_MODEL, ModelSpan, NameEncoding, PartPath};
use crate::frame::{Frame, path_of};
use crate::grammar::{
    Meaning, MediaKind, TypeWord, meaning_in_array, meaning_in_bag, meaning_in_object, meaning_of_element,
    meaning_of_field, meaning_of_key, meaning_of_unknown_key,
};
use crate::json::{MAX_KEY, Sink, StringToken, ValueKind, Want};
use crate::keys::Key;
use crate::owned::MAX_ID;
use crate::part::{Part, Source};
use crate::prompt::Place;
use crate::{Owned, OwnedKind, Unreadable};

/// Reads a JSON body, or a value that stands in the place of one.
#[derive(Debug)]
pub(crate) struct Reading {
    operation: Operation,
    /// What the whole of it means.
    whole: Meaning,
    /// Which fields of the root were seen; a bit for each.
    seen: [u64; MAX_FIELDS / 64],
    frames: Vec<Frame>,
    /// What the next value of the innermost object means, and the key that said so.
    meaning: Meaning,
    key: Option<&'static str>,
    /// Where the field stands that was met last of those that nobody knows.
    unlisted: String,
    /// The part being read, and those that it is inside of: a tool's result holds pictures.
    part: Part,
    outer_parts: Vec<Part>,
    open_parts: usize,
    text: Option<Box<TextReader>>,
    /// Whether the string at hand stands in the prompt in a place that is certain.
    in_order: bool,
    pub(crate) findings: Findings,
}

/// Longest word that is compared with others.
const MAX_WORD: usize = 32;

/// Of a key that nobody knows so many characters are shown.
const MAX_SHOWN: usize = 64;

/// Longest word that is pasted into a URL.
const MAX_TOKEN: usize = 64;

/// Longest name of a client's own for media; of a longer `file_id` the beginning and the length count.
const MAX_NAME: usize = 256;

// === impl Reading ===

impl Reading {
    pub(crate) fn new(operation: Operation, key: u64) -> Self {
        Self::of_value(operation, Meaning::Root, key)
    }

    /// A reader of a value that means this.
    pub(crate) fn of_value(operation: Operation, whole: Meaning, key: u64) -> Self {
        Self {
            operation,
            whole,
            seen: [0; MAX_FIELDS / 64],
            frames: Vec::with_capacity(8),
            meaning: Meaning::Root,
            key: None,
            unlisted: String::new(),
            part: Part::default(),
            outer_parts: Vec::new(),
            open_parts: 0,
            text: None,
            in_order: false,
            findings: Findings::new(key),
        }
    }

    /// What the value at hand means, and for an array that it has begun another element.
    fn next_meaning(&mut self) -> Meaning {
        match self.frames.last_mut() {
            None => self.whole,
            Some(frame) if frame.array => {
                frame.next += 1;
                self.key = None;
                meaning_of_element(frame.meaning)
            }
            Some(_) => std::mem::replace(&mut self.meaning, Meaning::Ignored),
        }
    }

    /// Where the value at hand stands.
    fn path(&self) -> PartPath {
        let mut path = path_of(&self.frames);
        match self.frames.last() {
            Some(frame) if frame.array => _ = write!(path, "[{}]", frame.next.saturating_sub(1)),
            _ => path.extend(self.key.into_iter().flat_map(|key| [".", key])),
        }
        PartPath(path.trim_start_matches('.').to_owned())
    }

    fn part(&mut self) -> Option<&mut Part> {
        (self.open_parts > 0).then_some(&mut self.part)
    }

    fn push_frame(&mut self, meaning: Meaning, array: bool, part: bool) {
        if part {
            if self.open_parts > 0 {
                self.outer_parts.push(std::mem::take(&mut self.part));
            }
            self.open_parts += 1;
        }
        let key = self.key.take();
        self.frames.push(Frame { meaning, array, key, seen: 0, next: 0, part });
    }

    fn begin_string(&mut self, meaning: Meaning) -> Want {
        self.meaning = meaning;
        match meaning {
            Meaning::Model => Want::Head(MAX_MODEL + 1),
            Meaning::ModalityWord | Meaning::PartType | Meaning::SourceType | Meaning::MediaWord(_) => {
                Want::Head(MAX_WORD)
            }
            Meaning::MediaType | Meaning::Token => Want::Head(MAX_TOKEN + 1),
            Meaning::PartUuid | Meaning::PartFileId | Meaning::Salt => Want::Head(MAX_NAME),
            Meaning::Previous => Want::Head(MAX_ID + 1),
            // Templates write the parts of a message one behind the other.
            Meaning::PartText | Meaning::Part => {
                self.in_order = self.is_one_prompt();
                Want::ToSearch
            }
            Meaning::Words => {
                self.findings.aside.start();
                self.in_order = self.findings.prompt.is_at(Place::Tools);
                Want::ToSearch
            }
            Meaning::Text | Meaning::Message | Meaning::Messages | Meaning::Content | Meaning::Documents => {
                self.findings.seeker.start();
                self.in_order = self.is_one_prompt();
                Want::ToSearch
            }
            Meaning::Media(_) | Meaning::MediaData(..) | Meaning::Loose(_) | Meaning::Result => {
                let spelling = match meaning {
                    Meaning::MediaData(_, Spelling::Data)
                    | Meaning::Media(MediaKind::Embeds(_))
                    | Meaning::MediaData(MediaKind::Embeds(_), _) => Spelling::Data,
                    _ => Spelling::Url,
                };
                self.text.get_or_insert_default().start(spelling);
                Want::Pieces
            }
            _ => Want::Nothing,
        }
    }

    /// Whether all texts are one prompt: vectors are made of each, ranks of each with the question, and each of several is completed.
    fn is_one_prompt(&self) -> bool {
        match self.operation {
            Operation::ChatCompletions | Operation::Responses | Operation::Messages => true,
            Operation::Completions | Operation::Generate => !self.in_list(),
            _ => false,
        }
    }

    /// Whether the value at hand is one of several.
    fn in_list(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.array)
    }

    /// A field of the root, or of a bag.
    fn field(&mut self, key: &[u8], in_bag: bool, at: u64) -> Result<(), Unreadable> {
        let shape = Shape::of_operation(self.operation);
        let Some((place, name, holds)) = shape.and_then(|shape| shape.field(key)) else {
            self.unknown(key);
            return Ok(());
        };
        self.meaning = if in_bag { meaning_in_bag(holds) } else { meaning_of_field(holds) };
        self.key = Some(name);
        self.findings.prompt.at(Place::of_field(name));
        if !in_bag && !matches!(self.meaning, Meaning::Aside | Meaning::Words) {
            let (seen, bit) = (&mut self.seen[place / 64], 1 << (place % 64));
            if *seen & bit != 0 {
                return Err(Unreadable::DuplicateField { field: name, at });
            }
            *seen |= bit;
        }
        Ok(())
    }

    /// The value at hand is something that engines should not be asked by strangers. Where it stands is looked for once.
    fn unsafe_here(&mut self, feature: UnsafeFeature) {
        if !self.findings.has(feature) {
            let at = self.path();
            self.findings.unsafe_feature(feature, || at);
        }
    }

    /// A field that no table knows, at the root or in an object that takes known ones alone.
    fn unknown(&mut self, key: &[u8]) {
        if !Shape::of_operation(self.operation).is_some_and(Shape::is_closed) {
            return self.aside(key);
        }
        self.meaning = Meaning::Unsafe(UnsafeFeature::UnlistedFields);
        if !self.findings.has(UnsafeFeature::UnlistedFields) {
            self.unlisted = path_of(&self.frames);
            self.unlisted.extend(if self.unlisted.is_empty() { None } else { Some(".") });
            self.unlisted.push_str(&shown(key));
        }
    }

    /// There is something in a field that nobody knows.
    fn unlisted(&mut self) {
        let at = || PartPath(self.unlisted.clone());
        self.findings.unsafe_feature(UnsafeFeature::UnlistedFields, at);
    }

    /// A key of an object that nobody knows: of those that mean the same wherever they stand, or of no meaning.
    fn aside(&mut self, key: &[u8]) {
        match Shape::Anywhere.field(key) {
            Some((_, name, holds)) => {
                (self.meaning, self.key) = (meaning_of_field(holds), Some(name));
            }
            None => self.meaning = Meaning::Aside,
        }
    }

    /// What a tool made: a picture, if that is what it is.
    fn end_result(&mut self) -> Result<(), Unreadable> {
        let Some(found) = self.text.as_mut().map(|reader| reader.finish()) else { return Ok(()) };
        if found.facts.modality() != Some(Modality::Image) {
            self.findings.text = true;
            return Ok(());
        }
        let (mut part, at) = (Part::default(), self.path());
        part.add(MediaKind::Of(Modality::Image), found);
        part.finish(&mut self.findings, || at.clone())
    }

    /// A media string outside of parts is an item of its own.
    fn end_media(&mut self, kind: MediaKind, loose: bool) -> Result<(), Unreadable> {
        let Some(found) = self.text.as_mut().map(|reader| reader.finish()) else { return Ok(()) };
        if loose || self.open_parts == 0 {
            let mut part = Part::default();
            part.add(kind, found);
            let at = self.path();
            return part.finish(&mut self.findings, || at.clone());
        }
        let holder = self.frames.last().and_then(|frame| frame.holder(self.key));
        if let Some(part) = self.part() {
            part.add(kind, found);
            part.held_by = part.held_by.or(holder);
        }
        Ok(())
    }
}

/// A key that nobody knows, for people.
fn shown(key: &[u8]) -> String {
    let shown = String::from_utf8_lossy(key);
    shown.chars().take(MAX_SHOWN).map(|one| if one.is_control() { '?' } else { one }).collect()
}

/// Whether a word could be taken for something to fetch or to open, as far as its beginning tells. Python's readers of URLs drop what is
/// blank or a control character before it and tabs and ends of lines within, and take `<URL:…>` for its inside (`urllib.parse`, `urlsplit`
/// and `unwrap`).
fn could_be_fetched(word: &[u8]) -> bool {
    let is_cut = word.len() >= MAX_WORD;
    let text = String::from_utf8_lossy(word);
    let inner = text.trim_start_matches(|c: char| c.is_control() || c.is_whitespace() || c == '<');
    let is_wrapped = inner.len() < text.len();
    let text: String = inner.chars().filter(|c| !c.is_control()).collect::<String>().to_ascii_lowercase();
    let text = text.strip_prefix("url:").unwrap_or(&text);
    let scheme = text.split("://").next().filter(|scheme| scheme.len() < text.len());
    let is_scheme = |scheme: &str| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    // Where so much stands before it that its own beginning is not seen, nobody knows.
    is_cut && is_wrapped
        || text.starts_with(['/', '~', '\\'])
        || text.starts_with("data:")
        || text.starts_with("file:")
        || scheme.is_some_and(is_scheme)
}

/// A word that can be pasted into a URL and stays one (RFC 9110, section 5.6.2).
fn is_token(word: &[u8]) -> bool {
    word.len() <= MAX_TOKEN && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(byte))
}

fn is_media_type(word: &[u8]) -> bool {
    let mut halves = word.splitn(2, |byte| *byte == b'/');
    halves.all(is_token)
}

/// The beginning of a name and its length: enough to tell it from others.
fn name_of(string: &StringToken<'_>) -> Identity {
    Identity::of_name(&[string.kept, &string.length.to_le_bytes()].concat())
}

impl Sink for Reading {
    fn key(&mut self, key: &[u8], at: u64) -> Result<(), Unreadable> {
        (self.meaning, self.key) = (Meaning::Ignored, None);
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        match frame.meaning {
            Meaning::Ignored => return Ok(()),
            Meaning::Root => return self.field(key, false, at),
            Meaning::Bag => return self.field(key, true, at),
            Meaning::Aside => {
                self.aside(key);
                return Ok(());
            }
            Meaning::Unsafe(UnsafeFeature::UnlistedFields) => {
                self.unlisted();
                return Ok(());
            }
            Meaning::Unsafe(feature) => {
                self.findings.unsafe_feature(feature, || PartPath(path_of(&self.frames)));
                return Ok(());
            }
            // SGLang 0.5.16 runs one that stands among a template's arguments.
            Meaning::Words if key == b"chat_template" && frame.key == Some("chat_template_kwargs") => {
                self.aside(key);
                return Ok(());
            }
            Meaning::Words => {
                // Templates write keys as well. Of a longer one the end is not seen.
                if key.len() == MAX_KEY {
                    return Err(Unreadable::FieldTooLong { field: "key", limit: MAX_KEY - 1 });
                }
                self.meaning = Meaning::Words;
                self.findings.aside.start();
                self.findings.aside.feed(key);
                self.in_order = self.findings.prompt.is_at(Place::Tools);
                self.raw(key, true);
                return Ok(());
            }
            _ => {}
        }
        let known = Key::of(key);
        let meaning = match known {
            Some(known) => meaning_of_key(self.operation, frame.meaning, known),
            None => meaning_of_unknown_key(frame.meaning, key),
        };
        if meaning == Meaning::Ignored && frame.meaning == Meaning::Document {
            self.unknown(key);
            return Ok(());
        }
        let Some(known) = known else {
            self.meaning = meaning;
            return Ok(());
        };
        if !matches!(meaning, Meaning::Ignored | Meaning::Words | Meaning::MediaWord(_)) {
            if frame.seen & 1 << known as u8 != 0 {
                return Err(Unreadable::DuplicateField { field: known.as_str(), at });
            }
            frame.seen |= 1 << known as u8;
        }
        (self.meaning, self.key) = (meaning, Some(known.as_str()));
        Ok(())
    }

    fn begin(&mut self, kind: ValueKind) -> Result<Want, Unreadable> {
        let meaning = self.next_meaning();
        match (meaning, kind) {
            (Meaning::Root, ValueKind::Object)
            | (Meaning::Model, ValueKind::String | ValueKind::Null)
            | (Meaning::Modalities, ValueKind::Null) => {}
            (Meaning::Root, _) => return Err(Unreadable::NotAnObject),
            (Meaning::Model, _) => return Err(Unreadable::WrongType { field: "model", expected: "a string" }),
            (Meaning::Stream, ValueKind::True) => self.findings.stream = true,
            (Meaning::Modalities, ValueKind::Array) => self.findings.output = Some(ModalitySet::EMPTY),
            (Meaning::Modalities, _) => {
                return Err(Unreadable::WrongType { field: "modalities", expected: "a list of strings" });
            }
            // Tokens are text as well, of some four bytes each.
            (Meaning::Text | Meaning::Documents, ValueKind::Number) => {
                self.findings.text = true;
                self.findings.prompt.aside(4);
            }
            (
                Meaning::Text
                | Meaning::Documents
                | Meaning::Content
                | Meaning::Part
                | Meaning::Message
                | Meaning::Messages,
                ValueKind::String,
            ) => {
                self.findings.text = true;
            }
            // An engine makes a name of anything (vLLM calls `str`), and another client's would be made the same way.
            (Meaning::PartUuid, kind) if !matches!(kind, ValueKind::String | ValueKind::Null) => {
                return Err(Unreadable::WrongType { field: "uuid", expected: "a string" });
            }
            (Meaning::Token, kind) if !matches!(kind, ValueKind::String | ValueKind::Null) => {
                return Err(Unreadable::WrongType { field: "format", expected: "a short word, such as wav" });
            }
            (Meaning::MediaType, kind) if !matches!(kind, ValueKind::String | ValueKind::Null) => {
                return Err(Unreadable::WrongType { field: "media_type", expected: "a media type, such as image/png" });
            }
            (Meaning::PartUuid, kind) => {
                if let Some(part) = self.part() {
                    part.has_uuid = kind != ValueKind::Null;
                }
            }
            (Meaning::Media(media), _) => {
                if let Some(part) = self.part() {
                    part.has(media);
                }
            }
            (Meaning::PartFileId, kind) if kind != ValueKind::Null => {
                if let Some(part) = self.part() {
                    part.has(MediaKind::File);
                }
            }
            // An object, a list or a string is none until something is in it: some clients always send empty ones.
            (Meaning::Unsafe(UnsafeFeature::UnlistedFields), ValueKind::Number | ValueKind::True) => self.unlisted(),
            (Meaning::Unsafe(feature), ValueKind::Number | ValueKind::True) => self.unsafe_here(feature),
            // Lists of numbers in the place of media are tensors.
            (Meaning::Loose(_) | Meaning::MediaData(..) | Meaning::MediaWord(_), ValueKind::Number)
                if self.frames.last().is_some_and(|frame| frame.array) =>
            {
                self.unsafe_here(UnsafeFeature::Embeds);
            }
            // Some engines read JSON out of it.
            (Meaning::Bag, ValueKind::String) => self.unsafe_here(UnsafeFeature::EngineInternals),
            _ => {}
        }
        match kind {
            // A prompt with fields of its own is an engine's affair.
            ValueKind::Object if meaning == Meaning::Text => {
                let (at, closed) = (self.path(), Shape::of_operation(self.operation).is_some_and(Shape::is_closed));
                at.as_str().clone_into(&mut self.unlisted);
                let inner = if closed { Meaning::Unsafe(UnsafeFeature::UnlistedFields) } else { Meaning::Aside };
                self.push_frame(inner, false, false);
            }
            ValueKind::Object => {
                let inner = meaning_in_object(meaning);
                self.push_frame(inner, false, inner == Meaning::Part || matches!(meaning, Meaning::Loose(_)));
                // The object of a loose field is itself what holds the media.
                if let (Meaning::Loose(media), Some(part)) = (meaning, self.part()) {
                    part.has(media);
                }
            }
            ValueKind::Array => self.push_frame(meaning_in_array(meaning), true, false),
            ValueKind::String => return Ok(self.begin_string(meaning)),
            _ => {}
        }
        Ok(Want::Nothing)
    }

    fn raw(&mut self, bytes: &[u8], ended: bool) {
        if self.in_order {
            self.findings.prompt.text(bytes, ended);
        } else {
            self.findings.prompt.aside(bytes.len() as u64);
        }
    }

    fn piece(&mut self, piece: &[u8]) {
        match self.meaning {
            Meaning::Media(_) | Meaning::MediaData(..) | Meaning::Loose(_) | Meaning::Result => {
                if let Some(reader) = &mut self.text {
                    reader.feed(piece);
                }
            }
            Meaning::Words => self.findings.aside.feed(piece),
            _ => self.findings.seeker.feed(piece),
        }
    }

    fn string(&mut self, string: &StringToken<'_>) -> Result<(), Unreadable> {
        let word = || String::from_utf8_lossy(string.kept).into_owned();
        match self.meaning {
            Meaning::Salt => self.findings.prompt.salt(string.kept),
            Meaning::Model if string.length > MAX_MODEL as u64 => {
                return Err(Unreadable::FieldTooLong { field: "model", limit: MAX_MODEL });
            }
            // None, to every engine.
            Meaning::Model if string.length == 0 => {}
            Meaning::Model => {
                self.findings.model = Some(word());
                let range = string.span.clone();
                self.findings.model_span = Some(ModelSpan { range, encoding: NameEncoding::Json });
            }
            Meaning::Previous if string.length > MAX_ID as u64 => {
                return Err(Unreadable::FieldTooLong { field: "previous_response_id", limit: MAX_ID });
            }
            Meaning::Previous if string.length == 0 => {}
            Meaning::Previous => self.findings.follows = Some(Owned { kind: OwnedKind::Response, id: word() }),
            Meaning::ModalityWord => {
                let modality: Modality = word().parse()?;
                self.findings.output = Some(self.findings.output.unwrap_or_default().with(modality));
            }
            Meaning::Media(kind) | Meaning::MediaData(kind, _) => self.end_media(kind, false)?,
            Meaning::Loose(kind) => self.end_media(kind, true)?,
            Meaning::Result => self.end_result()?,
            Meaning::Unsafe(UnsafeFeature::UnlistedFields) if string.length > 0 => self.unlisted(),
            Meaning::Unsafe(feature) if string.length > 0 => self.unsafe_here(feature),
            Meaning::Token if !is_token(string.kept) || string.length > MAX_TOKEN as u64 => {
                return Err(Unreadable::WrongType { field: "format", expected: "a short word, such as wav" });
            }
            // An engine pastes it into a `data:` URL as well.
            Meaning::MediaType if !is_media_type(string.kept) || string.length > MAX_TOKEN as u64 => {
                return Err(Unreadable::WrongType { field: "media_type", expected: "a media type, such as image/png" });
            }
            meaning => {
                if let Some(part) = self.part() {
                    match meaning {
                        Meaning::PartType => {
                            part.type_word = Some(TypeWord::of(string.kept));
                            part.type_key = Key::of(string.kept).map(Key::as_str);
                        }
                        Meaning::SourceType => {
                            part.source = match string.kept {
                                b"text" => Source::Text,
                                b"content" => Source::Blocks,
                                _ => Source::Media,
                            };
                        }
                        Meaning::MediaWord(kind) if could_be_fetched(string.kept) => part.doubt(kind),
                        Meaning::MediaType => part.media_type = Some(word().to_ascii_lowercase()),
                        // Beyond what is read of it, two names would be one.
                        Meaning::PartUuid if string.length > MAX_NAME as u64 => {
                            return Err(Unreadable::FieldTooLong { field: "uuid", limit: MAX_NAME });
                        }
                        // An empty one is a name to the engine all the same.
                        Meaning::PartUuid => part.uuid = Some((name_of(string), string.span.clone())),
                        Meaning::PartFileId if string.length > 0 => part.name = Some(name_of(string)),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, at: u64) -> Result<(), Unreadable> {
        if let Some(frame) = self.frames.last().filter(|frame| frame.part) {
            let lacks_uuid = self.operation == Operation::ChatCompletions && frame.lacks_uuid();
            self.part.uuid_goes_at = lacks_uuid.then_some(at);
            self.part.finish(&mut self.findings, || PartPath(path_of(&self.frames)))?;
            self.part = self.outer_parts.pop().unwrap_or_default();
            self.open_parts -= 1;
        }
        self.frames.pop();
        Ok(())
    }
}
