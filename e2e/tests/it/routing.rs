//! Where do requests go?

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::{Options, PodSpec, World, eventually, root};
use serde_json::{Value, json};

use crate::Shared;

pub(crate) fn text() -> Value {
    json!("hi")
}

pub(crate) fn image() -> Value {
    json!([{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])
}

pub(crate) fn audio() -> Value {
    json!([{"type": "text", "text": "what?"}, {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])
}

pub(crate) fn video() -> Value {
    json!([{"type": "text", "text": "what?"}, {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}])
}

pub(crate) fn chat(model: &str, content: &Value) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": content}]})
}

/// Both ways in give the same answer: `200 pod` or `status code: message`.
pub(crate) async fn answered(world: &World, body: &Value, expected: &str) -> Result<()> {
    for client in world.ways() {
        let answer = client.chat(body).await?;
        ensure!(answer.shown() == expected, "{} instead of {expected}", answer.shown());
    }
    Ok(())
}

/// Waits until the gateway answers so.
pub(crate) async fn until_answered(world: &World, body: &Value, expected: &str) -> Result<()> {
    eventually(&format!("the answer is {expected}"), async || {
        let shown = world.gateway.chat(body).await?.shown();
        ensure!(shown == expected, "it is {shown}");
        Ok(())
    })
    .await
}

/// Text, vision and omni pools of one pod each, and the model `chat` over them.
pub(crate) async fn three_pools(world: &mut World) -> Result<()> {
    for pool in ["text", "vision", "omni"] {
        world.apply_pool(pool)?;
    }
    world.apply_model(
        "chat",
        "{modelName: chat, targetModels: [{name: t, poolRef: {name: text}}, \
         {name: v, poolRef: {name: vision}, modalities: {input: [Text, Image]}}, \
         {name: o, poolRef: {name: omni}, modalities: {input: [Text, Image, Audio], output: [Text, Audio]}}]}",
    )?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["t=text"])).await?;
    world.kubelet.run(PodSpec::new("vision-0", "vision", &["v=text,image"])).await?;
    world.kubelet.run(PodSpec::new("omni-0", "omni", &["o=text,image,audio:text,audio"])).await?;
    until_answered(world, &chat("chat", &audio()), "200 omni-0").await?;
    until_answered(world, &chat("chat", &text()), "200 text-0").await?;
    until_answered(world, &chat("chat", &image()), "200 vision-0").await
}

#[expect(clippy::print_stderr, reason = "the figure is what the test is for, beside its bound")]
pub(crate) async fn an_applied_model_serves_within_a_second(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("text")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["one=text", "two=text"])).await?;
    world.apply_model("one", "{modelName: one, poolRef: {name: text}}")?;
    until_answered(&world, &chat("one", &text()), "200 text-0").await?;

    world.apply_model("two", "{modelName: two, poolRef: {name: text}}")?;
    let applied = Instant::now();
    until_answered(&world, &chat("two", &text()), "200 text-0").await?;
    let model = applied.elapsed();

    world.kubelet.set_ready("text-0", false).await?;
    until_answered(
        &world,
        &chat("two", &text()),
        r#"503 no_endpoint: no endpoint is ready for model "two" in pool text"#,
    )
    .await?;
    world.kubelet.set_ready("text-0", true).await?;
    let ready = Instant::now();
    until_answered(&world, &chat("two", &text()), "200 text-0").await?;
    let pod = ready.elapsed();
    eprintln!("from `kubectl apply` of a model to a decision that uses it: {model:?}; from a ready pod: {pod:?}");
    ensure!(
        model < Duration::from_secs(1) && pod < Duration::from_secs(1),
        "slower than a second: model {model:?}, pod {pod:?}"
    );
    Ok(())
}

