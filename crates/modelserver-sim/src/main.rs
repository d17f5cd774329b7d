//! `modelserver-sim`.

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    modelserver_sim::Args::parse().run().await
}
