//! Is what is found of real engines what they really do, and does what is served over them land where it is answered?
//!
//! ```text
//!  probe ──► vLLM: text + adapter, vision, vision with limits, audio, omni, Whisper, embeddings
//!  clients ──► thalamus serve, which found them ──► the same; a 4xx of theirs is a request that was sent wrong
//!          ──► Envoy ──ext_proc──► thalamus serve
//! ```

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Method;
use modelserver_sim::questions::questions;
use probe::Prober;
use request::{RequestHead, Scanner, Splice};
use routing::{AppProtocol, Found, FoundModel, Modality, Operation};
use serde_json::{Value, json};

use super::{Engines, Fleet, Spec};
use crate::gateway::{envoy_manifest, start_envoy};
use crate::{Answer, Client, Process, binary, eventually, root};

/// What each server was found to be, by its name.
type Finds = Vec<(String, Found)>;

/// A check, and what it found: how far all is as it should be, or what is not.
type Outcome = (&'static str, Result<String>);

/// With two images at most, and no video.
const LIMITED: [&str; 6] =
    ["--served-model-name", "limited", "--max-model-len", "4096", "--limit-mm-per-prompt", r#"{"image":2,"video":0}"#];

fn specs() -> Vec<Spec> {
    vec![
        Spec::new(
            "text",
            "text",
            &["--served-model-name", "text", "--enable-lora", "--lora-modules", "adapter={models}/lora"],
        ),
        Spec::new("vision", "vision", &["--served-model-name", "vision", "tiny-Qwen2-VL"]),
        Spec::new("limited", "vision", &LIMITED),
        Spec::new("audio", "audio", &["--served-model-name", "audio", "tiny-Qwen2-Audio"]),
        Spec::new("omni", "omni", &["--served-model-name", "omni", "tiny-Qwen2.5-Omni"]),
        Spec::new("whisper", "whisper", &["--served-model-name", "whisper"]),
        Spec::new("embed", "text", &["--served-model-name", "embed", "--runner", "pooling", "--convert", "embed"]),
    ]
}

impl Engines {
    /// Starts everything, and tells each check with what came of it. Fails where one does not hold.
    pub async fn check(&self, folder: &Path, record: bool, tell: impl Fn(&str)) -> Result<String> {
        let mut fleet = Fleet::start(&self.python, folder, &specs(), &tell).await?;
        if record {
            tell("recording answers for the simulator");
            self::record(&fleet).await?;
        }
        let mut outcomes: Vec<Outcome> = Vec::new();
        let finds = finds(&fleet).await?;
        outcomes.push(("what is found is what each does", found_is_what_each_does(&fleet, &finds).await));
        outcomes.push(("limits are read", limits_are_read(&finds)));
        tell("serving all of them");
        let Ways { served, envoy, admin, .. } = &Ways::open(folder, &fleet).await?;
        let before = refusals(&fleet).await?;
        ensure!(before > 0.0, "engines count what they refused before, or nothing is known of it");
        outcomes.push(("every kind of request is answered", everything_is_answered(served).await));
        outcomes.push(("and through Envoy", everything_is_answered(envoy).await));
        let sent_wrong = refusals(&fleet).await? - before;
        let none_sent_wrong = if sent_wrong == 0.0 {
            Ok("4xx of engines: 0".into())
        } else {
            Err(anyhow::anyhow!("4xx of engines: {sent_wrong}"))
        };
        outcomes.push(("and no engine was sent what it refuses", none_sent_wrong));
        outcomes.push(("media are as many tokens as was estimated", tokens_are_estimated(served, admin).await));
        outcomes.push(("media are known by a name of ours", names_are_known(&fleet).await));
        outcomes.push(("what exceeds limits goes elsewhere, or is refused", limits_decide(served).await));
        tell("starting a server anew, without pictures");
        outcomes.push(("a server without pictures is noticed", a_restart_is_noticed(&mut fleet, served, folder).await));
        let all_hold = outcomes.iter().all(|(_, outcome)| outcome.is_ok());
        let table = table(&outcomes);
        ensure!(all_hold, "{table}");
        Ok(table)
    }
}

/// Writes what the simulator is held against.
async fn record(fleet: &Fleet) -> Result<()> {
    let mut recorded = Vec::new();
    for question in questions() {
        let client = fleet.client(question.server);
        let answer = match &question.body {
            Some(body) => client.post(question.path, body.to_string()).await?,
            None => client.get(question.path).await?,
        };
        recorded.push(question.recorded(answer.status, &answer.json()));
    }
    let lines: Vec<String> = recorded.iter().map(serde_json::to_string).collect::<serde_json::Result<_>>()?;
    let file = root().join("crates/modelserver-sim/testdata/vllm.json");
    std::fs::write(&file, format!("[\n{}\n]\n", lines.join(",\n")))
        .with_context(|| format!("writing {}", file.display()))
}

fn table(outcomes: &[Outcome]) -> String {
    let width = outcomes.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, outcome) in outcomes {
        let said = match outcome {
            Ok(said) => format!("holds  {said}"),
            Err(error) => format!("FAILS  {error:#}"),
        };
        _ = writeln!(text, "{name:width$}  {said}");
    }
    text
}

async fn finds(fleet: &Fleet) -> Result<Finds> {
    let prober = Prober::new(None).context("a prober without a key")?;
    let mut finds = Vec::new();
    for name in fleet.ports.keys() {
        let server = probe::Server::at(fleet.address(name), AppProtocol::Http);
        let answers = prober.probe(&server).await.with_context(|| format!("asking {name}"))?;
        ensure!(answers.doubts.is_empty(), "{name}: {:?}", answers.doubts);
        finds.push((name.clone(), answers.found));
    }
    Ok(finds)
}

/// The model of a server that has its name.
fn model<'f>(finds: &'f Finds, name: &str) -> Result<&'f FoundModel> {
    let (_, found) = finds.iter().find(|(server, _)| server == name).context("a server of that name")?;
    found.models.get(name).with_context(|| format!("{name} lists {:?}", found.models.keys()))
}

