//! Servers of every kind, and such as are none.

#![expect(clippy::unwrap_used, reason = "what helps a test may panic like it")]

mod engines;
mod faults;
mod watch;

use std::net::SocketAddr;

use axum::Router;
use probe::{Failure, Prober, Server};
use routing::{AppProtocol, Found};
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

async fn probe(server: &Server) -> Result<Found, Failure> {
    Prober::new(None).unwrap().probe(server).await
}

/// What each model takes, and what surely not, in a line.
fn takes(found: &Found) -> Vec<String> {
    let line = |model: &routing::FoundModel| {
        let operations = model.operations.map_or("?".into(), |operations| operations.to_string());
        format!("{}: {} not {} for {operations}, {}", model.name, model.input.yes(), model.input.no(), model.limits)
    };
    found.models.iter().map(line).collect()
}
