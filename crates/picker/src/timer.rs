//! The clock of requests that wait.

use std::pin::Pin;
use std::time::Instant;

use director::Timer;

/// Tokio's.
#[derive(Debug)]
pub(crate) struct TokioTimer;

impl Timer for TokioTimer {
    fn until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep_until(at.into()))
    }
}
