//! `thalamus`.

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    thalamus::Args::parse().run().await
}
