//! When something is to be done next.

use std::time::Duration;

use tokio::time::Instant;

/// Rings once, at the earliest of the instants that were asked for since it last rang.
#[derive(Debug, Default)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    pub fn at(&mut self, instant: Instant) {
        self.0 = self.0.into_iter().chain([instant]).min();
    }

    pub fn within(&mut self, wait: Duration) {
        self.at(Instant::now() + wait);
    }

    /// Resolves when it is time; never while nothing is asked for.
    pub async fn reached(&mut self) {
        match self.0 {
            Some(instant) => tokio::time::sleep_until(instant).await,
            None => std::future::pending().await,
        }
        self.0 = None;
    }
}
