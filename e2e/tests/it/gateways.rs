//! Does a picker stand behind gateways as others do, and in the place of other pickers?

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::{Client, Cluster, Options, PodSpec, Process, World, binary, eventually, gateway_api, h2spec, root};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Shared;
use crate::kubectl::until_condition;
use crate::routing::{chat, image, text};

/// What Istio 1.31's Envoy sent over one connection to an endpoint picker: two requests, each to the end of its response.
const ISTIO: &[u8] = include_bytes!("../../testdata/istio-plain.bin");

/// Its greeting where a DestinationRule asks for TLS and names no `sni`.
const ISTIO_GREETING: &[u8] = include_bytes!("../../testdata/istio-tls-greeting.bin");

/// The head of a frame: its type, its stream, and how long its content is.
fn head(bytes: &[u8]) -> Option<(u8, u32, usize)> {
    let [a, b, c, kind, _, stream @ ..] = bytes.get(..9)? else { return None };
    let stream = u32::from_be_bytes(stream.try_into().ok()?);
    Some((*kind, stream, u32::from_be_bytes([0, *a, *b, *c]) as usize))
}

/// Cuts what a client sends behind each frame of data, where it waited for an answer; each with its stream.
fn turns(bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let (mut turns, mut from, mut at) = (Vec::new(), 0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len());
    while let Some((kind, stream, length)) = head(&bytes[at..]) {
        at += 9 + length;
        if kind == 0 {
            turns.push((stream, &bytes[from..at]));
            from = at;
        }
    }
    turns
}

/// Reads frames until one of data comes for a stream; fails on one that says that the stream was refused.
async fn answer(connection: &mut TcpStream, wanted: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        while let Some((kind, stream, length)) = head(&bytes).filter(|(.., length)| bytes.len() >= 9 + length) {
            let content: Vec<u8> = bytes.drain(..9 + length).skip(9).collect();
            ensure!(kind != 3, "stream {stream} was reset: {content:?}");
            ensure!(kind != 7, "the connection was refused: {content:?}");
            if (kind, stream) == (0, wanted) && !content.is_empty() {
                return Ok(content);
            }
        }
        ensure!(connection.read_buf(&mut bytes).await? > 0, "the picker hung up");
    }
}

pub(crate) async fn the_bytes_that_istio_sent_are_answered(shared: &Shared) -> Result<()> {
    // As the suite's manifests start it.
    let options = Options { picker_args: vec!["--test-endpoint-selection".into()], ..Options::default() };
    let mut world = shared.world_with(options).await?;
    world.apply_pool("text")?;
    world.apply_model("llama", "{modelName: llama, poolRef: {name: text}}")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["llama=text"])).await?;
    crate::routing::until_answered(&world, &chat("llama", &text()), "200 text-0").await?;
    let mut connection = TcpStream::connect(world.ext_proc()).await?;
    // A chat, the head of its response with who served it, the response's body and its end; and a list of models, which is answered at once.
    let expected = [
        "x-gateway-destination-endpoint",
        "x-conformance-test-served-endpoint",
        "/v1/chat/completions",
        "",
        r#""object":"list""#,
    ];
    let turns = turns(ISTIO);
    ensure!(turns.len() > expected.len(), "{} turns were recorded", turns.len());
    for ((stream, bytes), expected) in turns.into_iter().zip(expected) {
        connection.write_all(bytes).await?;
        let answer = String::from_utf8_lossy(&answer(&mut connection, stream).await?).into_owned();
        ensure!(answer.contains(expected), "stream {stream} is answered by {answer:?}, without {expected:?}");
    }
    Ok(())
}

/// The cases in which h2spec finds a server at fault.
async fn faults(address: SocketAddr) -> Result<BTreeSet<String>> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut command = tokio::process::Command::new(h2spec()?);
    let output =
        command.args(["--host", &host, "--port", &port, "--timeout", "5"]).output().await.context("running h2spec")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.contains("145 tests"), "h2spec did not run to its end:\n{said}");
    // Each is told where it happens, and once more at the end.
    Ok(said.lines().filter_map(|line| line.trim().strip_prefix("× ")).map(str::to_owned).collect())
}

/// What h2spec finds in h2 0.4 alone, each time: h2 answers streams that it need not answer any more, and is silent to who does not greet it.
/// And of those that it opens to go beyond the limit, most are answered and over before the last one is opened.
const FAULTS_OF_H2: [&str; 4] = [
    "1: Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
    "2: Sends a WINDOW_UPDATE frame on half-closed (remote) stream",
    "2: Sends invalid connection preface",
    "3: Sends a PRIORITY frame on half-closed (remote) stream",
];

