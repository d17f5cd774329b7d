//! What every edge does with a body: scan it as it comes, and keep the chunks as they are.

use bytes::{Bytes, BytesMut};
use request::{InferenceRequest, Limits, RequestHead, Resource, Scanner};

use crate::{Budget, Rejection, Reservation};

/// A body being read. The chunks are kept by reference, not joined; each is bounded by the limits, and all of them by the budget.
#[derive(Debug)]
pub struct Intake {
    scanner: Scanner,
    reservation: Reservation,
    chunks: Vec<Bytes>,
    /// Small chunks in a row, gathered: a body sent byte by byte would else cost many times its size.
    crumbs: BytesMut,
}

/// A chunk below this is a crumb.
const CRUMB: usize = 4 << 10;

/// So much of crumbs makes a chunk.
const LOAF: usize = 64 << 10;

impl Intake {
    pub fn new(head: &RequestHead<'_>, limits: Limits, budget: &Budget) -> Result<Self, Rejection> {
        let scanner = Scanner::new(head, limits)?;
        let reservation = budget.open(head.content_length)?;
        Ok(Self { scanner, reservation, chunks: Vec::new(), crumbs: BytesMut::new() })
    }

    /// What the path asks for, known before the body.
    pub fn resource(&self) -> &Resource {
        self.scanner.resource()
    }

    pub fn feed(&mut self, chunk: Bytes) -> Result<(), Rejection> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.reservation.grow(chunk.len() as u64)?;
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

    /// The body has ended. Whoever holds the chunks holds the reservation as well.
    pub fn finish(mut self) -> Result<(InferenceRequest, Vec<Bytes>, Reservation), Rejection> {
        self.gather();
        Ok((self.scanner.finish()?, self.chunks, self.reservation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_are_gathered_and_large_chunks_kept_as_they_are() {
        let head = RequestHead { path: "/v1/completions", ..RequestHead::default() };
        let budget = Budget::new(20_000);
        let mut intake = Intake::new(&head, Limits::default(), &budget).unwrap();
        let large = Bytes::from(vec![b' '; 10_000]);
        for chunk in
            ["{", "\"a\"", ":"].map(Bytes::from).into_iter().chain([large.clone()]).chain(["1", "}"].map(Bytes::from))
        {
            intake.feed(chunk).unwrap();
        }
        let (_, chunks, reservation) = intake.finish().unwrap();
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [5, 10_000, 2]);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
        assert_eq!(budget.held(), 10_007);
        drop(reservation);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_body_beyond_the_budget_is_refused_and_forgotten() {
        let head = RequestHead { path: "/v1/completions", ..RequestHead::default() };
        let budget = Budget::new(10);
        let mut intake = Intake::new(&head, Limits::default(), &budget).unwrap();
        assert_eq!(intake.feed("{          ".into()), Err(Rejection::Overloaded { limit: 10 }));
        drop(intake);
        assert_eq!(budget.held(), 0);
    }
}
