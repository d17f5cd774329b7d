//! gRPC health, under every name that gateways and probes ask for.

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};

/// Names whose answer is "serving" when the picker can decide: the whole server, proposal 004's, the service's own, and lwepp's.
const READINESS: [&str; 4] = ["", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension"];

/// The health service, and a task that follows `ready` for as long as its sender lives.
pub async fn serve_health(mut ready: watch::Receiver<bool>) -> HealthServer<impl Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("liveness", ServingStatus::Serving).await;
    let follow = async move {
        loop {
            let status = if *ready.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
            for name in READINESS {
                reporter.set_service_status(name, status).await;
            }
            if ready.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::spawn(follow);
    service
}
