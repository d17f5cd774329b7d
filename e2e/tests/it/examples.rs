//! Each example is applied to a real API server, and what it says of itself holds.

use anyhow::{Result, ensure};
use e2e::{Answer, World, eventually, root};
use http::Method;
use serde_json::{Value, json};

use crate::Shared;
use crate::routing::{audio, chat, image, text};

pub(crate) async fn one_vision_server(shared: &Shared) -> Result<()> {
    let (world, _serving) = applied(shared, "one-vision-server").await?;
    goes_to(&world, "/v1/chat/completions", &chat("chat", &image()), "vision-").await?;
    refused(&world, &chat("chat", &audio()), "400 unsupported_modality").await
}

pub(crate) async fn text_and_vision(shared: &Shared) -> Result<()> {
    let (world, _serving) = applied(shared, "text-and-vision").await?;
    goes_to(&world, "/v1/chat/completions", &chat("chat", &text()), "text-").await?;
    goes_to(&world, "/v1/chat/completions", &chat("chat", &image()), "vision-").await
}

pub(crate) async fn speech(shared: &Shared) -> Result<()> {
    let (world, _serving) = applied(shared, "speech").await?;
    goes_to(&world, "/v1/chat/completions", &chat("chat", &text()), "chat-").await?;
    goes_to(&world, "/v1/audio/speech", &json!({"model": "voice", "input": "hi", "voice": "a"}), "voice-").await?;
    eventually("what is said is written down", async || {
        let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n\
            --b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\ncontent-type: audio/wav\r\n\r\nRIFF\r\n--b--\r\n";
        let headers = [("content-type", "multipart/form-data; boundary=b")];
        let answer = world.http.send(Method::POST, "/v1/audio/transcriptions", &headers, form.into()).await?;
        is_of(&answer, "whisper-")
    })
    .await?;
    refused(&world, &chat("whisper", &text()), "400").await
}

pub(crate) async fn pictures_and_video(shared: &Shared) -> Result<()> {
    let (world, _serving) = applied(shared, "pictures-and-video").await?;
    goes_to(&world, "/v1/images/generations", &json!({"model": "painter", "prompt": "a cat"}), "images-").await?;
    goes_to(&world, "/v1/videos", &json!({"model": "camera", "prompt": "a cat"}), "films-").await
}

async fn applied<'s>(shared: &'s Shared, example: &str) -> Result<(World, tokio::sync::MutexGuard<'s, ()>)> {
    let (mut world, serving) = shared.serving_world().await?;
    world.apply_example(&root().join("manifests/examples").join(example)).await?;
    Ok((world, serving))
}

async fn goes_to(world: &World, path: &str, body: &Value, pool: &str) -> Result<()> {
    eventually(&format!("{pool} answers {path}"), async || is_of(&world.http.post(path, body.to_string()).await?, pool))
        .await
}

fn is_of(answer: &Answer, pool: &str) -> Result<()> {
    let server = answer.headers.get("x-served-by").and_then(|server| server.to_str().ok()).unwrap_or_default();
    ensure!(answer.status == 200 && server.starts_with(pool), "{server}: {}", answer.shown());
    Ok(())
}

async fn refused(world: &World, body: &Value, why: &str) -> Result<()> {
    let shown = world.http.chat(body).await?.shown();
    ensure!(shown.starts_with(why), "{shown}");
    Ok(())
}
