//! vLLM's metrics, as far as pickers read them, moving with the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OwnedSemaphorePermit;

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    running: AtomicU64,
    waiting: AtomicU64,
    started: AtomicU64,
    stopped: AtomicU64,
    aborted: AtomicU64,
}

/// A request being served; one that is dropped before it finished was aborted.
#[derive(Debug)]
pub(crate) struct Serving {
    metrics: Arc<Metrics>,
    /// Its place among those that are worked on; none while it waits.
    slot: Option<OwnedSemaphorePermit>,
    end: End,
}

/// How a request ends, unless something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Aborted,
    Stopped,
    Refused,
}

impl Metrics {
    pub(crate) fn text(&self, model: &str, slots: usize) -> String {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        // What has ended comes first: nothing is counted twice that ends meanwhile.
        let (stopped, aborted) = (read(&self.stopped), read(&self.aborted));
        let (running, waiting) = (read(&self.running), read(&self.waiting));
        #[expect(clippy::cast_precision_loss, reason = "a handful of slots")]
        let cache = running as f64 / slots as f64;
        let model = model.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
        let labels = format!(r#"engine="0",model_name="{model}""#);
        format!(
            "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{{labels}}} {running}.0\n\
             # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{{labels}}} {waiting}.0\n\
             # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{{{labels}}} {cache}\n\
             # TYPE vllm:request_success counter\n\
             vllm:request_success_total{{{labels},finished_reason=\"stop\"}} {stopped}.0\n\
             vllm:request_success_total{{{labels},finished_reason=\"abort\"}} {aborted}.0\n",
        )
    }
}

impl Serving {
    pub(crate) fn arrived(metrics: &Arc<Metrics>) -> Self {
        metrics.waiting.fetch_add(1, Ordering::Relaxed);
        Self { metrics: Arc::clone(metrics), slot: None, end: End::Aborted }
    }

    /// How many were started before it.
    pub(crate) fn start(&mut self, slot: OwnedSemaphorePermit) -> u64 {
        self.metrics.waiting.fetch_sub(1, Ordering::Relaxed);
        self.metrics.running.fetch_add(1, Ordering::Relaxed);
        self.slot = Some(slot);
        self.metrics.started.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn finish(&mut self) {
        self.end = End::Stopped;
    }

    /// Passes a refusal on; no engine saw such a request, so it is counted nowhere.
    pub(crate) fn refuse<R>(mut self, refusal: R) -> R {
        self.end = End::Refused;
        refusal
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let Metrics { running, waiting, stopped, aborted, .. } = &*self.metrics;
        (if self.slot.is_some() { running } else { waiting }).fetch_sub(1, Ordering::Relaxed);
        match self.end {
            End::Aborted => _ = aborted.fetch_add(1, Ordering::Relaxed),
            End::Stopped => _ = stopped.fetch_add(1, Ordering::Relaxed),
            End::Refused => {}
        }
    }
}
