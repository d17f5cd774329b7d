//! What is written down of a run.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Outcome, Part};
use crate::root;

/// What came of each part.
#[derive(Debug)]
pub struct Report {
    pub ran: Vec<(Part, Vec<Outcome>)>,
}

/// What was run against.
const VERSIONS: &str = "Gateway API Inference Extension v1.6.0, Gateway API v1.6.1, Istio (`istiod` at the version in \
    `e2e/gateways/istio/go.mod`) with Envoy 1.40.0 as its data plane, Kubernetes 1.37";

impl Report {
    /// Fails where less passed than must.
    pub fn verdict(&self) -> Result<()> {
        for (part, outcomes) in &self.ran {
            let passed = outcomes.iter().filter(|outcome| outcome.passed).count();
            ensure!(passed >= part.must_pass(), "{}: {passed} passed, {} must", part.name(), part.must_pass());
        }
        Ok(())
    }

    /// For `docs/conformance`.
    pub fn markdown(&self) -> Result<String> {
        let mut text = format!(
            "# Conformance\n\nWritten by `cargo xtask conformance`, at commit {}. Do not edit.\n\nRun against {VERSIONS}. One test of the suite is \
             skipped, of weights between two pools in one rule: of such a rule Istio asks the last pool's picker alone.\n",
            commit()?
        );
        for (part, outcomes) in &self.ran {
            let passed = outcomes.iter().filter(|outcome| outcome.passed).count();
            write!(
                text,
                "\n## {}\n\n{passed} of {} passed.\n\n| | result |\n|---|---|\n",
                part.title(),
                outcomes.len()
            )?;
            for Outcome { name, passed, says } in outcomes {
                let result = match (passed, part) {
                    (false, _) => format!("**failed**: {says}"),
                    (true, Part::Requests) => format!("passed: {says}"),
                    // How long a test took is another number each time.
                    (true, _) => "passed".to_owned(),
                };
                writeln!(text, "| {name} | {result} |")?;
            }
        }
        Ok(text)
    }
}

/// The commit that is checked out, and whether files differ from it.
fn commit() -> Result<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(root()).output().context("running git")?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = !git(&["status", "--porcelain", "--", ":!docs/conformance"])?.is_empty();
    Ok(git(&["rev-parse", "--short=12", "HEAD"])? + if changed { ", with changes" } else { "" })
}