pub(crate) async fn h2spec_finds_nothing_that_it_does_not_find_in_h2_itself(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    let mut always = faults(world.ext_proc()).await?;
    // Some cases are a race between an answer and a reset, with h2 alone as well: what is at fault is at fault each time.
    for _ in 0..5 {
        always.retain(|fault| !FAULTS_OF_H2.contains(&&**fault));
        if always.is_empty() {
            return Ok(());
        }
        let again = faults(world.ext_proc()).await?;
        always.retain(|fault| again.contains(fault));
    }
    ensure!(always.is_empty(), "h2spec finds each time: {always:#?}");
    Ok(())
}

pub(crate) async fn what_a_gateways_owner_can_mend_stands_in_the_log(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    // A name that is no DNS name, in a TLS greeting.
    let mut connection = TcpStream::connect(world.ext_proc()).await?;
    connection.write_all(ISTIO_GREETING).await?;
    let mut alert = Vec::new();
    connection.read_to_end(&mut alert).await?;
    ensure!(alert.first() == Some(&21), "an alert was to come, and not {alert:?}");
    crate::trust::until_log(&world.picker, "trafficPolicy.tls.sni").await?;
    // A header that HTTP/2 does not have.
    let mut connection = TcpStream::connect(world.ext_proc()).await?;
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let headers = b"\0\0\x11\x01\x04\0\0\0\x01\x83\x86\x84\x40\x0aconnection\x01x";
    connection.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], settings, headers].concat()).await?;
    let refused = answer(&mut connection, 1).await;
    ensure!(refused.is_err(), "it was answered");
    crate::trust::until_log(&world.picker, "a stream was reset (PROTOCOL_ERROR)").await
}

/// A picker as a chart for another one starts it, with rights to this namespace as that chart gives; only the kubeconfig stands in for the pod.
struct Standalone {
    process: Process,
    http: Client,
    admin: Client,
}

async fn standalone(world: &World, name: &str, flags: &[&str]) -> Result<Standalone> {
    let account = format!("system:serviceaccount:{}:{name}", world.namespace);
    let kubeconfig = world.folder().join(format!("{name}.kubeconfig"));
    world.cluster.write_kubeconfig(&account, &kubeconfig)?;
    let mut args = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--pool-namespace={}", world.namespace),
        "--zap-encoder=json".to_owned(),
        "--health-checking=true".to_owned(),
        "-v=2".to_owned(),
    ];
    // Where it listens is this machine's matter.
    for listen in ["--ext-proc-listen", "--health-listen", "--http-listen", "--admin-listen"] {
        args.push(format!("{listen}=127.0.0.1:0"));
    }
    args.extend(flags.iter().map(|&flag| flag.to_owned()));
    let mut process = Process::start(world.folder(), name, &binary("thalamus-picker")?, &args, &[])?;
    let said = process.said("picker started").await?;
    let client =
        |port: &str| Ok::<_, anyhow::Error>(Client::new(said[port].as_str().context("said")?.parse::<SocketAddr>()?));
    Ok(Standalone { http: client("http")?, admin: client("admin")?, process })
}

/// As the conformance suite's manifests of the reference picker have it.
fn rights(account: &str) -> String {
    format!(
        "{{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {{name: {account}}}, rules: [{{apiGroups: \
         [inference.networking.k8s.io], resources: [inferencepools], verbs: [get, list, watch]}}, {{apiGroups: [''], resources: [pods], verbs: \
         [get, list, watch]}}]}}\n---\n{{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: {account}}}, roleRef: \
         {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {account}}}, subjects: [{{kind: ServiceAccount, name: {account}}}]}}"
    )
}

