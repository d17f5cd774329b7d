//! `e2e up` and `e2e down`: the tests' world to try by hand; and what takes longer than tests do. `cargo xtask` calls all of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use e2e::conformance::{Outcome, Part, Report};
use e2e::{Cluster, Compare, Engines, Options, Scale, Soak, World, lab, root};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Action,
    /// Where the world keeps its logs and what it must know to end.
    #[arg(long)]
    folder: PathBuf,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Leave a world running.
    Up,
    /// End it.
    Down,
    /// Make a large cluster, change pods, and print what it costs the controller.
    Scale {
        #[arg(long, default_value_t = 1000)]
        pools: usize,
        #[arg(long, default_value_t = 10_000)]
        pods: usize,
        #[arg(long, default_value_t = 5000)]
        models: usize,
        #[arg(long, default_value_t = 20)]
        pickers: usize,
        /// Pickers of each pool, beside those of the whole namespace.
        #[arg(long, default_value_t = 0)]
        pickers_of_each_pool: usize,
        /// Let the controller run the pools' pickers: it makes their objects, and nobody runs them.
        #[arg(long)]
        managed: bool,
        /// Pod changes a second.
        #[arg(long, default_value_t = 50)]
        rate: u32,
        /// How long.
        #[arg(long = "for", default_value = "30s", value_parser = humantime::parse_duration)]
        length: Duration,
    },
    /// What each way through Thalamus costs, beside Envoy alone.
    Compare {
        /// How often each is measured with each body.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// A Python environment with sglang-router and vllm-router, to be measured as well.
        #[arg(long, env = "THALAMUS_PEERS")]
        peers: Option<PathBuf>,
        /// Put the table into docs/performance.md.
        #[arg(long)]
        write: bool,
        /// Only what has this word in its name.
        #[arg(long)]
        only: Option<String>,
        /// Only bodies whose names begin so, such as "1 KB".
        #[arg(long)]
        body: Option<String>,
        /// Another flag for our pickers, such as --log=warn. May be repeated.
        #[arg(long, allow_hyphen_values = true)]
        flag: Vec<String>,
    },
    /// Ask real model servers: whether what is found of them is what they do, and what their caches say of where requests go.
    Engines {
        /// This part alone.
        #[arg(long, value_enum)]
        only: Option<PartOfEngines>,
        /// Write their answers to what the simulator is held against.
        #[arg(long)]
        record: bool,
        /// A Python environment with vLLM for CPU.
        #[arg(long, env = "THALAMUS_ENGINES")]
        python: PathBuf,
        #[arg(long, default_value_t = 4)]
        servers: usize,
        /// So many to each.
        #[arg(long, default_value_t = 600)]
        requests: usize,
    },
    /// A picker that reads nothing, for `compare`.
    #[command(hide = true)]
    Echo { one: SocketAddr, other: SocketAddr },
    /// Run the Gateway API Inference Extension's conformance suite behind Istio, and real requests. Needs root.
    Conformance {
        /// This part alone; all of them when absent, and then the report is written.
        #[arg(long)]
        part: Option<Part>,
    },
    /// One part, in namespaces that `conformance` made.
    #[command(hide = true)]
    InALab { part: Part },
    /// Let pods, models, pools and replicas come and go, and check every answer.
    Soak {
        /// How long.
        #[arg(long = "for", default_value = "30m", value_parser = humantime::parse_duration)]
        length: Duration,
        /// Which of all possible lives; another one each time when absent.
        #[arg(long)]
        seed: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PartOfEngines {
    Check,
    Caches,
}

#[expect(clippy::print_stdout, reason = "figures are what one of the commands is for")]
#[tokio::main]
async fn main() -> Result<()> {
    // Several crates in the tree could bring a provider; kube asks for the process's default.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Args { command, folder } = Args::parse();
    match command {
        Action::Up => {
            // Listened to before anything starts. Interrupted, `up` drops what it has started, and that ends it.
            let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
            tokio::select! {
                up = up(&folder) => up,
                _ = interrupt.recv() => bail!("interrupted; what was started is ended"),
            }
        }
        Action::Down => down(&folder),
        Action::Scale { pools, pods, models, pickers, pickers_of_each_pool, managed, rate, length } => {
            let folder = fresh(&folder, "scale")?;
            let cluster = Cluster::start(&folder)?;
            let scale = Scale { pools, pods, models, pickers, pickers_of_each_pool, managed, rate, length };
            scale.run(&cluster, &folder, |line| println!("{line}")).await
        }
        Action::Conformance { part } => conformance(&folder, part),
        Action::InALab { part } => {
            let outcomes = part.run(&folder).await?;
            std::fs::write(folder.join("outcomes.json"), serde_json::to_string(&outcomes)?).context("writing outcomes")
        }
        Action::Compare { rounds, peers, write, only, body, flag } => {
            let folder = fresh(&folder, "compare")?;
            let compare = Compare { rounds, peers, only, body, flags: flag };
            let table = compare.run(&folder, |line| eprintln!("compare: {line}")).await?;
            println!("{table}");
            if write { e2e::write_table(&table) } else { Ok(()) }
        }
        Action::Engines { only, record, python, servers, requests } => {
            let folder = fresh(&folder, "engines")?;
            let engines = Engines { python, servers, requests };
            let tell = |line: &str| eprintln!("engines: {line}");
            if only != Some(PartOfEngines::Caches) {
                println!("{}", engines.check(&fresh(&folder, "check")?, record, tell).await?);
            }
            if only != Some(PartOfEngines::Check) {
                println!("{}", engines.bench(&fresh(&folder, "caches")?, tell).await?);
            }
            Ok(())
        }
        Action::Echo { one, other } => e2e::echo([one, other]).await,
        Action::Soak { length, seed } => {
            let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
            tokio::select! {
                soaked = soak(&folder, Soak { length, relies_on: 0, seed: seed.unwrap_or_else(|| fastrand::u64(..)) }) => soaked,
                _ = interrupt.recv() => bail!("interrupted; what was started is ended"),
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "progress and the outcome are what the command is for")]
fn conformance(folder: &Path, only: Option<Part>) -> Result<()> {
    let mut ran = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| only.is_none_or(|only| only == *part)) {
        println!("{}: {}", part.name(), part.title());
        let folder = fresh(folder, part.name())?;
        let argument = folder.display().to_string();
        let status =
            lab::command(&["--folder", &argument, "in-a-lab", part.name()])?.status().context("running unshare")?;
        if !status.success() {
            bail!("{} ended with {status}; its logs are in {argument}", part.name());
        }
        let outcomes = std::fs::read_to_string(folder.join("outcomes.json")).context("reading outcomes")?;
        let outcomes: Vec<Outcome> = serde_json::from_str(&outcomes).context("reading outcomes")?;
        for Outcome { name, passed, says } in &outcomes {
            println!("  {} {name}: {says}", if *passed { "ok    " } else { "FAILED" });
        }
        ran.push((part, outcomes));
    }
    let report = Report { ran };
    if only.is_none() {
        let path = root().join("docs/conformance/README.md");
        std::fs::create_dir_all(root().join("docs/conformance")).context("making a folder")?;
        std::fs::write(&path, report.markdown()?).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    report.verdict()
}

#[expect(clippy::print_stdout, reason = "progress and the outcome are what the command is for")]
async fn soak(folder: &Path, soak: Soak) -> Result<()> {
    let folder = fresh(folder, "soak")?;
    println!("seed {}; logs in {}", soak.seed, folder.display());
    let cluster = Arc::new(Cluster::start(&folder)?);
    let summary = Box::pin(soak.run(cluster, &folder, |line| println!("{line}"))).await?;
    println!("none wrong, none lost: {}", summary.line());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what to do next is what the command is for")]
async fn up(folder: &Path) -> Result<()> {
    if folder.join("pids").exists() {
        bail!("a world is up already: `cargo xtask down` ends it");
    }
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let cluster = Arc::new(Cluster::start(folder)?);
    let options = Options { namespace: "serving".into(), ..Options::default() };
    let mut world = World::start(Arc::clone(&cluster), folder, options).await?;
    let example = root().join("manifests/examples/multimodal");
    world.apply_example(&example).await?;
    world.cluster.kubectl(&["apply", "--server-side", "-k", &root().join("manifests/picker").display().to_string()])?;
    world.until_gateway_asks().await?;
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let (gateway, http) = (world.gateway.address(), world.http.address());
    std::fs::write(folder.join("pids"), world.leave().join("\n")).context("noting what runs")?;
    if let Some(cluster) = Arc::into_inner(cluster) {
        cluster.leave();
    }
    println!(
        "It is up: API server, controller, picker, Envoy, and a simulated model server for each pod.\n\n  \
         export KUBECONFIG={kubeconfig}\n  \
         kubectl get inferencepool,inferencemodel -n serving\n\n  \
         curl -s http://{gateway}/v1/chat/completions -d '{{\"model\": \"chat\", \"messages\": [{{\"role\": \"user\", \"content\": \"hi\"}}]}}'\n\n\
         Envoy is at {gateway}, the picker's own HTTP port at {http}. Logs are in {}.\n\
         `cargo xtask down` ends it.",
        folder.display()
    );
    Ok(())
}

/// An empty folder below another.
fn fresh(folder: &Path, name: &str) -> Result<PathBuf> {
    let folder = folder.join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

fn down(folder: &Path) -> Result<()> {
    let pids = std::fs::read_to_string(folder.join("pids")).unwrap_or_default();
    pids.lines().for_each(e2e::end);
    let kube = folder.join("kube");
    if kube.exists() {
        let script = root().join("e2e/kube/kube-down.sh");
        Command::new(&script).arg(&kube).status().with_context(|| format!("running {}", script.display()))?;
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}
