//! `modelserver-sim`.

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    daemon::ended(modelserver_sim::Args::parse().run().await.map(|()| ExitCode::SUCCESS))
}
