//! What stands between: each a process group or two, started once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use publish::{Anyone, Publisher};
use routing::{Capability, Endpoint, Modality, ModalitySet, Model, Pool, RoutingTable, Target};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::compare::Compare;
use crate::gateway::{envoy_manifest, replaced, start_envoy, start_envoy_module};
use crate::world::{AS_IN_ITS_IMAGE, address};
use crate::{Client, Port, Process, binary, eventually, root};

/// One way from a client to the servers.
#[derive(Debug)]
pub(super) struct System {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    processes: Vec<Process>,
}

/// Changes of the manifest that are compared, each by its own words.
type Changes = &'static [(&'static str, &'static str)];

const LARGE: (&str, &str) = ("per_connection_buffer_limit_bytes: 65536", "per_connection_buffer_limit_bytes: 1048576");
const BUFFERED: (&str, &str) =
    ("request_body_mode: FULL_DUPLEX_STREAMED   # the answer", "request_body_mode: BUFFERED   # the answer");
const LIMIT: (&str, &str) = ("domains: [\"*\"]", "domains: [\"*\"]\n              request_body_buffer_limit: 67108864");
const CLEAR: (&str, &str) = (
    "    transport_socket:   # the picker's certificate is its own, so it is not verified
      name: envoy.transport_sockets.tls
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: {alpn_protocols: [h2]}
",
    "",
);

const WAYS: &[(&str, Changes)] = &[
    ("ext_proc, full duplex", &[]),
    ("ext_proc, full duplex, 1 MiB", &[LARGE]),
    ("ext_proc, full duplex, clear", &[CLEAR]),
    ("ext_proc, buffered", &[BUFFERED, LIMIT]),
    ("ext_proc, buffered, 1 MiB", &[BUFFERED, LIMIT, LARGE]),
    ("ext_proc, buffered, clear", &[BUFFERED, LIMIT, CLEAR]),
];

/// Of what is made with tokio, and has no flag for it.
const ONE_THREAD: [(&str, &str); 1] = [("TOKIO_WORKER_THREADS", "1")];

/// Envoy alone writes no line for a request either.
const QUIET: &str = "--log=info,picker::metrics=warn";

/// The first is Envoy alone.
pub(super) async fn start(
    folder: &Path,
    servers: [SocketAddr; 2],
    compare: &Compare,
    tell: impl Fn(&str),
) -> Result<Vec<System>> {
    let mut alone = std::fs::read_to_string(root().join("e2e/testdata/compare/alone.yaml"))?;
    for (server, theirs) in servers.iter().zip(["127.0.0.11, port_value: 1}", "127.0.0.12, port_value: 2}"]) {
        alone = replaced(&alone, theirs, &format!("{}, port_value: {}}}", server.ip(), server.port()))?;
    }
    let mut systems = vec![envoy(folder, "Envoy alone", &alone, Vec::new()).await?];
    let Compare { peers, only, flags, .. } = compare;
    let wanted = |name: &str| only.as_ref().is_none_or(|only| name.contains(&**only));
    let controller = controller(&servers).await?;
    if wanted("inside Envoy") {
        systems.push(module(folder, "inside Envoy", &flags_of(controller, flags), Vec::new()).await?);
    }
    let quiet: Vec<String> = flags.iter().cloned().chain([QUIET.to_owned()]).collect();
    if wanted("inside Envoy, no log lines") {
        systems.push(module(folder, "inside Envoy, no log lines", &flags_of(controller, &quiet), Vec::new()).await?);
    }
    if wanted("inside Envoy, asking") {
        let (picker, [_, ext_proc]) = picker(folder, "asked", &flags_of(controller, flags)).await?;
        let flags = [format!("--ask=http://{ext_proc}"), "--admin-listen=127.0.0.1:0".into()];
        systems.push(module(folder, "inside Envoy, asking", &flags, vec![picker]).await?);
    }
    for (name, changes) in WAYS {
        if wanted(name) {
            let (picker, [_, ext_proc]) = picker(folder, name, &flags_of(controller, flags)).await?;
            let mut config = envoy_manifest(ext_proc)?;
            for (theirs, here) in *changes {
                config = replaced(&config, theirs, here)?;
            }
            systems.push(envoy(folder, name, &config, vec![picker]).await?);
        }
    }
    let echo = "ext_proc, full duplex, clear, an echo";
    if wanted(echo) {
        let (process, ext_proc) = start_echo(folder, servers).await?;
        let config = replaced(&envoy_manifest(ext_proc)?, CLEAR.0, CLEAR.1)?;
        systems.push(envoy(folder, echo, &config, vec![process]).await?);
    }
    if wanted("HTTP") {
        for (name, flags) in [("HTTP edge, no Envoy", flags), ("HTTP edge, no log lines", &quiet)] {
            let (picker, [address, _]) = picker(folder, name, &flags_of(controller, flags)).await?;
            systems.push(System { name: name.into(), address, processes: vec![picker] });
        }
    }
    for (name, args) in [
        ("sglang-router", ["launch", "--policy", "round_robin"].as_slice()),
        ("vllm-router", &["--policy", "round_robin"]),
    ] {
        if let Some(peers) = peers.as_ref().filter(|_| wanted(name)) {
            match peer(folder, name, &peers.join("bin").join(name), args, servers).await {
                Ok(system) => systems.push(system),
                Err(error) => tell(&format!("{name} is left out: {error:#}")),
            }
        }
    }
    Ok(systems)
}

