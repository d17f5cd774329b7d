//! Mutations without guidance: small changes of known inputs, with words that readers look for.

/// Makes inputs of others.
#[derive(Debug)]
pub struct Mutator {
    random: fastrand::Rng,
    corpus: Vec<Vec<u8>>,
}

/// What readers look for, in JSON, forms, URLs and headers.
const WORDS: [&[u8]; 40] = [
    b"\"model\":",
    b"\"messages\":",
    b"\"content\":",
    b"\"type\":",
    b"\"image_url\":",
    b"\"url\":",
    b"\"data:image/png;base64,\"",
    b"\"source\":",
    b"\"input\":",
    b"\"uuid\":",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\"",
    b"\\",
    b"\\u0041",
    b"\\ud83d\\ude00",
    b"null",
    b"\r\n",
    b"--x",
    b"\r\n--x\r\n",
    b"\r\n--x--",
    b"Content-Disposition: form-data; name=\"model\"\r\n\r\n",
    b"; filename=\"a\"",
    b"data:",
    b";base64,",
    b"http://",
    b"@",
    b"\\\\",
    b"<|image_pad|>",
    b"RIFF",
    b"moov",
    b"\x00\x00\x00\x08",
    b"\xff\xff\xff\xff",
    b"OggS",
    b"\x1a\x45\xdf\xa3",
    b"\xff\xd8\xff",
    b"=",
];

/// Longest input that is made.
const MAX: usize = 8 << 10;

impl Mutator {
    pub fn new(corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), corpus }
    }

    /// The next input: one of the corpus with a few changes.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.any();
        for _ in 0..self.random.usize(0..6) {
            self.change(&mut input);
        }
        input.truncate(MAX);
        input
    }

    fn any(&mut self) -> Vec<u8> {
        if self.corpus.is_empty() { Vec::new() } else { self.corpus[self.random.usize(..self.corpus.len())].clone() }
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.usize(..=input.len());
        let to = (at + self.random.usize(..16)).min(input.len());
        match self.random.u8(..7) {
            0 => input.truncate(at),
            1 => {
                input.drain(at..to);
            }
            2 => {
                let copy = input[at..to].to_vec();
                let place = self.random.usize(..=input.len());
                input.splice(place..place, copy);
            }
            3 => {
                let word = WORDS[self.random.usize(..WORDS.len())];
                input.splice(at..at, word.iter().copied());
            }
            4 => {
                let word = WORDS[self.random.usize(..WORDS.len())];
                input.splice(at..to, word.iter().copied());
            }
            5 => {
                let other = self.any();
                let from = self.random.usize(..=other.len());
                input.splice(at.., other[from..].iter().copied());
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.random.u8(..);
                }
            }
        }
    }
}
