//! `e2e conformance`: the Gateway API Inference Extension's own conformance suite behind a real Istio, with our pickers as the endpoint
//! pickers, and real requests through the same gateway. `cargo xtask conformance` calls it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::lab::{Images, Lab, Program};
use crate::{binary, envoy, eventually, root};

mod report;
mod requests;
mod suite;

pub use report::Report;

/// What `cargo xtask conformance` built or found, besides what tests need.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Holds `suite.test`, `echo-basic` and `pilot-discovery`.
    pub bin: PathBuf,
    /// Folders of CRDs: the Gateway API's, the extension's, and Istio's file.
    pub crds: [PathBuf; 3],
    /// The suite's own manifests.
    pub base: PathBuf,
}

/// What is run, each part in a lab of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Standalone,
    Controller,
    Managed,
    Requests,
}

/// What came of one test or check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub name: String,
    pub passed: bool,
    pub says: String,
}

impl Tools {
    /// Where the variables say that `cargo xtask conformance` sets.
    pub fn find() -> Result<Self> {
        let path = |variable: &str| {
            let path = std::env::var_os(variable)
                .with_context(|| format!("{variable} is not set: run `cargo xtask conformance`"))?;
            Ok::<_, anyhow::Error>(PathBuf::from(path))
        };
        Ok(Self {
            bin: path("THALAMUS_GATEWAYS")?,
            crds: [path("THALAMUS_GATEWAY_API")?, path("THALAMUS_EXTENSION_CRDS")?, path("THALAMUS_ISTIO_CRDS")?],
            base: path("THALAMUS_CONFORMANCE_BASE")?,
        })
    }

    /// The programs that stand for images.
    fn images(&self, managed: bool) -> Result<Images> {
        let program = |path: PathBuf| Program { path, ..Program::default() };
        let in_cluster = |name: &str, args: &[&str]| {
            let args = args.iter().map(|&arg| arg.to_owned()).collect();
            Ok::<_, anyhow::Error>(Program { path: binary(name)?, args, in_cluster: true, ..Program::default() })
        };
        let proxy = Program {
            env: BTreeMap::from([("ENVOY".to_owned(), envoy()?.display().to_string())]),
            ..program(root().join("e2e/gateways/istio-envoy.sh"))
        };
        // The suite's clients choose endpoints; of managed pickers nobody but us can ask for that.
        let picker = if managed { &["--test-endpoint-selection"][..] } else { &[] };
        let controller = if managed { &["--manage-namespace=inference-conformance-app-backend"][..] } else { &[] };
        Ok(Images::from([
            ("echo-basic".to_owned(), program(self.bin.join("echo-basic"))),
            ("pilot-discovery".to_owned(), program(self.bin.join("pilot-discovery"))),
            ("istio-envoy".to_owned(), proxy),
            ("modelserver-sim".to_owned(), program(binary("modelserver-sim")?)),
            ("thalamus-picker".to_owned(), in_cluster("thalamus-picker", picker)?),
            ("thalamus-controller".to_owned(), in_cluster("thalamus-controller", controller)?),
        ]))
    }

    /// A lab with Istio in it, and with these gateways.
    async fn lab(&self, folder: &Path, managed: bool, gateways: &[(&str, &str)]) -> Result<Lab> {
        let lab = Lab::start(folder, self.images(managed)?).await?;
        let cluster = &lab.cluster;
        for crds in &self.crds {
            cluster.kubectl(&["apply", "--server-side", "-f", &crds.display().to_string()])?;
        }
        let read = |file: &str| {
            let path = root().join("e2e/gateways").join(file);
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let gateway = read("gateway.yaml")?;
        let mut objects = read("istio.yaml")?;
        for (name, namespace) in gateways {
            let of_one = gateway.replace("@namespace@", namespace).replace("@name@", name);
            write!(
                objects,
                "\n---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}\n---\n{of_one}"
            )?;
        }
        // The first tries race the namespace's service account.
        eventually("Istio is applied", async || cluster.apply_all(&objects)).await?;
        Ok(lab)
    }
}

/// Applies what a user of the controller applies, and waits until it leads.
async fn install_controller(lab: &Lab) -> Result<()> {
    let path = |folder: &str| root().join(folder).display().to_string();
    eventually("the controller is applied", async || {
        lab.cluster.kubectl(&["apply", "--server-side", "-k", &path("manifests/default")])
    })
    .await?;
    available(lab, "thalamus-system", "thalamus-controller").await
}

async fn available(lab: &Lab, namespace: &str, deployment: &str) -> Result<()> {
    eventually(&format!("Deployment {deployment} stands"), async || {
        lab.cluster.deployment_stands(namespace, deployment)
    })
    .await
}

impl Part {
    pub const ALL: [Self; 4] = [Self::Standalone, Self::Controller, Self::Managed, Self::Requests];

    /// As an argument and as a file's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Controller => "controller",
            Self::Managed => "managed",
            Self::Requests => "requests",
        }
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Standalone => {
                "The suite's own Deployments, the image changed and --test-endpoint-selection added, and no controller; plain text"
            }
            Self::Controller => "The same with our controller; TLS, with `sni` set in each DestinationRule",
            Self::Managed => "Managed pools: the controller runs the pickers",
            Self::Requests => "Real requests through the same gateway",
        }
    }

    /// How many must pass: all that Istio can, and all of ours. One test of the suite is skipped, that of weights between two pools in one
    /// rule: of such a rule Istio asks the last pool's picker alone.
    pub const fn must_pass(self) -> usize {
        match self {
            Self::Standalone | Self::Controller | Self::Managed => 13,
            Self::Requests => requests::CHECKS,
        }
    }

    /// Runs it, in a process that [`lab::command`] started.
    pub async fn run(self, folder: &Path) -> Result<Vec<Outcome>> {
        let tools = Tools::find()?;
        match self {
            Self::Requests => requests::run(&tools, folder).await,
            _ => suite::run(&tools, self, folder).await,
        }
    }
}
