//! Whether a container is ready, asked as a kubelet asks: over HTTP, by gRPC's health service, by a connection; without a probe, whether
//! its first port is open.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::Client;

/// How long a container may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn is_ready(ip: IpAddr, container: &Container) -> bool {
    tokio::time::timeout(PATIENCE, probe(ip, container)).await.is_ok_and(|probed| probed.is_ok())
}

async fn probe(ip: IpAddr, container: &Container) -> Result<()> {
    let probe = container.readiness_probe.clone().unwrap_or_default();
    if let Some(http) = &probe.http_get {
        let answer =
            Client::new(address(ip, number(container, &http.port)?)).get(http.path.as_deref().unwrap_or("/")).await?;
        ensure!((200..400).contains(&answer.status), "{}", answer.status);
    } else if let Some(grpc) = &probe.grpc {
        let address = address(ip, grpc.port);
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        let request = HealthCheckRequest { service: grpc.service.clone().unwrap_or_default() };
        let answer = HealthClient::new(channel).check(request).await?.into_inner();
        ensure!(answer.status() == ServingStatus::Serving, "{:?}", answer.status());
    } else if let Some(port) = container.ports.iter().flatten().next() {
        TcpStream::connect(address(ip, port.container_port)).await?;
    }
    Ok(())
}

fn address(ip: IpAddr, port: i32) -> SocketAddr {
    SocketAddr::new(ip, u16::try_from(port).unwrap_or(0))
}

fn number(container: &Container, port: &IntOrString) -> Result<i32> {
    match port {
        IntOrString::Int(port) => Ok(*port),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            Ok(named.with_context(|| format!("no port is called {name}"))?.container_port)
        }
    }
}
