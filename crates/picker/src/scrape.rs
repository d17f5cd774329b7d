//! Reads each model server's `/metrics`, and tells the load board.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use director::Director;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use routing::AppProtocol;
use scheduling::Load;

use crate::metrics::Metrics;

mod vllm;

/// How many are read at once. Those that do not answer hold their place for a second, so that there must be many.
const AT_ONCE: usize = 256;

/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How much one may say. vLLM says about 100 KB.
const MAX_BYTES: usize = 8 << 20;

/// A server that lives and has no metrics.
#[derive(Debug, thiserror::Error)]
#[error("status {0}")]
struct NoMetrics(http::StatusCode);

struct Scraper {
    http1: Client<HttpConnector, Empty<Bytes>>,
    h2c: Client<HttpConnector, Empty<Bytes>>,
}

/// Reads all endpoints of the table, again and again.
pub(crate) async fn run(director: Arc<Director>, interval: Duration, metrics: Metrics) {
    let client = |h2c| {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TIMEOUT));
        Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).http2_only(h2c).build(connector)
    };
    let scraper = Scraper { http1: client(false), h2c: client(true) };
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        futures::stream::iter(endpoints(&director))
            .for_each_concurrent(AT_ONCE, async |(address, protocol)| match scraper.scrape(address, protocol).await {
                Ok(load) => {
                    metrics.scraped(true);
                    director.board().scraped(address, &load, Instant::now());
                }
                Err(error) => {
                    metrics.scraped(false);
                    // An answer without metrics is no reason not to serve: such an endpoint counts by what we sent there.
                    if error.is::<NoMetrics>() {
                        director.board().alive(address);
                    } else {
                        director.board().silent(address, Instant::now());
                    }
                    tracing::debug!(endpoint = %address, error = format!("{error:#}"), "metrics cannot be read");
                }
            })
            .await;
    }
}

/// Each address once, however many pools hold it.
fn endpoints(director: &Director) -> BTreeMap<SocketAddr, AppProtocol> {
    let table = director.table().map(|(_, table)| table).unwrap_or_default();
    table
        .pools
        .values()
        .flat_map(|pool| pool.endpoints.values().map(|endpoint| (endpoint.address, pool.app_protocol)))
        .collect()
}

impl Scraper {
    async fn scrape(&self, address: SocketAddr, protocol: AppProtocol) -> Result<Load> {
        let client = match protocol {
            AppProtocol::Http => &self.http1,
            AppProtocol::H2c => &self.h2c,
        };
        let uri = format!("http://{address}/metrics").parse().context("not a URI")?;
        let read = async {
            let response = client.get(uri).await?;
            ensure!(response.status().is_success(), NoMetrics(response.status()));
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
            Ok(body.map_err(anyhow::Error::from_boxed)?.to_bytes())
        };
        let body = tokio::time::timeout(TIMEOUT, read).await.context("timed out")??;
        Ok(vllm::load(&String::from_utf8_lossy(&body)))
    }
}
