//! The command line of `thalamus`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use daemon::LogArgs;

use crate::check::{self, CheckArgs};
use crate::demo::{self, DemoArgs};
use crate::probe_command::{self, ProbeArgs};
use crate::screen::Screen;
use crate::serve::{self, ServeArgs};
use crate::simulate::{self, SimulateArgs};
use crate::top::{self, TopArgs};

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
    /// Run a demo: simulated model servers, the example manifests, and one request of each kind.
    Demo(DemoArgs),
    /// Serve model servers by their addresses, or a folder of objects. What changes is noticed.
    Serve(ServeArgs),
    /// Check objects before they are applied: what the controller would say of them once all pods are ready. Fails if something is wrong.
    Check(CheckArgs),
    /// Find out what model servers are, and what each of their models takes and gives.
    Probe(ProbeArgs),
    /// Show how busy each endpoint is, as pickers see it.
    Top(TopArgs),
    /// Simulate a fleet of model servers in virtual time: how long requests wait, by this scheduler and by simpler ones.
    Simulate(SimulateArgs),
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
                let _log = log.init()?;
                demo::run(args).await
            }
            Command::Check(args) => {
                let _log = log.init()?;
                check::run(&args, Screen::of_stdout())
            }
            Command::Probe(args) => {
                let _log = log.init()?;
                probe_command::run(args, Screen::of_stdout()).await
            }
            Command::Top(args) => {
                let _log = log.init()?;
                top::run(args, Screen::of_stdout()).await
            }
            Command::Simulate(args) => simulate::run(&args),
            Command::Serve(args) => {
                let _log = log.init()?;
                serve::run(args).await?;
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

    /// What people read of the flags.
    #[test]
    fn the_reference_beside_the_documents_is_of_these_flags() {
        let program = <Args as clap::CommandFactory>::command();
        daemon::testing::holds("reference.md", "thalamus", &daemon::testing::flags_of(program));
    }
}
