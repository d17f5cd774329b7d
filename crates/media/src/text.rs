//! The reader of an item that comes as text: a `data:` URL, base64 alone, or a URL to fetch from.

use routing::MediaSource;

use crate::base64::Decoder;
use crate::url::{MAX_HEADER, MAX_URL};
use crate::{ByteReader, Facts, Identity, MediaUrl, UrlFault};

/// What a text may be, by the field that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// A field for URLs. Several engines also take base64 or the path of a file there.
    Url,
    /// A field for base64 and nothing else, such as `input_audio.data`. Engines take a `data:` URL there as well.
    Data,
}

/// Reads texts one after another; the buffers stay.
#[derive(Debug)]
pub struct TextReader {
    spelling: Spelling,
    /// The text's beginning, until it is clear what it is; then all of it, if it is a URL.
    head: Vec<u8>,
    length: u64,
    kind: TextKind,
    media_type: Option<String>,
    decoder: Decoder,
    bytes: ByteReader,
    /// Whether a text has begun that did not end.
    dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextKind {
    Undecided,
    /// Base64 follows, after a `data:` header or from the start.
    Base64 {
        header: bool,
    },
    /// A `data:` URL of another encoding: hashed as it stands.
    Plain,
    /// A `data:` URL whose header does not end.
    Endless,
    Url,
}

/// What a text told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFound {
    pub source: MediaSource,
    /// Bytes of the text.
    pub bytes: u64,
    /// What a `data:` header names, in lower case and at most 64 bytes of it.
    pub media_type: Option<String>,
    pub identity: Option<Identity>,
    pub facts: Facts,
    /// Where it would be fetched from, or what is wrong with that; none for what is inline.
    pub url: Option<Result<MediaUrl, UrlFault>>,
    /// Whether what should be base64 is none. An engine will refuse it, or make something of it that nobody foresees.
    pub undecodable: bool,
}

/// A text is decided on when so much of it is there; the longest scheme that matters is `https:`.
const SCHEME: usize = 6;

impl Default for TextReader {
    fn default() -> Self {
        Self {
            spelling: Spelling::Url,
            head: Vec::new(),
            length: 0,
            kind: TextKind::Undecided,
            media_type: None,
            decoder: Decoder::new(),
            bytes: ByteReader::default(),
            dirty: false,
        }
    }
}

impl TextReader {
    /// A text begins.
    pub fn start(&mut self, spelling: Spelling) {
        self.spelling = spelling;
        self.head.clear();
        self.length = 0;
        self.kind = TextKind::Undecided;
        self.media_type = None;
        self.decoder.start();
        if std::mem::replace(&mut self.dirty, true) {
            // Whatever a text that was given up left behind.
            self.bytes = ByteReader::default();
        }
    }

    pub fn feed(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        match self.kind {
            TextKind::Base64 { .. } => self.decoder.feed(piece, |some| self.bytes.feed(some)),
            TextKind::Plain => self.bytes.feed(piece),
            TextKind::Endless => {}
            TextKind::Url => self.keep(piece, MAX_URL + 1),
            TextKind::Undecided => {
                let before = self.head.len();
                self.keep(piece, MAX_HEADER);
                let kept = self.head.len() - before;
                self.decide(false);
                if self.kind != TextKind::Undecided {
                    self.length -= (piece.len() - kept) as u64;
                    self.feed(&piece[kept..]);
                }
            }
        }
    }

    fn keep(&mut self, piece: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.head.len()).min(piece.len());
        self.head.extend_from_slice(&piece[..room]);
    }

    /// Looks at the beginning, if enough of it is there, and hands on what of it is content.
    fn decide(&mut self, ended: bool) {
        let ended = ended || self.head.len() == MAX_HEADER;
        let starts =
            |scheme: &[u8]| self.head.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        if self.head.len() < SCHEME && !ended {
            return;
        }
        if starts(b"data:") {
            match self.head.iter().position(|byte| *byte == b',') {
                Some(comma) => self.data_url(comma),
                None if ended => self.kind = TextKind::Endless,
                None => {}
            }
        } else if self.spelling == Spelling::Data || (ended && self.head.iter().all(|byte| is_base64(*byte))) {
            self.kind = TextKind::Base64 { header: false };
            let head = std::mem::take(&mut self.head);
            self.decoder.feed(&head, |some| self.bytes.feed(some));
            self.head = head;
        } else if ended || !self.head.iter().all(|byte| is_base64(*byte)) {
            self.kind = TextKind::Url;
        }
    }

    /// RFC 2397: `data:[<type>][;<parameter>]...[;base64],<data>`.
    fn data_url(&mut self, comma: usize) {
        let head = std::mem::take(&mut self.head);
        let header = String::from_utf8_lossy(&head[5..comma]).to_ascii_lowercase();
        let mut parts = header.split(';').map(str::trim);
        self.media_type = parts.next().filter(|word| !word.is_empty()).map(|word| word.chars().take(64).collect());
        let content = &head[comma + 1..];
        if parts.next_back() == Some("base64") {
            self.kind = TextKind::Base64 { header: true };
            self.decoder.feed(content, |some| self.bytes.feed(some));
        } else {
            self.kind = TextKind::Plain;
            self.bytes.feed(content);
        }
        self.head = head;
    }

    /// The text has ended.
    pub fn finish(&mut self) -> TextFound {
        if self.kind == TextKind::Undecided {
            self.decide(true);
        }
        let sound = match self.kind {
            TextKind::Base64 { .. } => self.decoder.finish(|some| self.bytes.feed(some)),
            _ => true,
        };
        let mut found = TextFound {
            source: MediaSource::Inline,
            bytes: self.length,
            media_type: self.media_type.take(),
            identity: None,
            facts: Facts::default(),
            url: None,
            undecodable: !sound,
        };
        let (identity, facts) = self.bytes.finish();
        self.dirty = false;
        match self.kind {
            TextKind::Url => {
                let url = url_of(&self.head);
                found.source = MediaSource::Url;
                found.identity = url.as_ref().ok().map(|url| url.identity);
                found.url = Some(url);
            }
            TextKind::Endless => {
                found.source = MediaSource::Url;
                found.url = Some(Err(UrlFault::Header));
            }
            // Short words are base64 to one engine and the path of a file to another.
            TextKind::Base64 { header: false }
                if self.spelling == Spelling::Url && (!sound || facts.format.is_none()) =>
            {
                found.source = MediaSource::Url;
                found.url = Some(Err(UrlFault::Unclear));
                found.undecodable = false;
            }
            _ => {
                found.identity = Some(identity).filter(|_| sound && facts.bytes > 0);
                found.facts = facts;
            }
        }
        found
    }
}

fn url_of(text: &[u8]) -> Result<MediaUrl, UrlFault> {
    match MediaUrl::parse(text) {
        // Without a scheme it is none, whatever else is wrong with it.
        Err(UrlFault::Scheme | UrlFault::OddCharacter) if !has_scheme(text) => Err(UrlFault::Unclear),
        parsed => parsed,
    }
}

fn has_scheme(text: &[u8]) -> bool {
    text.iter().position(|byte| *byte == b':').is_some_and(|colon| {
        colon > 0 && text[..colon].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    })
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests;
