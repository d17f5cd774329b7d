//! A content part, put together from its fields once all of them were seen.

use std::ops::Range;

use media::{Facts, Identity, TextFound, UrlFault};
use routing::{MediaSource, Modality, UnsafeFeature};

use crate::Unreadable;
use crate::findings::{Findings, MediaItem, PartPath, UuidAt};
use crate::grammar::{MediaKind, TypeWord};

/// A content part, or an object that stands for one.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// None when there is no `type`.
    pub(crate) type_word: Option<TypeWord>,
    /// `file_id`.
    pub(crate) name: Option<Identity>,
    pub(crate) has_uuid: bool,
    /// The client's own name for the media, and where it stands.
    pub(crate) uuid: Option<(Identity, Range<u64>)>,
    /// Where one could be put: where its last bracket stands, if it takes one and has none.
    pub(crate) uuid_goes_at: Option<u64>,
    /// The field that holds its media as the APIs have it, and the one that its `type` names.
    pub(crate) held_by: Option<&'static str>,
    pub(crate) type_key: Option<&'static str>,
    /// What the `source` of an Anthropic block holds.
    pub(crate) source: Source,
    pub(crate) media_type: Option<String>,
    fields: Vec<(MediaKind, Field)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Source {
    #[default]
    Media,
    Text,
    /// Blocks, which are read as they come.
    Blocks,
}

/// The media fields of one kind in one part.
#[derive(Debug, Clone, Default)]
struct Field {
    found: Option<TextFound>,
    /// Whether something stands beside it that could be fetched as well.
    doubtful: bool,
    /// Of all strings in them.
    bytes: u64,
}

impl Part {
    /// A media field of this kind is there, even if it is null.
    pub(crate) fn has(&mut self, kind: MediaKind) {
        self.field(kind);
    }

    pub(crate) fn add(&mut self, kind: MediaKind, found: TextFound) {
        self.field(kind).add(kind, found);
    }

    /// Beside a media field of this kind stands something that could be fetched as well.
    pub(crate) fn doubt(&mut self, kind: MediaKind) {
        self.field(kind).doubtful = true;
    }

    fn field(&mut self, kind: MediaKind) -> &mut Field {
        let known = self.fields.iter().position(|(of, _)| *of == kind);
        let place = known.unwrap_or_else(|| {
            self.fields.push((kind, Field::default()));
            self.fields.len() - 1
        });
        &mut self.fields[place].1
    }

    /// The part has ended: adds what it is to the findings.
    pub(crate) fn finish(&mut self, findings: &mut Findings, at: impl Fn() -> PartPath) -> Result<(), Unreadable> {
        let is_plain = self.fields.len() == 1 && self.held_by.is_some() && self.held_by == self.type_key;
        self.uuid_goes_at = self.uuid_goes_at.filter(|_| is_plain);
        match self.type_word.unwrap_or(TypeWord::Unknown) {
            // vLLM lets the keys win over `type` once a `uuid` is there; without either the keys are all there is.
            TypeWord::Text if !self.has_uuid || self.fields.is_empty() => findings.text = true,
            TypeWord::Media(MediaKind::File) if self.source == Source::Text => findings.text = true,
            TypeWord::Media(MediaKind::File) if self.source == Source::Blocks => {}
            // Nor do the keys of a file say what it is.
            TypeWord::Media(kind) if !self.has_uuid || self.fields.iter().all(|(of, _)| *of == MediaKind::File) => {
                let field = self.take_field_for(kind);
                self.item(kind, field, findings, &at)?;
            }
            TypeWord::Unknown if self.fields.is_empty() && self.type_word.is_none() => findings.text = true,
            _ => {
                if self.fields.len() > 1 {
                    // A mere `file_id` names what the other field is about.
                    self.fields.retain(|(kind, field)| *kind != MediaKind::File || field.found.is_some());
                }
                for (kind, field) in std::mem::take(&mut self.fields) {
                    self.item(kind, field, findings, &at)?;
                }
            }
        }
        Ok(())
    }

