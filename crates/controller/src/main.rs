//! `thalamus-controller`.

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    controller::Args::parse().run().await
}