pub(crate) async fn each_modality_goes_to_its_pool_and_all_at_once_to_the_omni_one(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    for pool in ["text", "vision", "audio", "video", "omni"] {
        world.apply_pool(pool)?;
    }
    world.apply_model(
        "chat",
        "{modelName: chat, targetModels: [{name: t, poolRef: {name: text}}, \
         {name: v, poolRef: {name: vision}, modalities: {input: [Text, Image]}}, \
         {name: a, poolRef: {name: audio}, modalities: {input: [Text, Audio]}}, \
         {name: w, poolRef: {name: video}, modalities: {input: [Text, Video]}}, \
         {name: o, poolRef: {name: omni}, modalities: {input: [Text, Image, Audio, Video], output: [Text, Audio]}}]}",
    )?;
    for (pool, model) in [
        ("text", "t=text"),
        ("vision", "v=text,image"),
        ("audio", "a=text,audio"),
        ("video", "w=text,video"),
        ("omni", "o=text,image,audio,video:text,audio"),
    ] {
        world.kubelet.run(PodSpec::new(&format!("{pool}-0"), pool, &[model])).await?;
    }
    let mut all = json!([{"type": "text", "text": "compare"}]);
    for content in [image(), audio(), video()] {
        all.as_array_mut().expect("an array").push(content[1].clone());
    }
    for (content, expected) in
        [(text(), "text-0"), (image(), "vision-0"), (audio(), "audio-0"), (video(), "video-0"), (all, "omni-0")]
    {
        let (body, expected) = (chat("chat", &content), format!("200 {expected}"));
        until_answered(&world, &body, &expected).await?;
        answered(&world, &body, &expected).await?;
    }
    let mut speak = chat("chat", &text());
    speak["modalities"] = json!(["text", "audio"]);
    answered(&world, &speak, "200 omni-0").await
}

pub(crate) async fn text_spills_to_the_omni_pool_and_comes_back(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    three_pools(&mut world).await?;
    let body = chat("chat", &text());
    world.kubelet.set_ready("text-0", false).await?;
    until_answered(&world, &body, "200 vision-0").await?;
    world.kubelet.set_ready("vision-0", false).await?;
    until_answered(&world, &body, "200 omni-0").await?;
    world.kubelet.set_ready("text-0", true).await?;
    until_answered(&world, &body, "200 text-0").await
}

pub(crate) async fn a_modality_nobody_has_is_refused_and_never_reaches_a_model_server(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    three_pools(&mut world).await?;
    let seen = requests_seen(&world).await?;
    let body = chat("chat", &video());
    answered(&world, &body, r#"400 unsupported_modality: model "chat" takes text, image and audio, not video"#).await?;
    let error = world.gateway.chat(&body).await?.json()["error"].clone();
    ensure!(error["param"] == "messages[0].content[1]" && error["type"] == "invalid_request_error", "{error}");
    ensure!(requests_seen(&world).await? == seen, "a model server saw the request");
    Ok(())
}

/// How many requests each pod has finished, by its own metrics.
async fn requests_seen(world: &World) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    for pod in ["text-0", "vision-0", "omni-0"] {
        let metrics = e2e::Client::new(world.kubelet.address(pod)?).get("/metrics").await?.text();
        seen.extend(metrics.lines().filter(|line| line.starts_with("vllm:request_success_total")).map(str::to_owned));
    }
    Ok(seen)
}

pub(crate) async fn weights_split_as_written(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("text")?;
    world.apply_model("split", "{modelName: split, poolRef: {name: text}, targetModels: [{name: stable, weight: 80}, {name: canary, weight: 20}]}")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["stable=text", "canary=text"])).await?;
    let body = chat("split", &text());
    until_answered(&world, &body, "200 text-0").await?;
    let mut hits: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..400 {
        let model = world.gateway.chat(&body).await?.json()["model"].as_str().unwrap_or("?").to_owned();
        *hits.entry(model).or_default() += 1;
    }
    // 80 are expected; four standard deviations of a binomial with n = 400 and p = 0.2 are 32.
    let canary = hits.get("canary").copied().unwrap_or(0);
    ensure!((48..=112).contains(&canary) && hits.len() == 2, "{hits:?}");
    Ok(())
}

/// One pool of two pods, text-0 and text-1, and a request for its model `m` that both have answered.
pub(crate) async fn two_text_pods(world: &mut World) -> Result<Value> {
    world.apply_pool("text")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: text}}")?;
    for name in ["text-0", "text-1"] {
        world.kubelet.run(PodSpec::new(name, "text", &["m=text"])).await?;
    }
    let body = chat("m", &text());
    until_answered(world, &body, "200 text-0").await?;
    until_answered(world, &body, "200 text-1").await?;
    Ok(body)
}

