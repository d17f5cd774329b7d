//! Running other programs, and saying so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What was run so far, and how long it took; some of it side by side.
static TOOK: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());

/// The steps of a long task, so that whoever watches knows how far it is.
#[derive(Debug)]
pub(crate) struct Steps {
    all: usize,
    done: usize,
}

impl Steps {
    pub(crate) const fn new(all: usize) -> Self {
        Self { all, done: 0 }
    }

    /// Says that the next step begins.
    pub(crate) fn next(&mut self, what: &str) {
        self.done += 1;
        crate::say(&format!("step {} of {}: {what}", self.done, self.all));
    }
}

/// Says how long everything took that was run, the longest first.
pub(crate) fn say_what_took_how_long() {
    let mut took = std::mem::take(&mut *TOOK.lock().unwrap_or_else(PoisonError::into_inner));
    took.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    crate::say("what took how long (installing and building go side by side)");
    for (what, took) in took {
        let seconds = took.as_secs();
        crate::say(&format!("  {:>3} min {:02} s  {what}", seconds / 60, seconds % 60));
    }
}

/// Runs a command to its end, with its output where ours goes.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    crate::say(what);
    let status = command.status().with_context(|| format!("{what}: running {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{what}: {} ended with {status}", command.get_program().display());
    }
    let took = started.elapsed();
    crate::say(&format!("{what}: done in {:.0} s", took.as_secs_f32()));
    TOOK.lock().unwrap_or_else(PoisonError::into_inner).push((what.to_owned(), took));
    Ok(())
}

/// Runs a command and answers with what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The profile of what is shipped.
pub(crate) const SHIPPED: &str = "shipped";

/// Cargo, as it runs us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
