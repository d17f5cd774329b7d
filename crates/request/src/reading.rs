//! From tokens to what routing needs: the model, the modalities in and out, the media, streaming.
//!
//! The shapes are those that vLLM's chat parser takes (`vllm/entrypoints/chat_utils.py`): content as a string or a list, parts as
//! objects or bare strings, a `type` that may be missing or come last, media as an object or a bare string, `null` media with a
//! `uuid`. Media counts in every role and turn.

use std::fmt;
use std::ops::Range;

use routing::{MediaSource, Modality, ModalitySet, Requirement};

use crate::json::{Kind, Sink, StringToken};
use crate::{Operation, Unreadable};

/// Something other than text that a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaItem {
    pub modality: Modality,
    pub source: MediaSource,
    /// Bytes of the encoded data or of the URL.
    pub bytes: u64,
    /// The host that the model server would be asked to fetch from.
    pub host: Host,
    pub at: PartPath,
}

/// The host in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Inline media has none.
    None,
    /// In lower case, without user or port.
    Named(String),
    /// A URL of another scheme, or one that two readers might read in two ways.
    Unclear,
}

/// Where a content part stands: `messages[0].content[1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartPath {
    pub message: u32,
    pub part: u32,
}

/// A media item weighs a path and a host; a request with more of them is not for a model server.
pub(crate) const MAX_ITEMS: usize = 4096;

/// Longest model name that is read. InferenceModel allows 256.
const MAX_MODEL: usize = 1024;

/// Longest beginning of a URL that is looked at; a host ends within it or is unclear.
const MAX_URL_HEAD: usize = 512;

const MAX_WORD: usize = 32;

/// What a value means, by where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Root,
    Model,
    Stream,
    Modalities,
    ModalityWord,
    /// `prompt` of completions, `input` of embeddings.
    Prompt,
    Messages,
    Message,
    Content,
    Part,
    PartType,
    PartUuid,
    /// A part's media field: an object, a bare string, or null.
    Media(Modality),
    /// What is inside of it, however deep: URLs, data, embeddings.
    MediaData(Modality),
    Ignored,
}

/// An open object or array.
#[derive(Debug)]
struct Frame {
    slot: Slot,
    array: bool,
    /// Which known keys were seen, by their place in [`FIELDS`].
    seen: u32,
    /// The place of the element that comes next.
    next: u32,
}

/// Keys that mean something somewhere; a repeated one would be read in two ways.
const FIELDS: [&str; 22] = [
    "model",
    "stream",
    "modalities",
    "messages",
    "content",
    "type",
    "uuid",
    "prompt",
    "input",
    "image_url",
    "input_image",
    "image_pil",
    "image_embeds",
    "video_url",
    "audio_url",
    "input_audio",
    "audio_embeds",
    "image",
    "audio",
    "video",
    "url",
    "data",
];

/// A content part being read.
#[derive(Debug, Default)]
struct Part {
    type_word: Option<String>,
    uuid: bool,
    /// By modality, what its media fields held.
    fields: Vec<(Modality, Field)>,
}

/// The media fields of one modality in one part. Which of several an engine takes is its own affair, so the worst of them counts.
#[derive(Debug, Clone)]
struct Field {
    /// Of all strings in them.
    bytes: u64,
    source: MediaSource,
    host: Host,
}

#[derive(Debug)]
pub(crate) struct Reading {
    operation: Operation,
    frames: Vec<Frame>,
    /// What the next value of the innermost object means.
    slot: Slot,
    part: Part,
    pub(crate) model: Option<String>,
    pub(crate) model_span: Option<Range<u64>>,
    pub(crate) stream: bool,
    pub(crate) media: Vec<MediaItem>,
    pub(crate) text: bool,
    output: Option<ModalitySet>,
}

// === impl Reading ===

impl Reading {
    pub(crate) fn new(operation: Operation) -> Self {
        Self {
            operation,
            frames: Vec::new(),
            slot: Slot::Root,
            part: Part::default(),
            model: None,
            model_span: None,
            stream: false,
            media: Vec::new(),
            text: false,
            output: None,
        }
    }

