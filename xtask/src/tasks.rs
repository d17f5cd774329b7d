//! The tasks that run other programs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::images::{self, Profile};
use crate::run::{SHIPPED, Steps, cargo, run, say_what_took_how_long, target_folder};
use crate::tools::{self, Environment};

/// Builds while the tools are installed, then runs all tests; with arguments only those that they choose.
pub(crate) fn test(root: &Path, args: &[String]) -> Result<()> {
    let mut steps = Steps::new(if args.is_empty() { 5 } else { 3 });
    steps.next("installing what tests need and building, side by side; the first time takes some ten minutes");
    let environment = std::thread::scope(|scope| {
        let installing = scope.spawn(|| tools::install(root));
        run("building", cargo().args(["build", "--workspace", "--all-targets"]).current_dir(root))?;
        installing.join().map_err(|_| anyhow!("the installation panicked"))?
    })?;
    steps.next("the images that the tests' node runs");
    let environment = with_images(root, environment)?;
    if !args.is_empty() {
        steps.next("the tests that were chosen");
        return run("tests", cargo().args(["test", "--workspace"]).args(args).envs(environment).current_dir(root));
    }
    // The siege takes all that the machine has: by itself, or it would starve others.
    steps.next("all tests");
    let all = ["test", "--workspace", "--", "--skip", "siege::"];
    run("all tests", cargo().args(all).envs(environment.clone()).current_dir(root))?;
    steps.next("a minute of siege");
    let siege = ["test", "--package", "e2e", "--test", "it", "siege::", "--", "--test-threads=1"];
    run("a minute of siege", cargo().args(siege).envs(environment).current_dir(root))?;
    // Another seed each time: what it finds is found in some run.
    steps.next("fuzzing for a minute");
    run("fuzzing for a minute", cargo().args(["run", "--quiet", "--package", "fuzz"]).current_dir(root))?;
    say_what_took_how_long();
    Ok(())
}

/// Where a node can run, the images that it runs are built here, too.
pub(crate) fn with_images(root: &Path, mut environment: Environment) -> Result<Environment> {
    let kube = environment.iter().find(|(name, _)| *name == "KUBE_BIN").map(|(_, path)| path.clone());
    if let Some(kube) = kube.filter(|_| environment.iter().any(|(name, _)| *name == "NODE_ROOT")) {
        let images = images::build(root, Profile::Dev, None)?;
        let place = images.first().and_then(|image| image.parent()).context("there are images")?.to_owned();
        images::of_the_node(&kube, &place)?;
        environment.push(("THALAMUS_IMAGES", place));
    }
    Ok(environment)
}

pub(crate) fn up(root: &Path) -> Result<()> {
    in_world(root, "starting", &["up"])
}

pub(crate) fn soak(root: &Path, args: &[String]) -> Result<()> {
    let args: Vec<&str> = std::iter::once("soak").chain(args.iter().map(String::as_str)).collect();
    in_world(root, "soaking", &args)
}

pub(crate) fn conformance(root: &Path, args: &[String]) -> Result<()> {
    let mut environment = tools::install(root)?;
    environment.extend(tools::gateways(root)?);
    run("building", cargo().args(["build", "--workspace", "--bins"]).current_dir(root))?;
    let args: Vec<&str> = std::iter::once("conformance").chain(args.iter().map(String::as_str)).collect();
    let mut command = std::process::Command::new(target_folder(root).join("debug/e2e"));
    // In memory where that can be: an API server writes as it runs.
    let folder = if Path::new("/dev/shm").is_dir() { Path::new("/dev/shm").to_owned() } else { std::env::temp_dir() };
    command.arg("--folder").arg(folder.join("thalamus-conformance"));
    run("conformance", command.args(args).envs(environment))
}

/// Measures what is shipped, with nothing installed but what it is measured beside.
pub(crate) fn compare(root: &Path, peers: bool, args: &[String]) -> Result<()> {
    let mut environment = vec![tools::envoy_alone()?];
    if peers {
        environment.push(tools::peers(root)?);
    }
    as_shipped(root, "measuring", "compare", &["e2e", "picker", "envoy-module"], &environment, args)
}

/// Asks real model servers.
pub(crate) fn engines(root: &Path, args: &[String]) -> Result<()> {
    as_shipped(
        root,
        "asking real engines",
        "engines",
        &["e2e", "picker", "thalamus"],
        &[tools::engines(root)?, tools::envoy_alone()?],
        args,
    )
}

/// Runs a command of the tests' harness with these packages built as they are shipped.
fn as_shipped(
    root: &Path,
    what: &str,
    command: &str,
    packages: &[&str],
    environment: &[(&'static str, PathBuf)],
    args: &[String],
) -> Result<()> {
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    run("building, as it is shipped", cargo().args(["build", "--profile", SHIPPED]).args(packages).current_dir(root))?;
    let folder = std::env::temp_dir().join(format!("thalamus-{command}"));
    let mut harness = std::process::Command::new(target_folder(root).join(SHIPPED).join("e2e"));
    harness.arg("--folder").arg(folder).arg(command).args(args).envs(environment.iter().cloned());
    run(what, &mut harness)
}

/// Runs the tests' harness, with everything that it needs installed and built.
fn in_world(root: &Path, what: &str, args: &[&str]) -> Result<()> {
    let environment = tools::install(root)?;
    run("building", cargo().args(["build", "--workspace", "--bins"]).current_dir(root))?;
    run(what, world(root)?.args(args).envs(environment))
}

pub(crate) fn down(root: &Path) -> Result<()> {
    run("ending", world(root)?.arg("down"))
}

fn world(root: &Path) -> Result<std::process::Command> {
    let mut command = std::process::Command::new(target_folder(root).join("debug/e2e"));
    // One world a user.
    command.arg("--folder").arg(tools::cache()?.join("world"));
    Ok(command)
}
