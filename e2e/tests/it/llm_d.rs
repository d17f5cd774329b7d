//! Do llm-d's objects do here what they do there?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use e2e::{Cluster, Fault, PodSpec, eventually};
use http::Method;

use crate::Shared;
use crate::outages::faulty_world;
use crate::routing::{chat, text, until_answered};

/// CRDs that take anything, under a group.
fn crds(group: &str) -> String {
    let kinds = [("InferenceObjective", "inferenceobjective"), ("InferenceModelRewrite", "inferencemodelrewrite")];
    let crd = |(kind, singular): (&str, &str)| {
        format!(
            "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: {singular}s.{group}, annotations: \
             {{api-approved.kubernetes.io: unapproved}}}}, spec: {{group: {group}, scope: Namespaced, names: {{kind: {kind}, singular: \
             {singular}, plural: {singular}s}}, versions: [{{name: v1alpha2, served: true, storage: true, schema: {{openAPIV3Schema: \
             {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]}}}}"
        )
    };
    kinds.map(crd).join("\n---\n")
}

fn install(cluster: &Cluster, group: &str) -> Result<()> {
    cluster.apply("default", &crds(group))?;
    let names = [format!("crd/inferenceobjectives.{group}"), format!("crd/inferencemodelrewrites.{group}")];
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &names[0], &names[1]]).map(drop)
}

pub(crate) async fn rewrites_go_with_their_definition_even_when_nobody_watched(shared: &Shared) -> Result<()> {
    install(shared.cluster(), "llm-d.ai")?;
    let folder = tempfile::tempdir()?;
    let (api, mut world) = faulty_world(shared, folder.path()).await?;
    world.apply_pool("text")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["plain=text"])).await?;
    let spec =
        "{poolRef: {name: text}, rules: [{matches: [{model: {value: legacy}}], targets: [{modelRewrite: plain}]}]}";
    let head = "apiVersion: llm-d.ai/v1alpha2, kind: InferenceModelRewrite, metadata: {name: legacy}";
    world.apply(&format!("{{{head}, spec: {spec}}}"))?;
    until_answered(&world, &chat("legacy", &text()), "200 text-0").await?;
    // Watches are cut, and the kind is not there any more: nobody will say of any object that it was deleted.
    api.set(Fault::StatusOf("inferencemodelrewrites", 404));
    eventually("the name is not rewritten any more", async || {
        let answer = world.http.chat(&chat("legacy", &text())).await?;
        ensure!(answer.status == 404, "{}", answer.shown());
        Ok(())
    })
    .await?;
    let answer = world.http.chat(&chat("plain", &text())).await?;
    ensure!(answer.status == 200, "{}", answer.shown());
    api.set(Fault::None);
    until_answered(&world, &chat("legacy", &text()), "200 text-0").await
}

pub(crate) async fn rewrites_and_objectives_are_read_where_their_crds_are(shared: &Shared) -> Result<()> {
    let (group, older) = ("llm-d.ai", "inference.networking.x-k8s.io");
    install(shared.cluster(), group)?;
    install(shared.cluster(), older)?;
    let mut world = shared.world().await?;
    world.apply_pool("text")?;
    let pod =
        PodSpec::new("text-0", "text", &["v1=text", "v2=text", "plain=text"]).with_latency(Duration::from_secs(1));
    world.kubelet.run(pod).await?;
    let object = |group: &str, kind: &str, name: &str, spec: &str| {
        let head = format!("apiVersion: {group}/v1alpha2, kind: {kind}, metadata: {{name: {name}}}");
        world.apply(&format!("{{{head}, spec: {spec}}}"))
    };
    let spec = "{poolRef: {name: text}, rules: [{matches: [{model: {value: reviews}}], targets: [{modelRewrite: v1, weight: 1}, {modelRewrite: v2, weight: 1}]}]}";
    object(group, "InferenceModelRewrite", "canary", spec)?;
    object(group, "InferenceObjective", "batch", "{poolRef: {name: text}, priority: -1}")?;
    // Of the older group: one of the same name, which does not count, and one of another, which does.
    for (name, model) in [("canary", "reviews"), ("left-over", "legacy")] {
        let spec = format!(
            "{{poolRef: {{name: text}}, rules: [{{matches: [{{model: {{value: {model}}}}}], targets: [{{modelRewrite: plain}}]}}]}}"
        );
        object(older, "InferenceModelRewrite", name, &spec)?;
    }
    eventually("the rewrite of the older group is in use", async || {
        let answer = world.http.chat(&chat("legacy", &text())).await?;
        ensure!(answer.status == 200 && answer.json()["model"] == "plain", "{}", answer.shown());
        Ok(())
    })
    .await?;

    let mut asked_for = std::collections::BTreeSet::new();
    eventually("the rewrite is in use, and both targets have their share", async || {
        let answer = world.http.chat(&chat("reviews", &text())).await?;
        ensure!(answer.status == 200, "{}", answer.shown());
        asked_for.insert(answer.json()["model"].as_str().unwrap_or_default().to_owned());
        ensure!(asked_for.len() == 2 && asked_for.iter().all(|name| name == "v1" || name == "v2"), "{asked_for:?}");
        Ok(())
    })
    .await?;
    // Other names are what they were.
    let answer = world.http.chat(&chat("plain", &text())).await?;
    ensure!(answer.status == 200 && answer.json()["model"] == "plain", "{}", answer.text());

    // A full server: what has a priority below zero is shed, everything else waits its turn.
    // Kept full to the end: a load that is sent once may be over before anybody has read how full the server is.
    let stop = Arc::new(AtomicBool::new(false));
    let mut busy = Vec::new();
    for _ in 0..80 {
        let (client, stop) = (world.http.clone(), Arc::clone(&stop));
        busy.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = client.chat(&chat("plain", &text())).await?;
                ensure!(answer.status == 200, "a request without the objective was refused: {}", answer.shown());
            }
            Ok(())
        }));
    }
    let ask = async |objective: Option<&str>| {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(objective.map(|name| ("x-gateway-inference-objective", name)));
        let body = Bytes::from(chat("plain", &text()).to_string());
        world.http.send(Method::POST, "/v1/chat/completions", &headers, body).await
    };
    eventually("a request of that objective is shed", async || {
        let answer = ask(Some("batch")).await?;
        ensure!(answer.status == 429, "{}", answer.shown());
        Ok(())
    })
    .await?;
    for objective in [None, Some("unknown")] {
        let answer = ask(objective).await?;
        ensure!(answer.status == 200, "{objective:?}: {}", answer.shown());
    }
    stop.store(true, Ordering::Relaxed);
    for client in busy {
        client.await.context("a client panicked")??;
    }
    Ok(())
}
