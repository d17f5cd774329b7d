//! A request's body as an edge keeps it, to send it on: by reference, within the budget.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};

use crate::{Budget, Rejection, Reservation};

/// The chunks of a body. Whoever holds them holds what they take of the budget as well.
#[derive(Debug)]
pub struct HeldBody {
    reservation: Reservation,
    bytes: u64,
    chunks: Vec<Bytes>,
    /// Small chunks in a row, gathered: a body sent byte by byte would else cost many times its size.
    crumbs: BytesMut,
}

/// A chunk up to this is a crumb: what HTTP/2 sends at once by default. It is copied, since it may hold on to a buffer many times its
/// size; that costs little beside hashing it.
const CRUMB: usize = 16 << 10;

/// So much of crumbs makes a chunk.
const LOAF: usize = 64 << 10;

impl HeldBody {
    /// Refuses at once when what is announced would be too much.
    pub fn open(budget: &Budget, announced: Option<u64>) -> Result<Self, Rejection> {
        Ok(Self::of(budget.open(announced)?))
    }

    /// The same of a client at this address: no address holds more than half of a budget that is half full.
    pub fn open_for(budget: &Budget, client: IpAddr, announced: Option<u64>) -> Result<Self, Rejection> {
        Ok(Self::of(budget.open_for(client, announced)?))
    }

    fn of(reservation: Reservation) -> Self {
        Self { reservation, bytes: 0, chunks: Vec::new(), crumbs: BytesMut::new() }
    }

    /// How much of it came.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn budget(&self) -> &Budget {
        self.reservation.budget()
    }

    pub fn push(&mut self, chunk: Bytes) -> Result<(), Rejection> {
        self.bytes += chunk.len() as u64;
        if chunk.len() <= CRUMB {
            if self.crumbs.len() + chunk.len() > LOAF {
                self.gather();
            }
            if self.crumbs.capacity() - self.crumbs.len() < chunk.len() {
                // Exact for a body of one chunk, doubling for one of many.
                let wanted = (self.crumbs.len() + chunk.len()).max(2 * self.crumbs.capacity()).min(LOAF);
                self.reservation.grow((wanted - self.crumbs.capacity()) as u64)?;
                let mut larger = BytesMut::with_capacity(wanted);
                larger.extend_from_slice(&self.crumbs);
                self.crumbs = larger;
            }
            self.crumbs.extend_from_slice(&chunk);
        } else {
            self.reservation.grow(pinned(chunk.len()))?;
            self.gather();
            self.chunks.push(chunk);
        }
        Ok(())
    }

    fn gather(&mut self) {
        if !self.crumbs.is_empty() {
            self.chunks.push(std::mem::take(&mut self.crumbs).freeze());
        }
    }

    /// The body has ended.
    pub fn finish(mut self) -> (Vec<Bytes>, Reservation) {
        self.gather();
        (self.chunks, self.reservation)
    }
}

/// What a large chunk keeps from being used otherwise. It stands in the buffer that it was read into, of which it is at least half: readers
/// double theirs while they fill it, and halve it when they do not.
fn pinned(length: usize) -> u64 {
    length.next_power_of_two() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_are_gathered_and_large_chunks_kept_as_they_are() {
        let budget = Budget::new(100_000);
        let mut body = HeldBody::open(&budget, None).unwrap();
        let large = Bytes::from(vec![b' '; 50_000]);
        let crumbs = |all: &'static [&'static str]| all.iter().map(|crumb| Bytes::from_static(crumb.as_bytes()));
        for chunk in crumbs(&["{", "\"a\"", ":"]).chain([large.clone()]).chain(crumbs(&["1", "", "}"])) {
            body.push(chunk).unwrap();
        }
        let (chunks, reservation) = body.finish();
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [5, 50_000, 2]);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
        assert_eq!(budget.held(), 65_536 + 8 + 2, "what is allocated for them");
        drop(reservation);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn crumbs_become_loaves_of_no_more_than_they_hold() {
        let budget = Budget::new(10 << 20);
        for (size, count) in [(1, 200_000), (4_200, 1_000), (16 << 10, 100), (700, 1)] {
            let mut body = HeldBody::open(&budget, None).unwrap();
            for _ in 0..count {
                body.push(Bytes::from(vec![b' '; size])).unwrap();
            }
            let (sent, held) = (size * count, usize::try_from(budget.held()).unwrap());
            assert!((sent..=sent * LOAF / (LOAF - CRUMB) + LOAF).contains(&held), "{held} of {sent}");
            let (chunks, _reservation) = body.finish();
            assert!(chunks.len() <= size * count / (LOAF - CRUMB) + 1, "{} of {size}", chunks.len());
            assert_eq!(chunks.iter().map(Bytes::len).sum::<usize>(), size * count);
        }
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
