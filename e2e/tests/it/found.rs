//! What model servers are found to be, and what becomes of it.

use anyhow::{Result, ensure};
use e2e::{Client, PodSpec, World, eventually};
use http::Method;
use serde_json::{Value, json};

use crate::Shared;
use crate::kubectl::{until_condition, until_row};
use crate::routing::{answered, audio, chat, image, text, until_answered};

pub(crate) async fn what_is_declared_and_not_so_is_said_and_not_believed(shared: &Shared) -> Result<()> {
    let mut world = declared_to_see_and_blind(shared).await?;
    until_condition(
        &world,
        "inferencemodel",
        "m",
        "Verified=False Contradicted: blind-0-rank-0 (vLLM 0.32.0) does not accept image, as m declares",
    )
    .await?;
    until_row(&world, "inferencemodel", "m", &["m", "m", "mixed", "text", "text", "Standard", "1/1", "False"]).await?;
    until_answered(&world, &chat("m", &image()), "400 unsupported_modality: model \"m\" takes text, not image").await?;
    let events = world.kubectl(&[
        "get",
        "events",
        "-o",
        "jsonpath={range .items[*]}{.action} {.reason}: {.message}{\"\\n\"}{end}",
    ])?;
    ensure!(events.contains("Verified Contradicted: blind-0-rank-0"), "nobody is told:\n{events}");

    // One that takes pictures joins: they all go there, text goes to either.
    world.kubelet.run(PodSpec::new("eyes-0", "mixed", &["m=text,image<=2"])).await?;
    until_answered(&world, &chat("m", &image()), "200 eyes-0").await?;
    for _ in 0..10 {
        answered(&world, &chat("m", &image()), "200 eyes-0").await?;
    }
    until_one_sees(&world).await?;
    let three = Value::from(vec![image()[1].clone(), image()[1].clone(), image()[1].clone()]);
    answered(
        &world,
        &chat("m", &three),
        "400 too_many_media_items: model \"m\" takes at most 2 image items in a request, and this one has 3",
    )
    .await?;

    // And what is put right is right again.
    world.kubelet.delete("blind-0").await?;
    until_condition(
        &world,
        "inferencemodel",
        "m",
        "Verified=True Verified: 1 of 1 endpoints answered, and none contradicts what is declared",
    )
    .await
}

pub(crate) async fn what_nobody_declares_is_found_listed_and_routed_by_name(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    world.apply_pool("p")?;
    world.kubelet.run(PodSpec::new("base-0", "p", &["base=text"])).await?;
    world.kubelet.run(PodSpec::new("lora-0", "p", &["base=text", "lora=text"])).await?;
    until_condition(&world, "inferencepool", "p", "EndpointsReady=True EndpointsReady: 2/2: 2 text, verified").await?;
    eventually("both are listed", async || {
        let list = world.http.get("/v1/models").await?.json();
        let names: Vec<&str> =
            list["data"].as_array().into_iter().flatten().filter_map(|one| one["id"].as_str()).collect();
        ensure!(names == ["base", "lora"], "{list}");
        Ok(())
    })
    .await?;
    let one = world.http.get("/v1/models/lora").await?.json();
    ensure!(one["architecture"]["input_modalities"] == json!(["text"]), "{one}");
    for _ in 0..10 {
        answered(&world, &chat("lora", &text()), "200 lora-0").await?;
    }
    answered(&world, &chat("lora", &audio()), "400 unsupported_modality: model \"lora\" takes text, not audio").await?;
    // What nobody lists is the servers' to know.
    let unknown = world.gateway.chat(&chat("nobodys", &text())).await?;
    ensure!(unknown.status == 404 && unknown.text().contains("does not exist. Valid aliases"), "{}", unknown.shown());
    Ok(())
}

/// One that becomes blind without a sign: no new process, no other list, no lost connection. It is looked at anew in five minutes.
pub(crate) async fn what_a_server_refuses_goes_to_another_and_has_it_asked_again(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    world.apply_pool("mixed")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: mixed}, modalities: {input: [Text, Image]}}")?;
    for pod in ["eyes-0", "eyes-1"] {
        world.kubelet.run(PodSpec::new(pod, "mixed", &["m=text,image"])).await?;
    }
    let told = "EndpointsReady=True EndpointsReady: 2/2: 2 text+image, verified";
    until_condition(&world, "inferencepool", "mixed", told).await?;
    until_answered(&world, &chat("m", &text()), "200 eyes-0").await?;
    let pictures = |count: u32| (0..count).map(|number| format!("data:image/png;base64,{number:08}"));
    let server = Client::new(world.kubelet.address("eyes-0")?);
    let json = [("content-type", "application/json")];
    let blinded = server.send(Method::PUT, "/sim/models", &json, r#"["m=text"]"#.into()).await?;
    ensure!(blinded.status == 204, "{}", blinded.shown());
    for picture in pictures(20) {
        let body = chat("m", &json!([{"type": "image_url", "image_url": {"url": picture}}]));
        let answer = world.http.chat(&body).await?;
        ensure!(answer.shown() == "200 eyes-1", "{}", answer.shown());
    }
    let metrics = world.picker_admin.get("/metrics").await?.text();
    let contradicted = "thalamus_picker_contradictions_total{pool=\"mixed\",of=\"image\"} 1\n";
    ensure!(metrics.contains(contradicted), "{metrics}");
    until_one_sees(&world).await?;
    let contradicted = "Verified=False Contradicted: eyes-0-rank-0 (vLLM 0.32.0) does not accept image, as m declares";
    until_condition(&world, "inferencemodel", "m", contradicted).await?;
    // By now every way knows it.
    for picture in pictures(20) {
        answered(&world, &chat("m", &json!([{"type": "image_url", "image_url": {"url": picture}}])), "200 eyes-1")
            .await?;
    }
    Ok(())
}

/// A hand-over and a restart: what was found is known at once, or waited for.
pub(crate) async fn a_restart_of_the_controller_widens_nothing(shared: &Shared) -> Result<()> {
    let mut world = declared_to_see_and_blind(shared).await?;
    world.kubelet.run(PodSpec::new("eyes-0", "mixed", &["m=text,image"])).await?;
    until_one_sees(&world).await?;
    until_answered(&world, &chat("m", &image()), "200 eyes-0").await?;
    world.kill_controller();
    world.start_controller().await?;
    // Not one picture goes astray, from before the new one has told its table until well after.
    let mut ready = 0;
    while ready < 30 {
        answered(&world, &chat("m", &image()), "200 eyes-0").await?;
        ready += u32::from(world.controller_admin.get("/ready").await.is_ok_and(|answer| answer.status == 200));
    }
    for _ in 0..20 {
        answered(&world, &chat("m", &image()), "200 eyes-0").await?;
    }
    Ok(())
}

/// A model that is declared to take pictures, and the one server of it, which does not.
async fn declared_to_see_and_blind(shared: &Shared) -> Result<World> {
    let mut world = shared.world().await?;
    world.apply_pool("mixed")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: mixed}, modalities: {input: [Text, Image]}}")?;
    world.kubelet.run(PodSpec::new("blind-0", "mixed", &["m=text"])).await?;
    Ok(world)
}

/// Until it is told of one server of two that it takes pictures.
async fn until_one_sees(world: &World) -> Result<()> {
    let told = "EndpointsReady=True EndpointsReady: 2/2: 1 text, 1 text+image; 1 verified";
    until_condition(world, "inferencepool", "mixed", told).await
}
