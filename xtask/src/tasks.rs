//! The tasks that run other programs.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::run::{cargo, run};
use crate::tools;

/// Builds while the tools are installed, then runs all tests; with arguments only those that they choose.
pub(crate) fn test(root: &Path, args: &[String]) -> Result<()> {
    crate::say("installing what tests need and building, side by side; the first time takes some ten minutes");
    let environment = std::thread::scope(|scope| {
        let installing = scope.spawn(|| tools::install(root));
        run("building", cargo().args(["build", "--workspace", "--all-targets"]).current_dir(root))?;
        installing.join().map_err(|_| anyhow!("the installation panicked"))?
    })?;
    run("all tests", cargo().args(["test", "--workspace"]).args(args).envs(environment).current_dir(root))?;
    if !args.is_empty() {
        return Ok(());
    }
    // Another seed each time: what it finds is found in some run.
    run("fuzzing for a minute", cargo().args(["run", "--quiet", "--package", "fuzz"]).current_dir(root))
}

pub(crate) fn up(root: &Path) -> Result<()> {
    let environment = tools::install(root)?;
    run("building", cargo().args(["build", "--workspace", "--bins"]).current_dir(root))?;
    run("starting", world(root)?.arg("up").envs(environment))
}

pub(crate) fn down(root: &Path) -> Result<()> {
    run("ending", world(root)?.arg("down"))
}

fn world(root: &Path) -> Result<std::process::Command> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut command = std::process::Command::new(target.join("debug/e2e"));
    // One world a user.
    command.arg("--folder").arg(tools::cache()?.join("world"));
    Ok(command)
}
