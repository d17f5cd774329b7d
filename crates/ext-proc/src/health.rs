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
    let tell = async move |ready: bool| {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in READINESS {
            reporter.set_service_status(name, status).await;
        }
    };
    // Once before anybody can ask: a reporter begins by saying that all is well.
    let at_first = *ready.borrow_and_update();
    tell(at_first).await;
    let follow = async move {
        while ready.changed().await.is_ok() {
            let now = *ready.borrow_and_update();
            tell(now).await;
        }
    };
    tokio::spawn(follow);
    service
}
