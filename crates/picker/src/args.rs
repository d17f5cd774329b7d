//! The flags of `thalamus-picker`, and what it starts from them.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use daemon::tls::{self, Versions};
use daemon::{Admin, ConnectionLimit, LogArgs, LogGuard, Port, Speaks, Workers};
use director::{BodyTimeouts, Budget, Director, MOST_CACHED, OtherPaths, QueueLimits, RequestHandler};
use prometheus_client::registry::Registry;
use publish::{Access, Scope};
use request::Limits;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use traces::Traces;

use crate::controllers::Controllers;
use crate::metrics::Metrics;
use crate::policy_file::PolicyArgs;
use crate::reference_flags::ReferenceFlags;
use crate::{Options, Picker, search_path};

/// Tells gateways and clients which model server takes a request.
#[derive(Debug, Parser)]
#[command(name = "thalamus-picker", version, args_override_self = true)]
pub struct Args {
    /// Where the controller publishes routing tables. Several (comma-separated, or by repeating the flag) are tried in turn. Defaults to
    /// https://thalamus-controller.thalamus-system:9004 if --controller-ca is given. Without either, the picker compiles the
    /// table of its pool itself, if thalamus-standalone is installed next to it.
    #[arg(long, env = "THALAMUS_CONTROLLER", value_delimiter = ',')]
    pub controller: Vec<String>,

    /// The controller's CA, in PEM. Read again for each connection.
    #[arg(long, env = "THALAMUS_CONTROLLER_CA")]
    pub controller_ca: Option<PathBuf>,

    /// A file with the token that identifies this picker to the controller. Read again for each connection.
    #[arg(long, env = "THALAMUS_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Where to keep the last routing table, for starting while no controller is available. Not kept by default.
    #[arg(long)]
    pub table_file: Option<PathBuf>,

    /// The namespace to serve.
    #[arg(long, alias = "pool-namespace", env = "NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// Serve only this pool of the namespace. All pools by default.
    #[arg(long, alias = "pool-name")]
    pub pool: Option<String>,

    /// The name by which the controller knows this picker. Defaults to the host name, which in a pod is the pod's.
    #[arg(long, env = "POD_NAME", default_value_t = host(), hide_default_value = true)]
    pub name: String,

    /// Where gateways connect (ext_proc, over gRPC). TLS and plain text are accepted on the same port.
    #[arg(long, default_value = "0.0.0.0:9002")]
    pub ext_proc_listen: SocketAddr,

    /// Where to serve gRPC health checks, in plain text.
    #[arg(long, default_value = "0.0.0.0:9003")]
    pub health_listen: SocketAddr,

    /// Where clients without a gateway send requests. Off by default.
    #[arg(long)]
    pub http_listen: Option<SocketAddr>,

    /// Where to serve /metrics, /ready and /live, and, to whoever is near, a page to look at and /debug.
    #[arg(long, default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,

    /// Show the page and /debug to whoever reaches the admin port. By default they are shown on the same machine or in the same pod, where
    /// kubectl port-forward ends.
    #[arg(long)]
    pub open_debug: bool,

    /// A certificate chain in PEM for the ext_proc port. Self-signed by default.
    #[arg(long, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Its key in PEM.
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Largest accepted request body, in bytes.
    #[arg(long, default_value_t = Limits::DEFAULT_MAX_BODY_BYTES)]
    pub max_body_bytes: u64,

    /// Most bytes of request bodies to hold at once; requests that do not fit get 503. At least four times --max-body-bytes: a body may
    /// take twice its size, and no client more than half of this.
    #[arg(long, default_value_t = Budget::DEFAULT_BYTES)]
    pub max_buffered_bytes: u64,

    /// The pool for requests with an unknown path; they pass as they are, unread, with no media policy. Defaults to that of --pool, as
    /// with other endpoint pickers; without --pool they get 404. --other-paths-to= always refuses them; paths
    /// by which model servers are managed always are.
    #[arg(long)]
    pub other_paths_to: Option<String>,