pub(crate) async fn a_chart_for_another_picker_starts_ours(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    world.apply_pool("mixed")?;
    world.apply_pool("others")?;
    world
        .kubelet
        .run(PodSpec::new("plain-0", "mixed", &["m=text"]).annotated("thalamus.dev/input-modalities", "text"))
        .await?;
    world.kubelet.run(PodSpec::new("eyes-0", "mixed", &["m=text,image"])).await?;
    world.kubelet.run(PodSpec::new("others-0", "others", &["m=text"])).await?;

    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(
        &file,
        "kind: EndpointPickerConfig\nplugins: [{type: queue-scorer}, {type: topology-affinity-scorer}]\n",
    )?;
    let config = format!("--config-file={}", file.path().display());
    let picker = standalone(&world, "chart", &["--pool-name=mixed", &config]).await?;
    crate::trust::until_log(&picker.process, "grant it get, list and watch").await?;
    ensure!(picker.admin.get("/ready").await?.status == 503, "it is ready without a table");
    world.apply(&rights("chart"))?;
    eventually("pictures go where they are taken", async || {
        let answer = picker.http.chat(&chat("m", &image())).await?;
        ensure!(answer.shown() == "200 eyes-0", "{}", answer.shown());
        Ok(())
    })
    .await?;
    ensure!(picker.admin.get("/ready").await?.status == 200, "it decides, and is not ready");
    let log = picker.process.log();
    for said in
        ["no controller", "the plugin topology-affinity-scorer has no equivalent here", "scheduled by scores (queue 1)"]
    {
        ensure!(log.contains(said), "the log does not say {said:?}:\n{}", picker.process.tail());
    }
    // A path that nobody knows goes to the pool, as with every other picker; one that manages servers does not.
    let passed = picker.http.get("/hello").await?;
    ensure!(passed.json()["error"]["code"] != "unknown_path", "{}", passed.shown());
    let refused = picker.http.get("/metrics").await?;
    ensure!(refused.status == 404 && refused.json()["error"]["code"] == "unknown_path", "{}", refused.shown());
    // What becomes of pods is seen at once.
    world.kubelet.set_ready("eyes-0", false).await?;
    eventually("nobody takes pictures", async || {
        let answer = picker.http.chat(&chat("m", &image())).await?;
        ensure!(answer.status == 503 && answer.json()["error"]["code"] == "no_endpoint", "{}", answer.shown());
        Ok(())
    })
    .await?;
    let table = picker.admin.get("/debug/table").await?.text();
    ensure!(!table.contains("others"), "it knows of another pool:\n{table}");
    Ok(())
}

pub(crate) async fn a_pool_may_stand_in_flags_alone(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    let pod = world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"])).await?;
    world.apply(&rights("flags"))?;
    let port = format!("--endpoint-target-ports={}", pod.port());
    let picker = standalone(&world, "flags", &["--endpoint-selector=pool=text", &port]).await?;
    eventually("it is served", async || {
        let answer = picker.http.chat(&chat("m", &text())).await?;
        ensure!(answer.shown() == "200 text-0", "{}", answer.shown());
        Ok(())
    })
    .await
}