    pub(crate) fn requires(&self) -> Requirement {
        let output = match self.operation {
            Operation::ChatCompletions => self.output.unwrap_or(ModalitySet::TEXT),
            Operation::Completions => ModalitySet::TEXT,
            Operation::Embeddings => ModalitySet::of(&[Modality::Embedding]),
            Operation::Other => ModalitySet::EMPTY,
        };
        let text = if self.text { ModalitySet::TEXT } else { ModalitySet::EMPTY };
        Requirement { input: self.media.iter().map(|item| item.modality).collect::<ModalitySet>().union(text), output }
    }

    /// What the value at hand means, and for an array that it has begun another element.
    fn next_slot(&mut self) -> Slot {
        match self.frames.last_mut() {
            None => Slot::Root,
            Some(frame) if frame.array => {
                frame.next += 1;
                match frame.slot {
                    Slot::Messages => Slot::Message,
                    Slot::Content => Slot::Part,
                    Slot::Modalities => Slot::ModalityWord,
                    Slot::MediaData(modality) => Slot::MediaData(modality),
                    _ => Slot::Ignored,
                }
            }
            Some(_) => std::mem::replace(&mut self.slot, Slot::Ignored),
        }
    }

    fn slot_of_key(&self, parent: Slot, key: &str) -> Slot {
        let reads_messages = matches!(self.operation, Operation::ChatCompletions | Operation::Embeddings);
        match (parent, key) {
            (Slot::Root, "model") => Slot::Model,
            (Slot::Root, "stream") => Slot::Stream,
            (Slot::Root, "modalities") if self.operation == Operation::ChatCompletions => Slot::Modalities,
            (Slot::Root, "messages") if reads_messages => Slot::Messages,
            (Slot::Root, "prompt") if self.operation == Operation::Completions => Slot::Prompt,
            (Slot::Root, "input") if self.operation == Operation::Embeddings => Slot::Prompt,
            (Slot::Message, "content") => Slot::Content,
            (Slot::Part, "type") => Slot::PartType,
            (Slot::Part, "uuid") => Slot::PartUuid,
            (Slot::Part, "image_url" | "input_image" | "image_pil" | "image_embeds" | "image") => {
                Slot::Media(Modality::Image)
            }
            (Slot::Part, "video_url" | "video") => Slot::Media(Modality::Video),
            (Slot::Part, "audio_url" | "input_audio" | "audio_embeds" | "audio") => Slot::Media(Modality::Audio),
            (Slot::Media(modality) | Slot::MediaData(modality), _) => Slot::MediaData(modality),
            _ => Slot::Ignored,
        }
    }

    fn end_of_part(&mut self) -> Result<(), Unreadable> {
        let part = std::mem::take(&mut self.part);
        let by_keys: ModalitySet = part.fields.iter().map(|(modality, _)| *modality).collect();
        // vLLM lets the keys win over `type` once a `uuid` is there; without either the keys are all there is.
        let by_type = part.type_word.as_deref().and_then(modality_of_type);
        let modalities = match by_type {
            Some(modality) if !part.uuid || by_keys.is_empty() => ModalitySet::of(&[modality]),
            _ if by_keys.is_empty() && part.type_word.is_none() => ModalitySet::TEXT,
            _ => by_keys,
        };
        let at = self.part_path();
        for modality in modalities.iter() {
            if modality == Modality::Text {
                self.text = true;
                continue;
            }
            if self.media.len() == MAX_ITEMS {
                return Err(Unreadable::TooManyItems { limit: MAX_ITEMS });
            }
            let field = part
                .fields
                .iter()
                .find(|(of, _)| *of == modality)
                .map_or_else(Field::default, |(_, field)| field.clone());
            let Field { bytes, source, host } = field;
            self.media.push(MediaItem { modality, source, bytes, host, at });
        }
        Ok(())
    }

