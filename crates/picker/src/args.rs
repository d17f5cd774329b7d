//! The flags of `thalamus-picker`, and what it starts from them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use daemon::{Incoming, LogArgs, Speaks, tls};
use director::Budget;
use prometheus_client::registry::Registry;
use publish::Scope;
use request::Limits;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::controllers::Controllers;
use crate::reference_flags::ReferenceFlags;
use crate::{Options, Picker};

/// Answers gateways and clients which model server takes a request.
#[derive(Debug, Parser)]
#[command(name = "thalamus-picker", version)]
pub struct Args {
    /// Where the controller publishes routing tables, such as https://thalamus-controller.thalamus-system:9004. Several, with commas
    /// between them or by repeating the flag, are tried in turn.
    #[arg(
        long,
        env = "THALAMUS_CONTROLLER",
        value_delimiter = ',',
        default_value = "https://thalamus-controller.thalamus-system:9004"
    )]
    pub controller: Vec<String>,

    /// The CA that vouches for the controller, in PEM. Read again for each connection.
    #[arg(long, env = "THALAMUS_CONTROLLER_CA")]
    pub controller_ca: Option<PathBuf>,

    /// A token that says who this picker is, shown to the controller. Read again for each connection.
    #[arg(long, env = "THALAMUS_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Where to keep the last routing table, for a start while no controller is there. Nowhere when absent.
    #[arg(long)]
    pub table_file: Option<PathBuf>,

    /// The namespace to serve.
    #[arg(long, alias = "pool-namespace", env = "NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// The one pool of it to serve. Every pool when absent.
    #[arg(long, alias = "pool-name")]
    pub pool: Option<String>,

    /// The name the controller knows this picker by.
    #[arg(long, env = "POD_NAME", default_value = "picker")]
    pub name: String,

    /// Where gateways ask, in gRPC. TLS and plain text are taken on the same port.
    #[arg(long, default_value = "0.0.0.0:9002")]
    pub ext_proc_listen: SocketAddr,

    /// Where health is told in plain gRPC.
    #[arg(long, default_value = "0.0.0.0:9003")]
    pub health_listen: SocketAddr,

    /// Where clients without a gateway send requests. Nowhere when absent.
    #[arg(long)]
    pub http_listen: Option<SocketAddr>,

    /// Where /metrics, /ready, /live and /debug/table are.
    #[arg(long, default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,

    /// A certificate chain in PEM for the ext_proc port. Self-signed when absent.
    #[arg(long, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Its key in PEM.
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Largest request body that is taken, in bytes.
    #[arg(long, default_value_t = Limits::DEFAULT_MAX_BODY_BYTES)]
    pub max_body_bytes: u64,

    /// Most bytes of request bodies that are held at once; whoever comes when there is no room is answered 503.
    #[arg(long, default_value_t = Budget::DEFAULT_BYTES)]
    pub max_buffered_bytes: u64,

    /// The pool that requests go to whose path is not known: as they are, unread, with no media policy. They are refused with 404 when
    /// absent; paths by which model servers are managed always are.
    #[arg(long)]
    pub other_paths_to: Option<String>,

    /// An origin whose pages may ask over HTTP, such as https://app.example.com, or * for all. May be repeated. None when absent.
    #[arg(long = "cors-allow-origin")]
    pub cors_allow_origins: Vec<String>,

    /// Name fallbacks to gateways, as ip:port,ip:port. Envoy walks them; agentgateway refuses every such answer.
    #[arg(long)]
    pub fallbacks: bool,

    /// How long a client may send nothing in the middle of a body.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub stall_timeout: Duration,

    /// How long a client may take over a whole body.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    pub body_timeout: Duration,

    /// How long a model server may take to accept a connection, for requests over HTTP.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub connect_timeout: Duration,

    /// How often each model server's /metrics are read.
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub scrape_interval: Duration,

    /// How long to go on taking new requests after SIGTERM, while the cluster learns that this picker leaves.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// How long requests under way may take to end after that.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    #[command(flatten)]
    pub(crate) reference: ReferenceFlags,

    #[command(flatten)]
    pub log: LogArgs,
}

