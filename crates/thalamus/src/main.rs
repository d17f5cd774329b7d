//! `thalamus`.

use clap::Parser as _;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    daemon::ended(thalamus::Args::parse().run().await)
}
