//! What every edge does with a body: scan it as it comes, and keep the chunks as they are.

use bytes::Bytes;
use request::{InferenceRequest, Limits, RequestHead, Scanner, Unreadable};

/// A body being read. The chunks are kept by reference, never joined; their sum is bounded by the limits.
#[derive(Debug)]
pub struct Intake {
    scanner: Scanner,
    chunks: Vec<Bytes>,
}

impl Intake {
    pub fn new(head: &RequestHead<'_>, limits: Limits) -> Result<Self, Unreadable> {
        Ok(Self { scanner: Scanner::new(head, limits)?, chunks: Vec::new() })
    }

    pub fn feed(&mut self, chunk: Bytes) -> Result<(), Unreadable> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.scanner.feed(&chunk)?;
        self.chunks.push(chunk);
        Ok(())
    }

    /// The body has ended.
    pub fn finish(self) -> Result<(InferenceRequest, Vec<Bytes>), Unreadable> {
        Ok((self.scanner.finish()?, self.chunks))
    }
}
