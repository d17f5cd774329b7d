//! The flags of `thalamus-controller`, and what it starts from them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use daemon::tls::Versions;
use daemon::{Admin, ConnectionLimit, LogArgs};
use index::{Index, ManagedByDefault};
use kube::{Client, Config};
use probe::Prober;
use prometheus_client::registry::Registry;
use publish::Publisher;
use tokio::sync::{mpsc, watch as latest};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::event_loop::{EventLoop, Managed};
use crate::events::EventRecorder;
use crate::lease::Candidacy;
use crate::managed::{PickerReconciler, Settings};
use crate::metrics::Metrics;
use crate::probing::Probing;
use crate::publish_server::{Keys, Port, PublishServer};
use crate::service_accounts::ServiceAccounts;
use crate::status::Writer;
use crate::view;

/// Compiles InferencePools and InferenceModels into routing tables, and publishes them to pickers.
#[derive(Debug, Parser)]
#[command(name = "thalamus-controller", version)]
pub struct Args {
    /// Where pickers subscribe (gRPC over TLS).
    #[arg(long, default_value = "0.0.0.0:9004")]
    pub listen: SocketAddr,

    /// Where to serve /metrics, /ready, /live and /debug/table.
    #[arg(long, default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,

    /// Show /debug to whoever reaches the admin port. By default it is shown on the same machine or in the same pod, where kubectl
    /// port-forward ends.
    #[arg(long)]
    pub open_debug: bool,

    /// Watch only this namespace. All namespaces by default.
    #[arg(long)]
    pub watch_namespace: Option<String>,

    /// The controller's own namespace, which holds its Lease and its CA. Defaults to that of the service account.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: Option<String>,

    /// The identity of this replica, which no other may have. Defaults to the host's name and something drawn.
    #[arg(long, env = "POD_NAME", default_value_t = a_name(), hide_default_value = true)]
    pub name: String,

    /// The Lease for leader election.
    #[arg(long, default_value = "thalamus-controller")]
    pub lease_name: String,

    /// How long a leader that does not renew its Lease keeps it.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub lease_duration: Duration,

    /// The Service by which pickers reach the controllers; certificates are made for it.
    #[arg(long, default_value = "thalamus-controller")]
    pub service_name: String,

    /// A certificate chain in PEM for the pickers' port. By default one is created, with a CA of its own. Read again when
    /// it is replaced.
    #[arg(long, requires = "tls_key", conflicts_with = "plaintext")]
    pub tls_cert: Option<PathBuf>,

    /// Its key in PEM.
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// The CA of --tls-cert, in PEM, published to pickers in each namespace that has a pool.
    #[arg(long, requires = "tls_cert")]
    pub tls_ca: Option<PathBuf>,

    /// Run the pickers of all pools of this namespace, unless annotated otherwise; * for every namespace. May be repeated. By default
    /// only those of pools annotated with thalamus.dev/picker: managed.
    #[arg(long = "manage-namespace")]
    pub manage_namespaces: Vec<String>,

    /// The image of pickers whose PickerTemplate does not set one.
    #[arg(long, default_value = concat!("thalamus-picker:", env!("CARGO_PKG_VERSION")))]
    pub picker_image: String,

    /// Ask model servers what they are and what they can do, and believe that before what is declared of them.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub probe: bool,

    /// The API key for these questions, where model servers ask for one. It is sent to the pods of every pool that is watched: whoever may create
    /// pools and pods there can read it. Clients bring their own.
    #[arg(long, env = "THALAMUS_PROBE_API_KEY", hide_env_values = true)]
    pub probe_api_key: Option<String>,

    /// Serve pickers in plain text and admit anyone. On loopback only, for trying things out.
    #[arg(long)]
    pub plaintext: bool,

    #[command(flatten)]
    pub log: LogArgs,
}

/// How many events may wait for the loop. A relist is one event however large, so this is bursts of single changes.
const EVENTS: usize = 1024;

