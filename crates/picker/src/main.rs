//! `thalamus-picker`.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

/// Bodies come and go by gigabytes: what a burst took is given back when it is over (docs/adr/0016).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    daemon::ended(start().map(|()| ExitCode::SUCCESS))
}

fn start() -> anyhow::Result<()> {
    let args = picker::Args::parse();
    // What the flags of other endpoint pickers ask for needs the API server, and this program has never heard of one.
    if !args.names_a_controller()
        && let Some(standalone) = standalone()
    {
        let failed = std::process::Command::new(&standalone).args(std::env::args_os().skip(1)).exec();
        return Err(failed).with_context(|| format!("starting {}", standalone.display()));
    }
    run(args)
}

#[tokio::main]
async fn run(args: picker::Args) -> anyhow::Result<()> {
    // It holds every listener and task: too much for a stack.
    Box::pin(args.run()).await
}

/// The picker that compiles its own table, where it is beside this one, as in our image.
fn standalone() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name("thalamus-standalone");
    beside.is_file().then_some(beside)
}
