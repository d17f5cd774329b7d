//! A request's body as an edge keeps it, to send it on: by reference, within the budget.

use bytes::{Bytes, BytesMut};

use crate::{Budget, Rejection, Reservation};

/// The chunks of a body. Whoever holds them holds what they take of the budget as well.
#[derive(Debug)]
pub struct HeldBody {
    reservation: Reservation,
    chunks: Vec<Bytes>,
    /// Small chunks in a row, gathered: a body sent byte by byte would else cost many times its size.
    crumbs: BytesMut,
}

/// A chunk below this is a crumb.
const CRUMB: usize = 4 << 10;

/// So much of crumbs makes a chunk.
const LOAF: usize = 64 << 10;

impl HeldBody {
    /// Refuses at once when what is announced would be too much.
    pub fn open(budget: &Budget, announced: Option<u64>) -> Result<Self, Rejection> {
        Ok(Self { reservation: budget.open(announced)?, chunks: Vec::new(), crumbs: BytesMut::new() })
    }

    pub fn push(&mut self, chunk: Bytes) -> Result<(), Rejection> {
        self.reservation.grow(chunk.len() as u64)?;
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
    pub fn finish(mut self) -> (Vec<Bytes>, Reservation) {
        self.gather();
        (self.chunks, self.reservation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_are_gathered_and_large_chunks_kept_as_they_are() {
        let budget = Budget::new(20_000);
        let mut body = HeldBody::open(&budget, None).unwrap();
        let large = Bytes::from(vec![b' '; 10_000]);
        let crumbs = |all: &'static [&'static str]| all.iter().map(|crumb| Bytes::from_static(crumb.as_bytes()));
        for chunk in crumbs(&["{", "\"a\"", ":"]).chain([large.clone()]).chain(crumbs(&["1", "", "}"])) {
            body.push(chunk).unwrap();
        }
        let (chunks, reservation) = body.finish();
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [5, 10_000, 2]);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
        assert_eq!(budget.held(), 10_007);
        drop(reservation);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_body_beyond_the_budget_is_refused_and_forgotten() {
        let budget = Budget::new(10);
        assert!(matches!(HeldBody::open(&budget, Some(11)), Err(Rejection::Overloaded { limit: 10 })));
        let mut body = HeldBody::open(&budget, None).unwrap();
        assert_eq!(body.push("{          ".into()), Err(Rejection::Overloaded { limit: 10 }));
        drop(body);
        assert_eq!(budget.held(), 0);
    }
}
