//! Does honest work go on while strangers try everything at once? Ten minutes of it: `SIEGE_SECONDS=600 cargo xtask test -- --test it siege`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use e2e::{Client, Options, eventually};
use http::{Method, Request};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::Shared;
use crate::routing::{chat, text, three_pools};

/// What the picker may hold of bodies.
const BUDGET: u64 = 64 << 20;

/// Beside that: code, tables, connections.
const BESIDE: u64 = 64 << 20;

/// What was freed a moment ago and is not given back yet (ADR 0016): without it the bound would hold nine times of ten.
const FREED: u64 = 16 << 20;

/// Strangers come from elsewhere than honest clients, as they do.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Another, who has a share of their own.
const ANOTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// How many strangers there are, and what a connection of theirs may hold that is not counted (docs/security.md: up to twice this).
const STRANGERS: usize = 40;
const UNCOUNTED: u64 = 1 << 20;

/// How often an honest client asks each edge.
const EVERY: Duration = Duration::from_millis(20);

/// The ports of a picker under siege.
#[derive(Debug, Clone, Copy)]
struct Ports {
    http: SocketAddr,
    ext_proc: SocketAddr,
    health: SocketAddr,
    admin: SocketAddr,
}

#[expect(clippy::print_stderr, reason = "the figures are what the test is for, beside its bounds")]
pub(crate) async fn honest_answers_come_while_strangers_try_everything(shared: &Shared) -> Result<()> {
    let seconds = std::env::var("SIEGE_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
    let picker_args = [
        format!("--max-buffered-bytes={BUDGET}"),
        "--max-connections=600".into(),
        "--max-streams=1000".into(),
        "--log=warn,picker::args=info".into(),
    ];
    let mut world = shared.world_with(Options { picker_args: picker_args.into(), ..Options::default() }).await?;
    three_pools(&mut world).await?;
    let clients = [world.gateway.clone(), world.http.clone()];
    let admin = world.picker_admin.clone();
    let quiet = honest(&clients, &admin, Duration::from_secs(5)).await?;

    let ports = Ports {
        http: world.http.address(),
        ext_proc: world.ext_proc(),
        health: world.health(),
        admin: world.picker_admin.address(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let attacks = Arc::new(AtomicU64::new(0));
    let mut strangers = JoinSet::new();
    for number in 0..STRANGERS {
        let (stop, attacks) = (Arc::clone(&stop), Arc::clone(&attacks));
        strangers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // That a stranger fails is as it should be.
                let attack = attack(number, ports, &stop);
                let _ = tokio::time::timeout(Duration::from_secs(20), attack).await;
                attacks.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
    }
    let refused = hostile(&world.http);
    let (besieged, refused) = tokio::join!(honest(&clients, &admin, Duration::from_secs(seconds)), refused);
    let (peak, files) = (memory(world.picker.pid(), "VmHWM")?, files(world.picker.pid())?);
    stop.store(true, Ordering::Relaxed);
    strangers.shutdown().await;
    let (besieged, refused) = (besieged?, refused?);
    eventually("what strangers held is given back", async || {
        let held = world.picker_admin.get("/metrics").await?.text();
        let held = held.lines().find_map(|line| line.strip_prefix("thalamus_picker_buffered_bytes "));
        ensure!(held == Some("0"), "held: {held:?}");
        Ok(())
    })
    .await?;
    // What was freed is given back while the picker goes on working.
    let after = honest(&clients, &admin, Duration::from_secs(seconds.div_ceil(3).min(60))).await?;
    ensure!(after.lost.is_empty(), "answers were lost after the siege: {:?}", after.lost.first());
    eprintln!(
        "siege: {} attacks in {seconds} s; {} of {} honest answers lost; honest p99 {} ms, without siege {} ms; {refused} hostile requests refused; \
         peak memory {} MiB with a budget of {} MiB, {files} files, {} MiB afterwards",
        attacks.load(Ordering::Relaxed),
        besieged.lost.len(),
        besieged.asked,
        besieged.p99.as_millis(),
        quiet.p99.as_millis(),
        peak >> 20,
        BUDGET >> 20,
        memory(world.picker.pid(), "VmRSS")? >> 20,
    );
    ensure!(besieged.lost.is_empty(), "honest answers were lost: {:?}", &besieged.lost[..besieged.lost.len().min(5)]);
    let bound = BUDGET + BUDGET / 100 * 15 + BESIDE + FREED + STRANGERS as u64 * UNCOUNTED;
    ensure!(peak <= bound, "the picker took {peak} bytes, more than {bound}");
    ensure!(files < 1600, "the picker had {files} files open");
    let lines = world.picker.log().lines().count();
    ensure!(lines < 2000, "{lines} lines were logged");
    Ok(())
}

/// How many bodies are sent at once, and of how many bytes.
const UPLOADS: usize = 200;
const UPLOAD: usize = 20 << 20;

#[expect(clippy::print_stderr, reason = "the figures are what the test is for, beside its bounds")]
pub(crate) async fn two_hundred_uploads_at_once_stay_within_the_budget(shared: &Shared) -> Result<()> {
    let picker_args = vec![format!("--max-buffered-bytes={BUDGET}"), "--log=warn,picker::args=info".into()];
    let mut world = shared.world_with(Options { picker_args, ..Options::default() }).await?;
    three_pools(&mut world).await?;
    let body = format!(r#"{{"model":"chat","messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(UPLOAD));
    let body = Bytes::from(body);
    let bound = BUDGET + BUDGET / 100 * 15 + BESIDE + FREED;
    let edges = [
        ("HTTP/1.1", world.http.address(), false),
        ("HTTP/2", world.http.address(), true),
        ("ext_proc", world.gateway.address(), false),
    ];
    for (edge, address, http2) in edges {
        // Peaks are counted anew (proc_pid_clear_refs(5)).
        std::fs::write(format!("/proc/{}/clear_refs", world.picker.pid()), "5").context("resetting the peak")?;
        let mut uploads = JoinSet::new();
        let client = legacy::Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        for _ in 0..UPLOADS {
            let request = Request::post(format!("http://{address}/v1/chat/completions"))
                .header("content-type", "application/json")
                .body(Full::new(body.clone()))?;
            let answer = client.request(request);
            uploads.spawn(async move { answer.await.map_or(0, |answer| answer.status().as_u16()) });
        }
        let mut answers = BTreeMap::<u16, usize>::new();
        for status in uploads.join_all().await {
            *answers.entry(status).or_default() += 1;
        }
        let peak = memory(world.picker.pid(), "VmHWM")?;
        eprintln!(
            "siege: {UPLOADS} uploads of {} MiB over {edge}: {answers:?}, peak memory {} MiB",
            UPLOAD >> 20,
            peak >> 20
        );
        ensure!(!answers.contains_key(&0), "some got no answer over {edge}: {answers:?}");
        ensure!(peak <= bound, "the picker took {peak} bytes over {edge}, more than {bound}");
    }
    eventually("what was taken is given back", async || {
        world.picker_admin.get("/live").await?;
        let left = memory(world.picker.pid(), "VmRSS")?;
        ensure!(left < 64 << 20, "{left} bytes are left");
        Ok(())
    })
    .await?;
    Ok(())
}

/// What came of honest requests.
struct Honest {
    asked: usize,
    lost: Vec<String>,
    p99: Duration,
}

/// Asks as clients do, and as a kubelet does, which stops a picker that does not answer.
async fn honest(clients: &[Client], admin: &Client, length: Duration) -> Result<Honest> {
    let (began, body) = (Instant::now(), chat("chat", &text()).to_string());
    let (mut lost, mut times) = (Vec::new(), Vec::new());
    let mut ticks = tokio::time::interval(EVERY);
    while began.elapsed() < length {
        ticks.tick().await;
        for client in clients {
            let asked = Instant::now();
            match client.post("/v1/chat/completions", body.clone()).await {
                Ok(answer) if answer.status == 200 => times.push(asked.elapsed()),
                Ok(answer) => lost.push(answer.shown()),
                Err(error) => lost.push(format!("{error:#}")),
            }
        }
        match admin.send(Method::GET, "/live", &[("connection", "close")], Bytes::new()).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => lost.push(format!("/live: {}", answer.shown())),
            Err(error) => lost.push(format!("/live: {error:#}")),
        }
    }
    times.sort_unstable();
    let p99 = *times.get(times.len() * 99 / 100).context("nothing was answered")?;
    Ok(Honest { asked: times.len() + lost.len(), lost, p99 })
}

/// Requests that no policy lets through; how many were refused.
async fn hostile(client: &Client) -> Result<usize> {
    let inside = "http://169.254.169.254/latest";
    let requests = [
        (
            "/v1/chat/completions",
            format!(r#"{{"model":"chat","messages":[{{"content":[{{"image_url":"{inside}"}}]}}]}}"#),
        ),
        ("/v1/chat/completions", r#"{"model":"chat","messages":[],"kv_transfer_params":{"remote_host":"x"}}"#.into()),
        ("/v1/chat/completions", r#"{"model":"chat","messages":[],"a":[{"bootstrap_host":"x"}]}"#.into()),
        ("/inference/v1/generate", format!(r#"{{"model":"chat","content_parts":[{{"image_url":"{inside}"}}]}}"#)),
        ("/v1/videos", format!(r#"{{"model":"chat","prompt":"a","reference_url":"{inside}"}}"#)),
        ("/v1/videos", r#"{"model":"chat","prompt":"a","extra_body":{"output_path":"/etc/x"}}"#.into()),
        ("/generate", r#"{"model":"chat","text":"a","brand_new":"/etc/passwd"}"#.into()),
        ("/v1/audio/speech", r#"{"model":"chat","input":"a","ref_audio":"file:///etc/passwd"}"#.into()),
        ("/send_weights_to_remote_instance", "{}".into()),
        ("/v1/chat/completions", format!(r#"{{"model":"chat","x":{}"#, "[".repeat(10_000))),
    ];
    for (path, body) in &requests {
        let answer = client.post(path, body.clone()).await?;
        ensure!((400..500).contains(&answer.status), "{path} {body}: {}", answer.shown());
    }
    for (method, path) in [(Method::PUT, "/hicache/storage-backend"), (Method::DELETE, "/hicache/storage-backend")] {
        let answer = client.send(method, path, &[], Bytes::new()).await?;
        ensure!((400..500).contains(&answer.status), "{path}: {}", answer.shown());
    }
    Ok(requests.len() + 2)
}

async fn attack(number: usize, ports: Ports, stop: &AtomicBool) -> Result<()> {
    match number % 12 {
        0 => upload_and_hold(ports.http).await,
        1 => drip(ports.http, stop).await,
        2 => silence(ports).await,
        3 => half_a_message(ports.ext_proc).await,
        4 => many_streams(ports.ext_proc).await,
        5 => made_up_jobs(ports.http).await,
        6 => crumbs(ports.http).await,
        7 => frames_that_nobody_knows(ports.http).await,
        8 => mere_announcements(ports.ext_proc).await,
        9 => large_heads(ports.ext_proc).await,
        10 => half_questions([ports.health, ports.ext_proc]).await,
        _ => odd_requests(ports.http).await,
    }
}

async fn connect(to: SocketAddr) -> Result<TcpStream> {
    connect_from(STRANGER, to).await
}

async fn connect_from(stranger: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((stranger, 0).into())?;
    Ok(socket.connect(to).await?)
}

fn head(length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Twenty megabytes but for the last byte, and then nothing.
async fn upload_and_hold(to: SocketAddr) -> Result<()> {
    let mut stream = connect(to).await?;
    let body = format!(r#"{{"model":"chat","messages":[{{"content":"{}"}}]}}"#, "x".repeat(20 << 20));
    stream.write_all(head(body.len() + 1).as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    read_on(&mut stream).await
}

/// A byte now and then.
async fn drip(to: SocketAddr, stop: &AtomicBool) -> Result<()> {
    let mut stream = connect(to).await?;
    stream.write_all(head(20 << 20).as_bytes()).await?;
    stream.write_all(br#"{"model":"chat","x":""#).await?;
    let mut drops = tokio::time::interval(Duration::from_millis(100));
    while !stop.load(Ordering::Relaxed) {
        drops.tick().await;
        stream.write_all(b"x").await?;
    }
    Ok(())
}

/// Hundreds of connections that say nothing, or one byte.
async fn silence(ports: Ports) -> Result<()> {
    let mut silent = Vec::new();
    for number in 0..150 {
        for port in [ports.http, ports.ext_proc, ports.health, ports.admin] {
            let mut stream = connect(port).await?;
            if number % 2 == 0 {
                stream.write_all(b"P").await?;
            }
            silent.push(stream);
        }
    }
    match silent.first_mut() {
        Some(first) => read_on(first).await,
        None => Ok(()),
    }
}

async fn open_stream(to: SocketAddr) -> Result<h2::client::SendRequest<Bytes>> {
    open_stream_from(STRANGER, to).await
}

async fn open_stream_from(stranger: Ipv4Addr, to: SocketAddr) -> Result<h2::client::SendRequest<Bytes>> {
    let (client, connection) = h2::client::handshake(connect_from(stranger, to).await?).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

fn process() -> Request<()> {
    call("http://x/envoy.service.ext_proc.v3.ExternalProcessor/Process")
}

fn call(method: &'static str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(method);
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", http::HeaderValue::from_static("trailers"));
    request
}

/// Messages of thirty megabytes of which the half comes.
async fn half_a_message(to: SocketAddr) -> Result<()> {
    let mut client = open_stream(to).await?.ready().await?;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let (_, mut stream) = client.send_request(process(), false)?;
        stream.send_data(Bytes::from_static(&[0, 1, 0xc9, 0xc3, 0x80]), false)?;
        stream.send_data(Bytes::from(vec![0; 15 << 20]), false)?;
        client = client.ready().await?;
        streams.push(stream);
    }
    hold(Duration::from_secs(10)).await;
    Ok(())
}

/// From two addresses, five bytes a stream that announce messages of thirty megabytes.
async fn mere_announcements(to: SocketAddr) -> Result<()> {
    let mut streams = Vec::new();
    for stranger in [STRANGER, ANOTHER] {
        let mut client = open_stream_from(stranger, to).await?.ready().await?;
        for _ in 0..100 {
            let (_, mut stream) = client.send_request(process(), false)?;
            stream.send_data(Bytes::from_static(&[0, 1, 0xc9, 0xc3, 0x80]), false)?;
            client = client.ready().await?;
            streams.push(stream);
        }
    }
    hold(Duration::from_secs(5)).await;
    Ok(())
}

/// Whole messages with heads of a megabyte, whose bodies never come.
async fn large_heads(to: SocketAddr) -> Result<()> {
    let header = |key: &str, value: &str| {
        let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2][..], &varint(bytes.len()), bytes].concat();
        field(1, &[field(1, key.as_bytes()), field(3, value.as_bytes())].concat())
    };
    let head = [
        header(":method", "POST"),
        header(":path", "/v1/chat/completions"),
        header("authorization", &"x".repeat(1 << 20)),
    ]
    .concat();
    let within = |field: u8, bytes: Vec<u8>| [vec![field << 3 | 2], varint(bytes.len()), bytes].concat();
    let message = within(2, within(1, head));
    let length = u32::try_from(message.len())?.to_be_bytes();
    let message = Bytes::from([&[0][..], &length, &message].concat());
    let mut client = open_stream(to).await?.ready().await?;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let (_, mut stream) = client.send_request(process(), false)?;
        stream.send_data(message.clone(), false)?;
        client = client.ready().await?;
        streams.push(stream);
    }
    hold(Duration::from_secs(5)).await;
    Ok(())
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

/// Questions after health of which the half comes.
async fn half_questions(ports: [SocketAddr; 2]) -> Result<()> {
    let mut streams = Vec::new();
    for port in ports {
        let mut client = open_stream(port).await?.ready().await?;
        for _ in 0..1000 {
            let (_, mut stream) = client.send_request(call("http://x/grpc.health.v1.Health/Check"), false)?;
            stream.send_data(Bytes::from([&[0, 0, 0, 3, 0xff][..], &[0; 1000]].concat()), false)?;
            let Ok(ready) = tokio::time::timeout(Duration::from_millis(100), client.ready()).await else { break };
            client = ready?;
            streams.push(stream);
        }
    }
    hold(Duration::from_secs(5)).await;
    Ok(())
}

/// As many streams as a connection may have, and more.
async fn many_streams(to: SocketAddr) -> Result<()> {
    let mut client = open_stream(to).await?;
    let mut streams = Vec::new();
    for _ in 0..3000 {
        client = client.ready().await?;
        streams.push(client.send_request(process(), false)?);
    }
    Ok(())
}

/// Jobs that nobody made.
async fn made_up_jobs(to: SocketAddr) -> Result<()> {
    let mut jobs = JoinSet::new();
    for _ in 0..24 {
        jobs.spawn(async move {
            let mut stream = connect(to).await?;
            let path = format!("/v1/videos/video_{:x}", fastrand::u64(..));
            stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
            read_on(&mut stream).await
        });
    }
    jobs.join_all().await.into_iter().collect()
}

/// A large body in small writes.
async fn crumbs(to: SocketAddr) -> Result<()> {
    let mut stream = connect(to).await?;
    stream.set_nodelay(true)?;
    stream.write_all(head(8 << 20).as_bytes()).await?;
    stream.write_all(br#"{"model":"chat","x":""#).await?;
    for _ in 0..(8 << 20) / 4200 - 1 {
        stream.write_all(&[b'x'; 4200]).await?;
    }
    read_on(&mut stream).await
}

/// Bodies over HTTP/2 in small frames, between them frames of a type that nobody knows, which pin what they are read into.
async fn frames_that_nobody_knows(to: SocketAddr) -> Result<()> {
    let mut stream = connect(to).await?;
    let frame = |kind: u8, flags: u8, stream: u32, content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap_or(0).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
    };
    // POST, http, and the path, as HPACK has them (RFC 7541, appendix A).
    let path = b"/v1/chat/completions";
    let head = [&[0x83, 0x86, 0x44, 20][..], path, &[0x41, 1], b"x"].concat();
    let mut sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    for number in [1, 3, 5] {
        sent.extend(frame(1, 4, number, &head));
        sent.extend(frame(0, 0, number, br#"{"model":"chat","x":""#));
        for _ in 0..70 {
            sent.extend(frame(0, 0, number, &[b'x'; 4000]));
            sent.extend(frame(0xfa, 0, number, &[0; 8000]));
        }
    }
    stream.write_all(&sent).await?;
    read_on(&mut stream).await
}

/// Heads that are too much, and names that are too long.
async fn odd_requests(to: SocketAddr) -> Result<()> {
    for request in [
        format!("GET /v1/models/{} HTTP/1.1\r\nhost: x\r\n\r\n", "m".repeat(60_000)),
        format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(500)),
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".into(),
        "CONNECT 10.0.0.1:80 HTTP/1.1\r\nhost: 10.0.0.1:80\r\n\r\n".into(),
    ] {
        let mut stream = connect(to).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).await?;
        ensure!(!answer[..length].windows(200).any(|part| part == [b'm'; 200]), "a name came back whole");
    }
    Ok(())
}

/// Keeps what was opened, as those do who want to harm.
async fn hold(length: Duration) {
    let _ = tokio::time::timeout(length, std::future::pending::<()>()).await;
}

async fn read_on(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

fn memory(pid: u32, name: &str) -> Result<u64> {
    e2e::memory(pid, name).context("no such process, or no such line")
}

fn files(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
