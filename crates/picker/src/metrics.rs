//! What a picker counts and logs.

use std::fmt::{self, Display, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::Rarely;
use director::{
    AttemptReport, Budget, Code, Contradiction, Director, KnownEndpoint, Observer, Plan, Rejection, Reply,
    RequestReport, Usage,
};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use publish::Subscription;
use request::InferenceRequest;
use routing::{Modality, ModalitySet, PoolName, Unfit};
use scheduling::Choice;
use tokio::sync::mpsc;

use crate::picker::Connections;
use crate::recent::Recent;

mod ecosystem;

use ecosystem::Ecosystem;

/// The metrics of a picker; cheap to clone. Labels come from tables and closed sets, never from clients.
#[derive(Debug, Clone)]
pub struct Metrics {
    decisions: Family<DecisionLabels, Counter>,
    rejections: Family<RejectionLabels, Counter>,
    failures: Family<RejectionLabels, Counter>,
    answers: Counter,
    attempts: Family<AttemptLabels, Counter>,
    decision_seconds: Histogram,
    request_bytes: Histogram,
    media_items: Family<MediaLabels, Counter>,
    media_tokens: Histogram,
    work_seconds: Family<WorkLabels, Counter<f64, std::sync::atomic::AtomicU64>>,
    cache_decisions: Counter,
    in_flight: Gauge,
    waiting: Gauge,
    waited_seconds: Histogram,
    buffered_bytes: Gauge,
    table_revision: Gauge,
    table_age_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    scrapes: Family<ScrapeLabels, Counter>,
    served_elsewhere: Counter,
    connections: Family<PortLabels, Gauge>,
    connections_refused: Family<PortLabels, Gauge>,
    contradictions: Family<ContradictionLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    endpoints: Endpoints,
    ecosystem: Ecosystem,
    /// The last decisions, for the page.
    recent: Recent,
    /// Who is told of endpoints that contradict the table.
    contradicted: Option<mpsc::Sender<SocketAddr>>,
}

/// A label that is written when somebody reads it, and not for each request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Shown<T>(T);

impl<T: Display> EncodeLabelValue for Shown<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        write!(encoder, "{}", self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabels {
    port: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    pool: Shown<PoolName>,
    input: Shown<ModalitySet>,
    output: Shown<ModalitySet>,
    tier: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    pool: Shown<PoolName>,
    ending: &'static str,
    /// The hundred that the status is of; 0 where none came.
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ContradictionLabels {
    pool: String,
    /// What was refused; `length` or `items` where there was too much.
    of: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MediaLabels {
    modality: &'static str,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScrapeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkLabels {
    is: &'static str,
}

/// Tokens of a pool's requests and answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    pool: Shown<PoolName>,
    /// `input`, `output`, or what of the input was `cached`.
    is: &'static str,
    /// `unknown` where the server does not tell them apart.
    modality: &'static str,
}

/// What is looked up of each endpoint whenever somebody reads the metrics.
#[derive(Debug, Clone, Default)]
struct Endpoints {
    queued_seconds: Family<EndpointLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    cached_tokens: Family<EndpointLabels, Gauge>,
    healthy: Family<EndpointLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    pool: Arc<str>,
    endpoint: Arc<str>,
}

impl Metrics {
    fn new(ecosystem: Ecosystem) -> Self {
        Self {
            decisions: Family::default(),
            rejections: Family::default(),
            failures: Family::default(),
            answers: Counter::default(),
            attempts: Family::default(),
            // 1 µs to 16 ms.
            decision_seconds: Histogram::new(exponential_buckets(1e-6, 2.0, 15)),
            // 256 B to 64 MiB.
            request_bytes: Histogram::new(exponential_buckets(256.0, 4.0, 10)),
            media_items: Family::default(),
            // 16 to 1 M.
            media_tokens: Histogram::new(exponential_buckets(16.0, 4.0, 9)),
            work_seconds: Family::default(),
            cache_decisions: Counter::default(),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            // 1 ms to 32 s.
            waited_seconds: Histogram::new(exponential_buckets(1e-3, 2.0, 16)),
            buffered_bytes: Gauge::default(),
            table_revision: Gauge::default(),
            table_age_seconds: Gauge::default(),
            scrapes: Family::default(),
            served_elsewhere: Counter::default(),
            connections: Family::default(),
            connections_refused: Family::default(),
            contradictions: Family::default(),
            tokens: Family::default(),
            endpoints: Endpoints::default(),
            ecosystem,
            recent: Recent::default(),
            contradicted: None,
        }
    }

    /// Registers all of them, under the names that others had before as well where that is wanted.
    pub fn register(registry: &mut Registry, has_legacy: bool) -> Self {
        let metrics = Self::new(Ecosystem::register(registry, has_legacy));
        let registry = registry.sub_registry_with_prefix("thalamus_picker");
        registry.register(
            "decisions",
            "Requests routed to an endpoint, by modalities and tier",
            metrics.decisions.clone(),
        );
        registry.register("rejections", "Requests rejected, by reason", metrics.rejections.clone());
        registry.register("answers", "Requests that the picker answered itself", metrics.answers.clone());
        registry.register(
            "failures",
            "Requests routed to an endpoint that did not get a complete answer, by reason",
            metrics.failures.clone(),
        );
        registry.register(
            "attempts",
            "Attempts to send requests to endpoints, by how they ended and status class",
            metrics.attempts.clone(),
        );
        registry.register(
            "decision_seconds",
            "Time to route a request that has been read",
            metrics.decision_seconds.clone(),
        );
        registry.register("request_bytes", "Size of the bodies of routed requests", metrics.request_bytes.clone());
        registry.register(
            "media_items",
            "Media items in routed requests, by modality and source",
            metrics.media_items.clone(),
        );
        registry.register(
            "media_tokens",
            "Estimated tokens that the media of a request add to its prompt, where an estimate is possible",
            metrics.media_tokens.clone(),
        );
        registry.register(
            "work_seconds",
            "Estimated work of routed requests at a reference server: to be done, and spared by what is believed cached",
            metrics.work_seconds.clone(),
        );
        registry.register(
            "cache_decisions",
            "Requests that went elsewhere than they would if nothing of them were believed cached",
            metrics.cache_decisions.clone(),
        );
        registry.register(
            "contradictions",
            "Refusals by which endpoints contradicted what they were believed to take; the same of one endpoint counts once a minute",
            metrics.contradictions.clone(),
        );
        registry.register(
            "tokens",
            "Tokens of prompts and answers as model servers count them, where answers pass the picker",
            metrics.tokens.clone(),
        );
        registry.register(
            "endpoint_queued_seconds",
            "Estimated work left at an endpoint of what this picker sent and has not come to its first byte",
            metrics.endpoints.queued_seconds.clone(),
        );
        registry.register(
            "endpoint_cached_tokens",
            "Tokens believed to be in an endpoint's KV cache",
            metrics.endpoints.cached_tokens.clone(),
        );
        registry.register(
            "endpoint_healthy",
            "1 for an endpoint that gives signs of life, gets on with its work and answers; else 0",
            metrics.endpoints.healthy.clone(),
        );
        registry.register("buffered_bytes", "Bytes of request bodies currently held", metrics.buffered_bytes.clone());
        registry.register("requests_waiting", "Requests that wait for an endpoint with room", metrics.waiting.clone());
        registry.register(
            "waited_seconds",
            "How long requests waited for room, of those that had to and were routed in the end",
            metrics.waited_seconds.clone(),
        );
        registry.register("requests_in_flight", "Requests in flight at model servers", metrics.in_flight.clone());
        registry.register("table_revision", "Revision of the routing table in use", metrics.table_revision.clone());
        registry.register(
            "table_age_seconds",
            "Time since the controller was last heard from; 0 while connected",
            metrics.table_age_seconds.clone(),
        );
        registry.register("scrapes", "Scrapes of model servers' metrics, by outcome", metrics.scrapes.clone());
        registry.register(
            "served_elsewhere",
            "Requests that a gateway sent to an endpoint other than those chosen",
            metrics.served_elsewhere.clone(),
        );
        registry.register("connections", "Open connections, by port", metrics.connections.clone());
        registry.register(
            "connections_refused",
            "Connections closed since the start because their port had --max-connections of them",
            metrics.connections_refused.clone(),
        );
        metrics
    }

    /// `outcome` is `read`, `none` where a server answers and has no metrics, or `failed`.
    pub(crate) fn scraped(&self, outcome: &'static str) {
        self.scrapes.get_or_create(&ScrapeLabels { outcome }).inc();
        if outcome == "failed" {
            self.ecosystem.scrape_failed();
        }
    }

    /// Requests that were refused with this code.
    pub(crate) fn rejections_of(&self, code: Code) -> u64 {
        self.rejections.get(&RejectionLabels { reason: code.as_str() }).map_or(0, |counter| counter.get())
    }

    /// The last decisions.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// The same, telling the addresses of endpoints that contradict the table.
    pub(crate) fn telling(self, contradicted: mpsc::Sender<SocketAddr>) -> Self {
        Self { contradicted: Some(contradicted), ..self }
    }

    /// Brings what is known without tables up to date.
    pub(crate) fn look_up_held(&self, budget: &Budget) {
        self.buffered_bytes.set(i64::try_from(budget.held()).unwrap_or(i64::MAX));
    }

    /// Brings the gauges up to date.
    pub(crate) fn look_up(
        &self,
        director: &Director,
        namespace: &str,
        budget: &Budget,
        subscription: &Subscription,
        connections: &Connections,
    ) {
        self.look_up_held(budget);
        let now = Instant::now();
        let endpoints = director.endpoints();
        self.ecosystem.look_up(director, &endpoints, namespace, now);
        self.endpoints.look_up(&endpoints, now);
        self.in_flight.set(i64::try_from(director.in_flight()).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(director.waiting()).unwrap_or(i64::MAX));
        let revision = director.table().map_or(0, |(revision, _)| revision);
        self.table_revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.table_age_seconds.set(subscription.age(tokio::time::Instant::now()).as_secs_f64());
        for (port, limit) in [("ext_proc", &connections.ext_proc), ("http", &connections.http)] {
            let labels = PortLabels { port };
            self.connections.get_or_create(&labels).set(i64::try_from(limit.open()).unwrap_or(i64::MAX));
            self.connections_refused.get_or_create(&labels).set(i64::try_from(limit.refused()).unwrap_or(i64::MAX));
        }
    }
}

impl Metrics {
    fn count_tokens(&self, pool: &PoolName, usage: Usage) {
        let count = |is, modality, tokens: u64| {
            if tokens > 0 {
                let labels = TokenLabels { pool: Shown(pool.clone()), is, modality };
                self.tokens.get_or_create(&labels).inc_by(tokens);
            }
        };
        let apart = |is, all: Option<u64>, of: &dyn Fn(Modality) -> Option<u64>| {
            let told = Modality::ALL.into_iter().filter_map(|modality| Some((modality, of(modality)?)));
            let mut rest = all.unwrap_or(0);
            for (modality, tokens) in told {
                count(is, modality.as_str(), tokens);
                rest = rest.saturating_sub(tokens);
            }
            count(is, "unknown", rest);
        };
        apart("input", usage.input, &|modality| usage.input_of(modality));
        apart("output", usage.output, &|modality| usage.output_of(modality));
        count("cached", "unknown", usage.cached.unwrap_or(0));
    }
}

impl Endpoints {
    fn look_up(&self, endpoints: &[KnownEndpoint], now: Instant) {
        self.queued_seconds.clear();
        self.cached_tokens.clear();
        self.healthy.clear();
        for endpoint in endpoints {
            let state = &endpoint.state;
            let labels = EndpointLabels { pool: (&*state.id().pool).into(), endpoint: Arc::clone(&state.id().name) };
            let (load, health) = (state.load(now), state.health(now));
            self.queued_seconds.get_or_create(&labels).set(f64::from(load.queued + load.untold) / 1000.0);
            let cached = i64::try_from(state.cached_tokens()).unwrap_or(i64::MAX);
            self.cached_tokens.get_or_create(&labels).set(cached);
            self.healthy.get_or_create(&labels).set((health.responsive && health.answering).into());
        }
    }
}

impl Observer for Metrics {
    fn dispatched(&self, request: &InferenceRequest, plan: &Plan, took: Duration) {
        let first = plan.first();
        let labels = DecisionLabels {
            pool: Shown(first.pool().clone()),
            input: Shown(request.requires.input),
            output: Shown(request.requires.output),
            tier: u32::try_from(plan.why.tier).unwrap_or(u32::MAX),
        };
        self.decisions.get_or_create(&labels).inc();
        self.decision_seconds.observe(took.as_secs_f64());
        if !plan.waited.is_zero() {
            self.waited_seconds.observe(plan.waited.as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "a body is far below 2^52 bytes")]
        self.request_bytes.observe(request.bytes as f64);
        for item in &request.media {
            let labels = MediaLabels { modality: item.modality.as_str(), source: item.source.as_str() };
            self.media_items.get_or_create(&labels).inc();
        }
        if let Some(tokens) = plan.media_tokens.filter(|tokens| *tokens > 0) {
            #[expect(clippy::cast_precision_loss, reason = "estimates are far below 2^52")]
            self.media_tokens.observe(tokens as f64);
        }
        for (is, milliseconds) in [("to_do", first.work.all()), ("spared", first.work.saved)] {
            let counter = self.work_seconds.get_or_create(&WorkLabels { is });
            counter.inc_by(f64::from(milliseconds.max(0.0)) / 1000.0);
        }
        self.cache_decisions.inc_by((plan.why.choice == Choice::Cached).into());
        self.ecosystem.dispatched(plan, took);
        self.recent.dispatched(request, plan, took);
        // What is shown is made in one piece: the formatter would escape it word by word.
        tracing::info!(
            model = request.model,
            operation = request.requires.operation.as_str(),
            endpoint = first.address.to_string(),
            pool = &**first.pool(),
            target = first.target.as_deref(),
            bytes = request.bytes,
            media = request.media.len(),
            media_tokens = plan.media_tokens,
            work_ms = first.work.all().round(),
            spared_ms = first.work.saved.round(),
            waited_ms = (!plan.waited.is_zero()).then_some(plan.waited.as_millis()),
            revision = plan.revision,
            took_us = took.as_micros(),
            why = plan.why.to_string(),
            "decided"
        );
    }

    fn answered(&self, request: &InferenceRequest, reply: &Reply) {
        self.answers.inc();
        tracing::debug!(operation = request.requires.operation.as_str(), status = reply.status.as_u16(), "answered");
    }

    fn failed(&self, plan: &Plan, rejection: &Rejection) {
        self.failures.get_or_create(&RejectionLabels { reason: rejection.code().as_str() }).inc();
        tracing::warn!(reason = rejection.code().as_str(), pool = %plan.first().pool(), why = %rejection, "failed");
    }

    fn attempted(&self, report: &AttemptReport<'_>) {
        let AttemptReport { endpoint, address, ending, status, to_first_byte, took, .. } = report;
        let labels = AttemptLabels {
            pool: Shown(endpoint.pool.clone()),
            ending: ending.as_str(),
            status: status.map_or(0, |status| status.as_u16() / 100 * 100),
        };
        self.attempts.get_or_create(&labels).inc();
        tracing::debug!(
            endpoint = %address,
            pool = %endpoint.pool,
            ending = ending.as_str(),
            status = status.map(|status| status.as_u16()),
            first_byte_ms = to_first_byte.map(|passed| passed.as_millis()),
            took_ms = took.map(|passed| passed.as_millis()),
            "attempted"
        );
    }

    fn finished(&self, report: &RequestReport<'_>) {
        self.ecosystem.finished(report);
        let RequestReport { asked, outcome, endpoint, to_first_byte, took, bytes, usage, .. } = report;
        if let Some(endpoint) = endpoint {
            self.count_tokens(&endpoint.pool, *usage);
        }
        tracing::debug!(
            model = asked.model.as_deref(),
            outcome = ?outcome,
            first_byte_ms = to_first_byte.map(|passed| passed.as_millis()),
            took_ms = took.map(|passed| passed.as_millis()),
            bytes,
            input_tokens = usage.input,
            cached_tokens = usage.cached,
            output_tokens = usage.output,
            "finished"
        );
    }

    fn contradicted(&self, contradiction: &Contradiction<'_>) {
        let Contradiction { endpoint, address, unfit, refused } = contradiction;
        let of = match unfit {
            Unfit::Length { .. } => "length".to_owned(),
            Unfit::Items { most: 1.., .. } => "items".to_owned(),
            Unfit::TextOnly | Unfit::Items { .. } => refused.to_string(),
        };
        tracing::warn!(
            endpoint = &*endpoint.name,
            %address,
            pool = %endpoint.pool,
            takes = %unfit,
            "the endpoint says that it does not take what it is believed to"
        );
        self.contradictions.get_or_create(&ContradictionLabels { pool: endpoint.pool.to_string(), of }).inc();
        if let Some(contradicted) = &self.contradicted {
            _ = contradicted.try_send(*address);
        }
    }

    fn served_elsewhere(&self, plan: &Plan, address: SocketAddr) {
        static SAID: Rarely = Rarely::new();
        self.served_elsewhere.inc();
        if SAID.is_due(Instant::now()) {
            tracing::warn!(
                chosen = %plan.first().address,
                served = %address,
                pool = %plan.first().pool(),
                "the gateway sent a request to a different endpoint than the one chosen, as it does when it does not \
                 know the chosen one: its route may lead to another pool (docs/gateways.md); logged at most once a minute"
            );
        }
    }

    fn rejected(&self, rejection: &Rejection) {
        self.rejections.get_or_create(&RejectionLabels { reason: rejection.code().as_str() }).inc();
        self.ecosystem.rejected(rejection);
        self.recent.rejected(rejection);
        tracing::info!(
            reason = rejection.code().as_str(),
            status = rejection.status().as_u16(),
            param = rejection.param(),
            why = %rejection,
            "rejected"
        );
    }
}

#[cfg(test)]
mod tests;
