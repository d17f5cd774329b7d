//! What a long-running process needs: logs, ports and their keys, an admin port, readiness, and an end that loses nothing.
//!
//! Invariant: nothing here knows what the process does; what a gateway's configuration can mend is told in a gateway's terms.

mod admin;
mod clients;
mod connections;
mod deadline;
mod ended;
mod listener;
mod log;
mod rarely;
mod signal;
pub mod testing;
pub mod tls;
mod tolerant;
mod workers;

pub use admin::{Admin, Table};
pub use clients::{Client, Clients};
pub use connections::{ConnectionLimit, GREETING_TIMEOUT, Held, Place, Port, raise_file_limit, says_something};
pub use deadline::Deadline;
pub use ended::ended;
pub use listener::{Connection, Incoming, Speaks};
pub use log::{LogArgs, LogFormat, LogGuard};
pub use rarely::Rarely;
pub use signal::stop_on_signal;
pub use tolerant::Tolerant;
pub use workers::Workers;

/// Binds a listener, and names the flag when it cannot.
pub async fn bind(address: std::net::SocketAddr, flag: &str) -> anyhow::Result<tokio::net::TcpListener> {
    use anyhow::Context as _;
    tokio::net::TcpListener::bind(address).await.with_context(|| format!("{flag}: cannot listen on {address}"))
}
