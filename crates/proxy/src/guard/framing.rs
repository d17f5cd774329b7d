//! Where heads begin and end, without I/O: bytes in, how many of them are sound out.

use super::{MAX_HEAD, MAX_HEADERS};

/// The framing of one connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// Of the head at hand: where the line begins that is not complete, and how far it was searched for its end. A head that comes
    /// byte by byte is looked at once.
    line: usize,
    searched: usize,
}

/// What may be done with the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// So many of them are sound; at least one.
    Sound(usize),
    /// More must come before anything can be said.
    More,
}

/// Why a head, or the frame of a body, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    TooLarge,
    TooMany,
    Ambiguous(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// The connection has begun; HTTP/2 says so in its first bytes.
    #[default]
    Start,
    Head,
    /// So many bytes of a body.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk, with the line end after it.
    Chunk(u64),
    Trailers,
    /// HTTP/2, or a connection that is no more HTTP.
    Raw,
}

/// What a head says of what follows it.
enum Follows {
    Length(u64),
    Chunks,
    /// Whatever the two ends agree on.
    Upgrade,
}

/// The beginning of HTTP/2 (RFC 9113, section 3.4). All of it: with less hyper goes on in HTTP/1.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A chunk's size in hexadecimal, and extensions that nobody uses.
const MAX_CHUNK_LINE: usize = 256;

const AMBIGUOUS_LINE: Fault = Fault::Ambiguous("line that does not end in CRLF");

impl Framing {
    pub(super) fn is_raw(&self) -> bool {
        self.state == State::Raw
    }

    pub(super) fn in_head(&self) -> bool {
        matches!(self.state, State::Start | State::Head)
    }

