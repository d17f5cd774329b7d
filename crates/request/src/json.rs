//! JSON, pushed: bytes in chunks of any size become tokens. Resumable at every byte; keeps one short string and one bit per level.
//!
//! Strict where engines differ: no control characters in strings, no `NaN`, no trailing commas, valid UTF-8, one value.

mod block;
mod number;
mod text;

use crate::Unreadable;
use number::Number;
use text::Text;

/// How deep a body may nest. Requests with tool schemas reach about 20; Python's parsers give up below 1,000.
pub(crate) const MAX_DEPTH: usize = 128;

/// The byte order mark in UTF-8.
const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Longest key that is told apart; every key we know is shorter, and a longer one is unknown.
pub(crate) const MAX_KEY: usize = 256;

/// What a value is, known at its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// What a sink wants of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Want {
    #[default]
    Nothing,
    /// Its first bytes, when it ends.
    Head(usize),
    /// All of it, unescaped, as it comes.
    Pieces,
    /// All of it, as it comes, to look for words of ASCII letters and signs other than `"`, `\\` and `/` in it: escapes of anything else are
    /// left as they stand.
    ToSearch,
}

/// A string that ended.
#[derive(Debug)]
pub(crate) struct StringToken<'a> {
    /// Its first bytes, unescaped, if [`Sink::begin`] asked for them.
    pub(crate) kept: &'a [u8],
    /// How many bytes it has: unescaped where its beginning was asked for, or else about as they stand in the body.
    pub(crate) length: u64,
    /// Where it stands in the body, quotes included.
    pub(crate) span: std::ops::Range<u64>,
}

