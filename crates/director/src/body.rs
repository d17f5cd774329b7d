//! A request's body as an edge keeps it, to send it on: by reference, within the budget.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};

use crate::{Budget, Rejection, Reservation};

/// The chunks of a body. Whoever holds them holds what they take of the budget as well.
#[derive(Debug)]
pub struct HeldBody {
    reservation: Reservation,
    /// How large the buffers may be, at least, that its chunks stand in.
    buffer: usize,
    chunks: Vec<Bytes>,
    /// Small chunks in a row, gathered: a body sent byte by byte would else cost many times its size.
    crumbs: BytesMut,
}

/// So much of crumbs makes a chunk.
const LOAF: usize = 64 << 10;

impl HeldBody {
    /// Refuses at once when what is announced would be too much. `buffer` is how many bytes its reader reads into at once: a chunk may keep
    /// all of them from being used otherwise.
    pub fn open(budget: &Budget, buffer: usize, announced: Option<u64>) -> Result<Self, Rejection> {
        Ok(Self::of(budget.open(announced)?, buffer))
    }

    /// The same of a client at this address: no client holds more than half of a budget that is half full.
    pub fn open_for(budget: &Budget, buffer: usize, client: IpAddr, announced: Option<u64>) -> Result<Self, Rejection> {
        Ok(Self::of(budget.open_for(client, announced)?, buffer))
    }

    fn of(reservation: Reservation, buffer: usize) -> Self {
        Self { reservation, buffer, chunks: Vec::new(), crumbs: BytesMut::new() }
    }

    pub fn push(&mut self, chunk: Bytes) -> Result<(), Rejection> {
        // Less than half of a buffer is copied: it costs little beside hashing it.
        if chunk.len() < self.buffer / 2 {
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
            // Readers double theirs while they fill it.
            let pinned = chunk.len().next_power_of_two().max(self.buffer);
            self.reservation.grow(pinned as u64)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: usize = 64 << 10;

    #[test]
    fn crumbs_are_gathered_and_large_chunks_kept_as_they_are() {
        let budget = Budget::new(100_000);
        let mut body = HeldBody::open(&budget, BUFFER, None).unwrap();
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
        for (size, count) in [(1, 200_000), (4_200, 1_000), (16 << 10, 100), (31_000, 100), (700, 1)] {
            let mut body = HeldBody::open(&budget, BUFFER, None).unwrap();
            for _ in 0..count {
                body.push(Bytes::from(vec![b' '; size])).unwrap();
            }
            let (sent, held) = (size * count, usize::try_from(budget.held()).unwrap());
            assert!((sent..=sent * LOAF / (LOAF - size.min(LOAF / 2)) + LOAF).contains(&held), "{held} of {sent}");
            let (chunks, _reservation) = body.finish();
            assert!(chunks.len() <= size * count / (LOAF - size) + 1, "{} of {size}", chunks.len());
            assert_eq!(chunks.iter().map(Bytes::len).sum::<usize>(), size * count);
        }
    }

    #[test]
    fn what_is_held_of_a_buffer_counts_as_all_of_it() {
        let budget = Budget::new(10 << 20);
        let mut body = HeldBody::open(&budget, BUFFER, None).unwrap();
        let whole = Bytes::from(vec![b' '; BUFFER]);
        body.push(whole.slice(..BUFFER / 2)).unwrap();
        assert_eq!(budget.held(), BUFFER as u64, "which it keeps");
        body.push(whole.slice(..BUFFER / 2 - 1)).unwrap();
        assert_eq!(budget.held(), (BUFFER + BUFFER / 2 - 1) as u64, "a copy");
        drop(body);
    }

    #[test]
    fn a_body_beyond_the_budget_is_refused_and_forgotten() {
        let budget = Budget::new(10);
        assert!(matches!(HeldBody::open(&budget, BUFFER, Some(11)), Err(Rejection::Overloaded { limit: 10 })));
        let mut body = HeldBody::open(&budget, BUFFER, None).unwrap();
        assert_eq!(body.push("{          ".into()), Err(Rejection::Overloaded { limit: 10 }));
        drop(body);
        assert_eq!(budget.held(), 0);
    }
}
