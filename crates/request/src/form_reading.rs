//! From the parts of a form to what routing needs.

use media::{ByteReader, TextReader};
use routing::{MediaSource, Modality, Operation, UnsafeFeature};

use crate::Unreadable;
use crate::findings::{Findings, MAX_MODEL, MediaItem, ModelSpan, NameEncoding, PartPath};
use crate::form::{FormSink, PartHead};
use crate::grammar::MediaKind;
use crate::part::Part;

/// Reads a form.
#[derive(Debug)]
pub(crate) struct FormReading {
    operation: Operation,
    field: Field,
    head: PartHead,
    begun_at: u64,
    /// The beginning of a short value.
    value: Vec<u8>,
    bytes: u64,
    has_file: bool,
    file: Box<ByteReader>,
    text: Option<Box<TextReader>>,
    pub(crate) findings: Findings,
}

/// What a part means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Field {
    Model,
    Stream,
    Text,
    /// A file, its bytes as they are.
    File(Modality, bool),
    /// A URL or base64 where others put a file.
    Loose(MediaKind),
    Unsafe(UnsafeFeature),
    #[default]
    Ignored,
}

/// `stream` is a word.
const MAX_WORD: usize = 8;

impl FormReading {
    pub(crate) fn new(operation: Operation) -> Self {
        Self {
            operation,
            field: Field::Ignored,
            head: PartHead::default(),
            begun_at: 0,
            value: Vec::new(),
            bytes: 0,
            has_file: false,
            file: Box::default(),
            text: None,
            findings: Findings::default(),
        }
    }

    fn field_of(&self, head: &PartHead) -> Field {
        // Several files are named so; nothing else is.
        let name = head.name.strip_suffix("[]").unwrap_or(&head.name);
        let media = match (self.operation, name) {
            (Operation::Transcriptions | Operation::Translations, "file") => Some((Modality::Audio, true)),
            (Operation::ImageEdits | Operation::Videos, "image" | "mask" | "mask_image" | "reference_image")
            | (Operation::ImageEdits, "url") => Some((Modality::Image, true)),
            (Operation::Videos, "video") => Some((Modality::Video, true)),
            (Operation::Videos, "input_reference" | "image_reference" | "video_reference") => {
                Some((Modality::Image, false))
            }
            _ => None,
        };
        match (&*head.name, media) {
            ("model", _) => Field::Model,
            ("stream", _) => Field::Stream,
            ("mm_processor_kwargs" | "media_io_kwargs", _) => Field::Unsafe(UnsafeFeature::ProcessorArguments),
            ("lora" | "frame_interpolation_model_path", _) => Field::Unsafe(UnsafeFeature::EngineInternals),
            (_, Some((modality, sure))) if head.is_file => Field::File(modality, sure),
            (_, Some((modality, true))) => Field::Loose(MediaKind::Of(modality)),
            (_, Some((_, false))) => Field::Loose(MediaKind::File),
            ("prompt", _) if matches!(self.operation, Operation::ImageEdits | Operation::Videos) => Field::Text,
            _ => Field::Ignored,
        }
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
            uuid_at: None,
            facts,
            broken: false,
            url: None,
            at: PartPath(self.head.name.clone()),
        })
    }
}

impl FormSink for FormReading {
    fn begin(&mut self, head: PartHead, at: u64) -> Result<(), Unreadable> {
        self.field = self.field_of(&head);
        match self.field {
            Field::Model if self.findings.model.is_some() => {
                return Err(Unreadable::DuplicateField { field: "model", at });
            }
            // Of two files one reader takes the first, another the last.
            Field::File(Modality::Audio, _) if self.has_file => {
                return Err(Unreadable::DuplicateField { field: "file", at });
            }
            Field::Text => self.findings.seeker.start(),
            Field::Loose(_) => self.text.get_or_insert_default().start(media::Spelling::Url),
            Field::Unsafe(feature) => {
                let at = PartPath(head.name.clone());
                self.findings.unsafe_feature(feature, || at);
            }
            _ => {}
        }
        self.head = head;
        self.begun_at = at;
        self.value.clear();
        self.bytes = 0;
        Ok(())
    }

    fn content(&mut self, piece: &[u8]) -> Result<(), Unreadable> {
        self.bytes += piece.len() as u64;
        let limit = match self.field {
            Field::File(..) => {
                self.file.feed(piece);
                return Ok(());
            }
            Field::Text => {
                self.findings.text |= !piece.is_empty();
                self.findings.seeker.feed(piece);
                return Ok(());
            }
            Field::Loose(_) => {
                if let Some(text) = &mut self.text {
                    text.feed(piece);
                }
                return Ok(());
            }
            Field::Model => MAX_MODEL + 1,
            Field::Stream => MAX_WORD,
            Field::Unsafe(_) | Field::Ignored => 0,
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
            Field::Text | Field::Unsafe(_) | Field::Ignored => {}
        }
        self.field = Field::Ignored;
        Ok(())
    }
}
