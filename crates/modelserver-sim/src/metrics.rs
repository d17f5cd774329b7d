//! vLLM's metrics, as far as pickers read them, moving with the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    running: AtomicU64,
    waiting: AtomicU64,
    stopped: AtomicU64,
    aborted: AtomicU64,
}

/// A request being served; one that is dropped before it finished was aborted.
#[derive(Debug)]
pub(crate) struct Serving {
    metrics: Arc<Metrics>,
    started: bool,
    finished: bool,
}

impl Metrics {
    pub(crate) fn text(&self, model: &str, slots: usize) -> String {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let (running, waiting) = (read(&self.running), read(&self.waiting));
        #[expect(clippy::cast_precision_loss, reason = "a handful of slots")]
        let cache = running as f64 / slots as f64;
        let labels = format!(r#"engine="0",model_name="{model}""#);
        format!(
            "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{{labels}}} {running}.0\n\
             # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{{labels}}} {waiting}.0\n\
             # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{{{labels}}} {cache}\n\
             # TYPE vllm:request_success counter\n\
             vllm:request_success_total{{{labels},finished_reason=\"stop\"}} {}.0\n\
             vllm:request_success_total{{{labels},finished_reason=\"abort\"}} {}.0\n",
            read(&self.stopped),
            read(&self.aborted),
        )
    }
}

impl Serving {
    pub(crate) fn arrived(metrics: &Arc<Metrics>) -> Self {
        metrics.waiting.fetch_add(1, Ordering::Relaxed);
        Self { metrics: Arc::clone(metrics), started: false, finished: false }
    }

    pub(crate) fn start(&mut self) {
        self.metrics.waiting.fetch_sub(1, Ordering::Relaxed);
        self.metrics.running.fetch_add(1, Ordering::Relaxed);
        self.started = true;
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let Metrics { running, waiting, stopped, aborted } = &*self.metrics;
        (if self.started { running } else { waiting }).fetch_sub(1, Ordering::Relaxed);
        (if self.finished { stopped } else { aborted }).fetch_add(1, Ordering::Relaxed);
    }
}
