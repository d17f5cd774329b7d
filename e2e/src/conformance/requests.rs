//! Real requests through Istio: what a client meets when everything between it and a model server is real.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Outcome, Tools, available, install_controller};
use crate::lab::Lab;
use crate::{Answer, Client, eventually, root};

/// How many checks there are.
pub(super) const CHECKS: usize = 13;

struct Requests {
    lab: Lab,
    gateway: Client,
}

pub(super) async fn run(tools: &Tools, folder: &Path) -> Result<Vec<Outcome>> {
    let lab = tools.lab(folder, false, &[("gw", "serving"), ("unused", "wide")]).await?;
    install_controller(&lab).await?;
    lab.cluster.apply_all(&objects()?)?;
    for (namespace, deployment) in [
        ("serving", "text-picker"),
        ("serving", "vision-picker"),
        ("wide", "thalamus-picker"),
        ("serving", "text"),
        ("serving", "vision"),
        ("wide", "text"),
        ("wide", "vision"),
        ("serving", "gw-istio"),
    ] {
        available(&lab, namespace, deployment).await.with_context(|| lab.log(namespace, deployment, "picker"))?;
    }
    let address: SocketAddr = eventually("the gateway has an address", async || {
        let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
        let ip = lab.cluster.kubectl(&["get", "service", "gw-istio", "-n", "serving", "-o", path])?;
        Ok(format!("{ip}:80").parse()?)
    })
    .await?;
    let requests = Requests { lab, gateway: Client::new(address) };
    for host in ["text", "vision", "wide"] {
        eventually(&format!("{host} is served"), async || {
            let answer = requests.chat(host, &chat("chat", None)).await?;
            ensure!(answer.status == 200, "{}", answer.shown());
            Ok(())
        })
        .await?;
    }

    let mut outcomes = Vec::new();
    let mut note = |name: &str, came: Result<String>| {
        let (passed, says) = match came {
            Ok(says) => (true, says),
            Err(error) => (false, format!("{error:#}")),
        };
        outcomes.push(Outcome { name: name.to_owned(), passed, says });
    };
    note("a text goes to the text pool, and its model is renamed with the right length", requests.renamed().await);
    note("a picture arrives byte for byte", requests.picture(100_000).await);
    note("so does one of 20 MB", requests.picture(15_000_000).await);
    note("what only another pool takes is refused with model_elsewhere", requests.elsewhere("text").await);
    note("also by a picker of the whole namespace", requests.elsewhere("wide").await);
    note("the pool's condition says so", requests.condition().await);
    note("70 MB are refused with 413 in our JSON", requests.too_large().await);
    note("a forged destination is ignored", requests.forged().await);
    note("server-sent events come one by one", requests.events().await);
    note("a path that is not known goes to the pool", requests.other_path().await);
    note("without a picker FailOpen answers", requests.without_picker("open", 200).await);
    note("and FailClose refuses", requests.without_picker("closed", 500).await);
    note("a picker that is killed under load costs no request", requests.killed().await);
    Ok(outcomes)
}

