//! What every edge does with a body: scan it as it comes, and keep the chunks as they are.

use bytes::{Bytes, BytesMut};
use request::{InferenceRequest, Limits, RequestHead, Scanner, Unreadable};

/// A body being read. The chunks are kept by reference, not joined; their sum is bounded by the limits.
#[derive(Debug)]
pub struct Intake {
    scanner: Scanner,
    chunks: Vec<Bytes>,
    /// Small chunks in a row, gathered: a body sent byte by byte would else cost many times its size.
    crumbs: BytesMut,
}

/// A chunk below this is a crumb.
const CRUMB: usize = 4 << 10;

/// So much of crumbs makes a chunk.
const LOAF: usize = 64 << 10;

impl Intake {
    pub fn new(head: &RequestHead<'_>, limits: Limits) -> Result<Self, Unreadable> {
        Ok(Self { scanner: Scanner::new(head, limits)?, chunks: Vec::new(), crumbs: BytesMut::new() })
    }

    pub fn feed(&mut self, chunk: Bytes) -> Result<(), Unreadable> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.scanner.feed(&chunk)?;
        if chunk.len() < CRUMB {
            self.crumbs.extend_from_slice(&chunk);
            if self.crumbs.len() >= LOAF {
                self.gather();
            }
        } else {
            self.gather();
            self.chunks.push(chunk);
        }
        Ok(())
    }

    fn gather(&mut self) {
        if !self.crumbs.is_empty() {
            self.chunks.push(self.crumbs.split().freeze());
        }
    }

    /// The body has ended.
    pub fn finish(mut self) -> Result<(InferenceRequest, Vec<Bytes>), Unreadable> {
        self.gather();
        Ok((self.scanner.finish()?, self.chunks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_are_gathered_and_large_chunks_kept_as_they_are() {
        let head = RequestHead { path: "/x", ..RequestHead::default() };
        let mut intake = Intake::new(&head, Limits::default()).unwrap();
        let large = Bytes::from(vec![b' '; 10_000]);
        for chunk in
            ["{", "\"a\"", ":"].map(Bytes::from).into_iter().chain([large.clone()]).chain(["1", "}"].map(Bytes::from))
        {
            intake.feed(chunk).unwrap();
        }
        let (_, chunks) = intake.finish().unwrap();
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [5, 10_000, 2]);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }
}
