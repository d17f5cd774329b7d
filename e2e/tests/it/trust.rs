//! Who may talk to the controller, and what may they read?

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::{Client, Process, World, binary, eventually};

use crate::Shared;
use crate::routing::{chat, three_pools, two_text_pods};

/// A picker of its own, at ports of its own.
pub(crate) async fn picker(folder: &Path, name: &str, args: &[String]) -> Result<(Process, Client, Client)> {
    let ports = ["--ext-proc-listen", "--health-listen", "--http-listen", "--admin-listen"];
    let mut all: Vec<String> = ports.iter().map(|flag| format!("{flag}=127.0.0.1:0")).collect();
    all.push("--log-format=json".into());
    all.extend_from_slice(args);
    let mut process = Process::start(folder, name, &binary("thalamus-picker")?, &all, &[])?;
    let said = process.said("picker started").await?;
    let client = |port: &str| Ok::<_, anyhow::Error>(Client::new(said[port].as_str().context("said")?.parse()?));
    let (admin, http) = (client("admin")?, client("http")?);
    Ok((process, admin, http))
}

pub(crate) fn args(world: &World, namespace: &str, ca: &Path, token: Option<&Path>) -> Vec<String> {
    let mut args = vec![
        format!("--controller={}", world.controller_url()),
        format!("--controller-ca={}", ca.display()),
        format!("--namespace={namespace}"),
    ];
    args.extend(token.map(|token| format!("--token-file={}", token.display())));
    args
}

pub(crate) async fn until_log(process: &Process, part: &str) -> Result<()> {
    eventually(&format!("the log holds {part:?}"), async || {
        ensure!(process.log().contains(part), "{}", process.tail());
        Ok(())
    })
    .await
}

pub(crate) async fn a_picker_reads_its_own_scope_and_no_other(shared: &Shared) -> Result<()> {
    let (mut world, other) = (shared.world().await?, shared.world().await?);
    three_pools(&mut world).await?;
    let folder = tempfile::tempdir()?;
    let (ca, own, foreign) = (&world.credentials.ca, &world.credentials.token, &other.credentials.token);

    let refused = async |name: &str, args: &[String], why: &str| -> Result<()> {
        let (process, admin, _) = picker(folder.path(), name, args).await?;
        until_log(&process, why).await?;
        ensure!(admin.get("/ready").await?.status == 503, "{name} has a table");
        Ok(())
    };
    let namespace = &world.namespace;
    let why =
        format!("service account thalamus-picker of namespace {} may not read namespace {namespace}", other.namespace);
    refused("foreign", &args(&world, namespace, ca, Some(foreign)), &why).await?;
    refused("nobody", &args(&world, namespace, ca, None), "no token presented").await?;
    refused(
        "unknown-controller",
        &args(&world, namespace, &other.credentials.ca, Some(own)),
        "invalid peer certificate",
    )
    .await?;

    // Tokens for the API server itself, and made up ones.
    let token = folder.path().join("token");
    std::fs::write(&token, world.kubectl(&["create", "token", "thalamus-picker"])?)?;
    refused("other-audience", &args(&world, namespace, ca, Some(&token)), "token rejected").await?;
    std::fs::write(&token, "made.up.token")?;
    refused("made-up", &args(&world, namespace, ca, Some(&token)), "token rejected").await?;

    // A token that is replaced is used: no restart.
    let (_process, admin, _) = picker(folder.path(), "late", &args(&world, namespace, ca, Some(&token))).await?;
    ensure!(admin.get("/ready").await?.status == 503, "a made up token is good");
    std::fs::copy(own, &token)?;
    eventually("the picker is ready", async || {
        ensure!(admin.get("/ready").await?.status == 200, "it is not");
        Ok(())
    })
    .await
}

pub(crate) async fn clear_text_is_refused(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    let folder = tempfile::tempdir()?;
    let url = world.controller_url().replace("https", "http");
    let (process, admin, _) = picker(folder.path(), "clear", &[format!("--controller={url}")]).await?;
    until_log(&process, "no tables from the controller").await?;
    ensure!(admin.get("/ready").await?.status == 503, "it has a table");
    let flags = ["--listen=0.0.0.0:0", "--admin-listen=127.0.0.1:0", "--plaintext"];
    let kubeconfig = world.cluster.controllers_kubeconfig().display().to_string();
    let controller = binary("thalamus-controller")?;
    let mut open = Process::start(folder.path(), "open", &controller, &flags, &[("KUBECONFIG", &kubeconfig)])?;
    ensure!(!open.ended().await?.success(), "clear text on every interface");
    ensure!(open.log().contains("--plaintext is for loopback only"), "{}", open.tail());
    Ok(())
}

pub(crate) async fn a_picker_without_a_controller_decides_by_the_table_on_its_disk(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    let body = two_text_pods(&mut world).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("table");
    let mut args = args(&world, &world.namespace, &world.credentials.ca, Some(&world.credentials.token));
    args.push(format!("--table-file={}", file.display()));
    let (mut first, ..) = picker(folder.path(), "first", &args).await?;
    eventually("the table is on the disk", async || Ok(std::fs::metadata(&file).map(drop)?)).await?;
    first.kill();
    world.kill_controller();

    let (second, admin, http) = picker(folder.path(), "second", &args).await?;
    until_log(&second, "using the last table from disk").await?;
    let answer = http.chat(&body).await?;
    ensure!(answer.status == 200, "{}", answer.shown());
    ensure!(admin.get("/debug/table").await?.text().contains("the controller was last heard"), "its age is told");

    // For another scope it is no table, and a garbled one is none at all.
    let mut other = args.clone();
    other.push("--pool=text".into());
    let (third, admin, _) = picker(folder.path(), "third", &other).await?;
    until_log(&third, "it is for namespace").await?;
    ensure!(admin.get("/ready").await?.status == 503, "it took the table of another scope");
    std::fs::write(&file, "nothing of the kind")?;
    let (fourth, _, http) = picker(folder.path(), "fourth", &args).await?;
    until_log(&fourth, "not a saved table").await?;
    ensure!(http.chat(&chat("m", &crate::routing::text())).await?.status == 503, "it answers");

    // A controller that is back is believed at once.
    world.start_controller().await?;
    until_log(&fourth, "table received").await
}
