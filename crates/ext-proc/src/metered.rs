//! What has come of a stream's messages and is not one yet counts as held: a message that is half sent costs as much as a whole one.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use director::{Budget, Reservation};
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
pub(crate) struct Meter(Arc<Mutex<Reservation>>);

struct MeteredBody {
    inner: Body,
    meter: Meter,
}

impl<S> Metered<S> {
    pub(crate) fn new(inner: S, budget: Budget) -> Self {
        Self { inner, budget }
    }
}

impl Meter {
    /// So many bytes of it are a message now.
    pub(crate) fn decoded(&self, bytes: u64) {
        self.lock().shrink(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Reservation> {
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
        match self.budget.open(None) {
            Ok(reservation) => {
                let meter = Meter(Arc::new(Mutex::new(reservation)));
                let mut request = request.map(|inner| Body::new(MeteredBody { inner, meter: meter.clone() }));
                request.extensions_mut().insert(meter);
                Box::pin(self.inner.call(request))
            }
            Err(rejection) => Box::pin(std::future::ready(Ok(exhausted(&rejection).into_http()))),
        }
    }
}

fn exhausted(rejection: &director::Rejection) -> Status {
    Status::resource_exhausted(rejection.to_string())
}

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut this.inner).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = frame?;
        let came = frame.data_ref().map_or(0, |data| data.len() as u64);
        Poll::Ready(Some(match this.meter.lock().grow(came) {
            Ok(()) => Ok(frame),
            Err(rejection) => Err(exhausted(&rejection)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
