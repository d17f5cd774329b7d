//! Do requests wait before full servers, and go in their order?

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{Client, Options, PodSpec, World, eventually};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Shared;
use crate::routing::{chat, text, until_answered};

/// One server that works on one request at a time, and models of each criticality that it serves.
async fn one_slot(shared: &Shared, args: &[&str]) -> Result<World> {
    let picker_args = args.iter().map(ToString::to_string).collect();
    let mut world = shared.world_with(Options { picker_args, ..Options::default() }).await?;
    world.apply_pool("text")?;
    for criticality in ["Critical", "Standard", "Sheddable"] {
        let name = criticality.to_ascii_lowercase();
        world.apply_model(
            &name,
            &format!(
                "{{modelName: {name}, criticality: {criticality}, targetModels: [{{name: m, poolRef: {{name: text}}}}]}}"
            ),
        )?;
    }
    let pod = PodSpec::new("text-0", "text", &["m=text"]).with_latency(Duration::from_millis(50));
    world.kubelet.run(PodSpec { slots: Some(1), ..pod }).await?;
    for name in ["critical", "standard", "sheddable"] {
        until_answered(&world, &chat(name, &text()), "200 text-0").await?;
    }
    Ok(world)
}

/// A request that its server does not answer; over when it is dropped.
async fn held(client: &Client) -> Result<TcpStream> {
    client.held_chat(&chat("standard", &text())).await
}

/// Eight that fill the server, so that what comes then waits: it works on one, others are in its queue, and some may wait themselves.
struct Filling {
    held: Vec<TcpStream>,
    waiting: usize,
}

impl Filling {
    async fn start(world: &World, client: &Client) -> Result<Self> {
        let mut filling = Self { held: Vec::new(), waiting: 0 };
        Self::until(world, "nothing is left of what was before", |there, heard, waiting| {
            [there, heard, waiting] == [0; 3]
        })
        .await?;
        for sent in 1..=8 {
            filling.held.push(held(client).await?);
            // One by one, so that those that wait are the last.
            let is_full = |there, heard, waiting| there == heard && there + waiting == sent;
            filling.waiting = usize::try_from(Self::until(world, "the picker has heard of it", is_full).await?)?;
        }
        Ok(filling)
    }

    /// Until this is so of requests of ours at the server, of those that it says it has, and of those that wait.
    async fn until(world: &World, what: &str, holds: impl Fn(u64, u64, u64) -> bool) -> Result<u64> {
        eventually(what, async || {
            let load: Value = world.picker_admin.get("/debug/load").await?.json();
            let of = |field: &str| load["endpoints"][0][field].as_u64().unwrap_or(0);
            let waiting = load["waiting"].as_u64().context("no waiting")?;
            ensure!(holds(of("inFlight"), of("running") + of("waiting"), waiting), "{load}");
            Ok(waiting)
        })
        .await
    }
}

async fn until_waiting(world: &World, expected: usize) -> Result<()> {
    let expected = format!("thalamus_picker_requests_waiting {expected}\n");
    eventually(expected.trim(), async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        let line = metrics.lines().find(|line| line.starts_with("thalamus_picker_requests_waiting"));
        let load = world.picker_admin.get("/debug/load").await?.text();
        ensure!(metrics.contains(&expected), "{line:?}, {load}");
        Ok(())
    })
    .await
}

