//! `thalamus serve URL …` and `thalamus probe URL …`: model servers that nobody declared.

#![expect(clippy::unwrap_used, reason = "what helps a test may panic like it")]

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use modelserver_sim::{Options, Sim};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::serving::Serving;

/// A model server that ends when it is told to, with its connections.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    serve: JoinHandle<()>,
}

impl Server {
    async fn start(port: u16, name: &str, models: &[&str]) -> Self {
        let given_up = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < given_up, "{error}"),
            }
        };
        let address = listener.local_addr().unwrap();
        let models = models.iter().map(|model| model.parse().unwrap()).collect();
        let options = Options { name: name.into(), models, latency: Duration::ZERO, slots: 4 };
        let stop = CancellationToken::new();
        let serve = Sim::new(options).serve(listener, stop.clone());
        Self { address, stop, serve: tokio::spawn(async move { serve.await.unwrap() }) }
    }

    async fn end(self) {
        self.stop.cancel();
        self.serve.await.unwrap();
    }
}

fn picture() -> Value {
    json!([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}])
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_found_out_served_behind_one_name_and_watched() {
    let text = Server::start(0, "text", &["llama=text:text:chat completions,tokenize"]).await;
    let vision = Server::start(0, "vision", &["qwen-vl=text,image:text:chat completions,tokenize"]).await;
    let folder = tempfile::tempdir().unwrap();
    let (text_at, vision_at) = (text.address.to_string(), format!("http://{}/v1", vision.address));
    let saved = folder.path().join("saved");
    let serving = Serving::start(&[&text_at, &vision_at, "--as", "chat", "--save", saved.to_str().unwrap()]);
    let hi = json!("hi");
    serving.until("chat", &hi, r#""server":"text""#);
    serving.until("chat", &picture(), r#""server":"vision""#);
    serving.until("qwen-vl", &hi, r#""server":"vision""#);
    serving.until("llama", &picture(), "unsupported_modality");

    // The same server without pictures: it is noticed, and refused here instead of there.
    let port = vision.address.port();
    vision.end().await;
    let vision = Server::start(port, "vision", &["qwen-vl=text:text:chat completions,tokenize"]).await;
    serving.until("chat", &picture(), "unsupported_modality");
    // One that is away is known still.
    vision.end().await;
    serving.until("qwen-vl", &hi, "endpoint_unreachable");
    let _vision = Server::start(port, "vision", &["qwen-omni=text,audio,image:text:chat completions,tokenize"]).await;
    serving.until("qwen-omni", &picture(), r#""server":"vision""#);
    serving.until("qwen-vl", &hi, "model_not_found");

    // What was saved says the same, and is never written over.
    let thalamus = || Command::new(env!("CARGO_BIN_EXE_thalamus"));
    let checked = thalamus().args(["check", "-f", saved.to_str().unwrap()]).output().unwrap();
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.contains("InferenceModel default/qwen-vl") && checked.contains("0 errors"), "{checked}");
    let again = thalamus().args(["serve", &text_at, "--save", saved.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("pools.yaml is there already"), "{said}");
    text.end().await;
}

/// Every port of an InferencePool counts for each of its pods, so servers of one kind on two ports are two pools.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_says_the_same_of_servers_on_one_host() {
    let spec = ["qwen=text:text:chat completions,tokenize"];
    let (one, other) = (Server::start(0, "one", &spec).await, Server::start(0, "other", &spec).await);
    let (one_at, other_at) = (one.address.to_string(), other.address.to_string());
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved");
    let _serving = Serving::start(&[&one_at, &other_at, "127.0.0.1:1", "--save", saved.to_str().unwrap()]);
    let pools = std::fs::read_to_string(saved.join("pools.yaml")).unwrap();
    let ports = |text: &str| text.matches("- number: ").count();
    assert_eq!((pools.matches("kind: InferencePool").count(), ports(&pools)), (2, 2), "{pools}");
    let models = std::fs::read_to_string(saved.join("models.yaml")).unwrap();
    assert_eq!((models.matches("poolRef:").count(), models.matches("weight: 1").count()), (2, 2), "{models}");
    let thalamus = || Command::new(env!("CARGO_BIN_EXE_thalamus"));
    let none = folder.path().join("none");
    let nothing = thalamus().args(["serve", "127.0.0.1:1", "--save", none.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(!nothing.status.success() && said.contains("nothing to write") && !none.exists(), "{said}");
    let twice = thalamus().args(["serve", "127.0.0.1:1", "--as=chat", "--as=chat=qwen"]).output().unwrap();
    let said = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(!twice.status.success() && said.contains("--as chat: it is given twice"), "{said}");
    one.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_how_busy_servers_are_without_a_cluster() {
    let server = Server::start(0, "one", &["m=text:text:chat completions,tokenize"]).await;
    let address = server.address.to_string();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = free.local_addr().unwrap().to_string();
    drop(free);
    let serving = Serving::start(&[&address, "--admin-listen", &admin]);
    serving.until("m", &json!("hi"), r#""server":"one""#);
    let top =
        |picker: &str| Command::new(env!("CARGO_BIN_EXE_thalamus")).args(["top", picker, "--once"]).output().unwrap();
    let shown = String::from_utf8_lossy(&top(&format!("http://{admin}/")).stdout).into_owned();
    assert!(shown.contains("IN FLIGHT") && shown.contains(&address), "{shown}");
    // The servers' own port is no picker's.
    let wrong = top(&address);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("404") && said.contains("/debug/load"), "{said}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_later_joins() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let serving = Serving::start(&[&address.to_string()]);
    serving.until("m", &json!("hi"), "nothing_served");
    let _server = Server::start(address.port(), "late", &["m=text:text:chat completions,tokenize"]).await;
    serving.until("m", &json!("hi"), r#""server":"late""#);
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_shows_what_each_takes_and_fails_where_one_cannot_be_asked() {
    let server = Server::start(0, "a", &["m=text,image<=4:text:chat completions,tokenize:4096"]).await;
    let address = server.address.to_string();
    let probe = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_thalamus")).arg("probe").args(args).output().unwrap();
    let table = probe(&[&address, "127.0.0.1:1"]);
    let shown = String::from_utf8_lossy(&table.stdout).into_owned();
    let row = shown.lines().find(|line| line.trim_start().starts_with("m ")).expect("a row of the model");
    let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(
        cells,
        ["m", &*address, "yes", "≤ 4", "-", "-", "text", "4096", "chat completions, tokenize"],
        "{shown}"
    );
    assert!(shown.contains("cannot be reached: connection refused") && !table.status.success(), "{shown}");
    let json = probe(&["-o", "json", &address]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let model = &json[0]["models"][0];
    assert_eq!(
        (&model["input"]["image"], &model["maxItems"]["image"], &model["contextLength"]),
        (&json!(true), &json!(4), &json!(4096))
    );
    let bad = probe(&["https://secret"]);
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(said.contains("clear text"), "{said}");
}
