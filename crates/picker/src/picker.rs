//! The picker's parts, put together. What listens is the caller's: a process binds ports, the demo binds one, `thalamus serve` up to three.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ask::Decisions;
use daemon::{Admin, ConnectionLimit, Incoming, Port, Speaks, Workers};
use director::{BodyTimeouts, Budget, Director, OtherPaths, Owners, QueueLimits, RequestHandler, Tracer};
use ext_proc::{ExtProc, HEALTH_TIMEOUT, HealthCheck};
use futures::FutureExt as _;
use prometheus_client::registry::Registry;
use proxy::{Cors, Proxy};
use publish::{Access, Scope, Subscriber, Subscription};
use request::Limits;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::ask_around::AskAround;
use crate::metrics::Metrics;
use crate::page::{self, Page};
use crate::timer::TokioTimer;
use crate::{debug, poll, subscription, table_file, view};

/// How a picker behaves.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "flags, each by itself")]
pub struct Options {
    pub scope: Scope,
    /// The name the controller knows it by.
    pub name: String,
    pub limits: Limits,
    pub max_buffered_bytes: u64,
    /// The pool for paths that are not known.
    pub other_paths: Option<OtherPaths>,
    /// Domains whose hosts are inside, beside those that everyone knows. In lower case.
    pub private_domains: Vec<String>,
    pub cors_allow_origins: Vec<String>,
    pub fallbacks: bool,
    /// Choose among all endpoints, whichever the gateway allows.
    pub ignore_subset: bool,
    /// Let clients select endpoints by a header, as conformance suites do.
    pub test_selection: bool,
    pub body: BodyTimeouts,
    /// Most connections to the ext_proc port and to the HTTP port, each.
    pub max_connections: usize,
    /// Most requests under way over ext_proc.
    pub max_streams: usize,
    /// How many requests wait for room, and how long.
    pub queue: QueueLimits,
    /// How much is remembered of what each endpoint was sent: blocks of prompts, and as many media items.
    pub max_cached_blocks: usize,
    pub connect_timeout: Duration,
    /// How long a model server may take to the first byte of its answer, over HTTP.
    pub first_byte_timeout: Option<Duration>,
    pub scrape_interval: Duration,
    /// Show metrics under the names that llm-d's had before September 2026 as well.
    pub legacy_metrics: bool,
    /// Where the last table is kept.
    pub table_file: Option<PathBuf>,
    /// Who follows single requests, if anybody does.
    pub tracer: Option<Arc<dyn Tracer>>,
}

/// A running picker.
#[derive(Debug)]
pub struct Picker {
    options: Options,
    handler: Arc<RequestHandler>,
    metrics: Metrics,
    subscription: watch::Receiver<Subscription>,
    ready: watch::Receiver<bool>,
    under_way: TaskTracker,
    connections: Connections,
}

/// Those of the ports that may have many.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pub(crate) ext_proc: ConnectionLimit,
    pub(crate) http: ConnectionLimit,
}

/// How many requests a gateway may have under way on one connection: as many as Envoy begins on one that has not said how many it takes.
const STREAMS_OF_A_CONNECTION: u32 = 1024;

/// How many contradictions wait to be told. Each is told again where it is still so.
const CONTRADICTIONS: usize = 64;

/// How many questions a probe may have under way on one connection.
const STREAMS_OF_A_PROBE: u32 = 16;

/// How much of a connection may wait to be read. h2 (0.4.20, `data_frame_budget`) ends a connection on which so many small messages wait
/// that their lack to 256 bytes each comes to half of this: more than four for each request, when a herd waited for a picker that had no CPU.
const CONNECTION_WINDOW: u32 = 2 << 20;

impl Picker {
    /// Starts subscribing over what `access` gives, and scraping. Once `stop` is cancelled the picker is not ready any more, and decides
    /// on.
    pub fn start(
        options: Options,
        access: impl FnMut(bool) -> Result<Access, String> + Send + 'static,
        registry: &mut Registry,
        stop: &CancellationToken,
    ) -> Self {
        let director = Arc::new(Director::remembering(Instant::now(), options.max_cached_blocks));
        // Until a controller says one that others have as well.
        director.set_hash_key(fastrand::u64(1..));
        let (contradicts, contradicted) = mpsc::channel(CONTRADICTIONS);
        let metrics = Metrics::register(registry, options.legacy_metrics).telling(contradicts);
        let handler = Arc::new(RequestHandler {
            director: Arc::clone(&director),
            limits: options.limits,
            budget: Budget::new(options.max_buffered_bytes),
            owners: Arc::new(Owners::default()),
            owner_finder: Some(Arc::new(AskAround::new())),
            queue: options.queue,
            timer: Some(Arc::new(TokioTimer)),
            namespace: options.scope.namespace.as_str().into(),
            private_domains: options.private_domains.clone(),
            other_paths: options.other_paths.clone(),
            observer: Arc::new(metrics.clone()),
            tracer: options.tracer.clone(),
        });
        let (sender, subscription) = watch::channel(Subscription::default());
        let (picker, scope) = (options.name.clone(), options.scope.clone());
        let mut memory = None;
        if let Some(file) = options.table_file.clone() {
            let restored = table_file::restored(&file, &scope);
            memory =
                restored.as_ref().ok().and_then(|known| known.received.as_ref()).map(|known| Arc::clone(&known.table));
            tokio::spawn(table_file::keep(file, restored, scope.clone(), sender.clone()));
        }
        tokio::spawn(Subscriber { picker, scope, contradicted, memory }.run(access, sender));
        let (ready_sender, ready) = watch::channel(false);
        let (table_sender, tables) = watch::channel(0);
        let told = subscription::Told { ready: ready_sender, tables: table_sender };
        tokio::spawn(subscription::follow(subscription.clone(), Arc::clone(&director), told, stop.clone()));
        // To the end of the process: decisions go on while requests drain, and want to know who is busy.
        tokio::spawn(poll::run(director, tables, options.scrape_interval, metrics.clone()));
        let limit = || ConnectionLimit::new(options.max_connections);
        let connections = Connections { ext_proc: limit(), http: limit() };
        Self { options, handler, metrics, subscription, ready, under_way: TaskTracker::new(), connections }
    }