/// Takes the tokens.
pub(crate) trait Sink {
    /// A key of the innermost object, unescaped; cut at [`MAX_KEY`] bytes.
    fn key(&mut self, key: &[u8], at: u64) -> Result<(), Unreadable>;
    /// A value begins. For a string the answer says what is wanted of it.
    fn begin(&mut self, kind: ValueKind) -> Result<Want, Unreadable>;
    /// The same bytes of a string to search, as they stand in the body; `ended` where they are its last.
    fn raw(&mut self, _: &[u8], _ended: bool) {}
    /// More of the string that began last, as [`Sink::begin`] asked for it.
    fn piece(&mut self, piece: &[u8]);
    /// The string that began last ended.
    fn string(&mut self, string: &StringToken<'_>) -> Result<(), Unreadable>;
    /// The innermost object or array ended, with a bracket in this place.
    fn end(&mut self, at: u64) -> Result<(), Unreadable>;
}

#[derive(Debug)]
pub(crate) struct Lexer {
    state: State,
    /// Bytes consumed before the chunk at hand.
    consumed: u64,
    /// How many levels are open, and of each, in a bit, whether it is an object.
    depth: usize,
    objects: u128,
    text: Text,
    /// Where the string at hand begins.
    string_start: u64,
    /// How many bytes of a byte order mark the body began with.
    marks: usize,
    /// What of `true`, `false` or `null` is still to come.
    word_rest: &'static [u8],
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A value must come; `first` after `[`, where the array may also end.
    Value {
        first: bool,
    },
    /// A key must come; `first` after `{`, where the object may also end.
    Key {
        first: bool,
    },
    Colon,
    CommaOrEnd,
    InString {
        key: bool,
    },
    InNumber(Number),
    InWord,
    Done,
}

impl Lexer {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Value { first: false },
            consumed: 0,
            depth: 0,
            objects: 0,
            text: Text::default(),
            string_start: 0,
            marks: 0,
            word_rest: &[],
        }
    }

    /// How many bytes were fed.
    pub(crate) fn position(&self) -> u64 {
        self.consumed
    }

    pub(crate) fn feed(&mut self, chunk: &[u8], sink: &mut impl Sink) -> Result<(), Unreadable> {
        let mut at = 0;
        while at < chunk.len() {
            at += match self.state {
                State::InString { key } => self.string(&chunk[at..], at, key, sink)?,
                State::InWord => self.word_bytes(&chunk[at..], at)?,
                _ => self.token(&chunk[at..], at, sink)?,
            };
        }
        self.consumed += chunk.len() as u64;
        Ok(())
    }

    /// Call when the body has ended.
    pub(crate) fn finish(&mut self) -> Result<(), Unreadable> {
        if let State::InNumber(number) = self.state
            && number.may_end()
            && self.depth == 0
        {
            self.state = State::Done;
        }
        match self.state {
            State::Done => Ok(()),
            State::Value { .. } if self.consumed == 0 => Err(Unreadable::Empty),
            _ => Err(Unreadable::Truncated { at: self.consumed }),
        }
    }

    /// Takes a byte outside of strings, or a few; answers 0 when the byte ended a number and is to be looked at again.
    fn token(&mut self, rest: &[u8], at: usize, sink: &mut impl Sink) -> Result<usize, Unreadable> {
        let (byte, next) = (rest[0], rest.get(1));
        match self.state {
            State::InNumber(number) => match number.step(byte) {
                Some(next) => self.state = State::InNumber(next),
                None if number.may_end() => {
                    self.after_value();
                    return Ok(0);
                }
                None => return Err(self.malformed(at, "malformed number")),
            },
            _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => {}
            // A parser may ignore one (RFC 8259, section 8.1), and all do; .NET and PowerShell send it.
            _ if self.consumed + at as u64 == self.marks as u64 && MARK.get(self.marks) == Some(&byte) => {
                self.marks += 1;
            }
            State::Value { .. } if !matches!(self.marks, 0 | 3) => {
                return Err(self.malformed(at, "incomplete byte order mark"));
            }
            State::Value { first } => match byte {
                b']' if first => self.close(at, sink)?,
                _ => return self.value(byte, next, at, sink),
            },
            State::Key { first } => match byte {
                b'"' => self.open_string(true, at, Want::Head(MAX_KEY)),
                b'}' if first => self.close(at, sink)?,
                _ => return Err(self.malformed(at, "expected a key")),
            },
            State::Colon => match byte {
                b':' => return Ok(1 + self.expect_value(next, at + 1, sink)?),
                _ => return Err(self.malformed(at, "expected a colon after a key")),
            },
            State::CommaOrEnd => match (byte, self.in_object()) {
                (b',', true) => return Ok(1 + self.expect_key(false, next, at + 1)),
                (b',', false) => self.state = State::Value { first: false },
                (b'}', true) | (b']', false) => self.close(at, sink)?,
                _ => return Err(self.malformed(at, "expected a comma or a closing bracket")),
            },
            State::Done => return Err(self.malformed(at, "trailing characters")),
            State::InString { .. } | State::InWord => {}
        }
        Ok(1)
    }

    /// A value begins with this byte; says how many were taken.
    fn value(&mut self, byte: u8, next: Option<&u8>, at: usize, sink: &mut impl Sink) -> Result<usize, Unreadable> {
        match byte {
            b'"' => {
                let want = sink.begin(ValueKind::String)?;
                self.open_string(false, at, want);
            }
            b'{' | b'[' => {
                if self.depth == MAX_DEPTH {
                    return Err(Unreadable::TooDeep { at: self.consumed + at as u64, limit: MAX_DEPTH });
                }
                let object = byte == b'{';
                sink.begin(if object { ValueKind::Object } else { ValueKind::Array })?;
                self.objects = self.objects & !(1 << self.depth) | u128::from(object) << self.depth;
                self.depth += 1;
                if object {
                    return Ok(1 + self.expect_key(true, next, at + 1));
                }
                self.state = State::Value { first: true };
            }
            b't' => self.word(b"true", ValueKind::True, sink)?,
            b'f' => self.word(b"false", ValueKind::False, sink)?,
            b'n' => self.word(b"null", ValueKind::Null, sink)?,
            _ => match Number::start(byte) {
                Some(number) => {
                    sink.begin(ValueKind::Number)?;
                    self.state = State::InNumber(number);
                }
                None => return Err(self.malformed(at, "expected a value")),
            },
        }
        Ok(1)
    }

    /// Whether the innermost open level is an object.
    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & 1 << (self.depth - 1) != 0
    }

    fn word(&mut self, word: &'static [u8], kind: ValueKind, sink: &mut impl Sink) -> Result<(), Unreadable> {
        sink.begin(kind)?;
        self.word_rest = &word[1..];
        self.state = State::InWord;
        Ok(())
    }

    /// Takes what of a word is there.
    fn word_bytes(&mut self, rest: &[u8], at: usize) -> Result<usize, Unreadable> {
        let (expected, later) = self.word_rest.split_at(self.word_rest.len().min(rest.len()));
        if let Some(wrong) = rest.iter().zip(expected).position(|(byte, expected)| byte != expected) {
            return Err(self.malformed(at + wrong, "expected true, false or null"));
        }
        self.word_rest = later;
        if later.is_empty() {
            self.after_value();
        }
        Ok(expected.len())
    }

    fn open_string(&mut self, key: bool, at: usize, want: Want) {
        self.text.start(want);
        self.string_start = self.consumed + at as u64;
        self.state = State::InString { key };
    }

    /// Takes bytes of a string, to its end or the chunk's.
    fn string(&mut self, rest: &[u8], at: usize, key: bool, sink: &mut impl Sink) -> Result<usize, Unreadable> {
        let (here, start) = (self.consumed + at as u64, self.string_start);
        // Most strings are short, plain and in one chunk: nothing of them need be kept.
        let short = if here == start + 1 { text::short(rest) } else { None };
        let (mut taken, kept, length) = match short {
            Some(short) => {
                if self.text.is_searched() {
                    sink.raw(short, true);
                }
                (short.len() + 1, self.text.wanted_of(short, |piece| sink.piece(piece)), short.len() as u64)
            }
            None => {
                let (taken, ended) = self.text.feed(rest, here, |piece| sink.piece(piece))?;
                if self.text.is_searched() {
                    sink.raw(&rest[..taken - usize::from(ended)], ended);
                }
                if !ended {
                    return Ok(taken);
                }
                (taken, self.text.kept(), self.text.length())
            }
        };
        let string = StringToken { kept, length, span: start..here + taken as u64 };
        if key {
            sink.key(string.kept, start)?;
            self.state = State::Colon;
            if rest.get(taken) == Some(&b':') {
                taken += 1;
                taken += self.expect_value(rest.get(taken), at + taken, sink)?;
            }
        } else {
            sink.string(&string)?;
            self.after_value();
            if rest.get(taken) == Some(&b',') && self.in_object() {
                taken += 1;
                taken += self.expect_key(false, rest.get(taken), at + taken);
            }
        }
        Ok(taken)
    }

    /// A key comes next: its quote is taken along where it follows at once, as it nearly always does.
    fn expect_key(&mut self, first: bool, next: Option<&u8>, at: usize) -> usize {
        self.state = State::Key { first };
        let follows = next == Some(&b'"');
        if follows {
            self.open_string(true, at, Want::Head(MAX_KEY));
        }
        usize::from(follows)
    }

    /// A value comes next: the quote of a string is taken along where it follows at once.
    fn expect_value(&mut self, next: Option<&u8>, at: usize, sink: &mut impl Sink) -> Result<usize, Unreadable> {
        self.state = State::Value { first: false };
        let follows = next == Some(&b'"');
        if follows {
            let want = sink.begin(ValueKind::String)?;
            self.open_string(false, at, want);
        }
        Ok(usize::from(follows))
    }

    fn close(&mut self, at: usize, sink: &mut impl Sink) -> Result<(), Unreadable> {
        self.depth = self.depth.checked_sub(1).ok_or_else(|| self.malformed(at, "unmatched closing bracket"))?;
        sink.end(self.consumed + at as u64)?;
        self.after_value();
        Ok(())
    }

    fn after_value(&mut self) {
        self.state = if self.depth == 0 { State::Done } else { State::CommaOrEnd };
    }

    fn malformed(&self, at: usize, what: &'static str) -> Unreadable {
        Unreadable::Malformed { at: self.consumed + at as u64, what }
    }
}
