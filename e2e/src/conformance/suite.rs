//! The suite, run against our pickers in the place of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Outcome, Part, Tools, install_controller};
use crate::eventually;
use crate::lab::Lab;

/// The suite's namespaces.
const INFRA: &str = "inference-conformance-infra";
const BACKEND: &str = "inference-conformance-app-backend";

/// Of a rule with two pools Istio asks the last one's picker alone.
const SKIPPED: &str = "GatewayWeightedAcrossTwoInferencePools";

/// How long the suite waits for an answer to be as it should; its own patience is five minutes.
const PATIENCE: &str = "30s";

pub(super) async fn run(tools: &Tools, part: Part, folder: &Path) -> Result<Vec<Outcome>> {
    let gateways = [("conformance-primary", INFRA), ("conformance-secondary", INFRA)];
    let lab = tools.lab(folder, part == Part::Managed, &gateways).await?;
    lab.cluster.kubectl(&["create", "namespace", BACKEND])?;
    if part == Part::Controller {
        let rules: String = ["primary", "secondary", "appprotocol-h2c", "appprotocol-http", "dp"].map(tls).concat();
        eventually("Istio takes DestinationRules", async || lab.cluster.apply(BACKEND, &rules)).await?;
    }
    if part != Part::Standalone {
        install_controller(&lab).await?;
    }
    if part == Part::Managed {
        // The suite counts one pod behind each picker's Service.
        let template = "{apiVersion: thalamus.dev/v1alpha1, kind: PickerTemplate, metadata: {name: default}, spec: {otherPaths: true, \
             replicas: 1}}";
        lab.cluster.apply(BACKEND, template)?;
        leave_invalid_pool_alone(tools, folder)?;
    }
    let base = std::fs::read_to_string(&tools.base).with_context(|| format!("reading {}", tools.base.display()))?;
    let resources = folder.join("resources");
    std::fs::create_dir_all(&resources).context("making a folder")?;
    std::fs::write(resources.join("base.yaml"), with_our_picker(&base, part)?).context("writing the manifests")?;
    eventually("Istio takes its class", async || {
        let wait = ["wait", "--for=condition=Accepted", "gatewayclass/istio", "--timeout=1s"];
        lab.cluster.kubectl(&wait)
    })
    .await?;

    let said = folder.join("suite.log");
    let log = std::fs::File::create(&said).context("making a log")?;
    let mut suite = Command::new(tools.bin.join("suite.test"))
        .args(["-test.v", "-test.timeout=20m", "-gateway-class=istio", "-cleanup-base-resources=false"])
        .arg(format!("-skip-tests={SKIPPED}"))
        .env("KUBECONFIG", lab.cluster.kubeconfig())
        .env("MANIFESTS", folder)
        .env("PATIENCE", PATIENCE)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting the suite")?;
    if part == Part::Managed {
        take_services_back(&lab).await?;
    }
    while suite.try_wait().context("waiting for the suite")?.is_none() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let said = std::fs::read_to_string(&said).context("reading what the suite said")?;
    let outcomes = outcomes(&said);
    ensure!(!outcomes.is_empty(), "the suite ran no test; its log ends with:\n{}", tail(&said));
    Ok(outcomes)
}

/// A pool of the suite names a Service that is not to be there, and would be made.
fn leave_invalid_pool_alone(tools: &Tools, folder: &Path) -> Result<()> {
    const FILE: &str = "tests/inferencepool_invalid_epp_service.yaml";
    const NAME: &str = "  name: pool-with-invalid-epp\n";
    let suite = tools.base.parent().and_then(Path::parent).context("the suite has a folder")?;
    let pool = std::fs::read_to_string(suite.join(FILE)).with_context(|| format!("reading {FILE}"))?;
    ensure!(pool.contains(NAME), "{FILE} has no pool of this name");
    let unmanaged = format!("{NAME}  annotations: {{{}: unmanaged}}\n", api::annotations::PICKER);
    std::fs::create_dir_all(folder.join("tests")).context("making a folder")?;
    std::fs::write(folder.join(FILE), pool.replacen(NAME, &unmanaged, 1)).with_context(|| format!("writing {FILE}"))
}

/// The suite makes a picker unreachable by changing its Service, which the controller would mend.
async fn take_services_back(lab: &Lab) -> Result<()> {
    let note = format!("{}=true", api::annotations::HANDS_OFF);
    for service in ["primary-endpoint-picker-svc", "secondary-endpoint-picker-svc"] {
        eventually(&format!("Service {service} is made"), async || {
            lab.cluster.kubectl(&["annotate", "-n", BACKEND, "service", service, &note])
        })
        .await?;
    }
    Ok(())
}

/// What llm-d's chart applies for Istio, and the name that rustls takes.
fn tls(pool: &str) -> String {
    let host = format!("{pool}-endpoint-picker-svc.{BACKEND}.svc.cluster.local");
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {pool}}}, spec: {{host: {host}, trafficPolicy: \
         {{tls: {{mode: SIMPLE, insecureSkipVerify: true, sni: {host}}}}}}}}}\n"
    )
}

/// The suite's manifests with our picker in the place of the reference picker: edits of the text, so that `diff` shows them.
fn with_our_picker(base: &str, part: Part) -> Result<String> {
    const LAST_FLAG: &str = "        - \"9003\"\n";
    let mut documents = Vec::new();
    for document in base.split("\n---\n") {
        let is_picker = document.contains("gateway-api-inference-extension/lwepp");
        let is_its_service = document.contains("kind: Service\n") && document.contains("endpoint-picker-svc");
        if part == Part::Managed && (is_picker || is_its_service) {
            continue;
        }
        let mut document = document.to_owned();
        if is_picker {
            let image =
                document.lines().find(|line| line.contains("image:")).context("a picker has an image")?.to_owned();
            document = document.replace(&image, "        image: thalamus-picker:0.1.0");
            let mut flags = vec!["--test-endpoint-selection"];
            if part == Part::Controller {
                flags.extend([
                    "--controller-ca=/var/run/thalamus/controller/ca.crt",
                    "--token-file=/var/run/thalamus/controller/token",
                ]);
            }
            ensure!(document.contains(LAST_FLAG), "the suite's picker has other flags than those this was written for");
            document =
                document.replacen(LAST_FLAG, &format!("{LAST_FLAG}        - {}\n", flags.join("\n        - ")), 1);
            if part == Part::Controller {
                document = document.trim_end().to_owned() + VOLUME;
            }
        }
        documents.push(document);
    }
    Ok(documents.join("\n---\n"))
}

const VOLUME: &str = "
        volumeMounts:
        - {name: controller, mountPath: /var/run/thalamus/controller, readOnly: true}
      volumes:
      - name: controller
        projected:
          sources:
          - configMap: {name: thalamus-controller-ca}
          - serviceAccountToken: {path: token, audience: thalamus-controller}
";

/// Each test of the suite as Go's test runner tells of it.
fn outcomes(said: &str) -> Vec<Outcome> {
    let outcome = |line: &str| {
        let (word, rest) = line.strip_prefix("    --- ")?.split_once(": TestConformance/")?;
        let (name, took) = rest.split_once(' ')?;
        let one =
            Outcome { name: name.to_owned(), passed: word == "PASS", says: took.trim_matches(['(', ')']).to_owned() };
        (word != "SKIP").then_some(one)
    };
    said.lines().filter_map(outcome).collect()
}

fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