/// The file of objects, simulated model servers for them, and a route for each host.
fn objects() -> Result<String> {
    let path = root().join("e2e/gateways/requests.yaml");
    let mut objects = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    for namespace in ["serving", "wide"] {
        for (pool, model) in [("text", "llama=text"), ("vision", "qwen-vl=text,image")] {
            objects += &format!(
                "\n---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {pool}, namespace: {namespace}}}, spec: {{replicas: 2, \
                 selector: {{matchLabels: {{pool: {pool}}}}}, template: {{metadata: {{labels: {{pool: {pool}}}}}, spec: {{containers: [{{name: \
                 sim, image: modelserver-sim, args: [--model, \"{model}\"], ports: [{{containerPort: 8000}}], env: [{{name: POD_NAME, \
                 valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]}}]}}}}}}}}"
            );
        }
    }
    for (host, namespace, pool) in [
        ("text", "serving", "text"),
        ("vision", "serving", "vision"),
        ("open", "serving", "open"),
        ("closed", "serving", "closed"),
        ("wide", "wide", "text"),
    ] {
        objects += &format!(
            "\n---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {host}, namespace: {namespace}}}, spec: \
             {{parentRefs: [{{name: gw, namespace: serving}}], hostnames: [{host}.example.com], rules: [{{backendRefs: [{{group: \
             inference.networking.k8s.io, kind: InferencePool, name: {pool}}}]}}]}}}}"
        );
    }
    let picker =
        crate::kubectl().arg("kustomize").arg(root().join("manifests/picker")).output().context("running kubectl")?;
    ensure!(picker.status.success(), "{}", String::from_utf8_lossy(&picker.stderr));
    let picker = String::from_utf8(picker.stdout)?.replace("namespace: serving", "namespace: wide");
    Ok(format!("{objects}\n---\n{picker}"))
}

/// A chat request, with a picture of so many random bytes.
fn chat(model: &str, media_bytes: Option<usize>) -> Value {
    let mut parts = vec![json!({"type": "text", "text": "What is in this picture?"})];
    if let Some(bytes) = media_bytes {
        parts.push(json!({"type": "image_url", "image_url": {"url": picture(bytes)}}));
    }
    json!({"model": model, "messages": [{"role": "user", "content": parts}]})
}

/// A data URL of random bytes.
fn picture(bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(7);
    let picture: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(picture))
}

impl Requests {
    async fn send(
        &self,
        host: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let host = format!("{host}.example.com");
        let mut all = vec![("host", &*host), ("content-type", "application/json")];
        all.extend(headers);
        self.gateway.send(method, path, &all, body).await
    }

    async fn chat(&self, host: &str, body: &Value) -> Result<Answer> {
        self.send(host, Method::POST, "/v1/chat/completions", &[], body.to_string().into()).await
    }

    async fn renamed(&self) -> Result<String> {
        let body = chat("chat", None);
        let answer = self.chat("text", &body).await?;
        let sim = answer.json()["sim"].clone();
        ensure!(answer.status == 200 && answer.json()["model"] == "llama", "{}", answer.text());
        let expected = body.to_string().len() + "llama".len() - "chat".len();
        ensure!(sim["bytes"] == expected, "{} bytes instead of {expected}", sim["bytes"]);
        Ok(format!("{expected} bytes"))
    }

    async fn picture(&self, bytes: usize) -> Result<String> {
        let answer = self.chat("vision", &chat("chat", Some(bytes))).await?;
        ensure!(answer.status == 200, "{}", answer.shown());
        let sim = &answer.json()["sim"];
        // The same but for the name that the model has there.
        let expected = chat("qwen-vl", Some(bytes)).to_string();
        ensure!(sim["bytes"] == expected.len(), "{} bytes instead of {}", sim["bytes"], expected.len());
        let digest = modelserver_sim::digest([expected.as_bytes()]);
        ensure!(sim["digest"] == digest.as_str(), "the server read other bytes: {} instead of {digest}", sim["digest"]);
        Ok(format!("{} bytes, the same digest", expected.len()))
    }

    async fn elsewhere(&self, host: &str) -> Result<String> {
        let answer = self.chat(host, &chat("chat", Some(1000))).await?;
        ensure!(answer.status == 404 && answer.json()["error"]["code"] == "model_elsewhere", "{}", answer.shown());
        Ok(answer.shown())
    }

    async fn condition(&self) -> Result<String> {
        eventually("the condition is there", async || {
            let path = "jsonpath={.status.parents[*].conditions[?(@.type==\"TargetsReachable\")].reason}";
            let said = self.lab.cluster.kubectl(&["get", "inferencepool", "text", "-n", "serving", "-o", path])?;
            ensure!(said == "OtherPools", "{said:?}");
            Ok(format!("TargetsReachable: {said}"))
        })
        .await
    }

