//! `thalamus demo`: the main job without a cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use daemon::Workers;
use kube::ResourceExt as _;
use modelserver_sim::{Options, Sim};
use picker::Picker;
use prometheus_client::registry::Registry;
use request::Limits;
use tokio_util::sync::CancellationToken;

use crate::local::{self, LocalController};
use crate::manifests::Objects;
use crate::screen::Screen;
use crate::simulated::{self, SimulatedPod};
use crate::tour;

/// The flags of `thalamus demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// The folder with the manifests.
    #[arg(long, default_value = "manifests/examples/multimodal")]
    pub(crate) manifests: PathBuf,

    /// Where to serve. Port 0 means any free port.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,

    /// Where to serve a page to look at, and what `/metrics` and `/debug` show.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) admin_listen: SocketAddr,

    /// Exit after the tour, with success only if every request landed where the table says.
    #[arg(long)]
    pub(crate) once: bool,
}

pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode> {
    let DemoArgs { manifests, listen, admin_listen, once } = args;
    let screen = Screen::of_stdout();
    let stop = daemon::stop_on_signal()?;

    let mut objects = read(&manifests)?;
    let pods = start_model_servers(&mut objects, &stop).await?;
    screen.title("Model servers, simulated");
    tour::show_pods(screen, &pods);

    let mut controller = LocalController::new();
    let wrong = controller.apply(&objects);
    ensure!(wrong.is_empty(), "the manifests have problems:\n{}", wrong.join("\n"));
    let namespace = objects.pools[0].namespace().unwrap_or_else(|| "default".into());
    let mut registry = Registry::default();
    let picker = controller.picker(&namespace, Limits::default(), None, &mut registry, &stop);
    ready(&picker).await?;
    screen.title("Models, as clients see them");
    tour::show_models(screen, &picker);

    let listener = daemon::bind(listen, "--listen").await?;
    let address = listener.local_addr().context("asking for the port")?;
    let workers = Workers::start(None).context("starting threads")?;
    let picker = Arc::new(picker);
    let serve = tokio::spawn({
        let (picker, stop) = (Arc::clone(&picker), stop.clone());
        async move { picker.serve_http(&workers, listener, stop).await }
    });
    screen.title(&format!("One request of each kind, to http://{address}/v1/chat/completions"));
    let all_landed = tour::run(screen, &picker, address).await?;
    if once {
        return Ok(if all_landed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let admin = local::serve_admin(picker.admin(registry), admin_listen).await?;
    tour::show_commands(screen, address, admin);
    serve.await.context("the server failed")?;
    Ok(ExitCode::SUCCESS)
}

fn read(manifests: &Path) -> Result<Objects> {
    let objects =
        Objects::read(manifests).context("run the demo from the repository's folder, or name one with --manifests")?;
    ensure!(!objects.pools.is_empty(), "there is no InferencePool in {}", manifests.display());
    ensure!(!objects.deployments.is_empty(), "there is no Deployment in {}", manifests.display());
    Ok(objects)
}

/// Starts a simulator for each pod that the Deployments ask for, at an address of its own, and adds the pods to the objects.
async fn start_model_servers(objects: &mut Objects, stop: &CancellationToken) -> Result<Vec<SimulatedPod>> {
    // Any address of 127/8 is this machine; the process id keeps two demos apart.
    let subnet = u8::try_from(std::process::id() % 250).unwrap_or(0) + 1;
    let pods = simulated::pods(objects, |number| format!("127.77.{subnet}.{}", number + 1))?;
    ensure!(!pods.is_empty(), "no pool selects a pod of the Deployments");
    for SimulatedPod { pod, models, port } in &pods {
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
        let address = SocketAddr::new(ip.parse().context("an address of our own")?, *port);
        let listener = daemon::bind(address, &format!("pod {}", pod.name_any())).await.with_context(|| {
            format!("port {port} is in use on this machine; change the target port in the manifests")
        })?;
        let options =
            Options { name: pod.name_any(), models: models.clone(), latency: Duration::from_millis(20), slots: 8 };
        tokio::spawn(Sim::new(options).serve(listener, stop.clone()));
        objects.pods.push(pod.clone());
    }
    Ok(pods)
}

async fn ready(picker: &Picker) -> Result<()> {
    let mut ready = picker.ready();
    let wait = ready.wait_for(|ready| *ready);
    tokio::time::timeout(Duration::from_secs(10), wait).await.context("no routing table within ten seconds")??;
    Ok(())
}
