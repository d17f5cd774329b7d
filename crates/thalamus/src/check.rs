//! `thalamus check`: what the controller would say of these objects once every pod that they ask for is ready.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use daemon::Table;
use index::{ModelReport, ObjectKey, PoolReport, Verdict};

use crate::manifests::Objects;
use crate::screen::Screen;
use crate::simulated;

/// The flags of `thalamus check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// A file or a folder of objects, in YAML or JSON. May be repeated; all of them are checked together.
    #[arg(short = 'f', long = "filename", required = true)]
    pub paths: Vec<PathBuf>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Ok,
    /// It may be right where something else is in the cluster already.
    Warning,
    Error,
}

/// What is said of an object or a file.
struct Finding {
    of: String,
    severity: Severity,
    says: String,
}

/// Where pods would be: an address of TEST-NET-1 (RFC 5737), which nobody has.
const NOWHERE: &str = "192.0.2.1";

/// Shows a line for each object and each thing that is wrong. Fails when anything surely is.
pub fn run(args: &CheckArgs, screen: Screen) -> Result<ExitCode> {
    let (mut objects, broken) = Objects::read_all(&args.paths)?;
    let mut findings: Vec<Finding> =
        broken.into_iter().map(|(of, says)| Finding { of, severity: Severity::Error, says }).collect();
    let strange = objects.strange.iter();
    findings.extend(strange.map(|(of, says)| Finding {
        of: of.clone(),
        severity: Severity::Error,
        says: says.clone(),
    }));
    objects.pods.extend(simulated::pods_of_deployments(&objects, |_| NOWHERE.into())?);
    let compiled = objects.compile();
    for (key, report) in &compiled.pools {
        findings.extend(of_pool(key, report, &objects));
    }
    for (key, report) in &compiled.models {
        findings.extend(of_model(key, report));
    }
    if compiled.pools.is_empty() && compiled.models.is_empty() && findings.is_empty() {
        let says = "there is no InferencePool and no InferenceModel".to_owned();
        let of = args.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        findings.push(Finding { of, severity: Severity::Error, says });
    }
    // What is said of one object stands together.
    findings.sort_by(|one, other| one.of.cmp(&other.of));
    show(&findings, screen);
    let wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn of_pool(key: &ObjectKey, report: &PoolReport, objects: &Objects) -> Vec<Finding> {
    let service_is_here = report.picker_service.as_ref().is_none_or(|name| {
        objects.services.iter().any(|service| {
            let at = ObjectKey::of(service);
            at.name == *name && at.namespace == key.namespace
        })
    });
    let may_be_elsewhere = |verdict: &Verdict| match verdict.type_ {
        "Accepted" => true,
        "ResolvedRefs" => report.managed.is_some() || !service_is_here,
        _ => verdict.reason == "NoPods",
    };
    let good =
        report.verdicts.iter().find(|verdict| verdict.type_ == "EndpointsReady").map(|verdict| &*verdict.message);
    findings("InferencePool", key, &report.verdicts, may_be_elsewhere, good.unwrap_or_default())
}

fn of_model(key: &ObjectKey, report: &ModelReport) -> Vec<Finding> {
    let summary = &report.summary;
    let good = format!("{} targets; takes {}, gives {}", summary.ready, summary.input, summary.output);
    // That nothing is on offer needs no telling beside why.
    let why = report.verdicts.iter().any(|verdict| !verdict.holds && verdict.type_ != "Available");
    let verdicts: Vec<Verdict> =
        report.verdicts.iter().filter(|verdict| !(why && verdict.type_ == "Available")).cloned().collect();
    findings("InferenceModel", key, &verdicts, |verdict| verdict.type_ == "Available", &good)
}

/// What is wrong, or else what is good.
fn findings(
    kind: &str,
    key: &ObjectKey,
    verdicts: &[Verdict],
    may_be_elsewhere: impl Fn(&Verdict) -> bool,
    good: &str,
) -> Vec<Finding> {
    let of = format!("{kind} {key}");
    let wrong = verdicts.iter().filter(|verdict| !verdict.holds);
    let mut findings: Vec<Finding> = wrong
        .map(|verdict| {
            let elsewhere = may_be_elsewhere(verdict);
            let severity = if elsewhere { Severity::Warning } else { Severity::Error };
            let hint =
                if elsewhere && verdict.type_ != "Accepted" { "; fine if the cluster has it already" } else { "" };
            Finding { of: of.clone(), severity, says: format!("{}{hint}", verdict.message) }
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding { of, severity: Severity::Ok, says: good.to_owned() });
    }
    findings
}

fn show(findings: &[Finding], screen: Screen) {
    let mut table = Table::default();
    table.row(["OBJECT", "RESULT", "SAYS"]);
    for Finding { of, severity, says } in findings {
        table.row([of.as_str(), severity.as_str(), says.as_str()]);
    }
    screen.table(&table);
    let count = |severity: Severity| {
        let number = findings.iter().filter(|finding| finding.severity == severity).count();
        format!("{number} {}{}", severity.as_str(), if number == 1 { "" } else { "s" })
    };
    screen.title(&format!("{}, {}", count(Severity::Error), count(Severity::Warning)));
}

// === impl Severity ===

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}
