//! `thalamus serve`: a folder of objects, watched.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use daemon::tls::{self, Versions};
use daemon::{ConnectionLimit, Port, Speaks};
use kube::ResourceExt as _;
use notify::{RecursiveMode, Watcher as _};
use prometheus_client::registry::Registry;
use request::Limits;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::local::LocalController;
use crate::manifests::{Objects, is_manifest};

/// How often to see whether the folder is still the same.
const GLANCE: Duration = Duration::from_secs(1);

/// How long a folder must be quiet before it is read: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// And how long its quiet is waited for at most.
const LOUD: Duration = Duration::from_secs(1);

/// The flags of `thalamus serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The folder with the objects.
    #[arg(long)]
    pub(crate) manifests: PathBuf,

    /// Where to serve.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// Where gateways connect, over ext_proc (as `manifests/envoy/envoy.yaml` does). TLS, self-signed, and plain text are accepted on one
    /// port.
    #[arg(long)]
    pub(crate) ext_proc_listen: Option<SocketAddr>,

    /// Where to serve /metrics, /ready, /live and /debug.
    #[arg(long)]
    pub(crate) admin_listen: Option<SocketAddr>,

    /// Show /debug to whoever reaches the admin port, not on this machine alone.
    #[arg(long, requires = "admin_listen")]
    pub(crate) open_debug: bool,

    /// The namespace to serve. Objects that name none are in `default`.
    #[arg(long)]
    pub(crate) namespace: Option<String>,

    /// Largest accepted request body, in bytes.
    #[arg(long, default_value_t = request::Limits::DEFAULT_MAX_BODY_BYTES)]
    pub(crate) max_body_bytes: u64,
}

pub(crate) async fn run(args: ServeArgs) -> Result<()> {
    let ServeArgs { manifests, listen, ext_proc_listen, admin_listen, open_debug, namespace, max_body_bytes } = args;
    // Watched before it is read, so that no change falls between.
    let (look, mut looks) = mpsc::channel(1);
    let folder = manifests.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // A folder that is read tells of it as well, and a log in it is written for each look; a full channel means that a look is due
        // anyway.
        let matters = |path: &PathBuf| is_manifest(path) || *path == folder;
        if event.map_or(true, |event| !event.kind.is_access() && event.paths.iter().any(matters)) {
            let _ = look.try_send(());
        }
    })
    .context("watching folders")?;
    watcher
        .watch(&manifests, RecursiveMode::NonRecursive)
        .with_context(|| format!("--manifests {}", manifests.display()))?;

    let objects = Objects::read(&manifests)?;
    let namespace = match namespace {
        Some(namespace) => namespace,
        None => the_namespace(&objects)?,
    };
    let mut controller = LocalController::new();
    apply(&mut controller, &objects);

    let stop = daemon::stop_on_signal()?;
    let listener = daemon::bind(listen, "--listen").await?;
    let mut registry = Registry::default();
    let picker = controller.picker(&namespace, Limits { max_body_bytes }, &mut registry, &stop);
    if let Some(address) = admin_listen {
        let admin = daemon::bind(address, "--admin-listen").await?;
        tokio::spawn(
            picker
                .admin(registry)
                .with_open_debug(open_debug)
                .serve(Port::new(admin, ConnectionLimit::for_operators()), CancellationToken::new()),
        );
    }
    let gateways = match ext_proc_listen {
        Some(address) => Some(daemon::bind(address, "--ext-proc-listen").await?),
        None => None,
    };
    tracing::info!(
        listen = %listener.local_addr()?,
        ext_proc = gateways.as_ref().and_then(|listener| Some(listener.local_addr().ok()?.to_string())),
        namespace,
        manifests = %manifests.display(),
        "serving"
    );
    let keys = tls::self_signed("thalamus", Versions::Since1_2)?;
    // A task of its own: reading a folder must not hold up requests.
    let mut serve = tokio::spawn(async move {
        let http = proxy::serve(picker.http_port(listener), picker.proxy(), stop.clone());
        let ext_proc = async {
            match gateways {
                Some(listener) => picker.serve_ext_proc(listener, Speaks::Both(keys), stop.clone()).await,
                None => Ok(()),
            }
        };
        tokio::join!(http, ext_proc).1
    });
    let mut known_folder = folder_id(&manifests);
    loop {
        tokio::select! {
            ended = &mut serve => return ended.context("the server failed")?.context("the ext_proc port failed"),
            Some(()) = looks.recv() => {
                // A folder that is never quiet is read all the same.
                let quiet = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, looks.recv()).await {} };
                let _ = tokio::time::timeout(LOUD, quiet).await;
                reload(&mut controller, &manifests, &namespace);
            }
            // What no event tells of: a folder that is gone and comes back.
            () = tokio::time::sleep(GLANCE) => if known_folder != folder_id(&manifests) {
                known_folder = folder_id(&manifests);
                if watcher.watch(&manifests, RecursiveMode::NonRecursive).is_ok() {
                    reload(&mut controller, &manifests, &namespace);
                }
            }
        }
    }
}

/// Which folder stands at a path: another one after it was replaced.
fn folder_id(folder: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Some(std::fs::metadata(folder).ok()?.ino())
}

fn reload(controller: &mut LocalController, manifests: &Path, namespace: &str) {
    match Objects::read(manifests) {
        Ok(objects) => {
            tracing::info!(
                pools = objects.pools.len(),
                models = objects.models.len(),
                pods = objects.pods.len(),
                "objects reloaded"
            );
            let here = |pool: &api::InferencePool| pool.namespace().unwrap_or_else(|| "default".into()) == namespace;
            if !objects.pools.is_empty() && !objects.pools.iter().any(here) {
                tracing::warn!(namespace, "no pool is in the namespace that is served; set theirs with --namespace");
            }
            apply(controller, &objects);
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot read the folder; keeping what was read before");
        }
    }
}

fn apply(controller: &mut LocalController, objects: &Objects) {
    for (of, what) in &objects.strange {
        tracing::warn!("{of}: {what}");
    }
    for wrong in controller.apply(objects) {
        tracing::warn!("{wrong}");
    }
}

/// The one namespace of the pools.
fn the_namespace(objects: &Objects) -> Result<String> {
    let mut namespaces: Vec<String> =
        objects.pools.iter().map(|pool| pool.namespace().unwrap_or_else(|| "default".into())).collect();
    namespaces.sort();
    namespaces.dedup();
    match namespaces.as_slice() {
        [] => Ok("default".into()),
        [one] => Ok(one.clone()),
        several => bail!("the pools are in namespaces {}; choose one with --namespace", several.join(", ")),
    }
}