    /// Which unknown paths pass: a path each, such as /healthz, or with * at its end how paths begin, such as /v1/mine/*. All by default. May
    /// be repeated.
    #[arg(long = "other-path", value_parser = path)]
    pub other_paths: Vec<String>,

    /// A domain below which media is not fetched from any host, unless a model's allowedHosts names that host. May be repeated; replaces
    /// the search path of /etc/resolv.conf. Clusters' own names, private addresses and metadata services never need it.
    #[arg(long = "private-domain")]
    pub private_domains: Option<Vec<String>>,

    /// An origin that browsers may call the HTTP port from, such as https://app.example.com, or * for all. May be repeated. None by default.
    #[arg(long = "cors-allow-origin")]
    pub cors_allow_origins: Vec<String>,

    /// Name fallback endpoints to gateways, as ip:port,ip:port. Envoy tries them in order; agentgateway rejects every such answer.
    #[arg(long)]
    pub fallbacks: bool,

    /// Threads that serve gateways and clients, up to 256. By default one for each core that the machine has, or the container's limit allows, up to eight.
    #[arg(long, value_parser = count_of_workers)]
    pub workers: Option<NonZeroUsize>,

    /// Most connections to the ext_proc port and to the HTTP port, each; one more is closed at once.
    #[arg(long, default_value_t = ConnectionLimit::DEFAULT)]
    pub max_connections: usize,

    /// Most requests in flight over ext_proc; one more gets the gRPC error RESOURCE_EXHAUSTED.
    #[arg(long, default_value_t = 16_384)]
    pub max_streams: usize,

    /// Most requests that wait while every endpoint that could serve them is full; one more gets 429. 0 sends them to full endpoints. Those of Sheddable
    /// models, and of objectives with a priority below zero, never wait.
    #[arg(long, default_value_t = QueueLimits::DEFAULT_REQUESTS)]
    pub max_waiting: usize,

    /// How long one waits at most before it gets 429.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub max_wait: Duration,

    /// Most blocks of prompts to remember of what each endpoint was sent, and as many media items: up to 1,048,576, of some 60 bytes each. The default is some
    /// ten million tokens of ordinary text for each endpoint. 0 remembers nothing of what was sent.
    #[arg(long, default_value_t = MOST_CACHED, value_parser = count_of_blocks)]
    pub max_cached_blocks: usize,

    /// How long a client may send nothing in the middle of a body.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub stall_timeout: Duration,

    /// How long a client may take over a whole body.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    pub body_timeout: Duration,

    /// How long a model server may take to accept a connection, for requests over HTTP.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub connect_timeout: Duration,

    /// How long a model server may take to send the first byte of its answer, for requests over HTTP. No limit by default: a long prefill is not a
    /// fault.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub first_byte_timeout: Option<Duration>,

    /// How often to read each model server's metrics.
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub scrape_interval: Duration,

    /// How long to keep accepting new requests after SIGTERM, while the cluster notices that this picker is going away.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// How long requests in flight may take to finish after that.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    #[command(flatten)]
    policy: PolicyArgs,

    #[command(flatten)]
    pub(crate) reference: ReferenceFlags,

    #[command(flatten)]
    pub log: LogArgs,
}

impl Args {
    /// Runs the picker until it is told to stop and has drained, with the tables of a controller.
    pub async fn run(mut self) -> Result<()> {
        let mut controllers = self.controllers()?;
        let source = self.controller.join(",");
        let _log = self.start_log()?;
        if self.reference.kubeconfig.is_some() {
            tracing::info!("--kubeconfig has no effect: tables come from the controller");
        }
        Box::pin(self.serve(&source, move |again| controllers.access(again))).await
    }

