//! What becomes of a request and its answer on the way?

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use bytes::Bytes;
use e2e::PodSpec;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Shared;
use crate::routing::{chat, text, until_answered};

pub(crate) async fn a_20_mb_image_passes_and_arrives_byte_for_byte(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("vision")?;
    world.apply_model("pictures", "{modelName: pictures, poolRef: {name: vision}, targetModels: [{name: qwen, modalities: {input: [Text, Image]}}]}")?;
    world.kubelet.run(PodSpec::new("vision-0", "vision", &["qwen=text,image"])).await?;
    let mut random = fastrand::Rng::with_seed(7);
    let picture: Vec<u8> = (0..15_000_000).map(|_| random.u8(..)).collect();
    let url = format!("data:image/png;base64,{}", base64::prelude::BASE64_STANDARD.encode(picture));
    // The model comes last, so that all of the picture has passed before it is known.
    let body = |model: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}],"model":"{model}"}}"#
        )
    };
    let rewritten = body("qwen");
    let expected = modelserver_sim::digest([rewritten.as_bytes()]);
    until_answered(&world, &chat("pictures", &text()), "200 vision-0").await?;
    for client in world.ways() {
        let answer = client.post("/v1/chat/completions", body("pictures")).await?;
        let sim = answer.json()["sim"].clone();
        ensure!(
            sim["bytes"] == rewritten.len() && sim["digest"] == expected.as_str(),
            "{} bytes: {}",
            rewritten.len(),
            answer.text()
        );
    }
    Ok(())
}

pub(crate) async fn a_forged_destination_goes_nowhere(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("text")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: text}}")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"])).await?;
    // A server that runs, that no pool selects, and that would take the request.
    let stranger = world.kubelet.run(PodSpec::new("stranger", "elsewhere", &["m=text"])).await?.to_string();
    until_answered(&world, &chat("m", &text()), "200 text-0").await?;
    let forged = [
        ("content-type", "application/json"),
        ("x-gateway-destination-endpoint", stranger.as_str()),
        ("x-gateway-destination-endpoint-subset", stranger.as_str()),
    ];
    for client in world.ways() {
        for body in [chat("m", &text()).to_string(), chat("nobody", &text()).to_string()] {
            let answer = client.send(Method::POST, "/v1/chat/completions", &forged, body.into()).await?;
            ensure!(answer.server().as_deref() != Some("stranger"), "the client chose its own destination");
        }
        let answer =
            client.send(Method::POST, "/v1/chat/completions", &forged, chat("m", &text()).to_string().into()).await?;
        ensure!(answer.shown() == "200 text-0", "{}", answer.shown());
    }
    // Without the picker, nobody answers at all: what a client writes is never a destination.
    world.picker.kill();
    let answer = world.gateway.send(Method::GET, "/v1/models", &forged, Bytes::new()).await?;
    ensure!(answer.status >= 500, "{}", answer.shown());
    Ok(())
}

pub(crate) async fn what_steers_reaches_neither_gateway_nor_server(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("text")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: text}}")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"])).await?;
    until_answered(&world, &chat("m", &text()), "200 text-0").await?;
    let steering = [
        "x-prefiller-host-port",
        "x-data-parallel-host-port",
        "x-override-bootstrap-host",
        "target-pod",
        "x-gateway-destination-endpoint-served",
        // Envoy acts on the first, and would pass the second on.
        "x-envoy-upstream-alt-stat-name",
        "x-envoy-original-dst-host",
    ];
    let mut headers = vec![("content-type", "application/json"), ("x-stays", "stranger")];
    headers.extend(steering.map(|name| (name, "stranger")));
    for client in world.ways() {
        let answer =
            client.send(Method::POST, "/v1/chat/completions", &headers, chat("m", &text()).to_string().into()).await?;
        ensure!(answer.shown() == "200 text-0", "{}", answer.shown());
        let said = answer.json()["sim"]["headers"].clone();
        let arrived: Vec<&str> =
            said.as_array().context("a list of headers")?.iter().filter_map(|name| name.as_str()).collect();
        ensure!(arrived.contains(&"x-stays"), "{arrived:?}");
        ensure!(!arrived.iter().any(|name| steering.contains(name)), "{arrived:?}");
    }
    let stats = world.envoy_admin.get("/stats?filter=stranger").await?.text();
    ensure!(stats.trim().is_empty(), "a client's header reached Envoy's router:\n{stats}");
    Ok(())
}

pub(crate) async fn events_stream_as_they_come(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("text")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: text}}")?;
    // A few seconds for all events, so that the first can only be here before the last if nobody gathers them.
    world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"]).with_latency(Duration::from_secs(3))).await?;
    let one = chat("m", &text());
    until_answered(&world, &one, "200 text-0").await?;
    let mut body = one;
    body["stream"] = json!(true);
    let body = body.to_string();
    for address in world.ways().into_iter().map(e2e::Client::address) {
        let mut stream = TcpStream::connect(address).await?;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut got = Vec::new();
        let mut reads_with_events = 0;
        loop {
            let mut buffer = [0; 4096];
            let size = stream.read(&mut buffer).await.context("reading events")?;
            if size == 0 {
                break;
            }
            reads_with_events += usize::from(String::from_utf8_lossy(&buffer[..size]).contains("data: "));
            got.extend_from_slice(&buffer[..size]);
        }
        let got = String::from_utf8_lossy(&got).into_owned();
        ensure!(got.contains("text/event-stream") && got.contains("data: [DONE]"), "{got}");
        ensure!(reads_with_events > 2, "all events came in {reads_with_events} pieces");
    }
    Ok(())
}
