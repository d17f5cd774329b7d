//! `e2e up` and `e2e down`: the tests' world to try by hand. `cargo xtask up` and `down` call it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use e2e::{Cluster, Options, World, root};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Action,
    /// Where the world keeps its logs and what it must know to end.
    #[arg(long)]
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    Up,
    Down,
}

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
    }
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
