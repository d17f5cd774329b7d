//! What a controller counts.

use std::time::Duration;

use index::Stale;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The metrics of a controller; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    compile_seconds: Family<CompileLabels, Histogram>,
    status_writes: Family<WriteLabels, Counter>,
    leader: Gauge,
}

/// All of the cluster is compiled, or the pools whose pods changed: times of a different order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CompileLabels {
    of: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    outcome: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // 100 µs to 3 s.
        let metrics = Self {
            compile_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1e-4, 2.0, 16))),
            status_writes: Family::default(),
            leader: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("thalamus_controller");
        registry.register(
            "compile_seconds",
            "Time to compile the cluster, or the pools whose pods changed, into routing tables",
            metrics.compile_seconds.clone(),
        );
        registry.register(
            "status_writes",
            "Statuses written to the API server, by outcome",
            metrics.status_writes.clone(),
        );
        registry.register("leader", "1 if this replica leads, else 0", metrics.leader.clone());
        metrics
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub(crate) fn compiled(&self, stale: &Stale, took: Duration) {
        let of = match stale {
            Stale::All => "all",
            Stale::Pools(_) => "pools",
        };
        self.compile_seconds.get_or_create(&CompileLabels { of }).observe(took.as_secs_f64());
    }

    pub(crate) fn status_written(&self, succeeded: bool) {
        let outcome = if succeeded { "written" } else { "failed" };
        self.status_writes.get_or_create(&WriteLabels { outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_beside_the_documents_is_of_what_is_shown() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.compiled(&Stale::All, Duration::ZERO);
        metrics.status_written(true);
        let mut shown = String::new();
        prometheus_client::encoding::text::encode(&mut shown, &registry).unwrap();
        daemon::testing::holds("metrics.md", "Controller", &daemon::testing::table_of(&shown));
    }
}
