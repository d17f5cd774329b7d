//! Waiting for something that another process does.

use std::time::Duration;

use anyhow::{Context, Result};

/// How long a test waits before it gives up. Generous, since only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Tries until it succeeds, and answers with what succeeded; when patience runs out, with the last failure.
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let given_up = tokio::time::Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if tokio::time::Instant::now() > given_up => {
                return Err(error).with_context(|| format!("still not after {PATIENCE:?}: {what}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