pub(crate) async fn requests_wait_before_full_servers_and_the_critical_go_first(shared: &Shared) -> Result<()> {
    let world = one_slot(shared, &[]).await?;
    let (_envoy, asking) = world.asking_module("queue", &[]).await?;
    let server = Client::new(world.kubelet.address("text-0")?);
    for client in [&world.http, &world.gateway, &asking] {
        let mut filling = Filling::start(&world, client).await?;
        let shed = client.chat(&chat("sheddable", &text())).await?;
        ensure!(shed.shown().starts_with("429 saturated"), "{}", shed.shown());
        let reason = shed.headers.get("x-llm-d-request-dropped-reason").context("no reason")?;
        ensure!(reason == "rejected-saturated" && shed.headers.contains_key("retry-after"), "{:?}", shed.headers);
        let mut waiting = JoinSet::new();
        for (count, model) in [(3, "standard"), (1, "critical")] {
            for _ in 0..count {
                let client = Client::new(client.address());
                waiting.spawn(async move {
                    let answer = client.chat(&chat(model, &text())).await?;
                    ensure!(answer.shown() == "200 text-0", "{}", answer.shown());
                    let place = answer.headers.get("x-sim-place").context("no place")?.to_str()?.parse::<u64>()?;
                    anyhow::Ok((place, model))
                });
            }
            // The critical one comes last.
            let expected = if model == "standard" { 3 } else { 4 };
            until_waiting(&world, filling.waiting + expected).await?;
        }
        // A full server takes five of ours: now there is room for one, which is there before the others may go.
        let before = arrived(&server).await?;
        drop(filling.held.drain(..4 - filling.waiting).collect::<Vec<_>>());
        eventually("the next one is at the server", async || {
            let now = arrived(&server).await?;
            ensure!(now.total_cmp(&(before + 1.0)).is_eq(), "{before} before, {now} now");
            Ok(())
        })
        .await?;
        until_waiting(&world, filling.waiting + 3).await?;
        drop(filling);
        let mut order = Vec::new();
        while let Some(done) = waiting.join_next().await {
            order.push(done??);
        }
        order.sort_unstable();
        let order: Vec<&str> = order.into_iter().map(|(_, model)| model).collect();
        ensure!(order == ["critical", "standard", "standard", "standard"], "{order:?}");
        until_waiting(&world, 0).await?;
    }
    Ok(())
}

/// Requests that have reached this server, by its own word: whatever it works on, and whatever has ended there.
async fn arrived(server: &Client) -> Result<f64> {
    let counted = ["vllm:num_requests_", "vllm:request_success_total"];
    server.get("/metrics").await?.sum(|line| counted.iter().any(|name| line.starts_with(name)))
}

pub(crate) async fn a_client_that_leaves_gives_up_its_place(shared: &Shared) -> Result<()> {
    let world = one_slot(shared, &[]).await?;
    let (_envoy, asking) = world.asking_module("leaves", &[]).await?;
    for client in [&world.http, &world.gateway, &asking] {
        let filling = Filling::start(&world, client).await?;
        let (one, other) = (held(client).await?, held(client).await?);
        until_waiting(&world, filling.waiting + 2).await?;
        drop(one);
        until_waiting(&world, filling.waiting + 1).await?;
        drop(other);
        until_waiting(&world, filling.waiting).await?;
        drop(filling);
        eventually("nothing is under way", async || {
            let metrics = world.picker_admin.get("/metrics").await?.text();
            ensure!(metrics.contains("thalamus_picker_requests_in_flight 0\n"), "{metrics}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn the_queue_is_bounded_in_length_and_time(shared: &Shared) -> Result<()> {
    let world = one_slot(shared, &["--max-waiting=5"]).await?;
    for client in [&world.http, &world.gateway] {
        let filling = Filling::start(&world, client).await?;
        let mut waiting = Vec::new();
        for _ in filling.waiting..5 {
            waiting.push(held(client).await?);
        }
        until_waiting(&world, 5).await?;
        let refused = client.chat(&chat("standard", &text())).await?;
        ensure!(refused.shown().starts_with("429 queue_full"), "{}", refused.shown());
    }
    let world = one_slot(shared, &["--max-wait=2s"]).await?;
    for client in [&world.http, &world.gateway] {
        let mut filling = Vec::new();
        for _ in 0..8 {
            filling.push(held(client).await?);
        }
        // Those of the eight that wait do so no longer either.
        Filling::until(&world, "the picker has heard that it is full", |there, heard, _| there == heard && there >= 5)
            .await?;
        let late = client.chat(&chat("standard", &text())).await?;
        ensure!(late.shown().starts_with("429 queue_timeout"), "{}", late.shown());
        ensure!(late.json()["error"]["message"] == "every endpoint that could serve this was full for 2 seconds");
        drop(filling);
        Filling::until(&world, "nothing is left", |there, heard, waiting| [there, heard, waiting] == [0; 3]).await?;
    }
    Ok(())
}