/// A cluster of its own: one that has the Gateway API, and in which somebody else installed InferencePool.
pub(crate) async fn where_gateways_are_at_home_nothing_is_taken_from_anybody(shared: &Shared) -> Result<()> {
    let folder = shared.folder().join("with-gateways");
    std::fs::create_dir_all(&folder)?;
    let cluster = Arc::new(Cluster::start_bare(&folder)?);
    let theirs =
        std::fs::read_to_string(root().join("crds/inference-pool/inferencepools.inference.networking.k8s.io.yaml"))?;
    let theirs = theirs.replace("bundle-version: v1.6.0", "bundle-version: v9.9.9");
    ensure!(theirs.contains("v9.9.9"), "our CRD does not say which bundle it is of");
    cluster.apply("default", &theirs)?;
    cluster.kubectl(&["apply", "--server-side", "-f", &gateway_api()?.display().to_string()])?;
    // What the README says, in a cluster that has InferencePools.
    let there = cluster.kubectl(&["create", "-k", &root().join("crds/inference-pool").display().to_string()]);
    ensure!(there.is_err_and(|error| error.to_string().contains("AlreadyExists")), "their CRD was replaced");
    cluster.install()?;
    let version = "jsonpath={.metadata.annotations.inference\\.networking\\.k8s\\.io/bundle-version}";
    let crd = "crd/inferencepools.inference.networking.k8s.io";
    ensure!(cluster.kubectl(&["get", crd, "-o", version])? == "v9.9.9", "their CRD was changed");

    let mut world = World::start(Arc::clone(&cluster), &folder, Options::default()).await?;
    for pool in ["text", "vision"] {
        world.apply_pool(pool)?;
    }
    let targets =
        "[{name: t, poolRef: {name: text}}, {name: v, poolRef: {name: vision}, modalities: {input: [Text, Image]}}]";
    world.apply_model("chat", &format!("{{modelName: chat, targetModels: {targets}}}"))?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["t=text"])).await?;
    world.kubelet.run(PodSpec::new("vision-0", "vision", &["v=text,image"])).await?;
    crate::routing::until_answered(&world, &chat("chat", &image()), "200 vision-0").await?;
    let ours = |world: &World| -> Result<Vec<Value>> {
        let parents = world.object("inferencepool", "text")?["status"]["parents"].clone();
        let all = parents.as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().filter(|parent| parent["controllerName"] == api::CONTROLLER_NAME).collect())
    };
    let attach = |world: &World, parents: &Value| {
        let patch = json!({"status": {"parents": parents}}).to_string();
        world.kubectl(&["patch", "inferencepool", "text", "--subresource=status", "--type=merge", "-p", &patch])
    };
    // As Istio writes it: with conditions, and with no controller's name.
    let accepted = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let gateway = json!({"parentRef": {"name": "edge"}, "conditions": [accepted]});
    attach(&world, &json!([gateway]))?;
    let told = "TargetsReachable=False OtherPools: model chat has targets in pool vision as well; most gateways send requests on \
        this pool's route to this pool only (Envoy AI Gateway does not), so requests that only other pools accept are not served: put the pods of all \
        targets into one pool, or give each pool a route of its own";
    until_condition(&world, "inferencepool", "text", told).await?;
    // The route is gone, and the gateway takes its entry away. Nobody is associated with the pool.
    attach(&world, &json!(ours(&world)?))?;
    eventually("no entry is left", async || {
        let parents = world.object("inferencepool", "text")?["status"]["parents"].clone();
        ensure!(parents.as_array().is_none_or(Vec::is_empty), "{parents}");
        Ok(())
    })
    .await?;
    // A picker that takes clients itself is a parent.
    world.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: thalamus-picker}, spec: {selector: {app: thalamus-picker}, ports: [{name: ext-proc, \
         port: 9002}, {name: http, port: 8080}]}}",
    )?;
    until_condition(&world, "inferencepool", "text", "EndpointsReady=True EndpointsReady: 1/1: 1 text, verified").await
}

/// Envoy that keeps bodies, as docs/gateways.md says: what the picker reads of one does not come back.
pub(crate) async fn bodies_that_envoy_keeps_arrive_as_they_were_or_with_another_name(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    world.apply_pool("vision")?;
    let spec = "{modelName: chat, poolRef: {name: vision}, targetModels: [{name: qwen}], modalities: {input: [Text, Image], output: [Text]}}";
    world.apply_model("chat", spec)?;
    world.apply_model(
        "same",
        "{modelName: same, poolRef: {name: vision}, modalities: {input: [Text, Image], output: [Text]}}",
    )?;
    world.kubelet.run(PodSpec::new("vision-0", "vision", &["qwen=text,image", "same=text,image"])).await?;
    let changes = [
        ("request_body_mode: FULL_DUPLEX_STREAMED   # the answer", "request_body_mode: BUFFERED   # the answer"),
        ("domains: [\"*\"]", "domains: [\"*\"]\n              request_body_buffer_limit: 1048576"),
    ];
    let (_envoy, gateway) = world.another_gateway("buffered", &changes).await?;
    eventually("the gateway answers", async || {
        let answer = gateway.chat(&chat("same", &text())).await?;
        ensure!(answer.shown() == "200 vision-0", "{}", answer.shown());
        Ok(())
    })
    .await?;
    let large = json!([{"type": "text", "text": "x".repeat(300_000)}]);
    for model in ["same", "chat"] {
        for content in [text(), large.clone(), image()] {
            let body = chat(model, &content);
            let (kept, sent_back) = (gateway.chat(&body).await?, world.gateway.chat(&body).await?);
            ensure!(kept.shown() == "200 vision-0", "{model}: {}", kept.shown());
            // The simulator says what it was sent, by a digest.
            let (kept, sent_back) = (kept.json(), sent_back.json());
            ensure!(kept["sim"] == sent_back["sim"] && kept["sim"]["digest"].is_string(), "{kept} {sent_back}");
        }
    }
    let refused = gateway.chat(&chat("nobody", &text())).await?;
    ensure!(refused.status == 404, "{}", refused.shown());
    let too_large = json!([{"type": "text", "text": "x".repeat(2 << 20)}]);
    let refused = gateway.chat(&chat("same", &too_large)).await?;
    ensure!(refused.status == 413 && refused.shown().contains("request_too_large"), "{}", refused.shown());
    Ok(())
}