    /// Where the part that just ended stands.
    fn part_path(&self) -> PartPath {
        let place = |slot| {
            self.frames.iter().rev().find(|frame| frame.slot == slot && frame.array).map_or(0, |frame| frame.next - 1)
        };
        PartPath { message: place(Slot::Messages), part: place(Slot::Content) }
    }

    fn field_of(&mut self, modality: Modality) -> &mut Field {
        let known = self.part.fields.iter().position(|(of, _)| *of == modality);
        let place = known.unwrap_or_else(|| {
            self.part.fields.push((modality, Field::default()));
            self.part.fields.len() - 1
        });
        &mut self.part.fields[place].1
    }
}

impl Field {
    fn add(&mut self, string: &StringToken<'_>) {
        self.bytes += string.length;
        let (source, host) = source_of(string.kept);
        self.source = self.source.max(source);
        self.host = match (std::mem::replace(&mut self.host, Host::None), host) {
            (Host::None, one) | (one, Host::None) => one,
            (one, other) if one == other => one,
            _ => Host::Unclear,
        };
    }
}

impl Default for Field {
    fn default() -> Self {
        Self { bytes: 0, source: MediaSource::Inline, host: Host::None }
    }
}

impl Sink for Reading {
    fn key(&mut self, key: &[u8], at: u64) -> Result<(), Unreadable> {
        self.slot = Slot::Ignored;
        let Some(frame) = self.frames.last() else { return Ok(()) };
        if frame.slot == Slot::Ignored {
            return Ok(());
        }
        let Some(known) = FIELDS.iter().position(|field| field.as_bytes() == key) else {
            // Inside media every key may hold some; two are known to hold words.
            if !matches!(key, b"detail" | b"format") {
                self.slot = self.slot_of_key(frame.slot, "");
            }
            return Ok(());
        };
        let slot = self.slot_of_key(frame.slot, FIELDS[known]);
        if slot != Slot::Ignored {
            if frame.seen & 1 << known != 0 {
                return Err(Unreadable::DuplicateField { field: FIELDS[known], at });
            }
            if let Some(frame) = self.frames.last_mut() {
                frame.seen |= 1 << known;
            }
        }
        self.slot = slot;
        Ok(())
    }

    fn begin(&mut self, kind: Kind) -> Result<usize, Unreadable> {
        let slot = self.next_slot();
        match (slot, kind) {
            (Slot::Root, Kind::Object) | (Slot::Model, Kind::String | Kind::Null) | (Slot::Modalities, Kind::Null) => {}
            (Slot::Root, _) => return Err(Unreadable::NotAnObject),
            (Slot::Model, _) => return Err(Unreadable::WrongType { field: "model", expected: "a string" }),
            (Slot::Stream, Kind::True) => self.stream = true,
            (Slot::Modalities, Kind::Array) => self.output = Some(ModalitySet::EMPTY),
            (Slot::Modalities, _) => {
                return Err(Unreadable::WrongType { field: "modalities", expected: "a list of words" });
            }
            (Slot::Prompt, kind) => self.text |= kind != Kind::Null,
            (Slot::Content | Slot::Part, Kind::String) => self.text = true,
            (Slot::Part, Kind::Object) => self.part = Part::default(),
            (Slot::PartUuid, kind) => self.part.uuid = kind != Kind::Null,
            (Slot::Media(modality), _) => {
                self.field_of(modality);
            }
            _ => {}
        }
        match kind {
            Kind::Object => self.push_frame(object_slot(slot), false),
            Kind::Array => self.push_frame(array_slot(slot), true),
            Kind::String => {
                self.slot = slot;
                return Ok(match slot {
                    Slot::Model => MAX_MODEL + 1,
                    Slot::ModalityWord | Slot::PartType => MAX_WORD,
                    Slot::Media(_) | Slot::MediaData(_) => MAX_URL_HEAD,
                    _ => 0,
                });
            }
            _ => {}
        }
        Ok(0)
    }