    /// Starts a picker in the runtime at hand, until `stop` is cancelled, whose requests come from the caller's own hands: of its ports only the
    /// admin port is opened.
    pub fn embed(mut self, stop: &CancellationToken) -> Result<Picker> {
        let mut controllers = self.controllers()?;
        // Another one of the same process may log already.
        let log = self.start_log().ok();
        let [.., admin_listen] = self.ports();
        let (open_debug, policy) = (self.open_debug, self.policy.read()?);
        let mut registry = Registry::default();
        let picker = Picker::start(self.options(), move |again| controllers.access(again), &mut registry, stop);
        policy.map(|policy| tokio::spawn(policy.follow(Arc::clone(&picker.handler().director))));
        tracing::info!(admin = %admin_listen, scope = %picker.scope(), "picker started inside another program");
        let admin = picker.admin(registry).with_open_debug(open_debug);
        tokio::spawn(serve_admin(admin, admin_listen, log, stop.clone()));
        Ok(picker)
    }

    /// Starts what reads requests in another program for a picker that decides elsewhere, in the runtime at hand, until `stop` is cancelled. It
    /// is ready while it is `connected`. Every path passes that is not known: the picker knows which do.
    pub fn embed_reader(
        self,
        connected: watch::Receiver<bool>,
        stop: &CancellationToken,
    ) -> Result<Arc<RequestHandler>> {
        let log = self.start_log().ok();
        let [.., admin_listen] = self.ports();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, false);
        let Options { limits, max_buffered_bytes, scope, queue, .. } = self.options();
        let handler = Arc::new(RequestHandler {
            limits,
            budget: Budget::new(max_buffered_bytes),
            queue,
            other_paths: Some(OtherPaths { pool: "".into(), only: Vec::new() }),
            observer: Arc::new(metrics.clone()),
            ..RequestHandler::new(Arc::new(Director::new(Instant::now())), &scope.namespace)
        });
        tracing::info!(admin = %admin_listen, "reader started inside another program");
        let budget = handler.budget.clone();
        let admin =
            Admin::new(registry, connected, "no picker to ask").with_refresh(move || metrics.look_up_held(&budget));
        tokio::spawn(serve_admin(admin, admin_listen, log, stop.clone()));
        Ok(handler)
    }

    /// The way to the controllers, as the flags name them.
    fn controllers(&mut self) -> Result<Controllers> {
        self.controller.retain(|url| !url.is_empty());
        if self.controller.is_empty() {
            if self.controller_ca.is_none() {
                bail!("{NO_CONTROLLER}");
            }
            self.controller.push(CONTROLLER.to_owned());
        }
        if self.reference.endpoint_selector.is_some() {
            bail!(
                "--endpoint-selector is for a picker without a controller: where there is one, name an InferencePool with --pool"
            );
        }
        Controllers::new(&self.controller, self.controller_ca.clone(), self.token_file.clone())
    }

    /// Whether the flags, or the environment, say anything of a controller.
    pub fn names_a_controller(&self) -> bool {
        let named = self.controller.iter().any(|url| !url.is_empty());
        named || self.controller_ca.is_some() || self.token_file.is_some()
    }

    /// Starts logging, as our flags or those of other pickers say; fails on flags that cannot be obeyed.
    pub fn start_log(&self) -> Result<LogGuard> {
        if self.namespace.is_empty() {
            bail!("--namespace is empty");
        }
        if self.pool.as_deref() == Some("") {
            bail!("--pool is empty; leave it out to serve every pool of the namespace");
        }
        self.reference.check()?;
        self.reference.log(&self.log).init()
    }

    /// What is served.
    pub fn scope(&self) -> Scope {
        Scope { namespace: self.namespace.clone(), pool: self.pool.clone() }
    }

    /// Flags by which charts start other pickers.
    pub fn reference(&self) -> &ReferenceFlags {
        &self.reference
    }

    /// How long a body may take.
    pub fn body_timeouts(&self) -> BodyTimeouts {
        BodyTimeouts { stall: self.stall_timeout, whole: self.body_timeout }
    }

    /// Those for gateways, for health and for operators.
    fn ports(&self) -> [SocketAddr; 3] {
        self.reference.ports([self.ext_proc_listen, self.health_listen, self.admin_listen])
    }

    /// What the port for gateways speaks.
    fn speaks(&self) -> Result<Speaks> {
        let versions = if self.reference.tls_1_3_alone()? { Versions::Since1_3 } else { Versions::Since1_2 };
        let folder = self.reference.cert_path.as_deref().filter(|folder| !folder.as_os_str().is_empty());
        let files = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let files = files.map(|(certificate, key)| (certificate.to_owned(), key.to_owned()));
        let keys = match files.or(folder.map(|folder| (folder.join("tls.crt"), folder.join("tls.key")))) {
            Some((certificate, key)) => tls::from_files(&certificate, &key, versions)?,
            None => tls::self_signed("thalamus-picker", versions)?,
        };
        Ok(match self.reference.secure_serving {
            None => Speaks::Both(keys),
            Some(true) => Speaks::Tls(keys),
            Some(false) => Speaks::Plain,
        })
    }

    fn options(self) -> Options {
        let body = self.body_timeouts();
        let Self {
            namespace,
            pool,
            name,
            max_body_bytes,
            max_buffered_bytes,
            other_paths_to,
            other_paths,
            private_domains,
            cors_allow_origins,
            fallbacks,
            max_connections,
            max_streams,
            max_waiting,
            max_wait,
            max_cached_blocks,
            connect_timeout,
            first_byte_timeout,
            scrape_interval,
            table_file,
            reference,
            ..
        } = self;
        if max_buffered_bytes < max_body_bytes.saturating_mul(4) {
            tracing::warn!(
                max_buffered_bytes,
                max_body_bytes,
                "--max-buffered-bytes is less than four times --max-body-bytes: large bodies may be refused with 503 even when nothing else is under way"
            );
        }
        Options {
            other_paths: other_paths_to
                .or_else(|| pool.clone())
                .filter(|pool| !pool.is_empty())
                .map(|pool| OtherPaths { pool: pool.as_str().into(), only: other_paths }),
            scope: Scope { namespace, pool },
            name,
            limits: Limits { max_body_bytes },
            max_buffered_bytes,
            private_domains: private_domains.unwrap_or_else(|| search_path::of(Path::new("/etc/resolv.conf"))),
            cors_allow_origins,
            fallbacks,
            ignore_subset: reference.ignores_subset(),
            test_selection: reference.test_endpoint_selection,
            max_connections,
            max_streams,
            body,
            queue: QueueLimits { requests: max_waiting, wait: max_wait },
            max_cached_blocks,
            connect_timeout,
            first_byte_timeout,
            scrape_interval: reference.refresh_metrics_interval.unwrap_or(scrape_interval),
            table_file,
            legacy_metrics: reference.legacy_metrics,
            tracer: None,
        }
    }

    /// Runs the picker until it is told to stop and has drained, with the tables that come over what `access` gives; `source` names where
    /// that leads, for people.
    pub async fn serve(
        self,
        source: &str,
        access: impl FnMut(bool) -> Result<Access, String> + Send + 'static,
    ) -> Result<()> {
        for flag in self.reference.without_effect() {
            tracing::info!("--{flag} is a flag of other endpoint pickers, and has no effect here");
        }
        let Self { http_listen, open_debug, workers, drain_delay, drain_timeout, .. } = self;
        let workers = Workers::start(workers).context("starting threads")?;
        let [ext_proc_listen, health_listen, admin_listen] = self.ports();
        daemon::raise_file_limit();
        let signal = daemon::stop_on_signal()?;
        let ext_proc_listener = daemon::bind(ext_proc_listen, "--ext-proc-listen").await?;
        let health_listener = daemon::bind(health_listen, "--health-listen").await?;
        let admin_listener = daemon::bind(admin_listen, "--admin-listen").await?;
        let http_listener = match http_listen {
            Some(address) => Some(daemon::bind(address, "--http-listen").await?),
            None => None,
        };
        let (speaks, policy) = (self.speaks()?, self.policy.read()?);
        let instance = self.name.clone();
        let allows_traces = self.reference.allows_traces();
        let traces = allows_traces.then(|| Traces::open("thalamus-picker", &instance)).flatten();
        let options = Options { tracer: traces.as_ref().map(Traces::tracer), ..self.options() };
        // Those who ask are told at once that we leave; those who listen go on for a while.
        let stop = CancellationToken::new();
        let mut registry = Registry::default();
        let picker = Picker::start(options, access, &mut registry, &signal);
        policy.map(|policy| tokio::spawn(policy.follow(Arc::clone(&picker.handler().director))));
        let local = |listener: &tokio::net::TcpListener| {
            listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
        };
        tracing::info!(
            ext_proc = local(&ext_proc_listener),
            health = local(&health_listener),
            http = http_listener.as_ref().map(local),
            admin = local(&admin_listener),
            scope = %picker.scope(),
            tables_from = source,
            "picker started"
        );

        let admin = tokio::spawn(
            picker
                .admin(registry)
                .with_open_debug(open_debug)
                .serve(Port::new(admin_listener, ConnectionLimit::for_operators()), CancellationToken::new()),
        );
        let health_port = picker.serve_health(health_listener, stop.clone());
        let ext_proc_port = picker.serve_ext_proc(&workers, ext_proc_listener, speaks, stop.clone());
        let http_port = async {
            if let Some(listener) = http_listener {
                picker.serve_http(&workers, listener, stop.clone()).await;
            }
        };
        let drained = async {
            let (health, ext_proc, ()) = tokio::join!(health_port, ext_proc_port, http_port);
            health.context("the health port failed")?;
            ext_proc.context("the ext_proc port failed")
        };
        tokio::pin!(drained);
        tokio::select! {
            ended = &mut drained => return ended,
            () = signal.cancelled() => {}
        }
        tokio::select! {
            ended = &mut drained => return ended,
            () = tokio::time::sleep(drain_delay) => stop.cancel(),
        }
        match tokio::time::timeout(drain_timeout, drained).await {
            Ok(ended) => ended?,
            Err(_) => {
                tracing::warn!(left = picker.in_flight(), "requests were still in flight when --drain-timeout expired");
            }
        }
        admin.abort();
        if let Some(traces) = traces {
            traces.end().await;
        }
        tracing::info!("picker stopped");
        Ok(())
    }
}

