//! gRPC services whose streams are read within the budget.
//!
//! A stream counts by itself, and what came of a message until it is whole; then its body is held by whoever reads it. Announced bytes count
//! for nothing: room is made for them, but no memory is touched. No peer holds more than half of the budget so once it is half full; a
//! gateway's messages are whole in a moment.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use director::{Budget, Rejection, Reservation};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

/// A gRPC service whose requests' bytes are held within the budget until they are messages.
#[derive(Debug, Clone)]
pub struct Metered<S> {
    inner: S,
    budget: Budget,
}

/// What a stream holds of bytes that are no message yet. Clones are of the same stream.
#[derive(Debug, Clone)]
pub struct Meter(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    held: Reservation,
    /// How many bytes came in all.
    came: u64,
    /// The lengths of the messages that are announced and not decoded yet, in order.
    announced: VecDeque<u32>,
    /// Why no more of the stream is taken.
    refused: Option<Rejection>,
}

struct MeteredBody {
    inner: Body,
    meter: Meter,
    announced: Announced,
}

/// Follows the messages of a stream: a byte that says whether one is compressed, four for its length, and itself (gRPC over HTTP/2,
/// `Length-Prefixed-Message`).
#[derive(Debug, Default)]
struct Announced {
    prefix: [u8; PREFIX],
    /// How much of the prefix is there.
    have: usize,
    /// How much of the message is to come.
    left: usize,
}

const PREFIX: usize = 5;

/// What a stream takes before it has said anything: most of it what tonic reads into.
const STREAM: u64 = 16 << 10;

/// What a message takes beside its bytes: a place among those that are announced.
const ANNOUNCED: u64 = 2 * size_of::<u32>() as u64;

impl<S> Metered<S> {
    pub fn new(inner: S, budget: Budget) -> Self {
        Self { inner, budget }
    }
}

impl Meter {
    /// The next message is whole now; says how many bytes it has.
    pub fn decoded(&self) -> usize {
        let mut state = self.lock();
        let length = state.announced.pop_front().unwrap_or(0);
        state.held.shrink(u64::from(length) + PREFIX as u64 + ANNOUNCED);
        length as usize
    }

    /// How many bytes came in all.
    pub fn came(&self) -> u64 {
        self.lock().came
    }

    /// Why the stream ended in an error of ours, if it did. Nothing of it is held any more then: the next request must not find the room
    /// taken because this one's answer was quicker than its end.
    pub fn refused(&self) -> Option<Rejection> {
        let mut state = self.lock();
        state.refused.take().inspect(|_| state.held.shrink(u64::MAX))
    }

    fn received(&self, bytes: u64, announced: &[u32]) -> Result<(), Rejection> {
        let mut state = self.lock();
        state.came += bytes;
        state.announced.extend(announced);
        let more = bytes + announced.len() as u64 * ANNOUNCED;
        state.held.grow(more).inspect_err(|rejection| state.refused = Some(rejection.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counting leaves it whole wherever a panic happens.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: NamedService> NamedService for Metered<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Metered<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
        match self.budget.take(peer, STREAM) {
            Ok(held) => {
                let meter =
                    Meter(Arc::new(Mutex::new(State { held, came: 0, announced: VecDeque::new(), refused: None })));
                let mut request = request.map(|inner| {
                    Body::new(MeteredBody { inner, meter: meter.clone(), announced: Announced::default() })
                });
                request.extensions_mut().insert(meter);
                Box::pin(self.inner.call(request))
            }
            Err(rejection) => Box::pin(std::future::ready(Ok(exhausted(&rejection).into_http()))),
        }
    }
}

impl Announced {
    /// How long each of the messages is that these bytes announce.
    fn by(&mut self, mut bytes: &[u8]) -> Vec<u32> {
        let mut announced = Vec::new();
        while !bytes.is_empty() {
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            bytes = &bytes[passed..];
            let more = (PREFIX - self.have).min(bytes.len());
            self.prefix[self.have..self.have + more].copy_from_slice(&bytes[..more]);
            self.have += more;
            bytes = &bytes[more..];
            if self.have == PREFIX {
                let [_, length @ ..] = self.prefix;
                let length = u32::from_be_bytes(length);
                (self.have, self.left) = (0, length as usize);
                announced.push(length);
            }
        }
        announced
    }
}

fn exhausted(rejection: &Rejection) -> Status {
    Status::resource_exhausted(rejection.to_string())
}

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut this.inner).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = frame?;
        let Some(data) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
        let received = this.meter.received(data.len() as u64, &this.announced.by(data));
        Poll::Ready(Some(received.map(|()| frame).map_err(|rejection| exhausted(&rejection))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_held_until_it_is_a_message() {
        let budget = Budget::new(100_000);
        let held = budget.open(None).unwrap();
        let meter = Meter(Arc::new(Mutex::new(State { held, came: 0, announced: VecDeque::new(), refused: None })));
        meter.received(5, &[32 << 20]).unwrap();
        assert!(budget.held() < 100, "what is merely announced holds nothing");
        meter.received(90_000, &[]).unwrap();
        assert!(budget.held() > 90_000 && meter.came() == 90_005);
        assert!(meter.received(90_000, &[]).is_err());
        assert!(matches!(meter.refused(), Some(Rejection::Overloaded { .. })));
        assert_eq!(budget.held(), 0);
        meter.received(25, &[0, 10, 0]).unwrap();
        assert_eq!([meter.decoded(), meter.decoded(), meter.decoded(), meter.decoded()], [32 << 20, 0, 10, 0]);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn messages_are_told_wherever_they_are_cut() {
        let messages = [&b""[..], b"a", &[b'x'; 700], b"", b"last"];
        let prefixed =
            |message: &&[u8]| [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat();
        let bytes: Vec<u8> = messages.iter().flat_map(prefixed).collect();
        for piece in [1, 2, 3, 5, 7, 64, 10_000] {
            let mut announced = Announced::default();
            let all: Vec<u32> = bytes.chunks(piece).flat_map(|piece| announced.by(piece)).collect();
            assert_eq!((all, announced.left, announced.have), (vec![0, 1, 700, 0, 4], 0, 0), "in pieces of {piece}");
        }
        let mut huge = Announced::default();
        assert_eq!(huge.by(&[0, 0xff, 0xff, 0xff, 0xff, 1]), [u32::MAX]);
    }
}
