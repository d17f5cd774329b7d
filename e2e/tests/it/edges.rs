//! Do the edges behave as gateways, clients and operators expect?

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{PodSpec, eventually};

use crate::Shared;
use crate::routing::{chat, text, three_pools, two_text_pods, until_answered};

pub(crate) async fn a_client_that_hangs_up_is_felt_by_the_model_server(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    three_pools(&mut world).await?;
    let server = e2e::Client::new(world.kubelet.address("text-0")?);
    let metric = async |name: &str| {
        let metrics = server.get("/metrics").await?.text();
        let value = metrics
            .lines()
            .find(|line| line.starts_with("vllm:") && line.contains(name))
            .and_then(|line| line.rsplit(' ').next());
        value.and_then(|value| value.parse::<f64>().ok()).with_context(|| format!("no {name} in {metrics}"))
    };
    for way in world.ways() {
        let aborted = metric("abort").await?;
        let client = way.held_chat(&chat("chat", &text())).await?;
        eventually("the model server works on it", async || {
            ensure!(metric("num_requests_running").await? > 0.0, "not yet");
            Ok(())
        })
        .await?;
        drop(client);
        eventually("the model server stops", async || {
            ensure!(metric("num_requests_running").await? == 0.0 && metric("abort").await? > aborted, "it works on");
            Ok(())
        })
        .await?;
    }
    eventually("no request is counted any more", async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        ensure!(metrics.contains("thalamus_picker_requests_in_flight 0"), "{metrics}");
        Ok(())
    })
    .await
}

pub(crate) async fn the_next_endpoint_is_tried_when_one_cannot_be_reached(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    let body = two_text_pods(&mut world).await?;
    // It died and its object still says that it is ready.
    world.kubelet.crash("text-0");
    for _ in 0..20 {
        let answer = world.http.chat(&body).await?;
        ensure!(answer.shown() == "200 text-1", "{}", answer.shown());
    }
    world.kubelet.crash("text-1");
    let answer = world.http.chat(&body).await?;
    ensure!(answer.shown().starts_with("503 endpoint_unreachable"), "{}", answer.shown());
    Ok(())
}

pub(crate) async fn a_model_servers_refusal_is_the_clients_answer(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("text")?;
    // The owner names a model that the server has not: the server's own words reach the client, and it goes on being asked.
    world.apply_model("m", "{modelName: m, poolRef: {name: text}}")?;
    world.apply_model("other", "{modelName: other, poolRef: {name: text}}")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"])).await?;
    until_answered(&world, &chat("m", &text()), "200 text-0").await?;
    for client in world.ways() {
        for _ in 0..20 {
            let answer = client.chat(&chat("other", &text())).await?;
            ensure!(
                answer.status == 404 && answer.text().contains("The model `other` does not exist"),
                "{}",
                answer.shown()
            );
        }
        let answer = client.chat(&chat("m", &text())).await?;
        ensure!(answer.shown() == "200 text-0", "{}", answer.shown());
    }
    Ok(())
}

pub(crate) async fn health_is_told_under_every_name_over_tls_and_in_plain_text(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    for service in ["", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension"] {
        for (port, tls) in [(world.ext_proc(), true), (world.ext_proc(), false), (world.health(), false)] {
            let status = grpc_health(port, service, tls).context(port)?;
            ensure!(status == [8, 1], "{service:?} at {port}, TLS {tls}: {status:?}");
        }
    }
    Ok(())
}

/// Asks in gRPC by curl, and answers with the message: field 1, value 1 is SERVING.
fn grpc_health(port: std::net::SocketAddr, service: &str, tls: bool) -> Result<Vec<u8>> {
    let size = u8::try_from(service.len()).context("a short name")?;
    let message: Vec<u8> = if service.is_empty() { vec![] } else { [&[0x0a, size], service.as_bytes()].concat() };
    let frame = [&[0, 0, 0, 0, u8::try_from(message.len()).context("a short message")?], &message[..]].concat();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(&file, frame)?;
    let (scheme, how) = if tls { ("https", "--http2") } else { ("http", "--http2-prior-knowledge") };
    let output = Command::new("curl")
        .args(["-sk", how, "-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary"])
        .arg(format!("@{}", file.path().display()))
        .arg(format!("{scheme}://{port}/grpc.health.v1.Health/Check"))
        .output()
        .context("running curl")?;
    ensure!(output.status.success() && output.stdout.len() >= 5, "curl: {output:?}");
    Ok(output.stdout[5..].to_vec())
}

pub(crate) async fn metrics_tell_what_happened(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    world.gateway.chat(&chat("nope", &text())).await?;
    let metrics = world.picker_admin.get("/metrics").await?.text();
    for expected in [
        r#"thalamus_picker_decisions_total{pool="vision",input="text+image",output="text",tier="1"}"#,
        r#"thalamus_picker_rejections_total{reason="model_not_found"}"#,
        "thalamus_picker_table_age_seconds 0",
        "thalamus_picker_decision_seconds_bucket",
    ] {
        ensure!(metrics.contains(expected), "no {expected} in\n{metrics}");
    }
    eventually("load is scraped", async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        ensure!(metrics.contains(r#"thalamus_picker_scrapes_total{outcome="read"}"#), "{metrics}");
        Ok(())
    })
    .await?;
    let controller = world.controller_admin.get("/metrics").await?.text();
    ensure!(controller.contains("thalamus_controller_compile_seconds_count"), "{controller}");
    ensure!(world.controller_admin.get("/ready").await?.status == 200, "the controller is ready");
    // Who has just been sent a table has not said yet that it decides by it.
    eventually("the picker is up to date", async || {
        let table = world.controller_admin.get("/debug/table").await?.text();
        ensure!(table.contains("1/1 up to date") && table.contains("text+image+audio"), "{table}");
        Ok(())
    })
    .await?;
    let table = world.picker_admin.get("/debug/table").await?.text();
    ensure!(table.contains("the controller is connected") && table.contains("vision-0-rank-0"), "{table}");
    Ok(())
}