    /// Whether so many bytes are all of a body, or of one chunk of it; then they are passed.
    pub(super) fn is_all_body(&mut self, length: usize) -> bool {
        match &mut self.state {
            State::Body(left) if *left >= length as u64 => {
                *left -= length as u64;
                if *left == 0 {
                    self.state = State::Head;
                }
                true
            }
            // What ends a chunk is looked at.
            State::Chunk(left) if *left > length as u64 + 2 => {
                *left -= length as u64;
                true
            }
            _ => false,
        }
    }

    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Step, Fault> {
        match self.state {
            State::Start if HTTP_2.starts_with(&bytes[..bytes.len().min(HTTP_2.len())]) => {
                if bytes.len() < HTTP_2.len() {
                    return Ok(Step::More);
                }
                self.state = State::Raw;
                Ok(Step::Sound(bytes.len()))
            }
            State::Start | State::Head => self.head(bytes),
            State::Body(left) => {
                let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - length as u64;
                self.state = if left == 0 { State::Head } else { State::Body(left) };
                Ok(Step::Sound(length))
            }
            State::ChunkSize => {
                let Some(end) = line_end(bytes, 0, MAX_CHUNK_LINE)? else { return Ok(Step::More) };
                let line = &bytes[..end];
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let size = chunk_size(digits).ok_or(Fault::Ambiguous("invalid chunk size"))?;
                self.state = if size == 0 { State::Trailers } else { State::Chunk(size + 2) };
                Ok(Step::Sound(end + 2))
            }
            State::Chunk(left) => {
                let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                // The last two bytes are a line end.
                let ends = bytes[..length].iter().zip((0..left).rev());
                if ends.clone().skip(length.saturating_sub(2)).any(|(byte, left)| match left {
                    1 => *byte != b'\r',
                    0 => *byte != b'\n',
                    _ => false,
                }) {
                    return Err(Fault::Ambiguous("chunk longer than its size"));
                }
                let left = left - length as u64;
                self.state = if left == 0 { State::ChunkSize } else { State::Chunk(left) };
                Ok(Step::Sound(length))
            }
            State::Trailers => {
                let Some(end) = line_end(bytes, 0, MAX_HEAD)? else { return Ok(Step::More) };
                if end == 0 {
                    self.state = State::Head;
                } else {
                    header(&bytes[..end])?;
                }
                Ok(Step::Sound(end + 2))
            }
            State::Raw => Ok(Step::Sound(bytes.len())),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<Step, Fault> {
        // RFC 9112, section 2.2: an empty line before a request is ignored.
        if self.line == 0 && bytes.starts_with(b"\r\n") {
            self.state = State::Head;
            return Ok(Step::Sound(2));
        }
        let end = loop {
            match line_end(&bytes[self.line..], self.searched - self.line, MAX_HEAD - self.line.min(MAX_HEAD))? {
                None => {
                    // A carriage return at the end is looked at again with what follows it.
                    self.searched = (bytes.len() - 1).max(self.line);
                    return Ok(Step::More);
                }
                Some(0) => break self.line + 2,
                Some(end) => {
                    self.line += end + 2;
                    self.searched = self.line;
                }
            }
        };
        let lines: Vec<&[u8]> = lines(&bytes[..end - 2]).collect();
        if lines.len() > 1 + MAX_HEADERS {
            return Err(Fault::TooMany);
        }
        (self.line, self.searched) = (0, 0);
        self.state = match follows(&lines)? {
            Follows::Length(0) => State::Head,
            Follows::Length(length) => State::Body(length),
            Follows::Chunks => State::ChunkSize,
            Follows::Upgrade => State::Raw,
        };
        Ok(Step::Sound(end))
    }
}

/// The lines of a head whose every line was found to end soundly.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

/// Where a line ends: before its CRLF. No other byte that may be taken for an end may be in it. It was searched to `from` before.
fn line_end(bytes: &[u8], from: usize, limit: usize) -> Result<Option<usize>, Fault> {
    match bytes.iter().skip(from).position(|byte| matches!(byte, b'\r' | b'\n' | 0)).map(|place| from + place) {
        Some(end) if end > limit => Err(Fault::TooLarge),
        Some(end) if bytes[end..].starts_with(b"\r\n") => Ok(Some(end)),
        Some(end) if bytes[end] == b'\r' && end + 1 == bytes.len() => Ok(None),
        Some(_) => Err(AMBIGUOUS_LINE),
        None if bytes.len() > limit => Err(Fault::TooLarge),
        None => Ok(None),
    }
}

fn chunk_size(digits: &[u8]) -> Option<u64> {
    let sound = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok()?;
    u64::from_str_radix(digits, 16).ok().filter(|_| sound)
}

/// Name and value of a header.
fn header(line: &[u8]) -> Result<(String, &[u8]), Fault> {
    if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(Fault::Ambiguous("a folded header"));
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Fault::Ambiguous("a header without a colon"))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(token) {
        return Err(Fault::Ambiguous("invalid header name"));
    }
    if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
        return Err(Fault::Ambiguous("a control character in a header"));
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value))
}

