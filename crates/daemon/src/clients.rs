//! HTTP clients for what a process itself asks of model servers.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use routing::AppProtocol;

pub type Client = legacy::Client<HttpConnector, Full<Bytes>>;

/// One for each protocol that an endpoint may speak. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Clients {
    http1: Client,
    h2c: Client,
}

impl Clients {
    pub fn new(connect_timeout: Duration) -> Self {
        let client = |h2c| {
            let mut connector = HttpConnector::new();
            connector.set_connect_timeout(Some(connect_timeout));
            legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).http2_only(h2c).build(connector)
        };
        Self { http1: client(false), h2c: client(true) }
    }

    pub fn speaking(&self, protocol: AppProtocol) -> &Client {
        match protocol {
            AppProtocol::Http => &self.http1,
            AppProtocol::H2c => &self.h2c,
        }
    }
}
