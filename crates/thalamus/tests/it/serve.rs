//! `thalamus serve`: a folder of objects, watched.

#![expect(clippy::unwrap_used, reason = "what helps a test may panic like it")]

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use modelserver_sim::{Options, Sim};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::serving::{Serving, command};

struct Served {
    folder: TempDir,
    serving: Serving,
}

fn args(folder: &Path) -> [&OsStr; 4] {
    ["--ext-proc-listen".as_ref(), "127.0.0.1:0".as_ref(), "--manifests".as_ref(), folder.as_os_str()]
}

/// Serves a folder with these files.
fn serve(files: &[(&str, String)]) -> Served {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let serving = Serving::start(&args(folder.path()));
    Served { folder, serving }
}

impl Served {
    #[track_caller]
    fn until(&self, model: &str, expected: &str) {
        self.serving.until(model, &"hi".into(), expected);
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
        let output = command(&args(folder.path())).output().unwrap();
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
        let url = format!("{scheme}://{}/grpc.health.v1.Health/Check", served.serving.address("ext_proc"));
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
