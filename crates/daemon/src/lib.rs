//! What a long-running process needs: logs, ports and their keys, an admin port, readiness, and an end that loses nothing.
//!
//! Invariant: nothing here knows what the process does.

mod admin;
mod listener;
mod log;
mod signal;
pub mod tls;

pub use admin::{Admin, Table};
pub use listener::{Connection, Incoming, Speaks};
pub use log::{LogArgs, LogFormat};
pub use signal::stop_on_signal;

/// Binds a listener, and names the flag when it cannot.
pub async fn bind(address: std::net::SocketAddr, flag: &str) -> anyhow::Result<tokio::net::TcpListener> {
    use anyhow::Context as _;
    tokio::net::TcpListener::bind(address).await.with_context(|| format!("{flag}: cannot listen on {address}"))
}
