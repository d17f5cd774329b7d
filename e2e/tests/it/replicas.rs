//! Which of several controllers acts, and what happens when it goes?

use anyhow::{Context as _, Result, ensure};
use e2e::{Client, Options, World, eventually};
use serde_json::Value;

use crate::Shared;
use crate::kubectl::until_condition;
use crate::routing::{answered, chat, image, text, three_pools, until_answered};

/// A lease that does not keep a test waiting for long, and that a busy machine can renew.
fn short_lease() -> Options {
    Options { controller_args: vec!["--lease-duration=3s".into()], ..Options::default() }
}

async fn leads(admin: &Client) -> Result<bool> {
    let metrics = admin.get("/metrics").await?.text();
    Ok(metrics.lines().any(|line| line == "thalamus_controller_leader 1"))
}

async fn until_leads(admin: &Client) -> Result<()> {
    eventually("the replica leads", async || {
        ensure!(leads(admin).await?, "it does not lead");
        Ok(())
    })
    .await
}

async fn until_programmed(world: &World) -> Result<()> {
    until_condition(world, "inferencemodel", "chat", "Programmed=True Programmed: 1 of 1 pickers use it").await
}

/// How often the lease changed hands, and who holds it.
fn lease(world: &World) -> Result<(u64, String)> {
    let lease: Value = serde_json::from_str(&world.kubectl(&["get", "lease", "thalamus-controller", "-o", "json"])?)?;
    let transitions = lease["spec"]["leaseTransitions"].as_u64().context("it counts")?;
    Ok((transitions, lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()))
}

pub(crate) async fn a_standby_takes_over_when_the_leader_is_told_to_stop(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    let standby = world.add_replica().await?;
    until_programmed(&world).await?;
    ensure!(leads(&world.controller_admin).await? && !leads(&standby.admin).await?, "one leads, and it is the first");
    eventually("a standby is warm", async || {
        let ready = standby.admin.get("/ready").await?;
        ensure!(ready.status == 200, "{}", ready.text());
        Ok(())
    })
    .await?;

    let (before, _) = lease(&world)?;
    world.controller.terminate()?;
    ensure!(world.controller.ended().await?.success(), "{}", world.controller.tail());
    answered(&world, &chat("chat", &image()), "200 vision-0").await?;
    until_leads(&standby.admin).await?;
    // Handed over, not run out: the lease lasts ten seconds.
    ensure!(world.controller.log().contains("lease released"), "{}", world.controller.tail());
    ensure!(lease(&world)? == (before + 1, "thalamus-controller-1".into()), "{:?}", lease(&world)?);
    // The new one knows the pickers, publishes to them, and writes.
    world.apply_model("late", "{modelName: late, poolRef: {name: text}}")?;
    until_condition(&world, "inferencemodel", "late", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    until_programmed(&world).await?;
    until_answered(&world, &chat("late", &text()), "404 ?: The model `late` does not exist. Valid aliases: t.").await
}

pub(crate) async fn a_leader_that_dies_is_followed_when_its_lease_runs_out(shared: &Shared) -> Result<()> {
    let mut world = shared.world_with(short_lease()).await?;
    three_pools(&mut world).await?;
    let standby = world.add_replica().await?;
    until_programmed(&world).await?;
    world.kill_controller();
    for _ in 0..20 {
        answered(&world, &chat("chat", &image()), "200 vision-0").await?;
    }
    until_leads(&standby.admin).await?;
    world.kubelet.set_ready("vision-0", false).await?;
    until_answered(&world, &chat("chat", &image()), "200 omni-0").await?;
    // One that comes back is a standby, and refuses pickers.
    let mut old = world.restart_replica(0).await?;
    ensure!(!leads(&old.admin).await?, "two lead");
    until_programmed(&world).await?;
    old.process.terminate()?;
    ensure!(old.process.ended().await?.success(), "{}", old.process.tail());
    ensure!(leads(&standby.admin).await?, "a standby that goes changes nothing");
    Ok(())
}

pub(crate) async fn a_frozen_leader_writes_nothing_when_it_wakes(shared: &Shared) -> Result<()> {
    let mut world = shared.world_with(short_lease()).await?;
    three_pools(&mut world).await?;
    let standby = world.add_replica().await?;
    until_programmed(&world).await?;
    world.controller.signal("STOP")?;
    until_leads(&standby.admin).await?;
    // Pickers leave the one that says nothing.
    world.apply_model("late", "{modelName: late, poolRef: {name: text}}")?;
    until_condition(&world, "inferencemodel", "late", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    let versions = |world: &World| {
        world.kubectl(&["get", "inferencepool,inferencemodel", "-o", "jsonpath={.items[*].metadata.resourceVersion}"])
    };
    // The new one has written all it had to: what it writes now is the mark by which to know that.
    until_programmed(&world).await?;
    world.controller.signal("CONT")?;
    eventually("it finds that it leads no more", async || {
        ensure!(world.controller.log().contains("no longer leading"), "{}", world.controller.tail());
        Ok(())
    })
    .await?;
    let before = versions(&world)?;
    // It has no pickers and would say so of every object, if it still wrote. Whatever it had begun is over once it has seen what comes now.
    world.apply_model("mark", "{modelName: mark, poolRef: {name: text}}")?;
    until_condition(&world, "inferencemodel", "mark", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    let woken = &world.controller_admin;
    eventually("the one that was frozen has seen the mark", async || {
        let table = woken.get("/debug/table").await?.text();
        ensure!(table.contains("mark"), "{table}");
        Ok(())
    })
    .await?;
    let after = versions(&world)?;
    ensure!(before.split(' ').all(|version| after.split(' ').any(|now| now == version)), "{before} became {after}");
    until_programmed(&world).await?;
    ensure!(leads(&standby.admin).await? && !leads(&world.controller_admin).await?, "one leads");
    Ok(())
}