impl Args {
    /// Runs the controller until it is told to stop.
    #[expect(clippy::too_many_lines, reason = "a third of it names the flags, so that one nobody uses is a warning")]
    pub async fn run(self) -> Result<()> {
        let Self {
            listen,
            admin_listen,
            open_debug,
            watch_namespace,
            namespace,
            name,
            lease_name,
            lease_duration,
            service_name,
            tls_cert,
            tls_key,
            tls_ca,
            manage_namespaces,
            picker_image,
            probe,
            probe_api_key,
            plaintext,
            log,
        } = self;
        let _log = log.init()?;
        if lease_duration < Duration::from_secs(1) {
            bail!("--lease-duration must be at least 1s");
        }
        // Several crates in the tree could bring a provider; kube asks for the process's default.
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a crypto provider was installed before");
        }
        let stop = daemon::stop_on_signal()?;
        let port = Port::bind(listen)?;
        let admin_listener = daemon::bind(admin_listen, "--admin-listen").await?;
        let config = Config::infer()
            .await
            .context("found neither a kubeconfig nor a service account to reach the API server with")?;
        let server = config.cluster_url.to_string();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("creating a client for the API server")?;
        let keys = match (tls_cert, tls_key) {
            _ if plaintext => Keys::None,
            (Some(certificate), Some(key)) => {
                Keys::Files(daemon::tls::from_files(&certificate, &key, Versions::default())?, tls_ca)
            }
            _ => Keys::Own { namespace: namespace.clone(), names: names(&service_name, &namespace) },
        };
        if plaintext && !listen.ip().is_loopback() {
            bail!("--plaintext is for loopback only, but --listen is {listen}");
        }

        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let publisher = Publisher::new(publish::revision_of_the_clock());
        let (events, received) = mpsc::channel(EVENTS);
        let (anew, begun_anew) = latest::channel(0);
        let watches = cluster_watch::all(&client, watch_namespace.as_deref(), &events, &begun_anew);
        let (ready, is_ready) = latest::channel(false);
        let (compiled, newest) = latest::channel(None);
        let (term, terms) = latest::channel(None);
        let settings = Settings {
            image: picker_image,
            controller_url: format!("https://{service_name}.{namespace}:{}", listen.port()),
            controller_namespace: namespace.clone(),
            controller_port: port.address().port(),
        };
        let candidacy = Candidacy { namespace, name: lease_name, identity: name.clone(), duration: lease_duration };
        let lease = tokio::spawn(candidacy.run(client.clone(), is_ready.clone(), term, anew, stop.clone()));
        let event_recorder = EventRecorder::start(client.clone(), name.clone());
        let writer = Writer::start(client.clone(), metrics.clone(), terms.clone(), event_recorder);
        let accounts = ServiceAccounts::new(client.clone());
        let (certificate, certificates) = latest::channel(None);
        let (wanted, wants) = latest::channel(Arc::default());
        let (states, known_states) = latest::channel(BTreeMap::new());
        let reconciler = PickerReconciler {
            client: client.clone(),
            watch_namespace: watch_namespace.clone(),
            settings,
            terms: terms.clone(),
            wanted: wants,
            certificate: certificates,
            anew: begun_anew,
            states,
        };
        let managed = Managed { wanted, states: known_states, accounts: accounts.clone() };
        let first_look = probe.then(|| latest::channel(false));
        let probing = match &first_look {
            Some((has_looked, _)) => Some(Probing {
                prober: Prober::new(probe_api_key.as_deref())
                    .context("--probe-api-key: it has characters that no header can hold")?,
                compiled: newest.clone(),
                events: events.clone(),
                has_looked: has_looked.clone(),
                contradictions: publisher.contradictions(),
                terms: terms.clone(),
            }),
            None => None,
        };
        let event_loop = EventLoop::new(
            Index::default().managing(by_default(manage_namespaces)),
            received,
            publisher.clone(),
            writer,
            metrics.clone(),
            ready,
            compiled,
            terms.clone(),
            cluster_watch::gateways(client.clone()),
            managed,
            first_look.map(|(_, looked)| looked),
        );

        let (shown, looked_at) = (publisher.clone(), terms.clone());
        let admin = Admin::new(registry, is_ready, "the API server has not listed every kind yet")
            .with_open_debug(open_debug)
            .with_refresh(move || metrics.leads(looked_at.borrow().is_some()))
            .with_table(move || view::table(newest.borrow().as_deref(), &shown));
        tracing::info!(
            listen = %port.address(),
            admin = %admin_listener.local_addr()?,
            server,
            name,
            namespace = watch_namespace.as_deref().unwrap_or("(all)"),
            "controller started"
        );
        let admin = tokio::spawn(
            admin.serve(daemon::Port::new(admin_listener, ConnectionLimit::for_operators()), CancellationToken::new()),
        );
        let publish_server = PublishServer { client, publisher, keys, port, accounts, certificate };

        // A controller whose loop or whose watches ended would look alive and do nothing.
        let mut lease = std::pin::pin!(lease);
        tokio::select! {
            // It ends by being told to stop, once the lease is given up.
            ended = &mut lease => if !stop.is_cancelled() { bail!("leader election ended: {ended:?}") },
            ended = tokio::spawn(event_loop.run()) => bail!("the event loop ended: {ended:?}"),
            ended = run_if(probing.map(|probing| tokio::spawn(probing.run()))) => bail!("the prober ended: {ended:?}"),
            ended = tokio::spawn(reconciler.run()) => bail!("the picker reconciler ended: {ended:?}"),
            () = watches => bail!("a watch ended"),
            failed = tokio::spawn(publish_server.run(terms)) => bail!("the pickers' port failed: {failed:?}"),
        }
        admin.abort();
        tracing::info!("controller stopped");
        Ok(())
    }
}

/// For ever where there is nothing to run.
async fn run_if<T>(task: Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

fn by_default(namespaces: Vec<String>) -> ManagedByDefault {
    match namespaces.as_slice() {
        [] => ManagedByDefault::None,
        all if all.iter().any(|one| one == "*") => ManagedByDefault::All,
        _ => ManagedByDefault::In(namespaces),
    }
}

/// The names that pickers may call the controller by.
fn names(service: &str, namespace: &str) -> Vec<String> {
    let suffixes = ["", ".svc", ".svc.cluster.local"].map(|suffix| format!("{service}.{namespace}{suffix}"));
    // The last ones are for a person, through `kubectl port-forward`.
    suffixes.into_iter().chain(["localhost", "127.0.0.1", "::1"].map(str::to_owned)).collect()
}

/// Where no pod's name is given, a process must not be taken for another.
fn a_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}-{:08x}", host.trim(), std::process::id(), fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_well_formed() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    /// What people read of the flags.
    #[test]
    fn the_reference_beside_the_documents_is_of_these_flags() {
        let program = <Args as clap::CommandFactory>::command();
        daemon::testing::holds("reference.md", "thalamus-controller", &daemon::testing::flags_of(program));
    }
}