impl Args {
    /// Runs the picker until it is told to stop and has drained.
    #[expect(clippy::too_many_lines, reason = "a third of it names the flags, so that one nobody uses is a warning")]
    pub async fn run(self) -> Result<()> {
        let Self {
            controller,
            controller_ca,
            token_file,
            table_file,
            namespace,
            pool,
            name,
            ext_proc_listen,
            health_listen,
            http_listen,
            admin_listen,
            tls_cert,
            tls_key,
            max_body_bytes,
            max_buffered_bytes,
            other_paths_to,
            cors_allow_origins,
            fallbacks,
            stall_timeout,
            body_timeout,
            connect_timeout,
            scrape_interval,
            drain_delay,
            drain_timeout,
            reference,
            log,
        } = self;
        log.init()?;
        for flag in reference.without_effect() {
            tracing::info!(flag, "a flag of other endpoint pickers, which has no effect here");
        }
        let [ext_proc_listen, health_listen, admin_listen] =
            reference.ports([ext_proc_listen, health_listen, admin_listen]);
        if namespace.is_empty() {
            bail!("--namespace is empty");
        }
        let mut controllers = Controllers::new(&controller, controller_ca, token_file)?;
        let signal = daemon::stop_on_signal()?;
        let ext_proc_listener = daemon::bind(ext_proc_listen, "--ext-proc-listen").await?;
        let health_listener = daemon::bind(health_listen, "--health-listen").await?;
        let admin_listener = daemon::bind(admin_listen, "--admin-listen").await?;
        let http_listener = match http_listen {
            Some(address) => Some(daemon::bind(address, "--http-listen").await?),
            None => None,
        };
        let keys = match (tls_cert, tls_key) {
            (Some(cert), Some(key)) => tls::from_files(&cert, &key)?,
            _ => tls::self_signed("thalamus-picker")?,
        };

        let options = Options {
            scope: Scope { namespace, pool },
            name,
            limits: Limits { max_body_bytes },
            max_buffered_bytes,
            other_paths_to,
            cors_allow_origins,
            fallbacks,
            test_selection: reference.test_endpoint_selection,
            stall_timeout,
            body_timeout,
            connect_timeout,
            scrape_interval,
            table_file,
        };
        // Those who ask are told at once that we leave; those who listen go on for a while.
        let stop = CancellationToken::new();
        let mut registry = Registry::default();
        let picker = Picker::start(options, move |again| controllers.route(again), &mut registry, &signal);
        let local = |listener: &tokio::net::TcpListener| {
            listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
        };
        tracing::info!(
            ext_proc = local(&ext_proc_listener),
            health = local(&health_listener),
            http = http_listener.as_ref().map(local),
            admin = local(&admin_listener),
            scope = %picker.scope(),
            controller = controller.join(","),
            "picker started"
        );

        let admin = tokio::spawn(picker.admin(registry).serve(admin_listener, CancellationToken::new()));
        let health = ext_proc::serve_health(picker.ready()).await;
        let health_port = Server::builder().add_service(health.clone()).serve_with_incoming_shutdown(
            Incoming::new(health_listener, Speaks::Plain),
            stop.clone().cancelled_owned(),
        );
        let ext_proc_port = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .add_service(health)
            .add_service(picker.ext_proc().service())
            .serve_with_incoming_shutdown(
                Incoming::new(ext_proc_listener, Speaks::Both(keys)),
                stop.clone().cancelled_owned(),
            );
        let http_port = {
            let (proxy, stop) = (picker.proxy(), stop.clone());
            async move {
                if let Some(listener) = http_listener {
                    proxy::serve(listener, proxy, stop).await;
                }
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
                tracing::warn!(left = picker.in_flight(), "requests were still under way when --drain-timeout ran out");
            }
        }
        admin.abort();
        tracing::info!("picker stopped");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_well_formed() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn what_a_chart_for_another_picker_says_is_understood() {
        let flags = "thalamus-picker --pool-name vision --pool-namespace serving --grpc-port 9102 --grpc-health-port=9103 --zap-encoder json \
            --metrics-port 9190 --secure-serving=false --tracing=false -v 3 --config-file /config/default.yaml";
        let args = Args::parse_from(flags.split_whitespace());
        assert_eq!((args.namespace.as_str(), args.pool.as_deref()), ("serving", Some("vision")));
        let ports = args.reference.ports([args.ext_proc_listen, args.health_listen, args.admin_listen]);
        assert_eq!(ports.map(|address| address.port()), [9102, 9103, 9190]);
        let ignored = ["--secure-serving", "--tracing", "--zap-encoder", "-v", "--config-file"];
        assert_eq!(args.reference.without_effect(), ignored);
    }
}
