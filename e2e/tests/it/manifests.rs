//! Does what users apply pass a real API server?

use anyhow::{Result, bail, ensure};
use e2e::{gateway_api, root};

use crate::{Shared, Trials};

pub(crate) fn register(trials: &mut Trials) {
    trials.add("manifests::every_folder_can_be_applied", async |shared| every_folder_can_be_applied(shared));
    trials.add("manifests::the_gateway_and_its_route_pass_the_gateway_apis_own_crds", async |shared| gateway(shared));
    trials.add("manifests::the_controllers_rights_are_what_it_needs_and_no_more", async |shared| rights(shared));
}

fn every_folder_can_be_applied(shared: &Shared) -> Result<()> {
    let cluster = shared.cluster();
    cluster.apply("default", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"serving"}}"#)?;
    for folder in
        ["crds", "manifests/default", "manifests/controller", "manifests/picker", "manifests/examples/multimodal"]
    {
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

fn gateway(shared: &Shared) -> Result<()> {
    let cluster = shared.cluster();
    let crds = gateway_api()?.display().to_string();
    cluster.kubectl(&["apply", "--server-side", "-f", &crds])?;
    let kinds = ["crd/gateways.gateway.networking.k8s.io", "crd/httproutes.gateway.networking.k8s.io"];
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", kinds[0], kinds[1]])?;
    cluster.apply("default", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"serving"}}"#)?;
    let path = root().join("manifests/gateway").display().to_string();
    cluster.kubectl(&["apply", "--server-side", "--validate=strict", "-k", &path])?;
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
