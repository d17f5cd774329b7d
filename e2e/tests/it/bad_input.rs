//! What does bad input do?

use anyhow::{Result, ensure};
use e2e::{Options, PodSpec, eventually};
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Shared;
use crate::routing::{chat, text, three_pools, until_answered};

pub(crate) async fn what_cannot_be_read_is_refused_the_same_way_over_both_edges(shared: &Shared) -> Result<()> {
    let options = Options { picker_args: vec!["--max-body-bytes=100000".into()], ..Options::default() };
    let mut world = shared.world_with(options).await?;
    three_pools(&mut world).await?;
    let huge = format!(r#"{{"model":"chat","messages":[],"x":"{}"}}"#, "x".repeat(200_000));
    let deep = format!(r#"{{"model":"chat","x":{}"#, "[".repeat(50_000));
    let cases: [(&[u8], &str); 9] = [
        (b"", "400 invalid_body: the body is empty"),
        (b"hello", "400 invalid_body: the body is not valid JSON"),
        (br#"{"model":"chat","messages":["#, "400 invalid_body: the body ends in the middle"),
        (b"{\"model\":\"\xff\"}", "400 invalid_body: the body is not valid UTF-8 at byte 10"),
        (br#"{"model":"chat","model":"other"}"#, r#"400 invalid_body: duplicate field "model""#),
        (deep.as_bytes(), "400 invalid_body: the body is nested more than 128 levels deep"),
        (huge.as_bytes(), "413 request_too_large: the body is larger than the limit of 100000 bytes"),
        (
            br#"{"model":"chatt","messages":[]}"#,
            r#"404 model_not_found: the model "chatt" does not exist; did you mean "chat"?"#,
        ),
        (br#"{"messages":[]}"#, "400 model_required: the request names no model"),
    ];
    for (body, expected) in cases {
        for client in world.ways() {
            let answer = client.post("/v1/chat/completions", body.to_vec()).await?;
            ensure!(answer.shown().starts_with(expected), "{} instead of {expected}", answer.shown());
            ensure!(answer.headers["content-type"] == "application/json", "{:?}", answer.headers);
        }
    }
    let form = ("content-type", "multipart/form-data; boundary=x");
    let json = ("content-type", "application/json");
    for (path, headers, expected) in [
        ("/v1/audio/transcriptions", vec![form], "400 invalid_body: the form is not valid"),
        ("/v1/audio/transcriptions", vec![json], "415 unsupported_content_type"),
        ("/v1/chat/completions", vec![form], "415 unsupported_content_type"),
        ("/v1/chat/completions", vec![json, ("content-encoding", "gzip")], "415 unsupported_content_encoding"),
        ("/v1/chat/completions", vec![json, ("content-encoding", "br")], "415 unsupported_content_encoding"),
    ] {
        for client in world.ways() {
            let answer = client.send(Method::POST, path, &headers, "--y--".into()).await?;
            ensure!(answer.shown().starts_with(expected), "{} instead of {expected}", answer.shown());
        }
    }
    ensure!(!world.picker.log().contains("xxxxxxxx"), "a body was logged");
    Ok(())
}

pub(crate) async fn a_client_that_stalls_is_cut(shared: &Shared) -> Result<()> {
    let options = Options { picker_args: vec!["--stall-timeout=300ms".into()], module: true, ..Options::default() };
    let world = shared.world_with(options).await?;
    world.until_gateway_asks().await?;
    for address in world.ways().into_iter().map(e2e::Client::address) {
        let mut client = TcpStream::connect(address).await?;
        client
            .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"model\":")
            .await?;
        let mut answer = vec![0; 4096];
        let size = client.read(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer[..size]).into_owned();
        ensure!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_stalled"), "{address}: {answer}");
    }
    Ok(())
}

pub(crate) async fn a_body_shorter_than_announced_harms_nobody(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    three_pools(&mut world).await?;
    for address in world.ways().into_iter().map(e2e::Client::address) {
        for _ in 0..20 {
            let mut client = TcpStream::connect(address).await?;
            client
                .write_all(
                    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n{\"model\":\"chat\"",
                )
                .await?;
            client.shutdown().await?;
        }
        // Longer than announced: what is left over is not a request.
        let mut client = TcpStream::connect(address).await?;
        client
            .write_all(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}{\"model\":\"chat\"}",
            )
            .await?;
        let mut answer = vec![0; 4096];
        let size = client.read(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer[..size]).into_owned();
        ensure!(answer.starts_with("HTTP/1.1 400"), "{address}: {answer}");
    }
    eventually("nothing of them is left", async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        ensure!(metrics.contains("thalamus_picker_requests_in_flight 0"), "{metrics}");
        Ok(())
    })
    .await?;
    until_answered(&world, &chat("chat", &text()), "200 text-0").await
}

pub(crate) async fn odd_objects_harm_nobody(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    world.apply_pool("text")?;
    let odd = "a \"quoted\"\nname";
    world.apply_model(
        "odd",
        &format!("{{modelName: {}, poolRef: {{name: text}}, targetModels: [{{name: m}}]}}", serde_json::json!(odd)),
    )?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"])).await?;
    until_answered(&world, &chat(odd, &text()), "200 text-0").await?;
    // A pod without an address, one with an IPv6 address, and one that says nonsense of itself.
    world.kubelet.create(&PodSpec::new("homeless", "text", &[])).await?;
    let six = PodSpec::new("six", "text", &[]).annotated("thalamus.dev/input-modalities", "video");
    world.kubelet.create(&six).await?;
    world.kubelet.set_status("six", "fd00::7", true).await?;
    eventually("the IPv6 endpoint is in the table", async || {
        let table = world.picker_admin.get("/debug/table").await?.text();
        ensure!(table.contains("[fd00::7]:8000"), "{table}");
        Ok(())
    })
    .await?;
    // The status is written once the table is out.
    eventually("kubectl shows it", async || {
        let endpoints = world.kubectl(&["get", "inferencepool", "text"])?;
        ensure!(endpoints.contains("2/3: "), "{endpoints}");
        Ok(())
    })
    .await?;
    until_answered(&world, &chat(odd, &text()), "200 text-0").await
}

/// Over HTTP, where no Envoy stands before us; Envoy refuses most of these by itself.
pub(crate) async fn heads_that_can_be_read_in_two_ways_are_refused(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    three_pools(&mut world).await?;
    let body = chat("chat", &text()).to_string();
    let post = |headers: &str| format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n");
    let length = format!("content-length: {}", body.len());
    for (head, expected) in [
        (post(&format!("{length}\r\ntransfer-encoding: chunked")), "400 invalid_request"),
        (post(&format!("transfer-encoding: chunked\r\n{length}")), "400 invalid_request"),
        (post(&format!("{length}\r\n{length}")), "400 invalid_request"),
        (post(&format!("{length}\nx: y")), "400 invalid_request"),
        (post(&format!("{length}\r\nx: y\r\n z")), "400 invalid_request"),
        (post(&format!("{length}\r\nx : y")), "400 invalid_request"),
        (post(&format!("{length}\r\nhost: y")), "400 invalid_request"),
        (post(&format!("{length}\r\nx: {}", "y".repeat(70_000))), "431 request_head_too_large"),
        (post(&length).replace("host: x", "host: a/b"), "400 invalid_host"),
        (post(&length).replace("host: x", "host: a@b"), "400 invalid_host"),
        (post(&length).replace("/v1/", "/v1/../"), "400 invalid_path"),
        (post(&length).replace("/v1/", "/v1//"), "400 invalid_path"),
    ] {
        let mut client = TcpStream::connect(world.http.address()).await?;
        // It may be refused before all of it is written.
        let _ = client.write_all(head.as_bytes()).await;
        let _ = client.write_all(body.as_bytes()).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(size @ 1..) = client.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..size]);
            if answer.ends_with(b"}") {
                break;
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (status, code) = expected.split_once(' ').unwrap_or_default();
        ensure!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code),
            "{answer} instead of {expected} for {}",
            head.chars().take(200).collect::<String>()
        );
    }
    until_answered(&world, &chat("chat", &text()), "200 text-0").await
}

pub(crate) async fn bodies_beyond_the_budget_are_refused_for_a_moment(shared: &Shared) -> Result<()> {
    let options = Options { picker_args: vec!["--max-buffered-bytes=200000".into()], ..Options::default() };
    let mut world = shared.world_with(options).await?;
    three_pools(&mut world).await?;
    let large = |size: usize| format!(r#"{{"model":"chat","messages":[{{"content":"{}"}}]}}"#, "x".repeat(size));
    for client in world.ways() {
        let answer = client.post("/v1/chat/completions", large(400_000)).await?;
        ensure!(
            answer.shown().starts_with("503 overloaded") && answer.headers["retry-after"] == "1",
            "{}",
            answer.shown()
        );
        let answer = client.post("/v1/chat/completions", large(50_000)).await?;
        ensure!(answer.shown() == "200 text-0", "{}", answer.shown());
    }
    // One upload that stays holds what came of it; a newcomer that fits beside it is served, and one that does not is not.
    let mut slow = TcpStream::connect(world.http.address()).await?;
    slow.write_all(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\n{\"model\":\"chat\",\"x\":\"",
    )
    .await?;
    slow.write_all("y".repeat(80_000).as_bytes()).await?;
    eventually("the upload is held", async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        ensure!(metrics.lines().any(|line| line.starts_with("thalamus_picker_buffered_bytes 80")), "{metrics}");
        Ok(())
    })
    .await?;
    let answer = world.http.post("/v1/chat/completions", large(150_000)).await?;
    ensure!(answer.shown().starts_with("503 overloaded"), "{}", answer.shown());
    until_answered(&world, &chat("chat", &text()), "200 text-0").await?;
    drop(slow);
    eventually("nothing is held", async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        ensure!(metrics.contains("thalamus_picker_buffered_bytes 0"), "{metrics}");
        Ok(())
    })
    .await
}