async fn found_is_what_each_does(fleet: &Fleet, finds: &Finds) -> Result<String> {
    let mut asked = 0;
    for name in fleet.ports.keys() {
        let (model, client) = (model(finds, name)?, fleet.client(name));
        let says = |operation| model.operations.is_some_and(|operations| operations.contains(operation));
        for modality in [Modality::Text, Modality::Image, Modality::Audio, Modality::Video] {
            let answer = client.chat(&chat(name, &[modality])).await?;
            let takes = says(Operation::ChatCompletions) && model.input.has(modality) == Some(true);
            ensure!(
                (answer.status == 200) == takes,
                "{name} was found to take {}, and a chat with {modality} is answered {}",
                model.input.yes(),
                answer.shown()
            );
            asked += 1;
        }
        for (operation, answer) in [
            (Operation::Transcriptions, transcribe(&client, name, false).await?),
            (Operation::Embeddings, embed(&client, name).await?),
        ] {
            ensure!((answer.status == 200) == says(operation), "{name}, {operation}: {}", answer.shown());
            asked += 1;
        }
    }
    let (_, text) = finds.iter().find(|(name, _)| name == "text").context("the server of text")?;
    let adapter = text.models.get("adapter").context("the adapter is not found")?;
    ensure!(adapter.parent.as_deref() == Some("text"), "its parent is {:?}", adapter.parent);
    ensure!(text.what().starts_with("vLLM 0."), "it is {}", text.what());
    Ok(format!("{asked} real requests agree"))
}

fn limits_are_read(finds: &Finds) -> Result<String> {
    let limited = model(finds, "limited")?.limits;
    ensure!(limited.items(Modality::Image) == Some(2) && limited.context() == Some(4096), "{limited}");
    let whisper = model(finds, "whisper")?.limits;
    ensure!(whisper.items(Modality::Audio) == Some(1), "{whisper}");
    Ok(format!("limited: {limited}; whisper: {whisper}"))
}

