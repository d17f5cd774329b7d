//! What does `kubectl thalamus` show?

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::{World, binary, eventually};

use crate::Shared;
use crate::kubectl::until_condition;
use crate::routing::{chat, image, text, three_pools};

/// Runs the plugin; says whether it was content, and what it showed.
fn plugin(world: &World, args: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(binary("kubectl-thalamus")?)
        .args(["--namespace", &world.namespace])
        .args(args)
        .env("KUBECONFIG", world.cluster.kubeconfig())
        .output()
        .context("running the plugin")?;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.success(), shown + &String::from_utf8_lossy(&output.stderr)))
}

/// A row of a table, its cells joined by single blanks.
fn has_row(shown: &str, row: &str) -> bool {
    shown.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") == row)
}

pub(crate) async fn status_is_one_table_and_what_is_wrong(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    until_condition(&world, "inferencemodel", "chat", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    until_condition(&world, "inferencepool", "vision", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    world.kubelet.set_ready("omni-0", false).await?;
    until_condition(
        &world,
        "inferencepool",
        "omni",
        "EndpointsReady=False NoneReady: 0/1: no pod is ready: kubectl get pods -l pool=omni",
    )
    .await?;
    let (content, shown) = plugin(&world, &["status"])?;
    let namespace = &world.namespace;
    for row in [
        format!("{namespace} vision 1/1 current chat v text+image text all text+image"),
        format!("{namespace} omni 0/1 current chat o text+image+audio text+audio nothing text+image"),
        format!(
            "InferencePool {namespace}/omni EndpointsReady: NoneReady 0/1: no pod is ready: kubectl get pods -l pool=omni"
        ),
    ] {
        ensure!(content && has_row(&shown, &row), "no {row:?} in\n{shown}");
    }
    ensure!(shown.contains("ModalityLost") && shown.contains("audio is declared"), "{shown}");
    Ok(())
}

/// What the picker counted of requests.
async fn counted(world: &World) -> Result<String> {
    let metrics = world.picker_admin.get("/metrics").await?.text();
    let of_requests = |line: &&str| line.contains("picker_decisions_total") || line.contains("picker_rejections_total");
    Ok(metrics.lines().filter(of_requests).collect::<Vec<_>>().join("\n"))
}

pub(crate) async fn explain_tells_tiers_filters_and_scores(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    let picker = format!("http://{}", world.picker_admin.address());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("request.json");
    let name = file.display().to_string();
    std::fs::write(&file, chat("chat", &image()).to_string())?;
    let explain = ["explain", "-f", &name, "--picker", &picker];
    eventually("all three pools are known", async || {
        let (content, shown) = plugin(&world, &explain)?;
        ensure!(content && shown.contains("Goes to vision-0-rank-0") && shown.contains("omni-0-rank-0"), "{shown}");
        Ok(())
    })
    .await?;
    let before = counted(&world).await?;
    let (_, shown) = plugin(&world, &explain)?;
    ensure!(shown.contains("needs text+image"), "{shown}");
    ensure!(shown.contains("text+image → text fits text+image → text exactly, tier 1 of 2"), "{shown}");
    // The tightest first, each with its scores, and nothing of those that cannot take it.
    let rows: Vec<&str> = shown.lines().filter(|line| line.contains("-rank-0 ") && line.contains("1.00")).collect();
    ensure!(
        rows.len() == 2 && rows[0].trim_start().starts_with("1 ") && rows[1].trim_start().starts_with("2 "),
        "{shown}"
    );

    std::fs::write(&file, chat("nobody", &text()).to_string())?;
    let (content, shown) = plugin(&world, &explain)?;
    ensure!(!content && shown.contains("Refused with 404 model_not_found"), "{shown}");
    std::fs::write(&file, "{")?;
    let (content, shown) = plugin(&world, &explain)?;
    ensure!(!content && shown.contains("Refused with 400 invalid_body"), "{shown}");
    ensure!(counted(&world).await? == before, "a question was counted as a request");
    Ok(())
}

pub(crate) async fn top_shows_who_is_busy(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    let picker = format!("http://{}", world.picker_admin.address());
    eventually("every endpoint has a row", async || {
        let (content, shown) = plugin(&world, &["top", "--once", "--picker", &picker])?;
        let rows = shown.lines().filter(|line| line.contains("-0-rank-0") && line.contains('%')).count();
        ensure!(content && rows == 3, "{shown}");
        Ok(())
    })
    .await?;
    let (content, shown) = plugin(&world, &["top", "--once"])?;
    ensure!(!content && shown.contains("name one with --picker URL"), "{shown}");
    Ok(())
}

pub(crate) async fn check_needs_no_cluster(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    let example = e2e::root().join("manifests/examples/multimodal").display().to_string();
    let output = Command::new(binary("kubectl-thalamus")?)
        .args(["check", "-f", &example])
        .env("KUBECONFIG", "/nowhere")
        .output()
        .context("running the plugin")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let (content, shown) = plugin(&world, &["check", "-f", "/nowhere"])?;
    ensure!(!content, "{shown}");
    Ok(())
}
