//! Forms (`multipart/form-data`, RFC 7578 and RFC 2046, section 5.1), pushed: bytes in chunks of any size become parts.
//!
//! Strict where readers differ, for a form that two readers take apart in two ways would be routed by one model and served by another:
//! no bare line feeds in headers, no folded headers, one name for each part and nothing encoded.

use memchr::memmem::Finder;

use crate::Unreadable;

/// A part's header, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PartHead {
    pub(crate) name: String,
    /// Whether it has a file name, which makes it a file.
    pub(crate) is_file: bool,
    pub(crate) media_type: Option<String>,
}

/// Takes the parts.
pub(crate) trait FormSink {
    /// A part begins; its content stands at `at`.
    fn begin(&mut self, head: PartHead, at: u64) -> Result<(), Unreadable>;
    /// More of its content.
    fn content(&mut self, piece: &[u8]) -> Result<(), Unreadable>;
    /// It has ended, before the position `at`.
    fn end(&mut self, at: u64) -> Result<(), Unreadable>;
}

#[derive(Debug)]
pub(crate) struct FormReader {
    /// Line end, two hyphens, boundary.
    delimiter: Finder<'static>,
    state: State,
    /// What of the chunk before may be the beginning of something: of a delimiter, or of a header.
    carry: Vec<u8>,
    consumed: u64,
    parts: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter, which needs no line end before it.
    Start,
    /// After a delimiter: `--` ends the form, a line end begins a part.
    AfterDelimiter,
    Head,
    Content,
    /// After the last delimiter nothing matters.
    Epilogue,
}

/// A part's header has a name, a file name and a type.
const MAX_HEAD: usize = 8 << 10;

/// More parts are no request for a model server.
const MAX_PARTS: usize = 1024;

/// RFC 2046, 5.1.1.
const MAX_BOUNDARY: usize = 70;

impl FormReader {
    /// For a body of this `content-type`.
    pub(crate) fn new(content_type: &str) -> Result<Self, Unreadable> {
        let boundary =
            boundary(content_type).ok_or(Unreadable::Form { at: 0, what: "content-type without a valid boundary" })?;
        let delimiter = Finder::new(&format!("\r\n--{boundary}")).into_owned();
        // As if a line had ended before the body began.
        Ok(Self { delimiter, state: State::Start, carry: b"\r\n".to_vec(), consumed: 0, parts: 0 })
    }

    pub(crate) fn position(&self) -> u64 {
        self.consumed
    }

    pub(crate) fn feed(&mut self, chunk: &[u8], sink: &mut impl FormSink) -> Result<(), Unreadable> {
        let mut rest = chunk;
        while !rest.is_empty() {
            rest = match self.state {
                State::Start => self.start(rest)?,
                State::AfterDelimiter => self.after_delimiter(rest)?,
                State::Head => self.head(rest, sink)?,
                State::Content => self.content(rest, sink)?,
                State::Epilogue => {
                    self.consumed += rest.len() as u64;
                    &[]
                }
            };
        }
        Ok(())
    }

    /// Call when the body has ended.
    pub(crate) fn finish(&self) -> Result<(), Unreadable> {
        match self.state {
            State::Epilogue => Ok(()),
            _ if self.consumed == 0 => Err(Unreadable::Empty),
            _ => Err(self.malformed("unexpected end of the form")),
        }
    }

    fn malformed(&self, what: &'static str) -> Unreadable {
        Unreadable::Form { at: self.consumed, what }
    }