async fn envoy(folder: &Path, name: &str, config: &str, mut processes: Vec<Process>) -> Result<System> {
    let folder = folder.join(name.replace([' ', ','], "-"));
    std::fs::create_dir_all(&folder)?;
    let (envoy, _, address) = start_envoy(&folder, config).await?;
    processes.push(envoy);
    answers(System { name: name.to_owned(), address, processes }).await
}

async fn answers(system: System) -> Result<System> {
    let client = Client::new(system.address);
    eventually(&format!("{} answers", system.name), async || {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        let answer = client.chat(&body).await?;
        anyhow::ensure!(answer.status == 200, "{}\n{}", answer.shown(), system.processes[0].tail());
        Ok(())
    })
    .await?;
    Ok(system)
}

/// A controller without Kubernetes, which says that all of these servers take everything; where it is.
async fn controller(servers: &[SocketAddr]) -> Result<SocketAddr> {
    let everything = ModalitySet::of(&[Modality::Text, Modality::Image, Modality::Audio, Modality::Video]);
    let target = Target::new("m", "pool", Capability::new(everything, ModalitySet::TEXT));
    let endpoints = servers.iter().enumerate().map(|(number, address)| {
        let endpoint = Endpoint::new(*address, "".into());
        (Arc::from(format!("server-{number}")), endpoint)
    });
    let table = RoutingTable {
        models: [("m".into(), Arc::new(Model::new(vec![target])))].into(),
        pools: [("pool".into(), Arc::new(Pool { endpoints: endpoints.collect(), ..Pool::default() }))].into(),
        ..RoutingTable::default()
    };
    let publisher = Publisher::new(publish::revision_of_the_clock());
    publisher.publish([("default".to_owned(), Arc::new(table))].into());
    let service = publisher.service(Arc::new(Anyone), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        // It lives as long as what it serves.
        let _publisher = publisher;
        Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)).await
    });
    Ok(address)
}

/// A picker over these servers, and where it serves HTTP.
pub(crate) async fn start_picker(folder: &Path, servers: &[SocketAddr]) -> Result<(Process, SocketAddr)> {
    let (process, [http, _]) = picker(folder, "alone", &flags_of(controller(servers).await?, &[])).await?;
    Ok((process, http))
}

/// The flags of a picker of that controller, and more.
fn flags_of(controller: SocketAddr, more: &[String]) -> Vec<String> {
    let any = "127.0.0.1:0";
    let mut flags = vec![
        format!("--controller=http://{controller}"),
        "--namespace=default".into(),
        format!("--admin-listen={any}"),
        format!("--ext-proc-listen={any}"),
        format!("--health-listen={any}"),
        format!("--http-listen={any}"),
        // As Envoy is run with one.
        "--workers=1".into(),
        "--log-format=json".into(),
    ];
    flags.extend_from_slice(more);
    flags
}

