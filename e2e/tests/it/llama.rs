//! Is a real llama.cpp found out, routed to and understood as our simulator of vLLM is?

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use e2e::{Llama, Options, PodSpec, World, eventually, root};
use serde_json::{Value, json};

use crate::Shared;
use crate::kubectl::until_condition;
use crate::routing::chat;

/// Longer than what is estimated at four bytes a token: here each byte is one.
const SHORT: u32 = 2048;
const LONG: u32 = 8192;

/// A picture that differs from the others by what follows its end.
fn picture(number: usize) -> Result<Value> {
    let mut bytes = std::fs::read(root().join("e2e/engines/picture.png")).context("reading picture.png")?;
    bytes.extend(number.to_be_bytes());
    let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes));
    Ok(json!([{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]))
}

fn short_answer(mut body: Value) -> Value {
    body["max_tokens"] = 4.into();
    body
}

/// A pool of two servers of the model `m`: one that reads text, and one that sees and has a longer context.
async fn two_servers(shared: &Shared, options: Options) -> Result<World> {
    let mut world = shared.world_with(options).await?;
    world.apply_pool("mixed")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: mixed}, modalities: {input: [Text, Image]}}")?;
    let llama = Llama::prepare(world.folder())?;
    for (name, sees, context) in [("blind-0", false, SHORT), ("eyes-0", true, LONG)] {
        let (pod, folder) = (PodSpec::new(name, "mixed", &[]), world.folder().to_owned());
        let start = async |address| llama.start(&folder, (name, "m"), address, sees, context).await;
        world.kubelet.run_as(&pod, start).await?;
    }
    Ok(world)
}

pub(crate) async fn it_is_found_out_and_answers_every_kind_of_request(shared: &Shared) -> Result<()> {
    let world = two_servers(shared, Options { module: true, ..Options::default() }).await?;
    let told = "EndpointsReady=True EndpointsReady: 2/2: 1 text, 1 text+image; 1 verified";
    until_condition(&world, "inferencepool", "mixed", told).await?;
    for client in world.ways() {
        for number in 0..10 {
            let answer = client.chat(&short_answer(chat("m", &picture(number)?))).await?;
            ensure!(answer.status == 200, "picture {number}: {}", answer.shown());
        }
        let mut streamed = short_answer(chat("m", &picture(0)?));
        streamed["stream"] = true.into();
        let text = short_answer(chat("m", &json!("hi")));
        let response = json!({"model": "m", "max_output_tokens": 4, "input": "hi"});
        let message = json!({"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]});
        for (path, body) in [
            ("/v1/chat/completions", streamed),
            ("/v1/chat/completions", text),
            ("/v1/responses", response),
            ("/v1/messages", message),
        ] {
            let answer = client.post(path, body.to_string()).await?;
            ensure!(answer.status == 200, "{path} {body}: {}", answer.shown());
        }
    }
    Ok(())
}

/// Nobody has asked the servers: what they refuse is all that there is to know.
pub(crate) async fn what_it_refuses_goes_to_the_other(shared: &Shared) -> Result<()> {
    let world =
        two_servers(shared, Options { controller_args: vec!["--probe=false".into()], ..Options::default() }).await?;
    eventually("the picker knows of both", async || {
        let load: Value = world.picker_admin.get("/debug/load").await?.json();
        ensure!(load["endpoints"].as_array().is_some_and(|endpoints| endpoints.len() == 2), "{load}");
        Ok(())
    })
    .await?;
    for number in 0..20 {
        let answer = world.http.chat(&short_answer(chat("m", &picture(number)?))).await?;
        ensure!(answer.status == 200, "picture {number}: {}", answer.shown());
    }
    for number in 0..20 {
        let long = format!("{number} {}", "x".repeat(SHORT as usize));
        let answer = world.http.chat(&short_answer(chat("m", &json!(long)))).await?;
        ensure!(answer.status == 200, "a long prompt: {}", answer.shown());
    }
    let metrics = world.picker_admin.get("/metrics").await?.text();
    let contradicted = r#"thalamus_picker_contradictions_total{pool="mixed",of="image"} "#;
    ensure!(metrics.contains(contradicted), "{metrics}");
    let failed = r#"thalamus_picker_attempts_total{pool="mixed",ending="complete",status="500"}"#;
    ensure!(metrics.contains(failed), "llama.cpp refuses a picture with 500:\n{metrics}");
    Ok(())
}
