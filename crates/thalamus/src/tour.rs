//! The tour: one request of each kind, where it went, and why. Shown so that a glance is enough.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use daemon::Table;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kube::ResourceExt as _;
use picker::Picker;
use request::RequestHead;
use routing::{Draw, Model};
use serde_json::{Value, json};

use crate::screen::{Screen, line};
use crate::simulated::SimulatedPod;

/// A request of the tour.
struct Stop {
    title: &'static str,
    body: Value,
}

/// What came of it.
struct Landing {
    who: String,
    pool: String,
    why: String,
    as_expected: bool,
}

/// The smallest valid files of their kinds that a data URL can carry; a simulator does not look inside.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn stops() -> Vec<Stop> {
    let ask = |model: &str, parts: Value| json!({"model": model, "messages": [{"role": "user", "content": parts}]});
    let wav =
        BASE64_STANDARD.encode(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80>\0\0\0}\0\0\x02\0\x10\0data\0\0\0\0");
    let image = json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PIXEL}")}});
    let video = json!({"type": "video_url", "video_url": {"url": "https://example.com/clip.mp4"}});
    let audio = json!({"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}});
    let text = |text: &str| json!({"type": "text", "text": text});
    vec![
        Stop { title: "text", body: ask("chat", json!("Tell me a joke.")) },
        Stop { title: "an image", body: ask("chat", json!([text("What is this?"), image])) },
        Stop { title: "a video", body: ask("chat", json!([text("What happens?"), video])) },
        Stop { title: "audio", body: ask("chat", json!([text("What is said?"), audio])) },
        Stop { title: "all of it", body: ask("chat", json!([text("Compare."), image, audio, video])) },
        Stop { title: "audio, for a reader", body: ask("reader", json!([text("What is said?"), audio])) },
    ]
}

/// Sends each request, shows where it landed, and says whether all landed where the table says.
pub(crate) async fn run(screen: Screen, picker: &Picker, address: SocketAddr) -> Result<bool> {
    let mut table = Table::default();
    table.row(["REQUEST", "WENT TO", "POOL", "WHY"]);
    let mut all = true;
    for stop in stops() {
        let landing =
            visit(picker, address, &stop).await.with_context(|| format!("the request with {}", stop.title))?;
        all &= landing.as_expected;
        let mark = if landing.as_expected { "" } else { "  ← NOT where the table says" };
        table.row([stop.title.to_owned(), landing.who, landing.pool, format!("{}{mark}", landing.why)]);
    }
    screen.table(&table);
    Ok(all)
}

async fn visit(picker: &Picker, address: SocketAddr, stop: &Stop) -> Result<Landing> {
    let body = Bytes::from(stop.body.to_string());
    let expected = expected(picker, &body)?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("http://{address}/v1/chat/completions"))
        .header("content-type", "application/json")
        .body(Full::new(body))
        .context("building the request")?;
    let response = client.request(request).await.context("sending it")?;
    let status = response.status();
    let answer = response.into_body().collect().await.context("reading the answer")?.to_bytes();
    let answer: Value = serde_json::from_slice(&answer).context("the answer is not JSON")?;
    let server = answer["sim"]["server"].as_str();
    Ok(match (expected, server) {
        (Ok((pool, pods, why)), Some(server)) => {
            Landing { as_expected: pods.iter().any(|pod| pod == server), who: server.to_owned(), pool, why }
        }
        (Err((code, message)), None) => Landing {
            who: format!("nobody: {}", status.as_u16()),
            pool: "-".into(),
            why: message,
            as_expected: answer["error"]["code"] == code,
        },
        (_, server) => Landing {
            who: server.unwrap_or("nobody").to_owned(),
            pool: "?".into(),
            why: format!("answered {status}: {}", answer["error"]["message"]),
            as_expected: false,
        },
    })
}

/// The pool that the table has for a body, its pods and the reason; or the code and message of the refusal.
type Expected = Result<(String, Vec<String>, String), (&'static str, String)>;

fn expected(picker: &Picker, body: &Bytes) -> Result<Expected> {
    let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
    let handler = picker.handler().unobserved();
    let mut transaction = handler.open(&head).context("reading our own request")?;
    transaction.feed(body).context("reading our own request")?;
    let explanation = transaction.explain(Instant::now(), Draw::new(fastrand::u64(..)));
    Ok(match explanation.context("reading our own request")?.outcome {
        Ok(plan) => {
            let pool = plan.first().pool();
            let (_, table) = handler.director.table().context("there is a table")?;
            let pods =
                table.pools[pool].endpoints.keys().filter_map(|name| Some(name.rsplit_once("-rank-")?.0.to_owned()));
            Ok((pool.to_string(), pods.collect(), plan.why.to_string()))
        }
        Err(rejection) => Err((rejection.code().as_str(), rejection.to_string())),
    })
}

pub(crate) fn show_pods(screen: Screen, pods: &[SimulatedPod]) {
    let mut table = Table::default();
    table.row(["POD", "ADDRESS", "MODEL", "TAKES", "GIVES"]);
    for SimulatedPod { pod, models, port } in pods {
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
        for model in models {
            let (input, output) = (model.capability.input.to_string(), model.capability.output.to_string());
            table.row([pod.name_any(), format!("{ip}:{port}"), model.name.clone(), input, output]);
        }
    }
    screen.table(&table);
}

pub(crate) fn show_models(screen: Screen, picker: &Picker) {
    let Some((_, routing)) = picker.handler().director.table() else { return };
    let mut table = Table::default();
    table.row(["MODEL", "TAKES", "GIVES", "TARGETS"]);
    for (name, model) in &routing.models {
        let offered = model.offered();
        table.row([name.to_string(), offered.input.to_string(), offered.output.to_string(), targets(model)]);
    }
    screen.table(&table);
}

fn targets(model: &Model) -> String {
    model
        .targets
        .iter()
        .map(|target| format!("{} ({})", target.pool, target.capability.input))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Commands to paste. Each body is what the tour sent.
pub(crate) fn show_commands(screen: Screen, address: SocketAddr, admin: SocketAddr) {
    screen.title("Try it (running until Ctrl-C)");
    line(&format!("# A page to look at: http://{admin}/\n"));
    for stop in stops() {
        let body = stop.body.to_string().replace('\'', "'\\''");
        line(&format!(
            "# {}\ncurl -s http://{address}/v1/chat/completions -H 'content-type: application/json' -d '{body}'\n",
            stop.title
        ));
    }
}