    fn take<'c>(&mut self, rest: &'c [u8], count: usize) -> &'c [u8] {
        self.consumed += count as u64;
        &rest[count..]
    }

    fn start<'c>(&mut self, rest: &'c [u8]) -> Result<&'c [u8], Unreadable> {
        // .NET of old begins with a line end. What stands before the first delimiter is nothing to any reader.
        if self.carry == b"\r\n" && rest.starts_with(b"\r") {
            self.carry.pop();
            return Ok(self.take(rest, 1));
        }
        if self.carry == b"\r" {
            if rest[0] != b'\n' {
                return Err(Unreadable::Form { at: 0, what: "expected the boundary" });
            }
            self.carry.push(b'\n');
            return Ok(self.take(rest, 1));
        }
        let missing = self.delimiter.needle().len() - self.carry.len();
        let count = missing.min(rest.len());
        self.carry.extend_from_slice(&rest[..count]);
        if !self.delimiter.needle().starts_with(&self.carry) {
            return Err(Unreadable::Form { at: 0, what: "expected the boundary" });
        }
        if self.carry.len() == self.delimiter.needle().len() {
            self.carry.clear();
            self.state = State::AfterDelimiter;
        }
        Ok(self.take(rest, count))
    }

    fn after_delimiter<'c>(&mut self, rest: &'c [u8]) -> Result<&'c [u8], Unreadable> {
        let begun_at = self.consumed - self.carry.len() as u64;
        let count = (2 - self.carry.len()).min(rest.len());
        self.carry.extend_from_slice(&rest[..count]);
        match &*self.carry {
            b"\r\n" => {
                self.parts += 1;
                if self.parts > MAX_PARTS {
                    return Err(Unreadable::TooManyItems { limit: MAX_PARTS });
                }
                self.state = State::Head;
            }
            b"--" => self.state = State::Epilogue,
            b"\r" | b"-" => return Ok(self.take(rest, count)),
            _ => {
                let what = "expected a line break after the boundary";
                return Err(Unreadable::Form { at: begun_at, what });
            }
        }
        self.carry.clear();
        Ok(self.take(rest, count))
    }

    fn head<'c>(&mut self, rest: &'c [u8], sink: &mut impl FormSink) -> Result<&'c [u8], Unreadable> {
        // Its end may have begun in the chunk before.
        let before = self.carry.len();
        let malformed = |what| Unreadable::Form { at: self.consumed - before as u64, what };
        let count = rest.len().min(MAX_HEAD + 4 - before);
        self.carry.extend_from_slice(&rest[..count]);
        let from = before.saturating_sub(3);
        let Some(end) = memchr::memmem::find(&self.carry[from..], b"\r\n\r\n").map(|end| from + end) else {
            if self.carry.len() >= MAX_HEAD + 4 {
                return Err(malformed("part header too long"));
            }
            return Ok(self.take(rest, count));
        };
        let head = part_head(&self.carry[..end]).map_err(malformed)?;
        self.carry.clear();
        self.state = State::Content;
        let rest = self.take(rest, end + 4 - before);
        sink.begin(head, self.consumed)?;
        Ok(rest)
    }

    fn content<'c>(&mut self, rest: &'c [u8], sink: &mut impl FormSink) -> Result<&'c [u8], Unreadable> {
        let size = self.delimiter.needle().len();
        if !self.carry.is_empty() {
            // What was kept is a beginning of the delimiter; so much more settles whether it is one.
            let more = (size - 1).min(rest.len());
            let carried = self.carry.len();
            let mut joint = std::mem::take(&mut self.carry);
            joint.extend_from_slice(&rest[..more]);
            if let Some(place) = self.delimiter.find(&joint).filter(|place| *place < carried) {
                sink.content(&joint[..place])?;
                return self.end_of_part(rest, place + size - carried, (carried - place) as u64, sink);
            }
            if more < size - 1 && more == rest.len() {
                // Not enough yet.
                let keep = beginning_at_end(&joint, self.delimiter.needle());
                sink.content(&joint[..joint.len() - keep])?;
                self.carry = joint.split_off(joint.len() - keep);
                return Ok(self.take(rest, more));
            }
            sink.content(&joint[..carried])?;
        }
        if let Some(place) = self.delimiter.find(rest) {
            sink.content(&rest[..place])?;
            let rest = self.take(rest, place);
            return self.end_of_part(rest, size, 0, sink);
        }
        let keep = beginning_at_end(rest, self.delimiter.needle());
        sink.content(&rest[..rest.len() - keep])?;
        self.carry.extend_from_slice(&rest[rest.len() - keep..]);
        Ok(self.take(rest, rest.len()))
    }

    /// The delimiter was found, `begun` bytes before `rest`; `count` bytes of `rest` belong to it.
    fn end_of_part<'c>(
        &mut self,
        rest: &'c [u8],
        count: usize,
        begun: u64,
        sink: &mut impl FormSink,
    ) -> Result<&'c [u8], Unreadable> {
        sink.end(self.consumed - begun)?;
        self.state = State::AfterDelimiter;
        Ok(self.take(rest, count))
    }
}

/// How many bytes at the end of `text` are a beginning of `delimiter`, and not all of it.
fn beginning_at_end(text: &[u8], delimiter: &[u8]) -> usize {
    // Only a carriage return begins one, and it holds just that one.
    let from = text.len().saturating_sub(delimiter.len() - 1);
    memchr::memchr_iter(b'\r', &text[from..])
        .map(|at| text.len() - from - at)
        .find(|length| text.ends_with(&delimiter[..*length]))
        .unwrap_or(0)
}

/// The `boundary` of a content type, if it is sound.
fn boundary(content_type: &str) -> Option<String> {
    let (_, parameters) = content_type.split_once(';')?;
    let mut boundary = None;
    for (name, value) in parameters_of(parameters).ok()? {
        match &*name.to_ascii_lowercase() {
            "boundary" if boundary.is_none() => boundary = Some(value),
            // Some readers decode names and values by it, so that bytes would say one thing to them and another to us.
            "charset" if value.eq_ignore_ascii_case("utf-8") => {}
            _ => return None,
        }
    }
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    boundary.filter(|boundary| {
        (1..=MAX_BOUNDARY).contains(&boundary.len()) && boundary.bytes().all(sound) && !boundary.ends_with(' ')
    })
}

