//! The tasks that run other programs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::images::{self, Profile};
use crate::run::{cargo, run};
use crate::tools::{self, Environment};

/// Builds while the tools are installed, then runs all tests; with arguments only those that they choose.
pub(crate) fn test(root: &Path, args: &[String]) -> Result<()> {
    crate::say("installing what tests need and building, side by side; the first time takes some ten minutes");
    let environment = std::thread::scope(|scope| {
        let installing = scope.spawn(|| tools::install(root));
        run("building", cargo().args(["build", "--workspace", "--all-targets"]).current_dir(root))?;
        installing.join().map_err(|_| anyhow!("the installation panicked"))?
    })?;
    let environment = with_images(root, environment)?;
    run("all tests", cargo().args(["test", "--workspace"]).args(args).envs(environment).current_dir(root))?;
    if !args.is_empty() {
        return Ok(());
    }
    // Another seed each time: what it finds is found in some run.
    run("fuzzing for a minute", cargo().args(["run", "--quiet", "--package", "fuzz"]).current_dir(root))
}

/// Where a node can run, the images that it runs are built here, too.
pub(crate) fn with_images(root: &Path, mut environment: Environment) -> Result<Environment> {
    let kube = environment.iter().find(|(name, _)| *name == "KUBE_BIN").map(|(_, path)| path.clone());
    if let Some(kube) = kube.filter(|_| environment.iter().any(|(name, _)| *name == "NODE_ROOT")) {
        let images = images::build(root, Profile::Dev)?;
        let place = images.first().and_then(|image| image.parent()).context("there are images")?.to_owned();
        images::of_the_node(&kube, &place)?;
        environment.push(("THALAMUS_IMAGES", place));
    }
    Ok(environment)
}

pub(crate) fn up(root: &Path) -> Result<()> {
    let environment = tools::install(root)?;
    run("building", cargo().args(["build", "--workspace", "--bins"]).current_dir(root))?;
    run("starting", world(root)?.arg("up").envs(environment))
}

pub(crate) fn soak(root: &Path, args: &[String]) -> Result<()> {
    let environment = tools::install(root)?;
    run("building", cargo().args(["build", "--workspace", "--bins"]).current_dir(root))?;
    run("soaking", world(root)?.arg("soak").args(args).envs(environment))
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