    async fn too_large(&self) -> Result<String> {
        let answer = self.chat("vision", &chat("chat", Some(52 << 20))).await?;
        ensure!(answer.status == 413 && answer.json()["error"]["code"] == "request_too_large", "{}", answer.shown());
        Ok(answer.shown())
    }

    async fn forged(&self) -> Result<String> {
        let forged = [
            ("x-gateway-destination-endpoint", "10.245.0.1:1"),
            ("x-gateway-destination-endpoint-subset", "10.245.0.1:1"),
        ];
        let body = chat("chat", None).to_string();
        let answer = self.send("text", Method::POST, "/v1/chat/completions", &forged, body.into()).await?;
        ensure!(answer.status == 200, "{}", answer.shown());
        Ok(answer.status.to_string())
    }

    /// Reads what arrives as it arrives.
    async fn events(&self) -> Result<String> {
        let mut body = chat("chat", None);
        body["stream"] = true.into();
        let body = body.to_string();
        let mut socket = tokio::net::TcpStream::connect(self.gateway.address()).await?;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: text.example.com\r\ncontent-type: application/json\r\nx-sim-latency-ms: \
             1500\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(body.as_bytes()).await?;
        let (mut reads, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let read = socket.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            let events = String::from_utf8_lossy(&buffer[..read]).matches("data: ").count();
            reads.extend(Some(events).filter(|events| *events > 0));
        }
        ensure!(
            reads.len() > 3 && reads[..reads.len() - 1].iter().all(|events| *events == 1),
            "events of each read: {reads:?}"
        );
        Ok(format!("events of each read: {reads:?}"))
    }

    async fn other_path(&self) -> Result<String> {
        let answer = self.send("text", Method::GET, "/health", &[], Bytes::new()).await?;
        ensure!(answer.status == 200, "{}", answer.shown());
        let refused = self.send("text", Method::POST, "/sleep", &[], Bytes::new()).await?;
        ensure!(refused.status == 404 && refused.json()["error"]["code"].is_string(), "{}", refused.shown());
        Ok(format!("GET /health {}, POST /sleep {}", answer.status, refused.status))
    }

    async fn without_picker(&self, host: &str, expected: u16) -> Result<String> {
        eventually("as the pool says", async || {
            let answer = self.chat(host, &chat("llama", None)).await?;
            ensure!(answer.status == expected, "{}", answer.shown());
            Ok(answer.status.to_string())
        })
        .await
    }

    /// Two pickers: one is killed in the middle of requests that it decides, and what it had not decided goes to the other.
    async fn killed(&self) -> Result<String> {
        let names = [
            "get",
            "pods",
            "-n",
            "serving",
            "-l",
            "app.kubernetes.io/instance=text-picker",
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ];
        let pickers = self.lab.cluster.kubectl(&names)?;
        let killed = pickers.split(' ').next().context("there are pickers")?;
        let load = async {
            let (mut servers, mut wrong) = (BTreeSet::new(), Vec::new());
            let started = tokio::time::Instant::now();
            let mut sent = 0;
            while started.elapsed() < Duration::from_secs(8) {
                let answer = self.chat("text", &chat("chat", None)).await?;
                sent += 1;
                match answer.server().filter(|_| answer.status == 200) {
                    Some(server) => _ = servers.insert(server),
                    None => wrong.push(answer.shown()),
                }
            }
            Ok::<_, anyhow::Error>((sent, servers, wrong))
        };
        let kill = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.lab.cluster.kubectl(&["delete", "pod", "-n", "serving", killed, "--wait=false"])
        };
        let (load, killed) = tokio::join!(load, kill);
        killed?;
        let (sent, servers, wrong) = load?;
        if !wrong.is_empty() {
            bail!("{} of {sent} were not answered, as in {}", wrong.len(), wrong[0]);
        }
        Ok(format!("{sent} requests, all answered, by {} servers", servers.len()))
    }
}
