//! The reader of an item whose bytes come as they are: an uploaded file, or what base64 was decoded to.

use crate::{Facts, Identity, Probe};

/// Hashes and probes the bytes of one item.
#[derive(Debug, Default)]
pub struct ByteReader {
    hasher: blake3::Hasher,
    probe: Probe,
}

impl ByteReader {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.probe.feed(bytes);
    }

    /// What the bytes told, and the reader as new.
    pub fn finish(&mut self) -> (Identity, Facts) {
        let identity = Identity::Content(*self.hasher.finalize().as_bytes());
        self.hasher.reset();
        (identity, std::mem::take(&mut self.probe).finish())
    }
}
