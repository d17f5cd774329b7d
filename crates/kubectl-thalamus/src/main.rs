//! `kubectl thalamus`: a plugin for a person at a terminal.
//!
//! ```text
//!  status   API server ──objects──► index, the controller's own ──► one table
//!  explain  a request ──► a picker's admin port ──► tiers, filters, scores
//!  top      pickers' admin ports ──► load per endpoint, live
//!  check    files ──► the same index, no cluster
//! ```
//!
//! Invariant: it reads, and writes nothing anywhere.

mod explain;
mod pickers;
mod status;
mod top;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use thalamus::check::{self, CheckArgs};
use thalamus::screen::Screen;

/// Shows what is served, where requests go and why, what is wrong, and how busy endpoints are.
#[derive(Debug, Parser)]
#[command(name = "kubectl-thalamus", bin_name = "kubectl thalamus", version)]
struct Args {
    #[command(subcommand)]
    command: Command,

    /// The namespace. Defaults to that of the current context.
    #[arg(short, long, global = true)]
    namespace: Option<String>,

    /// The context of the kubeconfig to use.
    #[arg(long, global = true)]
    context: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show pools, models, modalities and endpoints in one table, and problems below it.
    Status {
        /// Show all namespaces.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
    },
    /// Explain where a picker would send a request, and how it judges each endpoint. Nothing is sent to a model server.
    Explain(explain::ExplainArgs),
    /// Show how busy each endpoint is, as seen by the pickers.
    Top(top::TopArgs),
    /// Check objects before they are applied, without a cluster. Fails if something is wrong.
    Check(CheckArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    daemon::ended(run().await)
}

async fn run() -> Result<ExitCode> {
    // Several crates in the tree could bring a provider; kube asks for the process's default.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Args { command, namespace, context } = Args::parse();
    let screen = Screen::of_stdout();
    if let Command::Check(args) = &command {
        return check::run(args, screen);
    }
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let config = Config::from_kubeconfig(&options).await.context("reading the kubeconfig")?;
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("creating a client for the API server")?;
    match command {
        Command::Status { all_namespaces } => {
            status::run(&client, (!all_namespaces).then_some(namespace.as_str()), screen).await?;
        }
        Command::Explain(args) => return explain::run(&client, &namespace, &args, screen).await,
        Command::Top(args) => top::run(&client, &namespace, &args, screen).await?,
        Command::Check(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What people read of the flags.
    #[test]
    fn the_reference_beside_the_documents_is_of_these_flags() {
        let program = <Args as clap::CommandFactory>::command();
        daemon::testing::holds("reference.md", "kubectl thalamus", &daemon::testing::flags_of(program));
    }
}