    /// True from the first table until the picker is told to stop.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    pub fn scope(&self) -> &Scope {
        &self.options.scope
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u64 {
        self.handler.director.in_flight()
    }

    /// Serves gateways, and health beside, until `stop` is cancelled and the requests under way are done.
    pub async fn serve_ext_proc(
        &self,
        workers: &Workers,
        listener: TcpListener,
        speaks: Speaks,
        stop: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let port = Port::new(listener, self.connections.ext_proc.clone());
        let (health, ext_proc) = (HealthCheck::service(self.ready()), self.ext_proc().service());
        let decisions = self.decisions(stop.clone()).service();
        let stopped = stop.clone();
        let serve = move |share| {
            let (speaks, stop) = (speaks.clone(), stop.clone());
            let (health, ext_proc, decisions) = (health.clone(), ext_proc.clone(), decisions.clone());
            async move {
                Server::builder()
                    .http2_keepalive_interval(Some(Duration::from_secs(20)))
                    .max_concurrent_streams(Some(STREAMS_OF_A_CONNECTION))
                    .initial_connection_window_size(Some(CONNECTION_WINDOW))
                    .timeout(HEALTH_TIMEOUT)
                    .add_service(health)
                    .add_service(ext_proc)
                    .add_service(decisions)
                    .serve_with_incoming_shutdown(Incoming::new(share, speaks), stop.cancelled_owned())
                    .await
            }
        };
        self.until_idle(workers.serve(port, serve), &stopped).await
    }

    /// Serves clients over HTTP, until `stop` is cancelled and the requests under way are done.
    pub async fn serve_http(&self, workers: &Workers, listener: TcpListener, stop: CancellationToken) {
        let port = Port::new(listener, self.connections.http.clone());
        let serve = |share| proxy::serve(share, self.proxy(), stop.clone()).map(Ok);
        let Ok(()) = workers.serve::<_, Infallible>(port, serve).await;
    }

    /// Serves health alone, in clear text, for as long.
    pub async fn serve_health(
        &self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let port = Port::new(listener, ConnectionLimit::for_operators());
        let port = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .max_concurrent_streams(Some(STREAMS_OF_A_PROBE))
            .timeout(HEALTH_TIMEOUT)
            .add_service(HealthCheck::service(self.ready()))
            .serve_with_incoming_shutdown(Incoming::new(port, Speaks::Plain), stop.clone().cancelled_owned());
        self.until_idle(port, &stop).await
    }

    /// Serves a port to its end, or, once it takes no more, until no request is under way: connections of strangers, who say nothing or
    /// never end what they began, are not waited for.
    async fn until_idle<E>(
        &self,
        port: impl Future<Output = Result<(), E>>,
        stop: &CancellationToken,
    ) -> Result<(), E> {
        let idle = async {
            stop.cancelled().await;
            proxy::until_idle(&self.under_way).await;
        };
        tokio::select! {
            ended = port => ended,
            () = idle => Ok(()),
        }
    }

    pub fn handler(&self) -> &Arc<RequestHandler> {
        &self.handler
    }

    /// The edge for gateways.
    fn ext_proc(&self) -> ExtProc {
        let Options { fallbacks, ignore_subset, test_selection, body, max_streams, .. } = self.options;
        let options = ext_proc::Options { fallbacks, ignore_subset, test_selection, body, max_streams };
        ExtProc::new(Arc::clone(&self.handler), options, self.under_way.clone())
    }

    /// The edge for those who read requests themselves.
    fn decisions(&self, stop: CancellationToken) -> Decisions {
        let options = ask::Options { max_requests: self.options.max_streams };
        Decisions::new(Arc::clone(&self.handler), options, self.under_way.clone(), stop)
    }

    /// The edge for clients, with connections to model servers of its own.
    fn proxy(&self) -> Proxy {
        let Options { body, connect_timeout, first_byte_timeout, .. } = self.options;
        let cors = Cors::new(self.options.cors_allow_origins.clone());
        let options = proxy::Options { body, connect_timeout, first_byte_timeout, cors };
        Proxy::new(Arc::clone(&self.handler), options, self.under_way.clone())
    }

    /// The admin port's content.
    pub fn admin(&self, registry: Registry) -> Admin {
        let (director, budget) = (Arc::clone(&self.handler.director), self.handler.budget.clone());
        let (metrics, subscription, connections) =
            (self.metrics.clone(), self.subscription.clone(), self.connections.clone());
        let namespace = self.options.scope.namespace.clone();
        let page = Page {
            scope: self.options.scope.clone(),
            director: Arc::clone(&director),
            subscription: subscription.clone(),
            metrics: metrics.clone(),
        };
        let (scope, viewed, seen) = (self.options.scope.clone(), Arc::clone(&director), subscription.clone());
        Admin::new(registry, self.ready(), "no routing table received yet, or the picker is stopping")
            .with_refresh(move || metrics.look_up(&director, &namespace, &budget, &subscription.borrow(), &connections))
            .with_routes(debug::routes(&self.handler).merge(page::routes(page)))
            .with_table(move || view::table(&scope, &viewed, &seen.borrow()))
    }
}