/// Serves the admin port of what runs in another program, which may have another one until its last request is done.
async fn serve_admin(admin: Admin, listen: SocketAddr, _log: Option<LogGuard>, stop: CancellationToken) {
    let listener = loop {
        match daemon::bind(listen, "--admin-listen").await {
            Ok(listener) => break listener,
            Err(error) => tracing::warn!("{error:#}; tried again in ten seconds"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(10))).await.is_none() {
            return;
        }
    };
    admin.serve(Port::new(listener, ConnectionLimit::for_operators()), stop).await;
}

/// Where the controller's own manifests and chart put it.
const CONTROLLER: &str = "https://thalamus-controller.thalamus-system:9004";

/// What to do where nobody says where tables come from.
const NO_CONTROLLER: &str = "there is no controller to get routing tables from: add --controller-ca=/var/run/thalamus/controller/ca.crt and \
    --token-file=/var/run/thalamus/controller/token, and mount there a projected volume of ConfigMap thalamus-controller-ca and of a \
    serviceAccountToken for audience thalamus-controller, as manifests/picker does (docs/moving.md)";

/// In a pod that is the pod's name.
fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => "picker".to_owned(),
        host => host.to_owned(),
    }
}

fn count_of_workers(text: &str) -> Result<NonZeroUsize, String> {
    let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= 256);
    count.ok_or_else(|| "a number from 1 to 256 is expected".to_owned())
}

fn count_of_blocks(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count: &usize| *count <= 1 << 20);
    count.ok_or_else(|| "a number from 0 to 1048576 is expected".to_owned())
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with /".to_owned()) }
}

#[cfg(test)]
mod tests;
