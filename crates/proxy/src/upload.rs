//! A request's body on its way to a model server, and what is kept of it for another attempt.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use director::Reservation;
use http_body::{Body, Frame, SizeHint};
use request::{Splice, splice};

/// A body that can be sent more than once, within the budget that it was read by.
#[derive(Debug)]
pub(crate) struct Original(Arc<Mutex<Option<Kept>>>);

#[derive(Debug)]
struct Kept {
    chunks: Vec<Bytes>,
    reservation: Reservation,
}

/// One sending of it.
#[derive(Debug)]
pub(crate) struct Upload {
    chunks: VecDeque<Bytes>,
    left: u64,
    original: Arc<Mutex<Option<Kept>>>,
    stays: bool,
}

/// A small body is kept until its answer has begun, since all of it may be in hyper's hands (some 400 KB) and the kernel's before anybody knows
/// whether the server reads it. So is a larger one while there is plenty of room; else until the last of it was handed over to be written.
const SMALL: u64 = 1 << 20;

impl Original {
    pub(crate) fn new(chunks: Vec<Bytes>, reservation: Reservation) -> Self {
        Self(Arc::new(Mutex::new(Some(Kept { chunks, reservation }))))
    }

    /// What an attempt is to send; none once it is kept no more.
    pub(crate) fn upload(&self, splices: &[Splice]) -> Option<Upload> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { chunks, reservation } = kept.as_ref()?;
        let chunks: VecDeque<Bytes> = splice(chunks.iter().cloned(), splices).into();
        let left = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let stays = left <= SMALL || reservation.is_of_plenty();
        Some(Upload { chunks, left, original: Arc::clone(&self.0), stays })
    }

    /// Whether another attempt could be sent it.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(chunk) = self.chunks.pop_front() else { return Poll::Ready(None) };
        self.left -= chunk.len() as u64;
        if self.chunks.is_empty() && !self.stays {
            *self.original.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use director::Budget;
    use http_body_util::BodyExt as _;

    use super::*;

    async fn sent(upload: Upload) -> Bytes {
        upload.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_small_body_can_be_sent_again_and_a_large_one_while_there_is_room_or_until_it_went_out() {
        let (budget, plenty) = (Budget::new(1 << 22), Budget::new(1 << 30));
        let held = |budget: &Budget, bytes: usize| {
            let mut reservation = budget.open(None).unwrap();
            reservation.grow(bytes as u64).unwrap();
            Original::new(vec![Bytes::from(vec![b'a'; bytes])], reservation)
        };
        let small = held(&budget, 10);
        assert_eq!(sent(small.upload(&[]).unwrap()).await, sent(small.upload(&[]).unwrap()).await);
        drop(small);
        let large = held(&budget, 2_000_000);
        let (first, again) = (large.upload(&[]).unwrap(), large.upload(&[]).unwrap());
        assert_eq!(budget.held(), 2_000_000);
        drop(first);
        assert!(large.upload(&[]).is_some(), "one that was not sent leaves it");
        sent(again).await;
        assert!(large.upload(&[]).is_none() && !large.is_kept());
        assert_eq!(budget.held(), 0);
        let large = held(&plenty, 2_000_000);
        sent(large.upload(&[]).unwrap()).await;
        assert!(large.is_kept(), "where there is room, it stays");
    }
}