fn follows(lines: &[&[u8]]) -> Result<Follows, Fault> {
    let [request, headers @ ..] = lines else { return Err(AMBIGUOUS_LINE) };
    let words: Vec<&[u8]> = request.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return Err(Fault::Ambiguous("malformed request line"));
    };
    let (mut length, mut encoding, mut hosts, mut typed, mut upgrade) = (None, None, 0, false, false);
    for line in headers {
        let (name, value) = header(line)?;
        let twice = match &*name {
            "content-length" => length.replace(value).is_some(),
            // One reader would take the first, another the last.
            "content-type" => std::mem::replace(&mut typed, true),
            "transfer-encoding" => encoding.replace(value).is_some(),
            "host" => {
                hosts += 1;
                hosts > 1
            }
            "upgrade" => {
                upgrade = value.eq_ignore_ascii_case(b"websocket");
                false
            }
            _ => false,
        };
        if twice {
            return Err(Fault::Ambiguous("duplicate header"));
        }
    }
    if version != b"HTTP/1.0" && hosts == 0 {
        return Err(Fault::Ambiguous("missing host header"));
    }
    match (length, encoding) {
        (Some(_), Some(_)) => Err(Fault::Ambiguous("both content-length and transfer-encoding")),
        (None, Some(encoding)) if encoding.eq_ignore_ascii_case(b"chunked") && version == b"HTTP/1.1" => {
            Ok(Follows::Chunks)
        }
        (None, Some(_)) => Err(Fault::Ambiguous("a transfer-encoding other than chunked")),
        (Some(length), None) => {
            let digits = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok());
            length.map(Follows::Length).ok_or(Fault::Ambiguous("invalid content-length"))
        }
        // Only where one is served: elsewhere HTTP goes on.
        (None, None) if upgrade && method == b"GET" && target.windows(9).any(|part| part == b"/realtime") => {
            Ok(Follows::Upgrade)
        }
        (None, None) => Ok(Follows::Length(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds bytes in pieces; answers with what was taken as sound, or with the fault.
    fn taken(bytes: &str, piece: usize) -> Result<usize, Fault> {
        let mut framing = Framing::default();
        let (mut held, mut sound) = (Vec::new(), 0);
        for piece in bytes.as_bytes().chunks(piece) {
            held.extend_from_slice(piece);
            while !held.is_empty() {
                match framing.step(&held)? {
                    Step::More => break,
                    Step::Sound(length) => {
                        sound += length;
                        held.drain(..length);
                    }
                }
            }
        }
        Ok(sound)
    }

    #[track_caller]
    fn check(bytes: &str, expected: Result<usize, &str>) {
        for piece in [1, 2, 7, usize::MAX] {
            let shown = taken(bytes, piece).map_err(|fault| match fault {
                Fault::TooLarge => "too large",
                Fault::TooMany => "too many",
                Fault::Ambiguous(what) => what,
            });
            assert_eq!(shown, expected, "{bytes:?} in pieces of {piece}");
        }
    }

    #[test]
    fn sound_requests_pass_one_after_another() {
        let get = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let post = "POST /v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na\nb\0c";
        let chunked =
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\na\r\n\r\n0\r\nx: y\r\n\r\n";
        let all = [get, post, chunked, "\r\n", get].concat();
        check(&all, Ok(all.len()));
        check(&[get, "GET / HTTP/1.1\r\nho"].concat(), Ok(get.len()));
        let upgrade = "GET /v1/realtime?model=m HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n\r\n\x01\n\n\0 anything";
        check(upgrade, Ok(upgrade.len()));
        check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\n", Ok(27));
        check("GET / HTTP/1.0\r\n\r\n", Ok(18));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let request = |headers: &str| format!("POST / HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n");
        let ends = "line that does not end in CRLF";
        for (bytes, fault) in [
            (request("content-length: 1\r\ntransfer-encoding: chunked"), "both content-length and transfer-encoding"),
            (request("transfer-encoding: chunked\r\nContent-Length: 1"), "both content-length and transfer-encoding"),
            (request("content-length: 1\r\ncontent-length: 1"), "duplicate header"),
            (request("content-length: +1"), "invalid content-length"),
            (request("content-length: 1, 1"), "invalid content-length"),
            (request("transfer-encoding: gzip, chunked"), "a transfer-encoding other than chunked"),
            (request("transfer-encoding: xchunked"), "a transfer-encoding other than chunked"),
            (request("host: y"), "duplicate header"),
            (request("a: b\nc: d"), ends),
            (request("a: b\rc: d"), ends),
            (request("a: b\0"), ends),
            (request("a: b\r\n c"), "a folded header"),
            (request("a : b"), "invalid header name"),
            (request("a b"), "a header without a colon"),
            (request("a: \x01"), "a control character in a header"),
            (request("content-type: a\r\nContent-Type: b"), "duplicate header"),
            ("PRI / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\nhost: x".into(), ends),
            ("\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), "missing host header"),
            ("GET / HTTP/1.1\r\n\r\n".into(), "missing host header"),
            ("GET /a b HTTP/1.1\r\nhost: x\r\n\r\n".into(), "malformed request line"),
            (request("transfer-encoding: chunked") + "zz\r\n", "invalid chunk size"),
            (request("transfer-encoding: chunked") + "1\r\nab\r\n", "chunk longer than its size"),
            (request("transfer-encoding: chunked") + "1\n", ends),
        ] {
            check(&bytes, Err(fault));
        }
        check(&request(&format!("a: {}", "b".repeat(70_000))), Err("too large"));
        check(&format!("GET /{}", "b".repeat(70_000)), Err("too large"));
        let many = format!("a: {}\r\n", "b".repeat(1000)).repeat(80);
        check(&request(&many), Err("too large"));
    }
}
