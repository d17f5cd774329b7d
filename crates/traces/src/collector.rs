//! The way to the collector, opened once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use director::Tracer;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnectorBuilder};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, pem};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::environment::{Batches, Environment, Protocol};
use crate::exporter::{Cause, OnRuntime, Telling};
use crate::follow::Following;

/// How long the last spans may take to the collector when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Traces that go to a collector.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

/// Why there are none, where they are wanted.
#[derive(Debug, thiserror::Error)]
enum NoTraces {
    #[error("{0}")]
    Environment(String),
    #[error("reading the certificate of the collector's authority, {path}: {error}", path = path.display())]
    Certificate { path: PathBuf, error: pem::Error },
    #[error("{path} holds no certificate of an authority: OTEL_EXPORTER_OTLP_CERTIFICATE names it", path = path.display())]
    NoCertificate { path: PathBuf },
    #[error("no certificate authority is known to this system, so that {endpoint} cannot be trusted: {error}")]
    NoAuthorities { endpoint: String, error: std::io::Error },
    #[error("opening the way to the collector at {endpoint}: {error}")]
    Exporter { endpoint: String, error: ExporterBuildError },
}

impl Traces {
    /// Opens the way to the collector that the environment names, if it names one; to be called on the runtime that spans are to go out by.
    /// `service` is what the process is called where the environment does not say, `instance` which of them this one is. Where there is no
    /// way, that is said, and requests are served all the same.
    pub fn open(service: &'static str, instance: &str) -> Option<Self> {
        Self::opened(service, instance).unwrap_or_else(|error| {
            tracing::error!("no traces: {error}");
            None
        })
    }

    fn opened(service: &'static str, instance: &str) -> Result<Option<Self>, NoTraces> {
        let read = Environment::read(|name| std::env::var(name).ok()).map_err(NoTraces::Environment)?;
        let Some(environment) = read else { return Ok(None) };
        let cause = Cause::default();
        let exporter = Telling::new(exporter(&environment, &cause)?, &environment.endpoint, cause);
        let mut resource = Resource::builder();
        if !environment.names_the_service {
            resource = resource.with_service_name(service);
        }
        if !environment.names_the_version {
            resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        }
        if !environment.names_the_instance {
            resource = resource.with_attribute(KeyValue::new("service.instance.id", instance.to_owned()));
        }
        let Batches { queue, size, delay } = environment.batches;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(queue)
            .with_max_export_batch_size(size)
            .with_scheduled_delay(delay)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .build();
        tracing::info!(collector = environment.endpoint, protocol = ?environment.protocol, "traces go to a collector");
        Ok(Some(Self(provider)))
    }

    /// Traces that go where this provider sends them.
    pub fn of(provider: SdkTracerProvider) -> Self {
        Self(provider)
    }

    pub fn tracer(&self) -> Arc<dyn Tracer> {
        Arc::new(Following(self.0.tracer("thalamus")))
    }

    /// Sends what has not gone out. Waits for a few seconds at most.
    pub async fn end(self) {
        // It waits for the thread that sends.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST_SPANS)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last traces did not reach the collector");
        }
    }
}

fn exporter(environment: &Environment, cause: &Cause) -> Result<SpanExporter, NoTraces> {
    let endpoint = &environment.endpoint;
    let built = match environment.protocol {
        Protocol::Grpc => {
            let builder = SpanExporter::builder().with_tonic();
            if environment.is_https() { builder.with_tls_config(tls_of_grpc(environment)?) } else { builder }.build()
        }
        Protocol::HttpProtobuf => {
            let connector = HttpsConnectorBuilder::new().with_tls_config(tls_of_http(environment)?);
            let connector = connector.https_or_http().enable_http1().build();
            let client = HyperClient::new(connector, environment.timeout, None);
            let client = OnRuntime { client, runtime: Handle::current(), cause: cause.clone() };
            let builder = SpanExporter::builder().with_http().with_http_client(client);
            builder.with_protocol(opentelemetry_otlp::Protocol::HttpBinary).build()
        }
    };
    built.map_err(|error| NoTraces::Exporter { endpoint: endpoint.clone(), error })
}

fn tls_of_grpc(environment: &Environment) -> Result<ClientTlsConfig, NoTraces> {
    let Some(path) = &environment.certificate else { return Ok(ClientTlsConfig::new().with_enabled_roots()) };
    let read =
        std::fs::read(path).map_err(|error| NoTraces::Certificate { path: path.clone(), error: pem::Error::Io(error) });
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read?)))
}

fn tls_of_http(environment: &Environment) -> Result<ClientConfig, NoTraces> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions();
    let builder = builder.expect("ring has the versions that rustls has by default");
    let roots = match &environment.certificate {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let failed = |error| NoTraces::Certificate { path: path.clone(), error };
            let mut added = 0;
            for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
                added += roots.add_parsable_certificates([certificate.map_err(failed)?]).0;
            }
            if added == 0 {
                return Err(NoTraces::NoCertificate { path: path.clone() });
            }
            builder.with_root_certificates(roots)
        }
        // Nobody is to be trusted where nothing is encrypted.
        None if !environment.is_https() => builder.with_root_certificates(RootCertStore::empty()),
        None => builder
            .with_native_roots()
            .map_err(|error| NoTraces::NoAuthorities { endpoint: environment.endpoint.clone(), error })?,
    };
    Ok(roots.with_no_client_auth())
}