    fn string(&mut self, string: &StringToken<'_>) -> Result<(), Unreadable> {
        let word = || String::from_utf8_lossy(string.kept).into_owned();
        match self.slot {
            Slot::Model if string.length > MAX_MODEL as u64 => {
                return Err(Unreadable::FieldTooLong { field: "model", limit: MAX_MODEL });
            }
            Slot::Model => {
                self.model = Some(word());
                self.model_span = Some(string.span.clone());
            }
            Slot::ModalityWord => {
                let modality: Modality = word().parse()?;
                self.output = Some(self.output.unwrap_or_default().with(modality));
            }
            Slot::PartType => self.part.type_word = Some(word()),
            Slot::Media(modality) | Slot::MediaData(modality) => {
                self.field_of(modality).add(string);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Unreadable> {
        let ended = self.frames.pop();
        if ended.is_some_and(|frame| frame.slot == Slot::Part) {
            self.end_of_part()?;
        }
        Ok(())
    }
}

impl Reading {
    fn push_frame(&mut self, slot: Slot, array: bool) {
        self.frames.push(Frame { slot, array, seen: 0, next: 0 });
    }
}

/// What an object means at a place; most places want something else, and what a model server will refuse is not looked into.
fn object_slot(slot: Slot) -> Slot {
    match slot {
        Slot::Root | Slot::Message | Slot::Part | Slot::Media(_) | Slot::MediaData(_) => slot,
        _ => Slot::Ignored,
    }
}

fn array_slot(slot: Slot) -> Slot {
    match slot {
        Slot::Messages | Slot::Content | Slot::Modalities | Slot::MediaData(_) => slot,
        Slot::Media(modality) => Slot::MediaData(modality),
        _ => Slot::Ignored,
    }
}

/// The modality that a part's `type` names; none for a type that no engine we know takes as one.
fn modality_of_type(word: &str) -> Option<Modality> {
    Some(match word {
        "text" | "input_text" | "output_text" | "refusal" | "thinking" | "tool_reference" | "prompt_embeds" => {
            Modality::Text
        }
        "image_url" | "input_image" | "image_pil" | "image_embeds" | "image" => Modality::Image,
        "input_audio" | "audio_url" | "audio_embeds" | "audio" => Modality::Audio,
        "video_url" | "video" => Modality::Video,
        _ => return None,
    })
}

/// Whether the model server would have to fetch this, and from where. Only what is surely inline is: a `data:` URL, or base64. Anything
/// else may be a URL to some reader (several strip spaces and tabs before they look).
fn source_of(head: &[u8]) -> (MediaSource, Host) {
    let scheme = |scheme: &[u8]| head.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let base64 =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=' | b'\n' | b'\r');
    if scheme(b"data:") || head.iter().all(base64) {
        (MediaSource::Inline, Host::None)
    } else if scheme(b"http:") {
        (MediaSource::Url, host_of(&head[5..]))
    } else if scheme(b"https:") {
        (MediaSource::Url, host_of(&head[6..]))
    } else {
        (MediaSource::Url, Host::Unclear)
    }
}

/// The host after `http:`. Anything that parsers are known to disagree on (a backslash, a user, control bytes, spaces) is unclear.
fn host_of(rest: &[u8]) -> Host {
    let Some(rest) = rest.strip_prefix(b"//") else { return Host::Unclear };
    let Some(end) = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .or((rest.len() < MAX_URL_HEAD - 8).then_some(rest.len()))
    else {
        return Host::Unclear;
    };
    let authority = &rest[..end];
    let clear = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    if authority.is_empty() || !authority.iter().all(clear) {
        return Host::Unclear;
    }
    let authority = String::from_utf8_lossy(authority).to_ascii_lowercase();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map(|(host, _)| host.to_owned()),
        None => Some(authority.split(':').next().unwrap_or_default().to_owned()),
    };
    host.filter(|host| !host.is_empty()).map_or(Host::Unclear, Host::Named)
}

impl fmt::Display for PartPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "messages[{}].content[{}]", self.message, self.part)
    }
}
