//! gRPC health, under every name that gateways and probes ask for.

use std::time::Duration;

use director::Budget;
use metered::Metered;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Names whose answer is "serving" when the picker can decide: the whole server, proposal 004's, the service's own, and lwepp's.
const READINESS: [&str; 4] = ["", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension"];

/// Largest question that is read: a name.
const MAX_QUESTION: usize = 1 << 10;

/// What half-sent questions hold together. They have room of their own: bodies must not keep probes out.
const QUESTIONS: u64 = 16 << 20;

/// How long a question may take to be whole; a server with this service in it needs it as its timeout.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers each question by what is ready at that moment. Nobody is kept up to date: streams that never end would have no bound.
#[derive(Debug)]
pub struct HealthCheck {
    ready: watch::Receiver<bool>,
}

impl HealthCheck {
    /// The gRPC service.
    pub fn service(ready: watch::Receiver<bool>) -> Metered<HealthServer<Self>> {
        let server = HealthServer::new(Self { ready }).max_decoding_message_size(MAX_QUESTION);
        Metered::new(server, Budget::new(QUESTIONS))
    }
}

#[tonic::async_trait]
impl Health for HealthCheck {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let serves = match &*name {
            "liveness" => true,
            name if READINESS.contains(&name) => *self.ready.borrow(),
            _ => return Err(Status::not_found("no service of this name")),
        };
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("ask again and again by Check"))
    }
}
