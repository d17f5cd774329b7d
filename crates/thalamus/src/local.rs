//! Controller and picker in one process: the index on this side, the picker on the other, the real stream between.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use daemon::{Admin, ConnectionLimit, Port};
use director::Tracer;
use index::Index;
use picker::{Options, Picker};
use prometheus_client::registry::Registry;
use publish::{Access, Publisher, Scope};
use request::Limits;
use routing::RoutingTable;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::manifests::Objects;

/// Compiles and publishes.
#[derive(Debug)]
pub(crate) struct LocalController {
    index: Index,
    publisher: Publisher,
}

/// Serves an admin port to the end of the process, and says where it is.
pub(crate) async fn serve_admin(admin: Admin, listen: SocketAddr) -> Result<SocketAddr> {
    let listener = daemon::bind(listen, "--admin-listen").await?;
    let address = listener.local_addr().context("asking for the port")?;
    tokio::spawn(admin.serve(Port::new(listener, ConnectionLimit::for_operators()), CancellationToken::new()));
    Ok(address)
}

impl LocalController {
    pub(crate) fn new() -> Self {
        Self { index: Index::default(), publisher: Publisher::new(publish::revision_of_the_clock()) }
    }

    /// Makes these the objects there are. Says what is wrong with them, an object a line.
    pub(crate) fn apply(&mut self, objects: &Objects) -> Vec<String> {
        objects.events().into_iter().for_each(|event| _ = self.index.observe(event));
        let compiled = self.index.compile();
        let models = compiled
            .models
            .iter()
            .flat_map(|(key, report)| report.verdicts.iter().map(move |v| ("InferenceModel", key, v)));
        let pools = compiled
            .pools
            .iter()
            .flat_map(|(key, report)| report.verdicts.iter().map(move |v| ("InferencePool", key, v)));
        // Without a cluster there is no Service for a gateway to find, and nobody misses it.
        let wrong = models.chain(pools).filter(|(kind, _, verdict)| {
            let for_gateways = *kind == "InferencePool" && matches!(verdict.type_, "ResolvedRefs" | "Accepted");
            !(verdict.holds || for_gateways)
        });
        let wrong = wrong.map(|(kind, key, verdict)| format!("{kind} {key}: {}", verdict.message)).collect();
        self.publisher.publish(compiled.tables);
        wrong
    }

    /// Makes this the table of a namespace, the only one there is.
    pub(crate) fn publish(&mut self, namespace: &str, table: RoutingTable) {
        self.publisher.publish(BTreeMap::from([(namespace.to_owned(), Arc::new(table))]));
    }

    /// The servers that refuse what the table says that they take: see [`Publisher::contradictions`].
    pub(crate) fn contradictions(&self) -> mpsc::Receiver<SocketAddr> {
        self.publisher.contradictions()
    }

    /// A picker of this controller, over a pipe in memory.
    pub(crate) fn picker(
        &self,
        namespace: &str,
        limits: Limits,
        tracer: Option<Arc<dyn Tracer>>,
        registry: &mut Registry,
        stop: &CancellationToken,
    ) -> Picker {
        let options = Options {
            scope: Scope { namespace: namespace.to_owned(), pool: None },
            name: "thalamus".into(),
            limits,
            max_buffered_bytes: director::Budget::DEFAULT_BYTES,
            other_paths: None,
            private_domains: Vec::new(),
            cors_allow_origins: Vec::new(),
            fallbacks: false,
            ignore_subset: false,
            test_selection: false,
            max_connections: daemon::ConnectionLimit::DEFAULT,
            max_streams: 16_384,
            body: director::BodyTimeouts { stall: Duration::from_secs(30), whole: Duration::from_mins(5) },
            queue: director::QueueLimits::default(),
            max_cached_blocks: director::MOST_CACHED,
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: None,
            scrape_interval: Duration::from_millis(500),
            table_file: None,
            legacy_metrics: false,
            tracer,
        };
        let channel = self.publisher.channel();
        Picker::start(
            options,
            move |_| Ok(Access { channel: channel.clone(), token: None, others: false }),
            registry,
            stop,
        )
    }
}
