//! Does every path that people ask model servers under work, through Envoy and over HTTP?

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use e2e::{Client, PodSpec, World, eventually};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Shared;
use crate::routing::{chat, text, three_pools, until_answered};

/// Besides text, vision and omni for `chat`: a server that only listens, one that only speaks, one that paints, two that film, and one
/// that makes vectors.
async fn everything(shared: &Shared) -> Result<World> {
    let mut world = shared.world_of_all_ways().await?;
    three_pools(&mut world).await?;
    for (pool, model, modalities, operations, pods) in [
        ("asr", "listen", "{input: [Audio], output: [Text]}", "[Transcriptions, Translations]", 1),
        ("tts", "say", "{input: [Text], output: [Audio]}", "[Speech]", 1),
        ("paint", "paint", "{input: [Text, Image], output: [Image]}", "[ImageGenerations, ImageEdits]", 1),
        ("film", "film", "{input: [Text, Image], output: [Video]}", "[Videos]", 2),
        (
            "vectors",
            "vectors",
            "{input: [Text, Image], output: [Embedding]}",
            "[Embeddings, Pooling, Score, Rerank, Classify]",
            1,
        ),
    ] {
        world.apply_pool(pool)?;
        let spec = format!(
            "{{modelName: {model}, poolRef: {{name: {pool}}}, modalities: {modalities}, operations: {operations}}}"
        );
        world.apply_model(model, &spec)?;
        let serves = match pool {
            "asr" => "listen=audio:text:transcriptions,translations",
            "tts" => "say=text:audio:speech",
            "paint" => "paint=text,image:image:image generations,image edits",
            "film" => "film=text,image:video:videos",
            _ => "vectors=text,image:embedding:embeddings,pooling,score,rerank,classify",
        };
        for number in 0..pods {
            world.kubelet.run(PodSpec::new(&format!("{pool}-{number}"), pool, &[serves])).await?;
        }
    }
    eventually("every model is listed, and both that film are known", async || {
        let listed = world.gateway.get("/v1/models").await?.json();
        ensure!(listed["data"].as_array().is_some_and(|all| all.len() == 6), "{listed}");
        let table = world.picker_admin.get("/debug/table").await?.text();
        ensure!(table.contains("film-1-rank-0"), "{table}");
        Ok(())
    })
    .await?;
    Ok(world)
}

pub(crate) async fn the_clients_that_people_use_are_served_through_envoy_and_over_http(shared: &Shared) -> Result<()> {
    let world = everything(shared).await?;
    let python = e2e::clients_python()?;
    let script = e2e::root().join("e2e/clients/clients.py");
    let media = e2e::root().join("crates/media/testdata");
    for address in world.ways().into_iter().map(e2e::Client::address) {
        let mut command = Command::new(&python);
        command.arg(&script).arg(format!("http://{address}")).arg(&media);
        let output = tokio::task::spawn_blocking(move || command.output()).await?.context("running python")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && said.ends_with("all well\n"), "{address}:\n{said}\n{wrong}");
    }
    Ok(())
}

