//! `thalamus-picker`.

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // It holds every listener and task: too much for a stack.
    Box::pin(picker::Args::parse().run()).await
}
