//! Does the picker inside Envoy do what only it must?

use anyhow::{Result, ensure};
use e2e::{Client, PodSpec, Port, World, envoy_module_says, eventually, older_envoys};
use http::Method;
use serde_json::{Value, json};

use crate::Shared;
use crate::routing::{chat, text};

/// The model `chat`, which its one server knows by a longer name.
async fn serve_under_a_longer_name(world: &mut World) -> Result<()> {
    world.apply_pool("text")?;
    world
        .apply_model("chat", "{modelName: chat, poolRef: {name: text}, targetModels: [{name: a-much-longer-name}]}")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["a-much-longer-name=text"])).await.map(drop)
}

/// Waits until the one server there is answers this; what it says that it was sent.
async fn served(client: &Client, body: &str) -> Result<Value> {
    eventually("text-0 answers", async || {
        let answer = client.post("/v1/chat/completions", body.to_owned()).await?;
        ensure!(answer.shown() == "200 text-0", "{}", answer.shown());
        Ok(answer.json()["sim"].clone())
    })
    .await
}

/// Envoy's buffers cannot be changed in their middle: a name that went by long before the end is the hard case.
pub(crate) async fn a_name_at_the_beginning_of_a_large_body_is_replaced_over_every_way(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    serve_under_a_longer_name(&mut world).await?;
    for size in [10, 10_000, 300_000, 3_000_000] {
        let body = format!(r#"{{"model":"chat","messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(size));
        let mut digests = Vec::new();
        for client in world.ways() {
            let sim = served(client, &body).await?;
            ensure!(sim["bytes"] == body.len() + "a-much-longer-name".len() - "chat".len(), "{sim}");
            digests.push(sim["digest"].clone());
        }
        ensure!(
            digests.len() == world.ways().len() && digests.iter().all(|digest| *digest == digests[0]),
            "{digests:?}"
        );
    }
    Ok(())
}

/// A name for a picture is put behind it, in the same place and the same one whoever puts it.
pub(crate) async fn a_picture_gets_its_name_over_every_way(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("vision")?;
    world.apply_model(
        "pictures",
        "{modelName: pictures, poolRef: {name: vision}, modalities: {input: [Text, Image]}, media: {writeUUIDs: true}}",
    )?;
    world.kubelet.run(PodSpec::new("vision-0", "vision", &["pictures=text,image"])).await?;
    let name = r#","uuid":"""#.len() + 64;
    for size in [9, 300_000, 3_000_000] {
        // As base64 comes: in fours.
        let url = format!("data:image/png;base64,iVBORw0KGgoA{}", "AAAA".repeat(size / 4));
        let picture = json!({"type": "image_url", "image_url": {"url": url}});
        let content = json!([picture, {"type": "text", "text": "What is it?"}]);
        let body = json!({"model": "pictures", "messages": [{"role": "user", "content": content}]}).to_string();
        let mut digests = Vec::new();
        for client in world.ways() {
            let sim = eventually("a picture is named", async || {
                let answer = client.post("/v1/chat/completions", body.clone()).await?;
                let sim = answer.json()["sim"].clone();
                // Until it was asked what it is, nobody knows that the server takes names.
                ensure!(sim["bytes"] == body.len() + name, "{} of {}: {sim}", answer.shown(), body.len());
                Ok(sim)
            })
            .await?;
            digests.push(sim["digest"].clone());
        }
        ensure!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    }
    Ok(())
}

/// A library of one build, in each Envoy that is said to load it.
pub(crate) async fn older_envoys_load_the_same_library(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    serve_under_a_longer_name(&mut world).await?;
    let older = older_envoys()?;
    ensure!(older.len() == 2, "{older:?}");
    for (number, envoy) in older.iter().enumerate() {
        let (_envoy, client) = world.module_of(envoy, &format!("older-{number}")).await?;
        for size in [10, 300_000] {
            let body = format!(r#"{{"model":"chat","messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(size));
            let sim = served(&client, &body).await?;
            ensure!(sim["bytes"] == body.len() + "a-much-longer-name".len() - "chat".len(), "{sim}");
        }
        let refused = client.chat(&chat("nobody", &text())).await?.shown();
        ensure!(refused.starts_with("404 model_not_found"), "{refused}");
        let found = client.get("/v1/videos/nobodys").await?.shown();
        ensure!(found.starts_with("404 job_not_found"), "{found}");
    }
    Ok(())
}

/// Envoy shows what a filter before this one kept as if it came now, and keeps it all the same.
pub(crate) async fn a_filter_before_it_that_keeps_bodies_changes_nothing(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    serve_under_a_longer_name(&mut world).await?;
    let buffer = "http_filters:
          - name: envoy.filters.http.buffer
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
              max_request_bytes: 10000000";
    let (_envoy, client) = world.another_module("behind-a-buffer", &[("http_filters:", buffer)]).await?;
    for size in [10, 300_000] {
        let body = format!(r#"{{"model":"chat","messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(size));
        let sim = served(&client, &body).await?;
        ensure!(sim["bytes"] == body.len() + "a-much-longer-name".len() - "chat".len(), "{sim}");
    }
    Ok(())
}

pub(crate) async fn a_panic_costs_one_request(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    world.apply_pool("text")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"])).await?;
    let (envoy, client) = world.another_module("panics", &[]).await?;
    let body = chat("m", &text());
    served(&client, &body.to_string()).await?;
    for _ in 0..10 {
        let broken = client.get("/panic").await?;
        ensure!(broken.status == 500 && broken.shown().contains("internal_error"), "{}", broken.shown());
        let answer = client.chat(&body).await?;
        ensure!(answer.shown() == "200 text-0", "{}", answer.shown());
    }
    ensure!(envoy.log().contains("panic in request_headers: as asked"), "{}", envoy.tail());
    Ok(())
}

pub(crate) async fn how_attempts_end_is_known(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    world.apply_pool("text")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: text}}")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"])).await?;
    let port = Port::hold()?;
    let flag = format!("--admin-listen={port}");
    let (_envoy, decides) = world.another_module("metrics", &[("--admin-listen=127.0.0.1:0", &flag)]).await?;
    let (_other, asks) = world.asking_module("asking-metrics", &[]).await?;
    let admin = Client::new(port.address());
    // Where it is decided, it is counted.
    let counted = async |admin: &Client, ending: &str, status: &str| {
        eventually(ending, async || {
            let metrics = admin.get("/metrics").await?.text();
            let line =
                format!(r#"thalamus_picker_attempts_total{{pool="text",ending="{ending}",status="{status}"}} 1"#);
            ensure!(metrics.contains(&line) && metrics.contains("thalamus_picker_requests_in_flight 0"), "{metrics}");
            Ok(())
        })
        .await
    };
    let both = [(&decides, &admin), (&asks, &world.picker_admin)];
    for (client, admin) in both {
        served(client, &chat("m", &text()).to_string()).await?;
        counted(admin, "complete", "200").await?;
    }
    world.kubelet.crash("text-0");
    for (client, admin) in both {
        let answer = client.chat(&chat("m", &text())).await?;
        ensure!(answer.shown().starts_with("503 endpoint_unreachable"), "{}", answer.shown());
        counted(admin, "unreachable", "0").await?;
    }
    Ok(())
}

