//! The command line of `thalamus`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use daemon::LogArgs;

/// Routes inference requests by modality, without Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "thalamus", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it: simulated model servers, the example's manifests, and one request of each kind.
    Demo(DemoArgs),
    /// Serve what a folder of objects says: InferencePool, InferenceModel and Pod, in YAML or JSON. Changes are taken as they are saved.
    Serve(ServeArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// The folder with the manifests.
    #[arg(long, default_value = "manifests/examples/multimodal")]
    pub(crate) manifests: PathBuf,

    /// Where to serve. A free port when the port is 0.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,

    /// End after the tour: with success only if every request landed where the table says.
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The folder with the objects.
    #[arg(long)]
    pub(crate) manifests: PathBuf,

    /// Where to serve.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// Where /metrics, /ready, /live and /debug/table are.
    #[arg(long)]
    pub(crate) admin_listen: Option<SocketAddr>,

    /// The namespace to serve. Objects that name none are in `default`.
    #[arg(long)]
    pub(crate) namespace: Option<String>,

    /// Largest request body that is taken, in bytes.
    #[arg(long, default_value_t = request::Limits::DEFAULT_MAX_BODY_BYTES)]
    pub(crate) max_body_bytes: u64,
}

impl Args {
    /// Runs the command.
    pub async fn run(self) -> Result<ExitCode> {
        let Self { command, mut log } = self;
        match command {
            Command::Demo(args) => {
                // The tour shows what was decided; log lines between would only be in the way.
                if log.log == "info" {
                    "error".clone_into(&mut log.log);
                }
                log.init()?;
                crate::demo::run(args).await
            }
            Command::Serve(args) => {
                log.init()?;
                crate::serve::run(args).await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_well_formed() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }
}
