//! The flags of `thalamus-controller`, and what it starts from them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use daemon::{Admin, LogArgs};
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use publish::Publisher;
use tokio::sync::{mpsc, watch as latest};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::event_loop::EventLoop;
use crate::metrics::Metrics;
use crate::status::Writer;
use crate::{view, watch};

/// Compiles InferencePools and InferenceModels into routing tables, and publishes them to pickers.
#[derive(Debug, Parser)]
#[command(name = "thalamus-controller", version)]
pub struct Args {
    /// Where pickers subscribe, in gRPC.
    #[arg(long, default_value = "0.0.0.0:9004")]
    pub listen: SocketAddr,

    /// Where /metrics, /ready, /live and /debug/table are.
    #[arg(long, default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,

    /// The one namespace to watch. All when absent.
    #[arg(long)]
    pub watch_namespace: Option<String>,

    #[command(flatten)]
    pub log: LogArgs,
}

/// How many events may wait for the loop. A relist is one event however large, so this is bursts of single changes.
const EVENTS: usize = 1024;

/// How long pickers may take to notice the end of their streams.
const GOODBYE: Duration = Duration::from_secs(1);

impl Args {
    /// Runs the controller until it is told to stop.
    pub async fn run(self) -> Result<()> {
        let Self { listen, admin_listen, watch_namespace, log } = self;
        log.init()?;
        // Several crates in the tree could bring a provider; kube asks for the process's default.
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a crypto provider was installed before");
        }
        let stop = daemon::stop_on_signal()?;
        let listener = daemon::bind(listen, "--listen").await?;
        let admin_listener = daemon::bind(admin_listen, "--admin-listen").await?;
        let config = Config::infer()
            .await
            .context("neither a KUBECONFIG nor a service account is there to reach the API server")?;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).context("making a client for the API server")?;

        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let publisher = Publisher::new(milliseconds_of_the_clock());
        let (events, received) = mpsc::channel(EVENTS);
        let watches = watch::all(&client, watch_namespace.as_deref(), &events);
        let (ready, is_ready) = latest::channel(false);
        let (compiled, newest) = latest::channel(None);
        let writer = Writer::start(client, metrics.clone());
        let event_loop = EventLoop::new(received, publisher.clone(), writer, metrics, ready, compiled);

        let shown = publisher.clone();
        let admin = Admin::new(registry, is_ready, "the API server has not listed every kind yet")
            .with_table(move || view::table(newest.borrow().as_deref(), &shown));
        tracing::info!(
            listen = %listener.local_addr()?,
            admin = %admin_listener.local_addr()?,
            server,
            namespace = watch_namespace.as_deref().unwrap_or("(all)"),
            "controller started"
        );
        let admin = tokio::spawn(admin.serve(admin_listener, CancellationToken::new()));
        let serve = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .add_service(publisher.service())
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), stop.clone().cancelled_owned());
        let mut serve = tokio::spawn(serve);

        // A controller whose loop or whose watches ended would look alive and do nothing.
        tokio::select! {
            () = stop.cancelled() => {}
            ended = tokio::spawn(event_loop.run()) => bail!("the event loop ended: {ended:?}"),
            () = watches => bail!("a watch ended"),
            ended = &mut serve => bail!("the port for pickers failed: {ended:?}"),
        }
        publisher.close();
        if tokio::time::timeout(GOODBYE, serve).await.is_err() {
            tracing::debug!("pickers were still connected");
        }
        admin.abort();
        tracing::info!("controller stopped");
        Ok(())
    }
}

fn milliseconds_of_the_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_well_formed() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }
}