/// A picker; where it speaks HTTP and where ext_proc.
async fn picker(folder: &Path, name: &str, flags: &[String]) -> Result<(Process, [SocketAddr; 2])> {
    let folder = folder.join(format!("picker-{}", name.replace([' ', ','], "-")));
    std::fs::create_dir_all(&folder)?;
    let mut process = Process::start(&folder, "picker", &binary("thalamus-picker")?, flags, &AS_IN_ITS_IMAGE)?;
    let said = process.said("picker started").await?;
    let [http, ext_proc] = [address(&said["http"])?, address(&said["ext_proc"])?];
    let mut system = answers(System { name: "picker".into(), address: http, processes: vec![process] }).await?;
    Ok((system.processes.remove(0), [http, ext_proc]))
}

/// What costs as little as a picker can, for reading nothing.
async fn start_echo(folder: &Path, servers: [SocketAddr; 2]) -> Result<(Process, SocketAddr)> {
    let args = ["--folder=.".to_owned(), "echo".to_owned()].into_iter().chain(servers.map(|server| server.to_string()));
    let args: Vec<String> = args.collect();
    let mut process = Process::start(folder, "echo", &std::env::current_exe()?, &args, &ONE_THREAD)?;
    let said = process.said("echo started").await?;
    let address = address(&said["ext_proc"])?;
    Ok((process, address))
}

/// Envoy with the module.
async fn module(folder: &Path, name: &str, flags: &[String], mut processes: Vec<Process>) -> Result<System> {
    let folder = folder.join(name.replace([' ', ','], "-"));
    std::fs::create_dir_all(&folder)?;
    let (envoy, address) = start_envoy_module(&folder, flags, &[]).await?;
    processes.push(envoy);
    answers(System { name: name.to_owned(), address, processes }).await
}

async fn peer(folder: &Path, name: &str, program: &Path, args: &[&str], servers: [SocketAddr; 2]) -> Result<System> {
    let (port, metrics) = (Port::hold()?, Port::hold()?);
    let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    args.extend(["--host".into(), "127.0.0.1".into(), "--port".into(), port.number().to_string()]);
    args.extend(["--prometheus-port".into(), metrics.number().to_string(), "--worker-urls".into()]);
    args.extend(servers.map(|server| format!("http://{server}")));
    let process = Process::start(folder, name, program, &args, &ONE_THREAD)?;
    answers(System { name: name.to_owned(), address: port.address(), processes: vec![process] }).await
}

impl System {
    /// CPU that its processes took, and their children, in seconds.
    pub(super) fn cpu(&self) -> f64 {
        self.tasks().iter().map(|task| nanoseconds(task)).sum::<f64>() / 1e9
    }

    /// A line of `/proc/<pid>/status` over all of them, in bytes.
    pub(super) fn memory(&self, name: &str) -> u64 {
        self.pids().iter().filter_map(|pid| crate::memory(pid.parse().ok()?, name)).sum()
    }

    /// Peaks are counted anew (`proc_pid_clear_refs(5)`).
    pub(super) fn forget_peak(&self) {
        for pid in self.pids() {
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// Every process of the groups that were started.
    fn pids(&self) -> Vec<String> {
        let groups: Vec<String> = self.processes.iter().map(|process| process.pid().to_string()).collect();
        let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
        let names = all.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter(|pid| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let group = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(2));
                group.is_some_and(|group| groups.iter().any(|ours| ours == group))
            })
            .collect()
    }

    /// Every thread, as a folder of `/proc`.
    fn tasks(&self) -> Vec<String> {
        let folders = self.pids().into_iter().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok());
        folders.flatten().filter_map(|entry| Some(entry.ok()?.path().display().to_string())).collect()
    }
}

/// How long a thread ran (`Documentation/scheduler/sched-stats.rst`).
fn nanoseconds(task: &str) -> f64 {
    let stats = std::fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
    stats.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}
