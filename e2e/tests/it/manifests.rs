//! Does what users apply pass a real API server?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{Cluster, gateway_api, helm, root};
use serde_json::Value;

use crate::{Shared, Trials};

pub(crate) fn register(trials: &mut Trials) {
    trials.add("manifests::every_folder_can_be_applied", async |shared| every_folder_can_be_applied(shared));
    trials.add("manifests::the_chart_renders_to_what_kubectl_applies", async |shared| chart(shared));
    trials.add("manifests::the_gateway_and_its_route_pass_the_gateway_apis_own_crds", async |shared| gateway(shared));
    trials.add("manifests::the_module_in_envoy_gateway_passes_its_own_crds", async |shared| envoy_gateway(shared));
    trials.add("manifests::the_controllers_rights_are_what_it_needs_and_no_more", async |shared| rights(shared));
}

fn every_folder_can_be_applied(shared: &Shared) -> Result<()> {
    let cluster = shared.cluster();
    cluster.apply("default", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"serving"}}"#)?;
    for folder in [
        "crds",
        "crds/inference-pool",
        "manifests/default",
        "manifests/controller",
        "manifests/namespaced",
        "manifests/picker",
        "manifests/examples/multimodal",
        "manifests/examples/one-vision-server",
        "manifests/examples/text-and-vision",
        "manifests/examples/speech",
        "manifests/examples/pictures-and-video",
    ] {
        let path = root().join(folder).display().to_string();
        // Strict: a field that the API server does not know is an error, not a warning.
        cluster.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--validate=strict",
            "--dry-run=server",
            "-k",
            &path,
        ])?;
    }
    Ok(())
}

/// The objects of a text, by kind, namespace and name; namespaces and CRDs, which Helm has other ways for, left out.
fn objects(text: &str) -> Result<BTreeMap<String, Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("reading objects")?;
    let all = documents.into_iter().filter(Value::is_object).map(|object| {
        let part = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        (format!("{} {}/{}", part("/kind"), part("/metadata/namespace"), part("/metadata/name")), object)
    });
    Ok(all.filter(|(key, _)| !key.starts_with("Namespace ") && !key.starts_with("CustomResourceDefinition ")).collect())
}

fn chart(shared: &Shared) -> Result<()> {
    let render = |set: &[&str]| {
        let mut command = Command::new(helm()?);
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(home, shared.folder().join("helm"));
        }
        command.args(["template", "thalamus", "--namespace", "thalamus-system"]).arg(root().join("charts/thalamus"));
        let output = command.args(set.iter().flat_map(|set| ["--set", set])).output().context("running helm")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (folder, set) in [("manifests/default", &[][..]), ("manifests/namespaced", &["watchNamespace=serving"])] {
        let applied = shared.cluster().kubectl(&["kustomize", &root().join(folder).display().to_string()])?;
        let (applied, rendered) = (objects(&applied)?, objects(&render(set)?)?);
        ensure!(applied.len() > 6, "{folder} has objects");
        let names = |all: &BTreeMap<String, Value>| all.keys().cloned().collect::<Vec<_>>();
        ensure!(names(&applied) == names(&rendered), "{folder}: {:?} beside {:?}", names(&applied), names(&rendered));
        for (key, object) in &applied {
            ensure!(rendered[key] == *object, "{folder}: {key} is\n{object}\nand the chart's is\n{}", rendered[key]);
        }
    }
    let applied =
        shared.cluster().kubectl(&["kustomize", &root().join("manifests/monitoring").display().to_string()])?;
    let (applied, rendered) = (
        objects(&applied)?,
        objects(&render(&["monitoring.podMonitors=true", "monitoring.alerts=true", "monitoring.dashboards=true"])?)?,
    );
    ensure!(applied.len() == 5, "{:?}", applied.keys());
    for (key, object) in &applied {
        let rendered = rendered.get(key).with_context(|| format!("the chart has no {key}"))?;
        ensure!(rendered == object, "{key} is\n{object}\nand the chart's is\n{rendered}");
    }
    let more = render(&[
        "manageNamespaces={serving,*}",
        "controller.extraArgs={--lease-duration=15s}",
        "controller.replicas=3",
    ])?;
    for part in ["--manage-namespace=*", "--lease-duration=15s", "replicas: 3"] {
        ensure!(more.contains(part), "no {part} in\n{more}");
    }
    for wrong in ["controller.replicas=0", "controler.replicas=2", "watchNamespace=No_Namespace"] {
        let refused: Result<String> = render(&[wrong]);
        ensure!(refused.is_err(), "{wrong} is taken");
    }
    Ok(())
}

/// A cluster of its own with these CRDs: where the Gateway API is, more is said by gateways than elsewhere.
fn cluster_with(shared: &Shared, name: &str, crds: &[PathBuf]) -> Result<Cluster> {
    let folder = shared.folder().join(name);
    std::fs::create_dir_all(&folder)?;
    let cluster = Cluster::start_bare(&folder)?;
    cluster.install()?;
    for path in crds {
        cluster.kubectl(&["apply", "--server-side", "-f", &path.display().to_string()])?;
    }
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
    cluster.apply("default", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"serving"}}"#)?;
    Ok(cluster)
}

fn gateway(shared: &Shared) -> Result<()> {
    let cluster = cluster_with(shared, "gateway-api", &[gateway_api()?])?;
    let path = root().join("manifests/gateway").display().to_string();
    cluster.kubectl(&["apply", "--server-side", "--validate=strict", "-k", &path])?;
    cluster.end();
    Ok(())
}

fn envoy_gateway(shared: &Shared) -> Result<()> {
    let cluster = cluster_with(shared, "envoy-gateway", &[gateway_api()?, e2e::envoy_gateway()?])?;
    let apply = |path: &Path| {
        cluster.kubectl(&["apply", "--server-side", "--validate=strict", "-f", &path.display().to_string()])
    };
    let path = root().join("manifests/envoy-gateway/module.yaml");
    apply(&path)?;
    let wrong = shared.folder().join("envoy-gateway/wrong.yaml");
    std::fs::write(&wrong, std::fs::read_to_string(&path)?.replace("dynamicModule:", "dynamicModul:"))?;
    let refused = apply(&wrong);
    ensure!(refused.is_err_and(|error| format!("{error:#}").contains("dynamicModul")), "an unknown field is taken");
    cluster.end();
    Ok(())
}

fn rights(shared: &Shared) -> Result<()> {
    let account = "--as=system:serviceaccount:thalamus-system:thalamus-controller";
    let can = |verb: &str, what: &str| {
        let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
        let subresource = format!("--subresource={subresource}");
        shared.cluster().kubectl(&["auth", "can-i", verb, resource, &subresource, account, "-A"]).is_ok()
    };
    for (verb, what) in [
        ("watch", "pods"),
        ("list", "services"),
        ("watch", "inferencepools"),
        ("update", "inferencepools/status"),
        ("patch", "inferencemodels/status"),
    ] {
        ensure!(can(verb, what), "the controller may not {verb} {what}");
    }
    for (verb, what) in [
        ("get", "secrets"),
        ("create", "pods"),
        ("delete", "pods"),
        ("update", "inferencepools"),
        ("patch", "inferencemodels"),
        ("list", "configmaps"),
        ("get", "nodes"),
    ] {
        if can(verb, what) {
            bail!("the controller may {verb} {what}, which it never does");
        }
    }
    Ok(())
}