    /// What the part holds of a kind: its own field, or one that says of itself what it is.
    fn take_field_for(&mut self, kind: MediaKind) -> Field {
        let same = |of: MediaKind| {
            of == kind
                || matches!((of, kind), (MediaKind::Of(a) | MediaKind::Embeds(a), MediaKind::Of(b) | MediaKind::Embeds(b)) if a == b)
        };
        let mut all = Field::default();
        let fields = std::mem::take(&mut self.fields).into_iter();
        for (_, field) in fields.filter(|(of, _)| same(*of) || *of == MediaKind::File) {
            all.doubtful |= field.doubtful;
            if let Some(found) = field.found {
                all.add(kind, found);
                all.bytes = all.bytes.max(field.bytes);
            }
        }
        all
    }

    fn item(
        &self,
        kind: MediaKind,
        field: Field,
        findings: &mut Findings,
        at: &impl Fn() -> PartPath,
    ) -> Result<(), Unreadable> {
        let Field { found, doubtful, bytes } = field;
        let (mut source, facts, mut url) =
            found.as_ref().map_or((MediaSource::Inline, Facts::default(), None), |found| {
                (found.source, found.facts, found.url.clone())
            });
        if doubtful {
            (source, url) = (MediaSource::Url, Some(Err(UrlFault::Several)));
        }
        let broken = found.as_ref().is_some_and(|found| found.undecodable);
        let (identity, media_type) = found.map_or((None, None), |found| (found.identity, found.media_type));
        let media_type = media_type.or_else(|| self.media_type.clone());
        let modality = match kind {
            MediaKind::Of(modality) => modality,
            MediaKind::Embeds(modality) => {
                findings.unsafe_feature(UnsafeFeature::Embeds, at);
                modality
            }
            MediaKind::File => modality_of_file(media_type.as_deref(), &facts),
        };
        if modality == Modality::Text && source == MediaSource::Inline {
            findings.text = true;
            // As base64.
            findings.prompt.aside(bytes / 4 * 3);
            return Ok(());
        }
        // A text to be fetched is a document like any other.
        let modality = if modality == Modality::Text { Modality::Image } else { modality };
        let is_document = kind == MediaKind::File && modality == Modality::Image && facts.modality().is_none();
        let (named, given) = self.uuid.clone().unzip();
        let is_plain = !doubtful && matches!(kind, MediaKind::Of(_)) && self.name.is_none();
        let missing = self.uuid_goes_at.filter(|_| is_plain).map(UuidAt::Missing);
        let identity = named.or(self.name).or(identity);
        findings.add(MediaItem {
            modality,
            source,
            bytes,
            media_type,
            identity,
            uuid: given.map(UuidAt::Given).or(missing),
            facts,
            broken,
            is_document,
            url,
            at: at(),
        })
    }
}

/// A file is what its first bytes say, or else what the client says it is. Of documents engines read the text where there is one, and look
/// at the pages of a PDF as pictures, and of whatever else nobody knows.
fn modality_of_file(media_type: Option<&str>, facts: &Facts) -> Modality {
    let declared = media_type.and_then(|media_type| {
        Some(match media_type.split_once('/')? {
            ("image", _) => Modality::Image,
            ("audio", _) => Modality::Audio,
            ("video", _) => Modality::Video,
            ("text", _) => Modality::Text,
            ("application", kind) if is_text(kind) => Modality::Text,
            _ => return None,
        })
    });
    facts.modality().or(declared).unwrap_or(Modality::Image)
}

/// Whether engines read the text of such a file: formats that are text, and those of offices, of which they take it.
fn is_text(kind: &str) -> bool {
    const KINDS: [&str; 10] =
        ["csv", "javascript", "json", "msword", "ndjson", "rtf", "sql", "typescript", "xml", "yaml"];
    const BEGINNINGS: [&str; 3] = ["vnd.openxmlformats-officedocument", "vnd.oasis.opendocument", "vnd.ms-"];
    KINDS.contains(&kind.trim_start_matches("x-"))
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || BEGINNINGS.iter().any(|beginning| kind.starts_with(beginning))
}

impl Field {
    /// Of several strings an engine takes one, and which is its own affair: such an item is refused. Tensors come in several.
    fn add(&mut self, kind: MediaKind, found: TextFound) {
        self.bytes += found.bytes;
        match &mut self.found {
            Some(_) if matches!(kind, MediaKind::Embeds(_)) => {}
            Some(first) => {
                first.source = MediaSource::Url;
                first.url = Some(Err(UrlFault::Several));
            }
            None => self.found = Some(found),
        }
    }
}
