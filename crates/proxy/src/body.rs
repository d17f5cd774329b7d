//! Bodies: the request's chunks on their way out, and the answer on its way back.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use director::{Front, InFlight, Maker, Reservation};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use request::JobSeeker;

/// A request body in the chunks in which it came. Clones share them: a chunk that was sent is gone, and the memory it took with it.
/// Another try is only made where nothing was sent.
#[derive(Debug, Clone)]
pub(crate) struct Chunks(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    chunks: VecDeque<Bytes>,
    left: u64,
    reservation: Reservation,
}

/// A model server's answer. The request counts as under way until it has passed, or until nobody wants it any more.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Incoming,
    job: Option<Job>,
    _in_flight: InFlight,
}

/// A job that is being made: its name stands in the answer.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) front: Front,
    pub(crate) maker: Maker,
    pub(crate) seeker: JobSeeker,
}

/// What a client is sent: a model server's answer, or ours.
pub(crate) type ResponseBody = Either<Answer, Full<Bytes>>;

impl Chunks {
    pub(crate) fn new(chunks: Vec<Bytes>, reservation: Reservation) -> Self {
        let left = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self(Arc::new(Mutex::new(Held { chunks: chunks.into(), left, reservation })))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        // A panic elsewhere leaves the queue whole.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Answer {
    pub(crate) fn new(body: Incoming, job: Option<Job>, in_flight: InFlight) -> Self {
        Self { body, job, _in_flight: in_flight }
    }

    /// Looks for the name of a job in what passes.
    fn learn(&mut self, frame: Option<&Frame<Bytes>>) {
        let Some(job) = &mut self.job else { return };
        if let Some(data) = frame.and_then(Frame::data_ref) {
            job.seeker.feed(data);
        }
        if (frame.is_none() || self.body.is_end_stream())
            && let Some(Job { front, maker, seeker }) = self.job.take()
            && let Some(id) = seeker.finish()
        {
            front.job_made(id, maker);
        }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.with(|held| {
            let chunk = held.chunks.pop_front()?;
            held.left -= chunk.len() as u64;
            held.reservation.shrink(chunk.len() as u64);
            Some(Ok(Frame::data(chunk)))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|held| held.chunks.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.with(|held| held.left))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.learn(Some(frame)),
            Poll::Ready(None) => self.learn(None),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