/// Paths that those clients do not know, with a body that an engine takes.
pub(crate) async fn the_paths_of_engines_are_served(shared: &Shared) -> Result<()> {
    let world = everything(shared).await?;
    let image = json!({"content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]});
    for (path, body, server) in [
        ("/v1/rerank", json!({"model": "vectors", "query": "a", "documents": ["b", image]}), "vectors-0"),
        ("/v2/rerank", json!({"model": "vectors", "query": "a", "documents": ["b"]}), "vectors-0"),
        ("/score", json!({"model": "vectors", "text_1": "a", "text_2": image}), "vectors-0"),
        ("/v1/score", json!({"model": "vectors", "text_1": "a", "text_2": ["b"]}), "vectors-0"),
        ("/pooling", json!({"model": "vectors", "input": "a"}), "vectors-0"),
        ("/classify", json!({"model": "vectors", "input": "a"}), "vectors-0"),
        (
            "/tokenize",
            json!({"model": "chat", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]}),
            "vision-0",
        ),
        ("/tokenize", json!({"model": "chat", "prompt": "a"}), "text-0"),
        ("/generate", json!({"model": "chat", "text": "a", "image_data": "https://example.com/a.png"}), "vision-0"),
        ("/inference/v1/generate", json!({"model": "chat", "token_ids": [1, 2]}), "text-0"),
        (
            "/v1/embeddings",
            json!({"model": "vectors", "input": [{"text": "a", "image": "https://example.com/a.png"}]}),
            "vectors-0",
        ),
    ] {
        for client in world.ways() {
            let answer = client.post(path, body.to_string()).await?;
            ensure!(answer.shown() == format!("200 {server}"), "{path}: {}", answer.text());
        }
    }
    Ok(())
}

pub(crate) async fn what_is_not_known_and_what_manages_servers_never_passes(shared: &Shared) -> Result<()> {
    let world = everything(shared).await?;
    for client in world.ways() {
        for (method, path) in [
            (Method::GET, "/health"),
            (Method::GET, "/metrics"),
            (Method::POST, "/sleep"),
            (Method::POST, "/slee%70"),
            (Method::POST, "/v1/load_lora_adapter"),
            (Method::POST, "/invocations"),
            (Method::GET, "/openapi.json"),
            (Method::POST, "/v1/files"),
        ] {
            let answer = client.send(method, path, &[], Bytes::new()).await?;
            ensure!(answer.shown().starts_with("404 unknown_path"), "{path}: {}", answer.shown());
        }
        let answer = client.get("/v1/chat/completions").await?;
        ensure!(answer.status == 405 && answer.headers["allow"] == "POST", "{}", answer.shown());
        let answer = client.send(Method::HEAD, "/v1/models", &[], Bytes::new()).await?;
        ensure!(answer.status == 200 && answer.body.is_empty(), "{}", answer.shown());
    }
    Ok(())
}

pub(crate) async fn paths_that_nobody_knows_go_where_a_flag_says(shared: &Shared) -> Result<()> {
    let options = e2e::Options {
        picker_args: vec!["--other-paths-to=text".into(), "--other-path=/v1/*".into()],
        ..e2e::Options::default()
    };
    let mut world = shared.world_with(options).await?;
    three_pools(&mut world).await?;
    for client in world.ways() {
        // The simulator has no such path, and says so in FastAPI's words.
        let answer = client.get("/v1/something").await?;
        ensure!(answer.status == 404 && answer.json()["detail"] == "Not Found", "{}", answer.text());
        let answer = client.get("/v2/something").await?;
        ensure!(answer.shown().starts_with("404 unknown_path"), "{}", answer.shown());
        let answer = client.send(Method::POST, "/sleep", &[], Bytes::new()).await?;
        ensure!(answer.shown().starts_with("404 unknown_path"), "{}", answer.shown());
    }
    Ok(())
}

pub(crate) async fn models_that_nobody_serves_are_listed_when_asked_for(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    three_pools(&mut world).await?;
    world.apply_model("later", "{modelName: later, poolRef: {name: not-yet}, modalities: {input: [Text, Video]}}")?;
    let names = async |client: &Client, path: &str| {
        let listed = client.get(path).await?.json();
        let all = listed["data"].as_array().context("a list")?;
        anyhow::Ok(all.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect::<Vec<_>>())
    };
    eventually("the table has both", async || {
        let all = names(&world.http, "/v1/models?all=true").await?;
        ensure!(all == ["chat", "later"], "{all:?}");
        Ok(())
    })
    .await?;
    for client in world.ways() {
        ensure!(names(client, "/v1/models").await? == ["chat"]);
        ensure!(names(client, "/v1/models?all=true").await? == ["chat", "later"]);
        let one = client.get("/v1/models/chat").await?.json();
        ensure!(one["architecture"]["input_modalities"] == json!(["text", "image", "audio"]), "{one}");
        ensure!(one["owned_by"] == world.namespace.as_str() && one["created"].as_i64() > Some(0), "{one}");
    }
    Ok(())
}

pub(crate) async fn a_job_is_gone_with_its_maker(shared: &Shared) -> Result<()> {
    let mut world = everything(shared).await?;
    for http in [false, true] {
        let client = if http { world.http.clone() } else { world.gateway.clone() };
        let made = client.post("/v1/videos", json!({"model": "film", "prompt": "waves"}).to_string()).await?;
        let (id, maker) = (made.json()["id"].as_str().context("an id")?.to_owned(), made.server().context("a maker")?);
        // Both edges know it: they are one picker.
        for client in world.ways() {
            let shown = client.get(&format!("/v1/videos/{id}")).await?;
            ensure!(shown.json()["id"] == id.as_str(), "{}", shown.text());
        }
        world.kubelet.delete(&maker).await?;
        eventually("the job is gone", async || {
            let shown = client.get(&format!("/v1/videos/{id}")).await?.shown();
            ensure!(shown.starts_with("404 job_not_found: the model server that created the job"), "{shown}");
            Ok(())
        })
        .await?;
        let serves = "film=text,image:video:videos";
        world.kubelet.run(PodSpec::new(&format!("{maker}-again"), "film", &[serves])).await?;
        eventually("two film again", async || {
            let table = world.picker_admin.get("/debug/table").await?.text();
            ensure!(table.contains(&format!("{maker}-again-rank-0")), "{table}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn a_job_is_found_by_a_picker_that_did_not_see_it_made(shared: &Shared) -> Result<()> {
    let mut world = everything(shared).await?;
    let mut ids = Vec::new();
    for _ in 0..4 {
        let made = world.gateway.post("/v1/videos", json!({"model": "film", "prompt": "waves"}).to_string()).await?;
        ids.push(made.json()["id"].as_str().context("an id")?.to_owned());
    }
    world.picker.kill();
    world.start_picker().await?;
    world.until_ready().await?;
    world.until_gateway_asks().await?;
    for (number, id) in ids.iter().enumerate() {
        let client = if number % 2 == 0 { &world.gateway } else { &world.http };
        let shown = client.get(&format!("/v1/videos/{id}")).await?;
        ensure!(shown.json()["id"] == id.as_str(), "{}", shown.text());
    }
    for client in world.ways() {
        let shown = client.get("/v1/videos/nobodys").await?.shown();
        ensure!(shown.starts_with("404 job_not_found: no model server knows the job"), "{shown}");
    }
    Ok(())
}

/// What follows a response goes to whoever made that one, though another fits tighter, and whichever picker is asked.
pub(crate) async fn a_response_is_followed_where_it_was_made(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    three_pools(&mut world).await?;
    world.kubelet.run(PodSpec::new("vision-1", "vision", &["v=text,image"])).await?;
    eventually("two see", async || {
        let table = world.picker_admin.get("/debug/table").await?.text();
        ensure!(table.contains("vision-1-rank-0"), "{table}");
        Ok(())
    })
    .await?;
    let first = |stream: bool| {
        let picture =
            json!([{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}]);
        json!({"model": "chat", "input": picture, "stream": stream}).to_string()
    };
    let follow = |id: &str| json!({"model": "chat", "input": "and then?", "previous_response_id": id}).to_string();
    let mut made = Vec::new();
    for stream in [false, true] {
        for client in world.ways() {
            let answer = client.post("/v1/responses", first(stream)).await?;
            let text = answer.text();
            let id = text.split("\"id\":\"").find(|part| part.starts_with("resp_")).context(text.clone())?;
            let maker = answer.headers.get("x-served-by").context("a maker")?.to_str()?.to_owned();
            let id = id.split('"').next().context("an id")?.to_owned();
            for client in world.ways() {
                let next = client.post("/v1/responses", follow(&id)).await?.shown();
                ensure!(next == format!("200 {maker}"), "{next}, and {maker} made it");
                let shown = client.get(&format!("/v1/responses/{id}")).await?;
                ensure!(shown.json()["id"] == id.as_str(), "{}", shown.text());
            }
            made.push((id, maker));
        }
    }
    // Another picker asks around.
    world.picker.kill();
    world.start_picker().await?;
    world.until_ready().await?;
    world.until_gateway_asks().await?;
    for (number, (id, maker)) in made.iter().enumerate() {
        let client = if number % 2 == 0 { &world.gateway } else { &world.http };
        let next = client.post("/v1/responses", follow(id)).await?.shown();
        ensure!(next == format!("200 {maker}"), "{next}, and {maker} made it");
    }
    let (id, maker) = &made[0];
    world.kubelet.delete(maker).await?;
    for client in world.ways() {
        eventually("the response is gone with its maker", async || {
            let shown = client.post("/v1/responses", follow(id)).await?.shown();
            ensure!(shown.starts_with("404 response_not_found: the model server that created the response"), "{shown}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn a_websocket_flows_both_ways_until_either_side_ends(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("live")?;
    let spec = "{modelName: live, poolRef: {name: live}, modalities: {input: [Audio], output: [Text]}, operations: [Realtime]}";
    world.apply_model("live", spec)?;
    world.kubelet.run(PodSpec::new("live-0", "live", &["live=audio:text:realtime"])).await?;
    eventually("the server is known", async || {
        let listed = world.http.get("/v1/models").await?.text();
        ensure!(listed.contains(r#""id":"live""#), "{listed}");
        Ok(())
    })
    .await?;
    let head = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    let Some(inside) = world.ways().pop() else { bail!("no way in") };
    let mut socket = TcpStream::connect(inside.address()).await?;
    socket.write_all(head("/v1/realtime?model=live").as_bytes()).await?;
    let said = read_until(&mut socket, b"session.created").await?;
    ensure!(said.starts_with("HTTP/1.1 101") && said.contains("live-0"), "{said}");
    socket.write_all(b"\x81\x85\0\0\0\0hello").await?;
    read_until(&mut socket, b"\x81\x05hello").await?;
    drop(socket);
    let refused = inside.get("/v1/realtime?model=live").await?;
    ensure!(refused.shown().contains("websocket_not_here"), "{}", refused.shown());

    let mut socket = TcpStream::connect(world.http.address()).await?;
    socket.write_all(head("/v1/realtime?model=live").as_bytes()).await?;
    let said = read_until(&mut socket, b"session.created").await?;
    ensure!(said.starts_with("HTTP/1.1 101"), "{said}");
    // RFC 6455, section 1.3: the answer to this very key.
    ensure!(said.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{said}");
    ensure!(said.contains("live-0"), "{said}");
    // "hello", masked with zeros; it comes back as it is.
    socket.write_all(b"\x81\x85\0\0\0\0hello").await?;
    read_until(&mut socket, b"\x81\x05hello").await?;
    eventually("the session counts as under way", async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        ensure!(metrics.contains("thalamus_picker_requests_in_flight 1"), "{metrics}");
        Ok(())
    })
    .await?;
    drop(socket);
    eventually("the session has ended", async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        ensure!(metrics.contains("thalamus_picker_requests_in_flight 0"), "{metrics}");
        Ok(())
    })
    .await?;
    let mut socket = TcpStream::connect(world.http.address()).await?;
    socket.write_all(head("/v1/realtime?model=nobody").as_bytes()).await?;
    let said = read_until(&mut socket, b"model_not_found").await?;
    ensure!(said.starts_with("HTTP/1.1 404"), "{said}");
    let answer = world.http.get("/v1/realtime?model=live").await?;
    ensure!(answer.shown().starts_with("400 websocket_not_here"), "{}", answer.shown());
    let answer = world.gateway.get("/v1/realtime?model=live").await?;
    ensure!(answer.shown().starts_with("400 websocket_not_here"), "{}", answer.shown());
    Ok(())
}

async fn read_until(socket: &mut TcpStream, end: &[u8]) -> Result<String> {
    let mut all = Vec::new();
    while !all.windows(end.len()).any(|part| part == end) {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(e2e::PATIENCE, socket.read(&mut buffer)).await;
        let size = read.with_context(|| format!("nothing more after {}", String::from_utf8_lossy(&all)))??;
        ensure!(size > 0, "it ended after {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..size]);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

pub(crate) async fn browsers_may_ask_where_a_flag_says_so(shared: &Shared) -> Result<()> {
    let origin = "https://app.example.com";
    let options =
        e2e::Options { picker_args: vec![format!("--cors-allow-origin={origin}")], ..e2e::Options::default() };
    let mut world = shared.world_with(options).await?;
    three_pools(&mut world).await?;
    let preflight = [("origin", origin), ("access-control-request-method", "POST")];
    let answer = world.http.send(Method::OPTIONS, "/v1/chat/completions", &preflight, Bytes::new()).await?;
    ensure!(answer.status == 204 && answer.headers["access-control-allow-origin"] == origin, "{:?}", answer.headers);
    let headers = [("origin", origin), ("content-type", "application/json")];
    for model in ["chat", "nobody"] {
        let body = chat(model, &text()).to_string();
        let answer = world.http.send(Method::POST, "/v1/chat/completions", &headers, body.into()).await?;
        ensure!(answer.headers["access-control-allow-origin"] == origin, "{:?}", answer.headers);
    }
    let stranger = [("origin", "https://evil.example.com"), ("access-control-request-method", "POST")];
    let answer = world.http.send(Method::OPTIONS, "/v1/chat/completions", &stranger, Bytes::new()).await?;
    ensure!(answer.status == 405 && !answer.headers.contains_key("access-control-allow-origin"), "{}", answer.shown());
    Ok(())
}

pub(crate) async fn a_client_that_waits_for_a_nod_gets_it_or_the_refusal(shared: &Shared) -> Result<()> {
    let options = e2e::Options { picker_args: vec!["--max-body-bytes=1000".into()], ..e2e::Options::default() };
    let mut world = shared.world_with(options).await?;
    three_pools(&mut world).await?;
    let body = chat("chat", &text()).to_string();
    until_answered(&world, &chat("chat", &text()), "200 text-0").await?;
    for address in world.ways().into_iter().map(e2e::Client::address) {
        let head = |length: usize| {
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
            )
        };
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(head(body.len()).as_bytes()).await?;
        let said = read_until(&mut socket, b"\r\n\r\n").await?;
        ensure!(said.starts_with("HTTP/1.1 100"), "{address}: {said}");
        socket.write_all(body.as_bytes()).await?;
        let said = read_until(&mut socket, b"text-0").await?;
        ensure!(said.starts_with("HTTP/1.1 200"), "{address}: {said}");
    }
    // Over HTTP the refusal comes in the nod's place. (Envoy nods by itself.)
    let mut socket = TcpStream::connect(world.http.address()).await?;
    socket
        .write_all(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5000\r\n\r\n",
        )
        .await?;
    let said = read_until(&mut socket, b"request_too_large").await?;
    ensure!(said.starts_with("HTTP/1.1 413"), "{said}");
    Ok(())
}
