//! The same under the names that dashboards, alerts and autoscalers of llm-d read (`llm_d_epp_*`: llm-d-router docs/metrics.md of September
//! 2026), and under those that they had before.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use director::{Asked, Director, KnownEndpoint, Outcome, Plan, Rejection, RequestReport};
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use routing::{Operation, PoolName};
use scheduling::{Load, SATURATED_KV_CACHE, SATURATED_WAITING};

type FloatGauge = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone)]
pub(super) struct Ecosystem {
    names: Names,
    requests: Family<RequestLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    running: Family<RequestLabels, Gauge>,
    seconds: Family<RequestLabels, Histogram, Buckets>,
    first_byte_seconds: Family<FirstByteLabels, Histogram, Buckets>,
    request_bytes: Family<RequestLabels, Histogram, Buckets>,
    response_bytes: Family<RequestLabels, Histogram, Buckets>,
    input_tokens: Family<RequestLabels, Histogram, Buckets>,
    output_tokens: Family<RequestLabels, Histogram, Buckets>,
    cached_tokens: Family<RequestLabels, Histogram, Buckets>,
    seconds_a_token: Family<RequestLabels, Histogram, Buckets>,
    seconds_between_tokens: Family<RequestLabels, Histogram, Buckets>,
    rewrites: Family<RewriteLabels, Counter>,
    scheduler_seconds: Histogram,
    scheduler_attempts: Family<SchedulerLabels, Counter>,
    poll_errors: Family<SourceLabels, Counter>,
    flow_control: Family<FlowLabels, Counter>,
    queue_seconds: Family<QueueLabels, Histogram, Buckets>,
    pools: Pools,
}

/// What is looked up whenever somebody reads the metrics.
#[derive(Debug, Clone, Default)]
struct Pools {
    ready: Family<PoolLabels, Gauge>,
    queue: Averages,
    running: Averages,
    kv_cache: Averages,
    endpoint_queue: Family<EndpointLabels, Gauge>,
    endpoint_requests: Family<InFlightLabels, Gauge>,
    saturation: Family<SaturationLabels, FloatGauge>,
    waiting: Family<WaitingLabels, Gauge>,
}

