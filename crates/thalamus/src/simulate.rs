//! `thalamus simulate`: how long requests would wait in a fleet, by the real director and by simpler policies.

use std::path::PathBuf;
use std::process::ExitCode;

use ::simulate::{PolicyName, Scenario};
use anyhow::{Context as _, Result, ensure};

/// The flags of `thalamus simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    /// Scenario files, such as those in crates/simulate/scenarios.
    #[arg(required = true)]
    scenarios: Vec<PathBuf>,

    /// How often each is simulated, with other requests each time.
    #[arg(long, default_value_t = 5)]
    seeds: u64,

    /// Only these loads, in requests a second, instead of the scenario's own. May be repeated.
    #[arg(long = "rate")]
    rates: Vec<f64>,

    /// Hold the picker against itself without each of its parts, instead of against other policies.
    #[arg(long)]
    parts: bool,

    /// Also writes a page with plots to this file.
    #[arg(long)]
    html: Option<PathBuf>,

    /// Also writes a table for documents to this file.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// Prints a table for each scenario; says on standard error how far it is.
#[expect(clippy::print_stdout, reason = "it is what was asked for")]
pub(crate) fn run(args: &SimulateArgs) -> Result<ExitCode> {
    ensure!(args.seeds > 0, "--seeds: at least 1");
    // All are read before the first takes its time.
    let mut scenarios = Vec::new();
    for path in &args.scenarios {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let mut scenario = Scenario::read(&text).with_context(|| path.display().to_string())?;
        if !args.rates.is_empty() {
            scenario.rates.clone_from(&args.rates);
            scenario.check().context("--rate")?;
        }
        scenarios.push((path, scenario));
    }
    let policies = if args.parts { PolicyName::PARTS.as_slice() } else { &PolicyName::ALL };
    let mut all = Vec::new();
    for (path, scenario) in &scenarios {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        println!("{name}: {}\n", scenario.about);
        let rows = ::simulate::run(scenario, args.seeds, policies, |rate, policy| {
            eprintln!("simulate: {name}: {rate} requests a second, {}", policy.as_str());
        });
        println!("{}", ::simulate::table(&rows));
        all.push((name.into_owned(), scenario, rows));
    }
    let write = |path: &PathBuf, text: String| {
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        eprintln!("simulate: wrote {}", path.display());
        anyhow::Ok(())
    };
    if let Some(path) = &args.html {
        write(path, ::simulate::page(&all, policies))?;
    }
    if let Some(path) = &args.markdown {
        write(path, ::simulate::markdown(&all, policies, !args.parts))?;
    }
    Ok(ExitCode::SUCCESS)
}