/// A picker that is gone is told at once, and one that is there again is asked; one that is leaving answers on.
pub(crate) async fn a_picker_that_is_asked_may_go_and_come_back(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    world.apply_pool("text")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"])).await?;
    let (_envoy, client) = world.asking_module("comes-back", &[]).await?;
    let body = chat("m", &text());
    served(&client, &body.to_string()).await?;
    world.picker.kill();
    eventually("the picker is missed", async || {
        let answer = client.chat(&body).await?;
        ensure!(answer.shown().starts_with("503 not_ready: there is no picker to ask"), "{}", answer.shown());
        ensure!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
        Ok(())
    })
    .await?;
    world.start_picker().await?;
    served(&client, &body.to_string()).await?;
    Ok(())
}

pub(crate) async fn flags_that_cannot_be_read_are_refused_and_sound_ones_start_nothing(shared: &Shared) -> Result<()> {
    let folder = shared.folder().join("module-flags");
    let validated = |flags: &[&str]| envoy_module_says(&folder, flags, &["--mode", "validate"]);
    let (ended, said) = validated(&["--no-such-flag"])?;
    ensure!(!ended.success() && said.contains("--no-such-flag") && said.contains("flags of thalamus-picker"), "{said}");
    let (ended, said) = validated(&["--controller=http://10.0.0.1:9004", "--namespace=default"])?;
    ensure!(ended.success(), "nothing is asked of the controller yet: {said}");
    Ok(())
}

/// Without a table nobody knows who takes what, and a client is told so.
pub(crate) async fn before_the_first_table_it_says_so(shared: &Shared) -> Result<()> {
    let folder = shared.folder().join("module-without-a-table");
    let (_envoy, client) = e2e::envoy_module(
        &folder,
        &["--controller=http://127.0.0.1:1", "--namespace=default", "--admin-listen=127.0.0.1:0"],
    )
    .await?;
    let answer = client.chat(&chat("chat", &text())).await?;
    ensure!(answer.status == 503 && answer.shown().contains("not_ready"), "{}", answer.shown());
    let unknown = client.send(Method::POST, "/sleep", &[], "{}".into()).await?;
    ensure!(unknown.status == 404, "{}", unknown.shown());
    Ok(())
}
