//! The picker's parts, put together. What listens is the caller's: a process binds ports, the demo binds one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::Admin;
use director::{Budget, Director, Front};
use ext_proc::ExtProc;
use prometheus_client::registry::Registry;
use proxy::{Cors, Proxy};
use publish::{Route, Scope, Subscriber, Subscription};
use request::Limits;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::jobs::AskAround;
use crate::metrics::Metrics;
use crate::{debug, scrape, subscription, table_file, view};

/// How a picker behaves.
#[derive(Debug, Clone)]
pub struct Options {
    pub scope: Scope,
    /// The name the controller knows it by.
    pub name: String,
    pub limits: Limits,
    pub max_buffered_bytes: u64,
    /// The pool for paths that are not known.
    pub other_paths_to: Option<String>,
    pub cors_allow_origins: Vec<String>,
    pub fallbacks: bool,
    /// Choose among all endpoints, whichever the gateway allows.
    pub ignore_subset: bool,
    /// Let clients select endpoints by a header, as conformance suites do.
    pub test_selection: bool,
    pub stall_timeout: Duration,
    pub body_timeout: Duration,
    pub connect_timeout: Duration,
    pub scrape_interval: Duration,
    /// Where the last table is kept.
    pub table_file: Option<PathBuf>,
}

/// A running picker.
#[derive(Debug)]
pub struct Picker {
    options: Options,
    front: Front,
    metrics: Metrics,
    subscription: watch::Receiver<Subscription>,
    ready: watch::Receiver<bool>,
}

impl Picker {
    /// Starts subscribing over what `route` gives, and scraping. Once `stop` is cancelled the picker is not ready any more, and decides
    /// on.
    pub fn start(
        options: Options,
        route: impl FnMut(bool) -> Result<Route, String> + Send + 'static,
        registry: &mut Registry,
        stop: &CancellationToken,
    ) -> Self {
        let director = Arc::new(Director::new(Instant::now()));
        let metrics = Metrics::register(registry);
        let front = Front {
            director: Arc::clone(&director),
            limits: options.limits,
            budget: Budget::new(options.max_buffered_bytes),
            jobs: Arc::default(),
            job_finder: Some(Arc::new(AskAround::new())),
            owner: options.scope.namespace.as_str().into(),
            other_paths: options.other_paths_to.as_deref().map(Arc::from),
            witness: Arc::new(metrics.clone()),
        };
        let (sender, subscription) = watch::channel(Subscription::default());
        let subscriber = Subscriber { picker: options.name.clone(), scope: options.scope.clone() };
        if let Some(file) = options.table_file.clone() {
            tokio::spawn(table_file::keep(file, options.scope.clone(), sender.clone()));
        }
        tokio::spawn(subscriber.run(route, sender));
        let (ready_sender, ready) = watch::channel(false);
        tokio::spawn(subscription::follow(subscription.clone(), Arc::clone(&director), ready_sender, stop.clone()));
        // To the end of the process: decisions go on while requests drain, and want to know who is busy.
        tokio::spawn(scrape::run(director, options.scrape_interval, metrics.clone()));
        Self { options, front, metrics, subscription, ready }
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
        self.front.director.board().in_flight()
    }

    pub fn front(&self) -> &Front {
        &self.front
    }

    /// The edge for gateways.
    pub fn ext_proc(&self) -> ExtProc {
        let Options { fallbacks, ignore_subset, test_selection, stall_timeout, body_timeout, .. } = self.options;
        let options = ext_proc::Options { fallbacks, ignore_subset, test_selection, stall_timeout, body_timeout };
        ExtProc::new(self.front.clone(), options)
    }

    /// The edge for clients.
    pub fn proxy(&self) -> Proxy {
        let Options { stall_timeout, body_timeout, connect_timeout, .. } = self.options;
        let cors = Cors::new(self.options.cors_allow_origins.clone());
        let options = proxy::Options { stall_timeout, body_timeout, connect_timeout, cors };
        Proxy::new(self.front.clone(), options)
    }

    /// The admin port's content.
    pub fn admin(&self, registry: Registry) -> Admin {
        let (director, budget) = (Arc::clone(&self.front.director), self.front.budget.clone());
        let (metrics, subscription) = (self.metrics.clone(), self.subscription.clone());
        let (scope, viewed, seen) = (self.options.scope.clone(), Arc::clone(&director), subscription.clone());
        Admin::new(registry, self.ready(), "no routing table has come yet, or the picker is stopping")
            .with_refresh(move || metrics.look_up(&director, &budget, &subscription.borrow()))
            .with_routes(debug::routes(self.front.clone()))
            .with_table(move || view::table(&scope, &viewed, &seen.borrow()))
    }
}