/// `thalamus serve` over all of them, with one name for all, and an Envoy that asks it.
struct Ways {
    served: Client,
    envoy: Client,
    admin: Client,
    /// They end with it.
    _processes: [Process; 2],
}

/// An adapter, three names that tell a family, and the one for all: beside the name of each server.
const MORE_NAMES: usize = 5;

impl Ways {
    async fn open(folder: &Path, fleet: &Fleet) -> Result<Self> {
        let ports = ["--listen=127.0.0.1:0", "--ext-proc-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
        let mut args: Vec<String> = ["--log-format=json", "serve", "--as=any"].map(Into::into).into();
        args.extend(ports.map(Into::into));
        args.extend(fleet.ports.values().map(ToString::to_string));
        let mut process = Process::start(folder, "thalamus", &binary("thalamus")?, &args, &[])?;
        let said = process.said("serving").await?;
        let at = |port: &str| -> Result<SocketAddr> {
            Ok(said[port].as_str().with_context(|| format!("no {port} in the log: {said}"))?.parse()?)
        };
        let (served, admin) = (Client::new(at("listen")?), Client::new(at("admin")?));
        eventually("everything is served", async || {
            let answer = served.get("/v1/models").await?;
            let models = answer.json()["data"].as_array().map_or(0, Vec::len);
            ensure!(models == fleet.ports.len() + MORE_NAMES, "{models} models are listed");
            Ok(())
        })
        .await?;
        let (envoy, _, address) = start_envoy(folder, &envoy_manifest(at("ext_proc")?)?).await?;
        Ok(Self { served, envoy: Client::new(address), admin, _processes: [process, envoy] })
    }
}

async fn everything_is_answered(served: &Client) -> Result<String> {
    use Modality::{Audio, Image, Text, Video};
    let mut answers: Vec<(String, Answer)> = Vec::new();
    let kinds: [&[Modality]; 7] =
        [&[Text], &[Image], &[Audio], &[Video], &[Text, Image], &[Image, Video], &[Text, Image, Audio, Video]];
    for kind in kinds {
        let body = chat("any", kind);
        answers.push((format!("{kind:?}"), served.chat(&body).await?));
        answers.push((format!("{kind:?}, streamed"), served.chat(&streamed(body)).await?));
    }
    for name in ["text", "adapter", "vision", "omni"] {
        let body = chat(name, &[Text]);
        answers.push((name.to_owned(), served.chat(&body).await?));
        answers.push((format!("{name}, streamed"), served.chat(&streamed(body)).await?));
    }
    let picture = data("image/png", "picture.png")?;
    let response = json!({"model": "any", "max_output_tokens": 4, "input": [{"role": "user", "content": [
        {"type": "input_text", "text": "what?"}, {"type": "input_image", "image_url": picture, "detail": "auto"}]}]});
    answers.push(("a response".into(), served.post("/v1/responses", response.to_string()).await?));
    answers.push(("a response, streamed".into(), served.post("/v1/responses", streamed(response).to_string()).await?));
    let (_, base64) = picture.split_once(',').context("a data URL")?;
    let message = json!({"model": "any", "max_tokens": 4, "messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64}}, {"type": "text", "text": "what?"}]}]});
    answers.push(("a message".into(), served.post("/v1/messages", message.to_string()).await?));
    answers.push(("a message, streamed".into(), served.post("/v1/messages", streamed(message).to_string()).await?));
    answers.push(("a transcription".into(), transcribe(served, "any", false).await?));
    answers.push(("a transcription, streamed".into(), transcribe(served, "any", true).await?));
    answers.push(("an embedding".into(), embed(served, "any").await?));
    for (name, answer) in &answers {
        ensure!(answer.status == 200, "{name}: {}", answer.shown());
        let is_whole =
            !name.ends_with("streamed") || answer.text().starts_with("data:") || answer.text().starts_with("event:");
        ensure!(is_whole, "{name}: {}", answer.text());
    }
    Ok(format!("{} of {}", answers.len(), answers.len()))
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body
}

/// What media add to a prompt by the engine's own count, and by ours before it was sent.
async fn tokens_are_estimated(served: &Client, admin: &Client) -> Result<String> {
    use Modality::{Audio, Image, Text, Video};
    let usage = async |body: &Value| {
        let answer = served.chat(body).await?;
        answer.json()["usage"]["prompt_tokens"].as_u64().with_context(|| answer.shown())
    };
    let mut said = Vec::new();
    for (model, medium) in [
        ("tiny-Qwen2-VL", Image),
        ("tiny-Qwen2-VL", Video),
        ("tiny-Qwen2-Audio", Audio),
        ("tiny-Qwen2.5-Omni", Image),
        ("tiny-Qwen2.5-Omni", Audio),
        ("tiny-Qwen2.5-Omni", Video),
    ] {
        let with = chat(model, &[Text, medium]);
        let counted = usage(&with).await? - usage(&chat(model, &[Text])).await?;
        let explained = admin.post("/debug/explain", with.to_string()).await?.json();
        let estimated = explained["goesTo"]["estimatedTokens"]["media"].as_u64();
        let estimated = estimated.with_context(|| format!("{model}, {medium}: {explained}"))?;
        ensure!(
            estimated.abs_diff(counted) <= 2 + counted / 10,
            "{model}, {medium}: {estimated}, and it counts {counted}"
        );
        said.push(format!("{medium} {estimated}/{counted}"));
    }
    Ok(said.join(", "))
}

/// Names as `writeUUIDs` has them written: each engine answers what has one, and knows the item again by its name alone.
async fn names_are_known(fleet: &Fleet) -> Result<String> {
    use Modality::{Audio, Image, Video};
    let mut said = Vec::new();
    for (server, medium) in
        [("vision", Image), ("vision", Video), ("audio", Audio), ("omni", Image), ("omni", Audio), ("omni", Video)]
    {
        let client = fleet.client(server);
        let named = named(&chat(server, &[medium]).to_string(), &format!("{medium} of ours"))?;
        let answer = client.post("/v1/chat/completions", named.clone()).await?;
        ensure!(answer.status == 200, "{server}, {medium}: {}", answer.shown());
        let mut bare: Value = serde_json::from_str(&named)?;
        for part in bare["messages"][0]["content"].as_array_mut().context("parts")? {
            for (key, value) in part.as_object_mut().context("a part")? {
                if ["image_url", "audio_url", "input_audio", "video_url"].contains(&&**key) {
                    *value = Value::Null;
                }
            }
        }
        let known = client.chat(&bare).await?;
        ensure!(known.status == 200, "{server}, {medium}, by its name alone: {}", known.shown());
        said.push(format!("{server}, {medium}"));
    }
    Ok(said.join("; "))
}

/// The body with this name beside each item that has none.
fn named(body: &str, name: &str) -> Result<String> {
    let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, request::Limits::default())?;
    scanner.feed(body.as_bytes())?;
    let names: Vec<Splice> = scanner.finish()?.media.iter().filter_map(|item| item.named(name)).collect();
    ensure!(!names.is_empty(), "nothing could be named in {body}");
    Ok(String::from_utf8(request::splice([Bytes::from(body.to_owned())], &names).concat())?)
}

async fn limits_decide(served: &Client) -> Result<String> {
    let pictures = [Modality::Image; 3];
    let refused = served.chat(&chat("limited", &pictures)).await?;
    let says = "model \"limited\" takes at most 2 image items in a request, and this one has 3";
    ensure!(refused.shown() == format!("400 too_many_media_items: {says}"), "{}", refused.shown());
    let elsewhere = served.chat(&chat("any", &pictures)).await?;
    ensure!(elsewhere.status == 200, "three pictures for any: {}", elsewhere.shown());
    let long = |model: &str, letters: usize| json!({"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "x".repeat(letters)}]});
    let refused = served.chat(&long("limited", 70_000)).await?;
    ensure!(refused.shown().starts_with("400 context_length_exceeded"), "{}", refused.shown());
    // Estimated at a quarter of what these models, whose tokens are bytes, make of it.
    let near = served.chat(&long("limited", 6_000)).await?;
    ensure!(near.status == 400 && near.text().contains("maximum context length is 4096"), "{}", near.shown());
    let longer = served.chat(&long("any", 20_000)).await?;
    ensure!(longer.status == 200, "a long prompt for any: {}", longer.shown());
    Ok("by items and by context".into())
}

async fn a_restart_is_noticed(fleet: &mut Fleet, served: &Client, folder: &Path) -> Result<String> {
    let picture = chat("limited", &[Modality::Image]);
    ensure!(served.chat(&picture).await?.status == 200, "a picture is taken before");
    let mut args = LIMITED;
    args[5] = r#"{"image":0,"video":1}"#;
    fleet.restart("limited", &args)?;
    let itself = fleet.client("limited");
    eventually("the server goes", async || {
        ensure!(itself.get("/health").await.is_err(), "it still answers");
        Ok(())
    })
    .await?;
    fleet.until_healthy("limited", folder).await?;
    let began = Instant::now();
    eventually("it is noticed", async || {
        let shown = served.chat(&picture).await?.shown();
        ensure!(shown.starts_with("400 unsupported_modality"), "{shown}");
        Ok(())
    })
    .await?;
    Ok(format!("{:.1} s after it answers again", began.elapsed().as_secs_f64()))
}

/// What was answered with 4xx by all of them, of what clients ask for.
async fn refusals(fleet: &Fleet) -> Result<f64> {
    let mut sum = 0.0;
    for name in fleet.ports.keys() {
        let is_refusal = |line: &str| line.starts_with("http_requests_total{") && line.contains("status=\"4xx\"");
        let is_asked = |line: &str| !line.contains("handler=\"/tokenize\"") && line.contains("method=\"POST\"");
        sum += fleet.client(name).get("/metrics").await?.sum(|line| is_refusal(line) && is_asked(line))?;
    }
    Ok(sum)
}

fn chat(model: &str, modalities: &[Modality]) -> Value {
    let part = |modality: &Modality| match modality {
        Modality::Image => {
            json!({"type": "image_url", "image_url": {"url": data("image/png", "picture.png").unwrap_or_default()}})
        }
        Modality::Audio => {
            let sound = data("audio/wav", "sound.wav").unwrap_or_default();
            json!({"type": "input_audio", "input_audio": {"data": sound.rsplit(',').next(), "format": "wav"}})
        }
        Modality::Video => {
            json!({"type": "video_url", "video_url": {"url": data("video/mp4", "film.mp4").unwrap_or_default()}})
        }
        _ => json!({"type": "text", "text": "what?"}),
    };
    let parts: Vec<Value> = modalities.iter().map(part).collect();
    json!({"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": parts}]})
}

/// A file of `e2e/engines` as a URL: the smallest of their kinds that every model family takes.
fn data(media_type: &str, file: &str) -> Result<String> {
    let bytes = std::fs::read(root().join("e2e/engines").join(file)).with_context(|| format!("reading {file}"))?;
    Ok(format!("data:{media_type};base64,{}", BASE64_STANDARD.encode(bytes)))
}

async fn transcribe(client: &Client, model: &str, stream: bool) -> Result<Answer> {
    let sound = std::fs::read(root().join("e2e/engines/sound.wav")).context("reading sound.wav")?;
    let field =
        |name: &str, value: &str| format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let mut body = field("model", model);
    if stream {
        body += &field("stream", "true");
    }
    let mut body = body.into_bytes();
    body.extend_from_slice(
        b"--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\ncontent-type: audio/wav\r\n\r\n",
    );
    body.extend_from_slice(&sound);
    body.extend_from_slice(b"\r\n--b--\r\n");
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    client.send(Method::POST, "/v1/audio/transcriptions", &headers, Bytes::from(body)).await
}

async fn embed(client: &Client, model: &str) -> Result<Answer> {
    client.post("/v1/embeddings", json!({"model": model, "input": "hi"}).to_string()).await
}
