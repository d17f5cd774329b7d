//! Reads each model server's metrics, and tells the board. One poller an endpoint: who does not answer holds up nobody else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use daemon::{Client, Clients};
use director::{Director, EndpointId, KnownEndpoint, Reading};
use http_body_util::{BodyExt as _, Limited};
use routing::AppProtocol;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::metrics::Metrics;

mod engines;

/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How much one may say. vLLM says about 100 KB.
const MAX_BYTES: usize = 8 << 20;

/// Where metrics are: everywhere but at TensorRT-LLM, which has statistics in JSON there.
const PATHS: [&str; 2] = ["/metrics", "/prometheus/metrics"];

/// A server that lives and has no metrics.
#[derive(Debug, thiserror::Error)]
#[error("status {0}")]
struct NoMetrics(http::StatusCode);

/// The pollers of a table.
#[derive(Debug, Default)]
struct Pollers(HashMap<EndpointId, (Way, Poller)>);

/// Polls until it is dropped.
#[derive(Debug)]
struct Poller(AbortHandle);

/// How an endpoint is reached.
type Way = (SocketAddr, AppProtocol);

/// Polls every endpoint of the director's table; `tables` changes with it.
pub(crate) async fn run(
    director: Arc<Director>,
    mut tables: watch::Receiver<u64>,
    interval: Duration,
    metrics: Metrics,
) {
    let clients = Clients::new(TIMEOUT);
    let interval = interval.max(Duration::from_millis(10));
    let mut pollers = Pollers::default();
    loop {
        tables.borrow_and_update();
        pollers.follow(director.endpoints(), |endpoint| {
            Poller(tokio::spawn(poll(endpoint, clients.clone(), interval, metrics.clone())).abort_handle())
        });
        if tables.changed().await.is_err() {
            return;
        }
    }
}

impl Pollers {
    /// Starts a poller for each endpoint that has none, and ends those of endpoints that are gone, or reached another way now.
    fn follow(&mut self, endpoints: Vec<KnownEndpoint>, mut start: impl FnMut(KnownEndpoint) -> Poller) {
        let mut before = std::mem::take(&mut self.0);
        for endpoint in endpoints {
            let (id, way) = (endpoint.state.id().clone(), (endpoint.address, endpoint.app_protocol));
            let poller = match before.remove(&id) {
                Some(poller) if poller.0 == way => poller,
                _ => (way, start(endpoint)),
            };
            self.0.insert(id, poller);
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn poll(
    KnownEndpoint { state, address, app_protocol }: KnownEndpoint,
    clients: Clients,
    interval: Duration,
    metrics: Metrics,
) {
    let client = clients.speaking(app_protocol);
    // A table of thousands comes at once, and they are not to be asked at once for ever after.
    tokio::time::sleep(interval.mul_f64(fastrand::f64())).await;
    let mut path = 0;
    loop {
        match read(client, address, PATHS[path]).await {
            Ok(reading) => {
                metrics.scraped("read");
                state.scraped(&reading, Instant::now());
                if reading.scraped.is_empty() {
                    path = (path + 1) % PATHS.len();
                }
            }
            Err(error) => {
                metrics.scraped(if error.is::<NoMetrics>() { "none" } else { "failed" });
                // An answer without metrics is no reason not to serve: such an endpoint counts by what we sent there.
                if error.is::<NoMetrics>() {
                    state.alive(Instant::now());
                    path = (path + 1) % PATHS.len();
                } else {
                    state.silent(Instant::now());
                }
                tracing::debug!(endpoint = %state.id(), error = format!("{error:#}"), "metrics cannot be read");
            }
        }
        tokio::time::sleep(interval.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
    }
}

async fn read(client: &Client, address: SocketAddr, path: &str) -> Result<Reading> {
    let uri = format!("http://{address}{path}").parse().context("not a URI")?;
    let read = async {
        let response = client.get(uri).await?;
        ensure!(response.status().is_success(), NoMetrics(response.status()));
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        Ok(body.map_err(anyhow::Error::from_boxed)?.to_bytes())
    };
    let body = tokio::time::timeout(TIMEOUT, read).await.context("timed out")??;
    Ok(engines::reading(&String::from_utf8_lossy(&body)))
}

#[cfg(test)]
mod tests;