#[derive(Debug, Clone, Default)]
struct Averages {
    average: Family<PoolLabels, FloatGauge>,
    deviation: Family<PoolLabels, FloatGauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    model_name: Arc<str>,
    target_model_name: Arc<str>,
    fairness_id: &'static str,
    priority: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    #[prometheus(flatten)]
    request: RequestLabels,
    error_code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FirstByteLabels {
    #[prometheus(flatten)]
    request: RequestLabels,
    streaming: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RewriteLabels {
    model_rewrite_name: Arc<str>,
    model_name: Arc<str>,
    target_model: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SchedulerLabels {
    status: &'static str,
    target_model_name: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    name: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    name: Arc<str>,
    model_server_endpoint: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InFlightLabels {
    endpoint_name: Arc<str>,
    namespace: Arc<str>,
    producer_name: &'static str,
    fairness_id: &'static str,
    priority: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SaturationLabels {
    inference_pool: Arc<str>,
    stage: &'static str,
}

/// What became of a request before the endpoints, in llm-d's words (its `QueueOutcome`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FlowLabels {
    outcome: &'static str,
    priority: i32,
    inference_pool: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    #[prometheus(flatten)]
    request: RequestLabels,
    outcome: &'static str,
    inference_pool: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitingLabels {
    fairness_id: &'static str,
    priority: &'static str,
    inference_pool: Arc<str>,
    model_name: &'static str,
    target_model_name: &'static str,
}

/// Upper bounds, in the metric's unit.
#[derive(Debug, Clone, Copy)]
struct Buckets(&'static [f64]);

/// Those of llm-d, so that quantiles of both can be compared.
const SECONDS: Buckets = Buckets(&[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
]);
const SECONDS_A_TOKEN: Buckets = Buckets(&[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
const QUEUE_SECONDS: Buckets =
    Buckets(&[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);
const SCHEDULER_SECONDS: Buckets = Buckets(&[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]);
const BYTES: Buckets = Buckets(&powers_of_two::<25>(6));
const TOKENS: Buckets = Buckets(&powers_of_two::<21>(0));

/// More names than this of one kind are `other`: tables come and go, and series stay.
const MOST_NAMES: usize = 1000;

const OTHER: &str = "other";

const fn powers_of_two<const COUNT: usize>(first: u32) -> [f64; COUNT] {
    let mut bounds = [0.0; COUNT];
    let mut at = 0;
    while at < COUNT {
        #[expect(clippy::cast_possible_truncation, reason = "few")]
        {
            bounds[at] = (1_u32 << (first + at as u32)) as f64;
        }
        at += 1;
    }
    bounds
}

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// Names that have a series of their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Mutex<HashSet<Arc<str>>>>);

impl Names {
    pub(super) fn label(&self, name: Option<&str>) -> Arc<str> {
        let Some(name) = name else { return OTHER.into() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(name) {
            Some(name) => Arc::clone(name),
            None if known.len() < MOST_NAMES => {
                let name: Arc<str> = name.into();
                known.insert(Arc::clone(&name));
                name
            }
            None => OTHER.into(),
        }
    }
}

/// Where a metric is found.
struct Registrar<'r> {
    registry: &'r mut Registry,
    has_legacy: bool,
}

impl Registrar<'_> {
    /// Under `llm_d_epp_…`, and under the name before that, where there was one and it is wanted.
    fn register(&mut self, name: &str, legacy: Option<&str>, help: &str, metric: impl Metric + Clone) {
        if let Some(legacy) = legacy.filter(|_| self.has_legacy) {
            self.registry.register(legacy, help, metric.clone());
        }
        self.registry.register(format!("llm_d_epp_{name}"), help, metric);
    }
}

impl Ecosystem {
    pub(super) fn register(registry: &mut Registry, has_legacy: bool) -> Self {
        let of = Family::new_with_constructor;
        let all = Self {
            names: Names::default(),
            requests: Family::default(),
            errors: Family::default(),
            running: Family::default(),
            seconds: of(SECONDS),
            first_byte_seconds: Family::new_with_constructor(SECONDS),
            request_bytes: of(BYTES),
            response_bytes: of(BYTES),
            input_tokens: of(TOKENS),
            output_tokens: of(TOKENS),
            cached_tokens: of(TOKENS),
            seconds_a_token: of(SECONDS_A_TOKEN),
            seconds_between_tokens: of(SECONDS_A_TOKEN),
            rewrites: Family::default(),
            scheduler_seconds: SCHEDULER_SECONDS.new_metric(),
            scheduler_attempts: Family::default(),
            poll_errors: Family::default(),
            flow_control: Family::default(),
            queue_seconds: Family::new_with_constructor(QUEUE_SECONDS),
            pools: Pools::default(),
        };
        let mut registrar = Registrar { registry, has_legacy };
        all.register_requests(&mut registrar);
        all.register_pools(&mut registrar);
        let version = env!("CARGO_PKG_VERSION");
        let info = || Info::new(vec![("commit", ""), ("build_ref", version)]);
        if has_legacy {
            registrar.registry.register("inference_extension", "The picker's version", info());
        }
        registrar.registry.register("llm_d_epp", "The picker's version", info());
        all
    }

    fn register_requests(&self, registrar: &mut Registrar<'_>) {
        macro_rules! register {
            ($($field:ident, $name:literal, $legacy:expr, $help:literal;)*) => {
                $(registrar.register($name, $legacy, $help, self.$field.clone());)*
            };
        }
        register! {
            requests, "request", Some("inference_objective_request"), "Requests that went to an endpoint or were refused, by model";
            errors, "request_error", Some("inference_objective_request_error"), "Requests that got an error, by code: ours (docs/errors.md), or model_server_4xx and model_server_5xx";
            running, "request_running", Some("inference_objective_running_requests"), "Requests under way, by model";
            seconds, "request_duration_seconds", Some("inference_objective_request_duration_seconds"), "From the decision to the end of the answer, with the time that a request waited for room";
            first_byte_seconds, "request_ttft_seconds", None, "From the decision to the first byte of the answer's body";
            request_bytes, "request_size_bytes", Some("inference_objective_request_sizes"), "Size of requests' bodies";
            response_bytes, "response_size_bytes", Some("inference_objective_response_sizes"), "Size of answers' bodies, where they pass the picker";
            input_tokens, "request_input_tokens", Some("inference_objective_input_tokens"), "Tokens of prompts, as model servers count them";
            output_tokens, "request_output_tokens", Some("inference_objective_output_tokens"), "Tokens of answers, as model servers count them";
            cached_tokens, "request_cached_tokens", Some("inference_objective_prompt_cached_tokens"), "Tokens of prompts that model servers had in a cache, as they count them";
            seconds_a_token, "request_ntpot_seconds", Some("inference_objective_normalized_time_per_output_token_seconds"), "Duration of a request by the tokens of its answer";
            seconds_between_tokens, "request_streaming_tpot_seconds", None, "From the first byte of a streamed answer to its end, by the tokens after the first";
            rewrites, "model_rewrite_decisions", Some("inference_extension_model_rewrite_decisions"), "Requests sent on under another model name than the client's";
            scheduler_seconds, "scheduler_e2e_duration_seconds", Some("inference_extension_scheduler_e2e_duration_seconds"), "Time to route a request that has been read";
            scheduler_attempts, "scheduler_attempts", Some("inference_extension_scheduler_attempts"), "Decisions, by whether an endpoint was found";
            flow_control, "flow_control_requests", None, "Requests that went on (Dispatched), found no place in the queue (RejectedCapacity), waited in it for too long (EvictedTTL), or made way there for others (EvictedOther); those whose client left it are not counted";
            queue_seconds, "flow_control_request_queue_duration_seconds", Some("inference_extension_flow_control_request_queue_duration_seconds"), "How long requests waited for room, of those that had to, whatever became of them; those whose client left are not counted";
            poll_errors, "datalayer_poll_errors", None, "Scrapes of model servers' metrics that failed";
        }
    }

    fn register_pools(&self, registrar: &mut Registrar<'_>) {
        let Pools { ready, queue, running, kv_cache, endpoint_queue, endpoint_requests, saturation, waiting } =
            &self.pools;
        let mut register = |name: &str, help: &str, metric: Family<PoolLabels, FloatGauge>| {
            registrar.register(name, Some(&format!("inference_pool_{name}")), help, metric);
        };
        register(
            "average_queue_size",
            "Requests in an endpoint's queue, on average over those that say",
            queue.average.clone(),
        );
        register(
            "average_running_requests",
            "Requests that an endpoint works on, on average over those that say",
            running.average.clone(),
        );
        register(
            "average_kv_cache_utilization",
            "Share of an endpoint's KV cache in use (0 to 1), on average over those that say",
            kv_cache.average.clone(),
        );
        register(
            "std_dev_queue_size",
            "Standard deviation of the queues of a pool's endpoints",
            queue.deviation.clone(),
        );
        register(
            "std_dev_running_requests",
            "Standard deviation of the requests that a pool's endpoints work on",
            running.deviation.clone(),
        );
        register(
            "std_dev_kv_cache_utilization",
            "Standard deviation of the KV caches in use of a pool's endpoints",
            kv_cache.deviation.clone(),
        );
        registrar.register(
            "ready_endpoints",
            Some("inference_pool_ready_pods"),
            "Endpoints of a pool that are ready",
            ready.clone(),
        );
        registrar.register(
            "per_endpoint_queue_size",
            Some("inference_pool_per_pod_queue_size"),
            "Requests in an endpoint's queue, as its metrics say",
            endpoint_queue.clone(),
        );
        registrar.register(
            "inflight_requests",
            None,
            "Requests of this picker at an endpoint",
            endpoint_requests.clone(),
        );
        registrar.register("flow_control_pool_saturation", Some("inference_extension_flow_control_pool_saturation"), "How full the endpoints of a pool are on average: for each the larger of its queue / 5 and its KV cache / 0.95; 1 where there is no endpoint, 0 where none shows metrics", saturation.clone());
        registrar.register(
            "flow_control_queue_size",
            Some("inference_extension_flow_control_queue_size"),
            "Requests that wait in the picker for room in a pool",
            waiting.clone(),
        );
    }

    fn labels(&self, asked: &Asked) -> RequestLabels {
        let model_name = self.names.label(asked.model.as_deref());
        let target_model_name = match &asked.target {
            Some(target) => self.names.label(Some(target)),
            None => Arc::clone(&model_name),
        };
        RequestLabels { model_name, target_model_name, fairness_id: "", priority: asked.priority }
    }

    pub(super) fn dispatched(&self, plan: &Plan, took: Duration) {
        if !plan.asked.is_inference {
            return;
        }
        let labels = self.labels(&plan.asked);
        self.requests.get_or_create(&labels).inc();
        self.running.get_or_create(&labels).inc();
        #[expect(clippy::cast_precision_loss, reason = "a body is far below 2^52 bytes")]
        self.request_bytes.get_or_create(&labels).observe(plan.asked.bytes as f64);
        self.scheduler_seconds.observe(took.as_secs_f64());
        let waited = (!plan.waited.is_zero()).then_some(plan.waited);
        self.passed_the_queue("Dispatched", labels.clone(), Some(plan.first().pool()), waited);
        if plan.asked.target.is_some() && labels.target_model_name != labels.model_name {
            let rewrite = RewriteLabels {
                model_rewrite_name: Arc::clone(&labels.model_name),
                model_name: Arc::clone(&labels.model_name),
                target_model: Arc::clone(&labels.target_model_name),
            };
            self.rewrites.get_or_create(&rewrite).inc();
        }
        let scheduled = SchedulerLabels { status: "success", target_model_name: labels.target_model_name };
        self.scheduler_attempts.get_or_create(&scheduled).inc();
    }

    pub(super) fn rejected(&self, rejection: &Rejection) {
        let name = self.names.label(rejection.declared_model());
        let priority = rejection.no_room().map_or(0, |no_room| no_room.priority);
        let request =
            RequestLabels { model_name: Arc::clone(&name), target_model_name: name, fairness_id: "", priority };
        if let Some(no_room) = rejection.no_room().filter(|no_room| no_room.is_inference) {
            let (outcome, waited) = match rejection {
                Rejection::WaitedTooLong { waited, .. } => ("EvictedTTL", Some(*waited)),
                Rejection::MadeWay { waited, .. } => ("EvictedOther", Some(*waited)),
                _ => ("RejectedCapacity", None),
            };
            self.passed_the_queue(outcome, request.clone(), no_room.pool.as_ref(), waited);
        }
        self.requests.get_or_create(&request).inc();
        self.errors.get_or_create(&ErrorLabels { request, error_code: rejection.code().as_str() }).inc();
        // The others were refused before anybody looked for an endpoint.
        let status = rejection.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            let failed = SchedulerLabels { status: "failure", target_model_name: OTHER.into() };
            self.scheduler_attempts.get_or_create(&failed).inc();
        }
    }

    /// `waited` is none of one that never did.
    fn passed_the_queue(
        &self,
        outcome: &'static str,
        request: RequestLabels,
        pool: Option<&PoolName>,
        waited: Option<Duration>,
    ) {
        let inference_pool = self.names.label(pool.map(|pool| &**pool));
        let flow = FlowLabels { outcome, priority: request.priority, inference_pool: Arc::clone(&inference_pool) };
        self.flow_control.get_or_create(&flow).inc();
        if let Some(waited) = waited {
            let queued = QueueLabels { request, outcome, inference_pool };
            self.queue_seconds.get_or_create(&queued).observe(waited.as_secs_f64());
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes and tokens are far below 2^52")]
    pub(super) fn finished(&self, report: &RequestReport<'_>) {
        let RequestReport { asked, outcome, to_first_byte, took, bytes, usage, .. } = report;
        if !asked.is_inference {
            return;
        }
        let labels = self.labels(asked);
        self.running.get_or_create(&labels).dec();
        let error_code = match outcome {
            Outcome::Failed(code) => Some(code.as_str()),
            Outcome::Answered(status) if status.is_client_error() => Some("model_server_4xx"),
            Outcome::Answered(status) if status.is_server_error() => Some("model_server_5xx"),
            Outcome::Answered(_) | Outcome::Abandoned => None,
        };
        if let Some(error_code) = error_code {
            self.errors.get_or_create(&ErrorLabels { request: labels, error_code }).inc();
            return;
        }
        // A session lasts as long as somebody talks.
        if asked.operation == Operation::Realtime {
            return;
        }
        if let Some(to_first_byte) = to_first_byte {
            let streaming = if asked.is_streamed { "true" } else { "false" };
            let labels = FirstByteLabels { request: labels.clone(), streaming };
            self.first_byte_seconds.get_or_create(&labels).observe(to_first_byte.as_secs_f64());
        }
        let Some(took) = took.filter(|_| *outcome != Outcome::Abandoned) else { return };
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        if *bytes > 0 {
            self.response_bytes.get_or_create(&labels).observe(*bytes as f64);
        }
        for (tokens, family) in [
            (usage.input, &self.input_tokens),
            (usage.output, &self.output_tokens),
            (usage.cached, &self.cached_tokens),
        ] {
            if let Some(tokens) = tokens {
                family.get_or_create(&labels).observe(tokens as f64);
            }
        }
        if let Some(output) = usage.output.filter(|output| *output > 0) {
            self.seconds_a_token.get_or_create(&labels).observe(took.as_secs_f64() / output as f64);
            if let (true, Some(to_first_byte), 2..) = (asked.is_streamed, to_first_byte, output) {
                let after_first = took.saturating_sub(*to_first_byte).as_secs_f64() / (output - 1) as f64;
                self.seconds_between_tokens.get_or_create(&labels).observe(after_first);
            }
        }
    }

    pub(super) fn scrape_failed(&self) {
        self.poll_errors.get_or_create(&SourceLabels { source_type: "metrics" }).inc();
    }

    /// Brings what is known of pools up to date.
    pub(super) fn look_up(&self, director: &Director, endpoints: &[KnownEndpoint], namespace: &str, now: Instant) {
        self.pools.look_up(director, endpoints, namespace, now);
    }
}

impl Pools {
    fn look_up(&self, director: &Director, endpoints: &[KnownEndpoint], namespace: &str, now: Instant) {
        // What is gone is not to be shown as it was last.
        self.endpoint_queue.clear();
        self.endpoint_requests.clear();
        self.ready.clear();
        self.saturation.clear();
        self.waiting.clear();
        for averages in [&self.queue, &self.running, &self.kv_cache] {
            averages.average.clear();
            averages.deviation.clear();
        }
        let mut pools: BTreeMap<PoolName, Vec<(&KnownEndpoint, Load)>> = BTreeMap::new();
        if let Some((_, table)) = director.table() {
            pools.extend(table.pools.keys().map(|pool| (pool.clone(), Vec::new())));
        }
        for endpoint in endpoints {
            let load = endpoint.state.load(now);
            pools.entry(endpoint.state.id().pool.clone()).or_default().push((endpoint, load));
        }
        let waiting = director.waiting_by_pool();
        for (pool, endpoints) in pools {
            let name: Arc<str> = (&*pool).into();
            let labels = PoolLabels { name: Arc::clone(&name) };
            self.ready.get_or_create(&labels).set(i64::try_from(endpoints.len()).unwrap_or(i64::MAX));
            let of = |value: fn(&Load) -> Option<f64>| endpoints.iter().filter_map(move |(_, load)| value(load));
            self.queue.set(&labels, of(queue));
            self.running.set(&labels, of(|load| load.scraped?.running.map(f64::from)));
            self.kv_cache.set(&labels, of(kv_cache));
            let full = |(_, load): &(&KnownEndpoint, Load)| {
                let queue = queue(load).unwrap_or(0.0) / f64::from(SATURATED_WAITING);
                queue.max(kv_cache(load).unwrap_or(0.0) / f64::from(SATURATED_KV_CACHE))
            };
            let saturation = mean(endpoints.iter().map(full)).unwrap_or(1.0);
            let stage = SaturationLabels { inference_pool: Arc::clone(&name), stage: "effective" };
            self.saturation.get_or_create(&stage).set(saturation);
            let wait = waiting.get(&pool).copied().unwrap_or(0);
            let labels = WaitingLabels {
                fairness_id: "",
                priority: "",
                inference_pool: Arc::clone(&name),
                model_name: "",
                target_model_name: "",
            };
            self.waiting.get_or_create(&labels).set(i64::try_from(wait).unwrap_or(i64::MAX));
            for (endpoint, load) in &endpoints {
                let endpoint_name = Arc::clone(&endpoint.state.id().name);
                if let Some(queue) = load.scraped.and_then(|scraped| scraped.waiting) {
                    let labels =
                        EndpointLabels { name: Arc::clone(&name), model_server_endpoint: Arc::clone(&endpoint_name) };
                    self.endpoint_queue.get_or_create(&labels).set(queue.into());
                }
                let labels = InFlightLabels {
                    endpoint_name,
                    namespace: namespace.into(),
                    producer_name: "thalamus",
                    fairness_id: "",
                    priority: "",
                };
                self.endpoint_requests.get_or_create(&labels).set(load.in_flight.into());
            }
        }
    }
}

fn queue(load: &Load) -> Option<f64> {
    load.scraped?.waiting.map(f64::from)
}

fn kv_cache(load: &Load) -> Option<f64> {
    load.scraped?.kv_cache_usage.map(f64::from)
}

impl Averages {
    /// Of a pool that nobody knows anything of there is none.
    fn set(&self, labels: &PoolLabels, values: impl Iterator<Item = f64> + Clone) {
        let Some(average) = mean(values.clone()) else { return };
        self.average.get_or_create(labels).set(average);
        let variance = mean(values.map(|value| (value - average).powi(2))).unwrap_or(0.0);
        self.deviation.get_or_create(labels).set(variance.sqrt());
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests;
