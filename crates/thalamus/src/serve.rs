//! `thalamus serve`: a folder of objects, or model servers by their addresses, behind one endpoint.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use daemon::tls::{self, Versions};
use daemon::{Speaks, Workers};
use probe::Server;
use prometheus_client::registry::Registry;
use request::Limits;
use tokio::task::JoinHandle;
use traces::Traces;

use crate::fleet::Alias;
use crate::local::{self, LocalController};
use crate::probe_command::KeyArgs;

mod folder;
mod objects;
mod servers;

/// The flags of `thalamus serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Model servers to put behind one endpoint, as http://HOST:PORT or HOST:PORT. What each can do is found out, and watched.
    #[arg(value_name = "URL", required_unless_present = "manifests")]
    servers: Vec<Server>,

    /// A folder with objects to serve instead: InferencePool, InferenceModel and Pod, in YAML or JSON.
    #[arg(long, conflicts_with = "servers")]
    manifests: Option<PathBuf>,

    /// One more name for models of these servers: NAME for all of them, NAME=MODEL,MODEL for some. What a request carries decides which of
    /// them takes it. May be repeated.
    #[arg(long = "as", value_name = "NAME[=MODEL,…]", conflicts_with = "manifests")]
    aliases: Vec<Alias>,

    /// Write InferencePools and InferenceModels that say the same of these servers into a folder, for kubectl apply.
    #[arg(long, value_name = "DIR", conflicts_with = "manifests")]
    save: Option<PathBuf>,

    #[command(flatten)]
    key: KeyArgs,

    /// The namespace to serve. Objects that name none are in `default`.
    #[arg(long)]
    namespace: Option<String>,

    #[command(flatten)]
    ports: Ports,
}

/// Where to serve.
#[derive(Debug, clap::Args)]
struct Ports {
    /// Where to serve.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Where gateways connect, over ext_proc (as `manifests/envoy/envoy.yaml` does). TLS, self-signed, and plain text are accepted on one
    /// port.
    #[arg(long)]
    ext_proc_listen: Option<SocketAddr>,

    /// Where to serve a page to look at, /metrics, /ready, /live and /debug.
    #[arg(long, default_value = "127.0.0.1:0")]
    admin_listen: SocketAddr,

    /// Show the page and /debug to whoever reaches the admin port, not on this machine alone.
    #[arg(long)]
    open_debug: bool,

    /// Largest accepted request body, in bytes.
    #[arg(long, default_value_t = request::Limits::DEFAULT_MAX_BODY_BYTES)]
    max_body_bytes: u64,
}

/// What serves, and where.
struct Serving {
    address: SocketAddr,
    /// Where its page is.
    admin: SocketAddr,
    /// Ends when the process is told to.
    task: JoinHandle<Result<()>>,
}

pub(crate) async fn run(args: ServeArgs) -> Result<()> {
    let ServeArgs { servers, manifests, aliases, save, key, namespace, ports } = args;
    match manifests {
        Some(folder) => folder::run(folder, namespace, ports).await,
        None => servers::run(servers, aliases, save, &key.prober()?, namespace.as_deref(), ports).await,
    }
}

impl Ports {
    /// Serves what `controller` publishes for a namespace; `of` is what is served, for the log.
    async fn serve(self, controller: &LocalController, namespace: &str, of: &str) -> Result<Serving> {
        let Self { listen, ext_proc_listen, admin_listen, open_debug, max_body_bytes } = self;
        let stop = daemon::stop_on_signal()?;
        let listener = daemon::bind(listen, "--listen").await?;
        let address = listener.local_addr().context("asking for the port")?;
        let mut registry = Registry::default();
        let traces = Traces::open("thalamus", &address.to_string());
        let follows = traces.as_ref().map(Traces::tracer);
        let picker = controller.picker(namespace, Limits { max_body_bytes }, follows, &mut registry, &stop);
        let admin = local::serve_admin(picker.admin(registry).with_open_debug(open_debug), admin_listen).await?;
        let gateways = match ext_proc_listen {
            Some(address) => Some(daemon::bind(address, "--ext-proc-listen").await?),
            None => None,
        };
        let ext_proc = gateways.as_ref().and_then(|listener| Some(listener.local_addr().ok()?.to_string()));
        tracing::info!(listen = %address, ext_proc, %admin, namespace, of, "serving");
        let keys = tls::self_signed("thalamus", Versions::Since1_2)?;
        let workers = Workers::start(None).context("starting threads")?;
        // A task of its own: what is watched beside must not hold up requests.
        let task = tokio::spawn(async move {
            let http = picker.serve_http(&workers, listener, stop.clone());
            let ext_proc = async {
                match gateways {
                    Some(listener) => picker.serve_ext_proc(&workers, listener, Speaks::Both(keys), stop.clone()).await,
                    None => Ok(()),
                }
            };
            let ((), ended) = tokio::join!(http, ext_proc);
            if let Some(traces) = traces {
                traces.end().await;
            }
            ended.context("the ext_proc port failed")
        });
        Ok(Serving { address, admin, task })
    }
}
