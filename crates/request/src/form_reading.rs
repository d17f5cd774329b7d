//! From the parts of a form to what routing needs.

use media::{ByteReader, TextReader};
use routing::{MediaSource, Modality, Operation, UnsafeFeature};

use crate::Unreadable;
use crate::fields::{Holds, Shape};
use crate::findings::{Findings, MAX_MODEL, MediaItem, ModelSpan, NameEncoding, PartPath};
use crate::form::{FormSink, PartHead};
use crate::grammar::{Meaning, MediaKind, meaning_of_field};
use crate::json::Lexer;
use crate::part::Part;
use crate::reading::Reading;

/// Reads a form.
#[derive(Debug)]
pub(crate) struct FormReading {
    operation: Operation,
    field: Field,
    head: PartHead,
    begun_at: u64,
    /// Whether the value has begun, but for blanks.
    begun: bool,
    /// The beginning of a short value.
    value: Vec<u8>,
    bytes: u64,
    has_file: bool,
    has_model: bool,
    file: Box<ByteReader>,
    text: Option<Box<TextReader>>,
    json: Option<Box<(Lexer, Reading)>>,
    pub(crate) findings: Findings,
}

/// What a part means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Field {
    Model,
    Stream,
    Text,
    /// A file, its bytes as they are. What is not sure to be of the modality says itself what it is.
    File(Modality, bool),
    /// A URL, base64 or JSON where others put a file.
    Loose(MediaKind),
    /// More fields, as JSON.
    Bag,
    /// Something in the JSON of one of these.
    Json,
    Unsafe(UnsafeFeature),
    #[default]
    Ignored,
}

/// `stream` is a word.
const MAX_WORD: usize = 8;

impl FormReading {
    pub(crate) fn new(operation: Operation, key: u64) -> Self {
        Self {
            operation,
            field: Field::Ignored,
            head: PartHead::default(),
            begun_at: 0,
            begun: false,
            value: Vec::new(),
            bytes: 0,
            has_file: false,
            has_model: false,
            file: Box::default(),
            text: None,
            json: None,
            findings: Findings::new(key),
        }
    }

    fn field_of(&self, head: &PartHead) -> Field {
        let Some(shape) = Shape::of_operation(self.operation) else { return Field::Ignored };
        // Clients write lists as `name[]` and objects as `name[key]`.
        let name = head.name.split('[').next().unwrap_or_default();
        let Some((.., holds)) = shape.field(name.as_bytes()) else {
            return if shape.is_closed() { Field::Unsafe(UnsafeFeature::UnlistedFields) } else { Field::Ignored };
        };
        match (holds, meaning_of_field(holds)) {
            (Holds::Model | Holds::Stream, _) if name != head.name => Field::Unsafe(UnsafeFeature::UnlistedFields),
            (Holds::Model, _) => Field::Model,
            (Holds::Stream, _) => Field::Stream,
            (Holds::Text | Holds::Words, _) => Field::Text,
            (Holds::Bag, _) => Field::Bag,
            (_, Meaning::Unsafe(feature)) => Field::Unsafe(feature),
            (_, Meaning::Loose(MediaKind::Of(modality))) if head.is_file => Field::File(modality, true),
            // What is a file and names nothing else is most often a picture.
            (_, Meaning::Loose(_)) if head.is_file => Field::File(Modality::Image, false),
            (_, Meaning::Loose(kind)) => Field::Loose(kind),
            _ => Field::Ignored,
        }
    }

    /// The first byte of a value that is not blank says whether it is JSON.
    fn begin_json(&mut self, piece: &[u8]) {
        let Some(first) = piece.iter().find(|byte| !byte.is_ascii_whitespace()) else { return };
        self.begun = true;
        let meaning = match (self.field, first) {
            (Field::Bag, _) => Meaning::Bag,
            (Field::Loose(kind), b'{' | b'[') => Meaning::Loose(kind),
            _ => return,
        };
        self.field = Field::Json;
        self.json = Some(Box::new((Lexer::new(), Reading::of_value(self.operation, meaning, 0))));
    }

    /// What was found in the JSON of a field is the form's.
    fn end_json(&mut self) -> Result<(), Unreadable> {
        let Some(mut json) = self.json.take() else { return Ok(()) };
        json.0.finish()?;
        let at = |path: &PartPath| match path.as_str() {
            "" => PartPath(self.head.name.clone()),
            path => PartPath(format!("{}.{path}", self.head.name)),
        };
        let inner = &json.1.findings;
        self.findings.text |= inner.text;
        self.findings.seeker.add(inner.seeker.found().and(inner.aside.found()));
        for found in json.1.findings.unsafe_features {
            self.findings.unsafe_feature(found.feature, || at(&found.at));
        }
        for item in json.1.findings.media {
            let at = at(&item.at);
            self.findings.add(MediaItem { at, uuid: None, ..item })?;
        }
        Ok(())
    }

