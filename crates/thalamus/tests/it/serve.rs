//! `thalamus serve`: a folder of objects, watched.

#![expect(clippy::unwrap_used, reason = "what helps a test may panic like it")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelserver_sim::{Options, Sim};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

struct Served {
    folder: TempDir,
    process: Child,
    address: String,
    ext_proc: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalamus"));
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--ext-proc-listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--manifests",
        ])
        .arg(folder)
        .stderr(Stdio::piped());
    command
}

/// Serves a folder with these files.
fn serve(files: &[(&str, String)]) -> Served {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut process = command(folder.path()).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains(r#""message":"serving""#)).expect("it serves");
    // Read on, or the process would stop at a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let said = |port: &str| line[port].as_str().unwrap().to_owned();
    Served { folder, process, address: said("listen"), ext_proc: said("ext_proc") }
}

impl Served {
    fn ask(&self, model: &str) -> String {
        let body = serde_json::json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string();
        let url = format!("http://{}/v1/chat/completions", self.address);
        let output = Command::new("curl").args(["-s", &url, "-d", &body]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn until(&self, model: &str, expected: &str) {
        let given_up = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.ask(model);
            if answer.contains(expected) {
                return;
            }
            assert!(Instant::now() < given_up, "{answer} instead of {expected}");
        }
    }
}

/// A model server `sim` for model `m`.
async fn model_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options =
        Options { name: "sim".into(), models: vec!["m=text".parse().unwrap()], latency: Duration::ZERO, slots: 4 };
    tokio::spawn(Sim::new(options).serve(listener, CancellationToken::new()));
    address
}

fn pool(port: u16) -> String {
    format!(
        "{{apiVersion: inference.networking.k8s.io/v1, kind: InferencePool, metadata: {{name: p}}, \
         spec: {{selector: {{matchLabels: {{app: p}}}}, targetPorts: [{{number: {port}}}]}}}}"
    )
}

fn model(name: &str) -> String {
    format!(
        "{{apiVersion: thalamus.dev/v1alpha1, kind: InferenceModel, metadata: {{name: {name}}}, \
         spec: {{modelName: {name}, poolRef: {{name: p}}, targetModels: [{{name: m}}]}}}}"
    )
}

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: p}}, status: {podIP: 127.0.0.1}}";

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_taken_as_they_are_saved_and_a_slip_changes_nothing() {
    let port = model_server().await.port();
    let served = serve(&[("pool.yaml", pool(port)), ("models.yaml", model("one")), ("pods.yaml", POD.into())]);
    served.until("one", r#""server":"sim""#);
    served.until("two", "model_not_found");

    let models = served.folder.path().join("models.yaml");
    std::fs::write(&models, format!("{}\n---\n{}", model("one"), model("two"))).unwrap();
    served.until("two", r#""server":"sim""#);

    // An editor that writes beside and renames; and a file that does not parse while another does.
    std::fs::write(served.folder.path().join("broken.yaml"), "kind: [").unwrap();
    std::fs::write(served.folder.path().join("new"), model("three")).unwrap();
    std::fs::rename(served.folder.path().join("new"), &models).unwrap();
    served.until("two", r#""server":"sim""#);
    std::fs::remove_file(served.folder.path().join("broken.yaml")).unwrap();
    served.until("three", r#""server":"sim""#);
    served.until("two", "model_not_found");

    std::fs::remove_file(served.folder.path().join("pods.yaml")).unwrap();
    served.until("three", "no_endpoint");
}

#[test]
fn what_cannot_be_read_is_named_by_file_object_and_field() {
    let said = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bad.yaml"), text).unwrap();
        let output = command(folder.path()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let syntax = said("kind: [");
    assert!(syntax.contains("bad.yaml") && syntax.contains("not valid YAML"), "{syntax}");
    let field = said(&pool(8000).replace("[{number: 8000}]", "[{number: many}]"));
    assert!(field.contains("bad.yaml") && field.contains("InferencePool p") && field.contains("many"), "{field}");
    let version =
        said("{apiVersion: inference.networking.x-k8s.io/v1alpha2, kind: InferencePool, metadata: {name: p}}");
    assert!(
        version.contains("InferencePool p has apiVersion inference.networking.x-k8s.io/v1alpha2: only pools of"),
        "{version}"
    );
}

/// A gateway asks there before it sends requests (gRPC health, in a message of no fields).
#[test]
fn gateways_find_an_endpoint_picker() {
    let served = serve(&[]);
    let request = served.folder.path().join("request");
    std::fs::write(&request, [0; 5]).unwrap();
    let asks = |scheme: &str| {
        let url = format!("{scheme}://{}/grpc.health.v1.Health/Check", served.ext_proc);
        let body = format!("@{}", request.display());
        let mut curl = Command::new("curl");
        curl.args(["-sk", "-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", &body, &url]);
        if scheme == "http" {
            curl.arg("--http2-prior-knowledge");
        }
        curl.output().unwrap().stdout
    };
    let given_up = Instant::now() + Duration::from_secs(30);
    // One field of two bytes, `status: SERVING`.
    while asks("http") != [0, 0, 0, 0, 2, 8, 1] {
        assert!(Instant::now() < given_up, "it never serves");
    }
    assert_eq!(asks("https"), [0, 0, 0, 0, 2, 8, 1], "in either form");
}