/// Reads a part's header.
fn part_head(head: &[u8]) -> Result<PartHead, &'static str> {
    // Only the name of a file may be anything else, and that is nobody's business.
    let head = String::from_utf8_lossy(head);
    let (mut disposition, mut media_type) = (None, None);
    for line in head.split("\r\n") {
        if line.starts_with([' ', '\t']) || line.bytes().any(|byte| byte < b' ' && byte != b'\t') {
            return Err("folded part header, or a control character in it");
        }
        let (name, value) = line.split_once(':').ok_or("part header without a colon")?;
        let twice = match name.to_ascii_lowercase().as_str() {
            "content-disposition" => disposition.replace(value).is_some(),
            "content-type" => media_type.replace(value.trim().to_ascii_lowercase()).is_some(),
            "content-transfer-encoding"
                if !["binary", "8bit", "7bit"].iter().any(|known| value.trim().eq_ignore_ascii_case(known)) =>
            {
                return Err("content-transfer-encoding, which RFC 7578 deprecates,");
            }
            "" => return Err("part header without a name"),
            name if name.contains([' ', '\t']) => return Err("part header with a space in its name"),
            _ => false,
        };
        if twice {
            return Err("duplicate part header");
        }
    }
    let disposition = disposition.ok_or("part without content-disposition")?;
    let (kind, parameters) = disposition.split_once(';').ok_or("part without a name")?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err("content-disposition other than form-data");
    }
    let (mut name, mut is_file, mut encoded) = (None, false, false);
    for (key, value) in parameters_of(parameters)? {
        let lower = key.to_ascii_lowercase();
        match &*lower {
            // To some readers the case of these matters.
            "name" | "filename" if lower != key => {
                return Err("malformed header parameter");
            }
            "name" => {
                if name.replace(value).is_some() {
                    return Err("part with two names");
                }
            }
            "name*" => return Err("part with an encoded name"),
            "filename" => is_file = true,
            // Without the other it makes a file to one reader, and a text to the next.
            "filename*" => encoded = true,
            // RFC 2183. Some readers take `namex` for `name`, so that others are refused.
            "size" | "creation-date" | "modification-date" | "read-date" => {}
            _ => return Err("unknown parameter of content-disposition"),
        }
    }
    let media_type =
        media_type.map(|text| text.split(';').next().unwrap_or_default().trim().chars().take(64).collect());
    if encoded && !is_file {
        return Err("part with an encoded file name alone");
    }
    let name = name.ok_or("part without a name")?;
    if name.contains(char::REPLACEMENT_CHARACTER) {
        return Err("part with a name that is not UTF-8");
    }
    Ok(PartHead { name, is_file, media_type })
}

/// `a=b; c="d"`.
fn parameters_of(mut text: &str) -> Result<Vec<(String, String)>, &'static str> {
    const ODD: &str = "malformed header parameter";
    let mut all = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Ok(all);
        }
        let (name, rest) = text.split_once('=').ok_or(ODD)?;
        let name = name.trim_end();
        if !is_token(name) {
            return Err(ODD);
        }
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) if name == "filename" => quoted_file_name(quoted).ok_or(ODD)?,
            Some(quoted) => quoted_string(quoted).ok_or(ODD)?,
            None => {
                let end = rest.find(';').unwrap_or(rest.len());
                let value = rest[..end].trim_end();
                // MIME libraries write boundaries with `=` and `:` and forget the quotes; up to the semicolon all readers agree.
                let is_value = |byte: u8| byte > b' ' && byte != b'"' && byte != b'\\' && byte.is_ascii();
                if value.is_empty() || !value.bytes().all(is_value) {
                    return Err(ODD);
                }
                (value.to_owned(), &rest[end..])
            }
        };
        all.push((name.to_owned(), value));
        text = match rest.trim_start() {
            "" => "",
            rest => rest.strip_prefix(';').ok_or(ODD)?,
        };
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The name of a file in quotes, and what follows its end. Go, Node and openai-python escape quotes and backslashes in it, browsers do
/// not escape the latter. Wherever it ends, no reader may find another name of the part in it.
fn quoted_file_name(text: &str) -> Option<(String, &str)> {
    let Some(simple) = quoted_string(text) else {
        let mut escaped = false;
        let end = text.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let (value, rest) = (&text[..end], &text[end + 1..]);
        let lower = text.to_ascii_lowercase();
        let says_more = lower.split("name").skip(1).any(|after| {
            after.trim_start_matches(|c: char| c == '*' || c.is_ascii_digit()).trim_start().starts_with('=')
        });
        return (!says_more && rest.trim().is_empty()).then(|| (value.to_owned(), rest));
    };
    Some(simple)
}

/// The value of a quoted string, and what follows its end. Browsers leave a backslash alone, others escape with it: only where both
/// mean the same is it taken.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let end = text.find('"')?;
    let value = &text[..end];
    (!value.contains('\\')).then(|| (value.to_owned(), &text[end + 1..]))
}

#[cfg(test)]
mod tests;
