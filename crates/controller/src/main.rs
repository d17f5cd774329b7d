//! `thalamus-controller`.

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    daemon::ended(controller::Args::parse().run().await.map(|()| ExitCode::SUCCESS))
}
