//! Is what is found of real engines what they really do, and does what is served over them land where it is answered?
//!
//! ```text
//!  probe ──► vLLM: text + adapter, vision, vision with limits, audio, omni, Whisper, embeddings
//!  clients ──► thalamus serve, which found them ──► the same; a 4xx of theirs is a request that was sent wrong
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Method;
use modelserver_sim::questions::questions;
use probe::Prober;
use routing::{AppProtocol, Found, FoundModel, Modality, Operation};
use serde_json::{Value, json};

use super::{Engines, Fleet, Spec};
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
        Spec::new("vision", "vision", &["--served-model-name", "vision"]),
        Spec::new("limited", "vision", &LIMITED),
        Spec::new("audio", "audio", &["--served-model-name", "audio"]),
        Spec::new("omni", "omni", &["--served-model-name", "omni"]),
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
        let (_serving, served) = serve(folder, &fleet).await?;
        let before = refusals(&fleet).await?;
        ensure!(before > 0.0, "engines count what they refused before, or nothing is known of it");
        outcomes.push(("every kind of request is answered", everything_is_answered(&served).await));
        let sent_wrong = refusals(&fleet).await? - before;
        let none_sent_wrong = if sent_wrong == 0.0 {
            Ok("4xx of engines: 0".into())
        } else {
            Err(anyhow::anyhow!("4xx of engines: {sent_wrong}"))
        };
        outcomes.push(("and no engine was sent what it refuses", none_sent_wrong));
        outcomes.push(("what exceeds limits goes elsewhere, or is refused", limits_decide(&served).await));
        tell("starting a server anew, without pictures");
        outcomes
            .push(("a server without pictures is noticed", a_restart_is_noticed(&mut fleet, &served, folder).await));
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
    for name in fleet.addresses.keys() {
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
    for name in fleet.addresses.keys() {
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
            (Operation::Transcriptions, transcribe(&client, name).await?),
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

/// `thalamus serve` over all of them, with one name for all.
async fn serve(folder: &Path, fleet: &Fleet) -> Result<(Process, Client)> {
    let mut args: Vec<String> =
        ["--log-format=json", "serve", "--listen=127.0.0.1:0", "--as=any"].map(Into::into).into();
    args.extend(fleet.addresses.values().map(ToString::to_string));
    let mut process = Process::start(folder, "thalamus", &binary("thalamus")?, &args, &[])?;
    let said = process.said("serving").await?;
    let address = said["listen"].as_str().context("no address in the log")?.parse()?;
    let client = Client::new(address);
    eventually("everything is served", async || {
        let answer = client.get("/v1/models").await?;
        let models = answer.json()["data"].as_array().map_or(0, Vec::len);
        ensure!(models == fleet.addresses.len() + 2, "{models} models are listed");
        Ok(())
    })
    .await?;
    Ok((process, client))
}

async fn everything_is_answered(served: &Client) -> Result<String> {
    use Modality::{Audio, Image, Text, Video};
    let mut answers: Vec<(String, Answer)> = Vec::new();
    let kinds: [&[Modality]; 7] =
        [&[Text], &[Image], &[Audio], &[Video], &[Text, Image], &[Image, Video], &[Text, Image, Audio, Video]];
    for kind in kinds {
        let body = chat("any", kind);
        answers.push((format!("{kind:?}"), served.chat(&body).await?));
        let mut streamed = body;
        streamed["stream"] = true.into();
        answers.push((format!("{kind:?}, streamed"), served.chat(&streamed).await?));
    }
    for name in ["text", "adapter", "vision", "omni"] {
        answers.push((name.to_owned(), served.chat(&chat(name, &[Text])).await?));
    }
    let picture = data("image/png", "picture.png")?;
    let response = json!({"model": "any", "max_output_tokens": 4, "input": [{"role": "user", "content": [
        {"type": "input_text", "text": "what?"}, {"type": "input_image", "image_url": picture, "detail": "auto"}]}]});
    answers.push(("a response".into(), served.post("/v1/responses", response.to_string()).await?));
    let (_, base64) = picture.split_once(',').context("a data URL")?;
    let message = json!({"model": "any", "max_tokens": 4, "messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64}}, {"type": "text", "text": "what?"}]}]});
    answers.push(("a message".into(), served.post("/v1/messages", message.to_string()).await?));
    answers.push(("a transcription".into(), transcribe(served, "any").await?));
    answers.push(("an embedding".into(), embed(served, "any").await?));
    for (name, answer) in &answers {
        ensure!(answer.status == 200, "{name}: {}", answer.shown());
    }
    Ok(format!("{} of {}", answers.len(), answers.len()))
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
    for name in fleet.addresses.keys() {
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

async fn transcribe(client: &Client, model: &str) -> Result<Answer> {
    let sound = std::fs::read(root().join("e2e/engines/sound.wav")).context("reading sound.wav")?;
    let mut body = format!("--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n").into_bytes();
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
