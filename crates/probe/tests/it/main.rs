//! Servers of every kind, and such as are none.

#![expect(clippy::unwrap_used, reason = "what helps a test may panic like it")]

mod engines;
mod faults;
mod many;
mod watch;

use std::net::SocketAddr;

use axum::Router;
use probe::{Failure, Probed, Prober, Server};
use routing::{AppProtocol, FoundModel, ModelName};
use tokio::net::TcpListener;

/// Serves these paths at an address of their own.
async fn serve(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    at(address)
}

fn at(address: SocketAddr) -> Server {
    Server::at(address, AppProtocol::Http)
}

async fn probe(server: &Server) -> Result<Probed, Failure> {
    Prober::new(None).unwrap().probe(server).await
}

/// What each model takes, and what surely not, in a line.
fn takes(probed: &Probed) -> Vec<String> {
    let line = |(name, model): (&ModelName, &FoundModel)| {
        let operations = model.operations.map_or("?".into(), |operations| operations.to_string());
        format!("{name}: {} not {} for {operations}, {}", model.input.yes(), model.input.no(), model.limits)
    };
    probed.found.models.iter().map(line).collect()
}
