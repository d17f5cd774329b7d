//! `thalamus-standalone`: a picker without a controller.
//!
//! ```text
//!  API server ──watch──► compiler: the index ──table──► Publisher ══ in memory ══► Picker ◄══ gateways
//! ```
//!
//! It takes the flags of `thalamus-picker`, which starts it where nothing is said of a controller; so a chart for another endpoint picker
//! starts it, with the rights that such a chart gives: to see the pool, and the pods of its namespace.
//!
//! Invariants:
//! - nothing is written to the API server, and nothing but the pool, pods and models is read;
//! - while the API server is away, decisions go on by what was known, and by what model servers themselves say of their load.

mod compiler;
mod pool;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use index::{Change, Event};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use picker::ReferenceFlags;
use publish::{Access, Publisher};
use tokio::sync::mpsc;

use crate::compiler::Compiler;

/// How many events may wait. A relist is one event however large, so this is bursts of single changes.
const EVENTS: usize = 1024;

/// As in the picker (docs/adr/0016).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // It holds every listener and task: too much for a stack.
    daemon::ended(Box::pin(run(picker::Args::parse())).await.map(|()| ExitCode::SUCCESS))
}

async fn run(mut args: picker::Args) -> Result<()> {
    let _log = args.start_log()?;
    if args.names_a_controller() {
        bail!(
            "this is the picker without a controller; with --controller, --controller-ca and --token-file start thalamus-picker"
        );
    }
    // Several crates in the tree could bring a provider; kube asks for the process's default.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed before");
    }
    let selected = pool::selected(args.reference(), &args.namespace)?;
    if selected.is_some() {
        args.pool = Some(pool::SELECTED.to_owned());
    }
    let Some(name) = args.pool.clone() else {
        bail!(
            "a picker without a controller serves one pool: name it with --pool (or --pool-name), or say where the controller is \
             with --controller, --controller-ca and --token-file (docs/moving.md)"
        );
    };
    let config = config(args.reference()).await?;
    let server = config.cluster_url.to_string();
    let client = Client::try_from(config).context("creating a client for the API server")?;
    let (events, received) = mpsc::channel(EVENTS);
    let named = if let Some(pool) = selected {
        events.send(Event::Pool(Change::Relisted(vec![pool]))).await?;
        None
    } else {
        Some(&*name)
    };
    let watches = cluster_watch::one_pool(&client, &args.namespace, named, &events);
    tracing::info!(
        server,
        pool = name,
        namespace = args.namespace,
        "no controller: this picker compiles the table of its pool itself. Models across pools, managed pickers and status need the \
         controller (docs/moving.md)"
    );
    if !args.reference().leaves_metrics_open() {
        tracing::warn!(
            "the admin port (/metrics, /debug) answers anyone who can reach it, where other pickers require a token by default; restrict it with a \
             NetworkPolicy, and set --metrics-endpoint-auth=false to silence this warning"
        );
    }
    let publisher = Publisher::new(publish::revision_of_the_clock());
    let channel = publisher.channel();
    let compiler = Compiler::new(received, publisher, index::ObjectKey::new(&*args.namespace, &*name));
    let access = move |_| Ok(Access { channel: channel.clone(), token: None, others: false });
    tokio::select! {
        ended = args.serve("the API server", access) => ended,
        // A picker that watches nothing would look alive and know nothing new.
        () = watches => bail!("a watch ended"),
        () = compiler.run() => bail!("the compiler ended"),
    }
}

async fn config(flags: &ReferenceFlags) -> Result<Config> {
    let Some(path) = flags.kubeconfig.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
        return Config::infer().await.context(
            "found no --kubeconfig, KUBECONFIG or service account to reach the API server with; the pod must mount its service \
             account's token (automountServiceAccountToken)",
        );
    };
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("--kubeconfig {}", path.display()))
}