    fn end_of_file(&mut self, modality: Modality, sure: bool) -> Result<(), Unreadable> {
        let (identity, facts) = self.file.finish();
        let modality = if sure { modality } else { facts.modality().unwrap_or(modality) };
        self.has_file = true;
        self.findings.add(MediaItem {
            modality,
            source: MediaSource::Inline,
            bytes: self.bytes,
            media_type: self.head.media_type.take(),
            identity: Some(identity).filter(|_| facts.bytes > 0),
            uuid: None,
            facts,
            broken: false,
            is_document: false,
            url: None,
            at: PartPath(self.head.name.clone()),
        })
    }
}

impl FormSink for FormReading {
    fn begin(&mut self, head: PartHead, at: u64) -> Result<(), Unreadable> {
        self.field = self.field_of(&head);
        match self.field {
            // Of two, even if one is empty, one reader takes the first, another the last.
            Field::Model if std::mem::replace(&mut self.has_model, true) => {
                return Err(Unreadable::DuplicateField { field: "model", at });
            }
            Field::Model if head.is_file => {
                return Err(Unreadable::WrongType { field: "model", expected: "a string" });
            }
            Field::File(..) if self.has_file && Shape::of_operation(self.operation) == Some(Shape::Transcriptions) => {
                return Err(Unreadable::DuplicateField { field: "file", at });
            }
            Field::Text => self.findings.seeker.start(),
            Field::Loose(_) => self.text.get_or_insert_default().start(media::Spelling::Url),
            _ => {}
        }
        self.head = head;
        self.begun_at = at;
        self.value.clear();
        (self.bytes, self.begun) = (0, false);
        Ok(())
    }

    fn content(&mut self, piece: &[u8]) -> Result<(), Unreadable> {
        if !self.begun {
            self.begin_json(piece);
        }
        self.bytes += piece.len() as u64;
        let limit = match self.field {
            Field::File(..) => {
                self.file.feed(piece);
                return Ok(());
            }
            Field::Text => {
                self.findings.text |= !piece.is_empty();
                self.findings.seeker.feed(piece);
                self.findings.prompt.aside(piece.len() as u64);
                return Ok(());
            }
            Field::Loose(_) => {
                if let Some(text) = &mut self.text {
                    text.feed(piece);
                }
                return Ok(());
            }
            Field::Json => {
                return match &mut self.json {
                    Some(json) => json.0.feed(piece, &mut json.1),
                    None => Ok(()),
                };
            }
            Field::Model => MAX_MODEL + 1,
            Field::Stream | Field::Unsafe(_) => MAX_WORD,
            Field::Bag | Field::Ignored => 0,
        };
        let room = limit.saturating_sub(self.value.len()).min(piece.len());
        self.value.extend_from_slice(&piece[..room]);
        Ok(())
    }

    fn end(&mut self, at: u64) -> Result<(), Unreadable> {
        match self.field {
            Field::Model if self.value.len() > MAX_MODEL => {
                return Err(Unreadable::FieldTooLong { field: "model", limit: MAX_MODEL });
            }
            Field::Model => {
                let name = String::from_utf8(std::mem::take(&mut self.value));
                let name = name.map_err(|_| Unreadable::NotUtf8 { at: self.begun_at })?;
                // None, to every engine.
                if name.is_empty() {
                    return Ok(());
                }
                self.findings.model = Some(name);
                let range = self.begun_at..at;
                self.findings.model_span = Some(ModelSpan { range, encoding: NameEncoding::Form });
            }
            // What pydantic takes for true.
            Field::Stream => {
                let word = String::from_utf8_lossy(&self.value).trim().to_ascii_lowercase();
                self.findings.stream = matches!(&*word, "true" | "1" | "yes" | "on" | "t" | "y");
            }
            Field::File(modality, sure) => self.end_of_file(modality, sure)?,
            Field::Loose(kind) => {
                if let Some(found) = self.text.as_mut().map(|text| text.finish()).filter(|_| self.bytes > 0) {
                    let mut part = Part::default();
                    part.add(kind, found);
                    part.finish(&mut self.findings, || PartPath(self.head.name.clone()))?;
                }
            }
            Field::Json => self.end_json()?,
            // Some clients always send what they do not use.
            Field::Unsafe(feature) if !matches!(&*self.value, b"" | b"false" | b"False" | b"null" | b"{}" | b"[]") => {
                self.findings.unsafe_feature(feature, || PartPath(self.head.name.clone()));
            }
            Field::Text | Field::Bag | Field::Unsafe(_) | Field::Ignored => {}
        }
        self.field = Field::Ignored;
        Ok(())
    }
}
