//! `thalamus-picker`.

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    picker::Args::parse().run().await
}