pub(crate) async fn a_pod_that_stops_being_ready_gets_nothing_more(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    let body = two_text_pods(&mut world).await?;
    world.kubelet.set_ready("text-0", false).await?;
    eventually("the picker knows", async || {
        let table = world.picker_admin.get("/debug/table").await?.text();
        ensure!(!table.contains("text-0"), "{table}");
        Ok(())
    })
    .await?;
    for _ in 0..50 {
        answered(&world, &body, "200 text-1").await?;
    }
    Ok(())
}

pub(crate) async fn in_a_mixed_pool_forty_of_forty_images_succeed(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("mixed")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: mixed}, modalities: {input: [Text, Image]}}")?;
    let text_only = PodSpec::new("text-only", "mixed", &["m=text"]).annotated("thalamus.dev/input-modalities", "text");
    world.kubelet.run(text_only).await?;
    world.kubelet.run(PodSpec::new("vision", "mixed", &["m=text,image"])).await?;
    let body = chat("m", &image());
    until_answered(&world, &body, "200 vision").await?;
    for _ in 0..40 {
        answered(&world, &body, "200 vision").await?;
    }
    until_answered(&world, &chat("m", &text()), "200 text-only").await
}

pub(crate) async fn a_pool_alone_works_as_with_any_picker(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("llama")?;
    world.kubelet.run(PodSpec::new("llama-0", "llama", &["whatever=text,image"])).await?;
    until_answered(&world, &chat("whatever", &image()), "200 llama-0").await?;
    // The name is the model server's affair, and so is a path that nobody here knows.
    answered(&world, &chat("other", &text()), "404 ?: The model `other` does not exist. Valid aliases: whatever.")
        .await?;
    let models = world.gateway.get("/v1/models").await?;
    ensure!(models.json()["data"][0]["id"] == "whatever", "{}", models.text());
    Ok(())
}

pub(crate) async fn a_picker_of_one_pool_serves_that_pool(shared: &Shared) -> Result<()> {
    let mut world = shared.world_with(Options { pool: Some("text".into()), ..Options::default() }).await?;
    for pool in ["text", "vision"] {
        world.apply_pool(pool)?;
    }
    world.apply_model("chat", "{modelName: chat, targetModels: [{name: t, poolRef: {name: text}}, {name: v, poolRef: {name: vision}, modalities: {input: [Text, Image]}}]}")?;
    world.kubelet.run(PodSpec::new("vision-0", "vision", &["v=text,image"])).await?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["t=text"])).await?;
    until_answered(&world, &chat("chat", &text()), "200 text-0").await?;
    answered(
        &world,
        &chat("chat", &image()),
        r#"404 model_elsewhere: the model "chat" serves this request from pool vision, which this picker does not serve; use that pool's route"#,
    )
    .await?;
    world.apply_model("see", "{modelName: see, poolRef: {name: vision}}")?;
    until_answered(
        &world,
        &chat("see", &text()),
        r#"404 model_elsewhere: the model "see" serves this request from pool vision, which this picker does not serve; use that pool's route"#,
    )
    .await?;
    let table = world.picker_admin.get("/debug/table").await?.text();
    ensure!(!table.contains("vision-0"), "the picker was sent another pool:\n{table}");
    Ok(())
}

pub(crate) async fn the_demos_manifests_behave_the_same_on_a_real_cluster(shared: &Shared) -> Result<()> {
    let (mut world, _serving) = shared.serving_world().await?;
    world.apply_example(&root().join("manifests/examples/multimodal")).await?;
    for (content, pool) in [(text(), "text"), (image(), "vision"), (video(), "vision"), (audio(), "audio")] {
        let body = chat("chat", &content);
        eventually(&format!("{pool} answers"), async || {
            let shown = world.gateway.chat(&body).await?.shown();
            ensure!(shown.starts_with(&format!("200 {pool}-")), "it is {shown}");
            Ok(())
        })
        .await?;
    }
    answered(
        &world,
        &chat("reader", &audio()),
        r#"400 unsupported_modality: model "reader" takes text and image, not audio; "chat" could take it"#,
    )
    .await
}
