//! Generates what is checked in, checks what must hold, and runs the tests.

mod codegen;
mod docs;
mod images;
mod monitoring;
mod run;
mod tasks;
#[cfg(test)]
mod tidy;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Generates what is checked in, checks what must hold, and runs the tests.")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Clone, Subcommand)]
enum Task {
    /// Install what tests need, and run all of them. Arguments after `--` go to `cargo test`.
    Test {
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Install what tests need: Envoy, a Kubernetes API server, the Gateway API's CRDs.
    Tools,
    /// Leave the tests' world running, to try kubectl and curl by hand.
    Up,
    /// End what `up` started.
    Down,
    /// Let pods, models, pools and replicas come and go for a while, and check every answer: `cargo xtask soak --for 30m`.
    Soak {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the Gateway API Inference Extension's conformance suite behind a real Istio, and write docs/conformance. Needs root; half an hour the
    /// first time, then five minutes. `cargo xtask conformance --part requests` runs one part.
    Conformance {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure what each way through Thalamus costs, beside Envoy alone, in one run: `cargo xtask compare --rounds 5`. With `--peers` other
    /// routers of the Python package index as well; with `--write` into docs/performance.md.
    Compare {
        /// Other routers as well.
        #[arg(long)]
        peers: bool,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Start real model servers (vLLM on CPU, with tiny models), and print whether what is found of them is what they do, and what their own
    /// caches say of where requests go: `cargo xtask engines --only check`. Installs 6 GB, once.
    Engines {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the container images, and the bill of what each is made of, into target/images.
    Images {
        /// As the tests' node runs them, into target/images-dev: quick to build, and large.
        #[arg(long)]
        dev: bool,
        /// For which machines; for this one's kind by default.
        #[arg(long, conflicts_with = "dev")]
        architecture: Option<images::Architecture>,
    },
    /// Build the library by which Envoy has the picker inside it, into target/envoy-module, and an image of it alone, into target/images.
    EnvoyModule,
    /// Write the CRDs, the protobuf code, and the documentation that is written from code.
    Codegen,
}

fn main() -> ExitCode {
    match run_task() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run_task() -> Result<()> {
    let root = root();
    match Args::parse().task {
        Task::Test { args } => tasks::test(&root, &args),
        Task::Tools => tools::install(&root).map(drop),
        Task::Up => tasks::up(&root),
        Task::Down => tasks::down(&root),
        Task::Soak { args } => tasks::soak(&root, &args),
        Task::Conformance { args } => tasks::conformance(&root, &args),
        Task::Compare { peers, args } => tasks::compare(&root, peers, &args),
        Task::Engines { args } => tasks::engines(&root, &args),
        Task::Images { dev: false, architecture } => {
            images::build(&root, images::Profile::Shipped, architecture).map(drop)
        }
        Task::Images { dev: true, .. } => tasks::with_images(&root, tools::install(&root)?).map(drop),
        Task::EnvoyModule => images::envoy_module(&root).map(drop),
        Task::Codegen => codegen::run(&root),
    }
}

/// The workspace's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

#[expect(clippy::print_stderr, reason = "what a task says is for the person who started it")]
fn say(line: &str) {
    eprintln!("xtask: {line}");
}
