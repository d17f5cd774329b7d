//! Generates what is checked in, checks what must hold, and runs the tests.

mod codegen;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Generates what is checked in, checks what must hold, and runs the tests.")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Write the CRDs and the protobuf code.
    Codegen,
}

fn main() -> Result<()> {
    let root = root();
    match Args::parse().task {
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
