//! Spans on their way to the collector.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daemon::Rarely;
use http::{Request, Response};
use hyper_rustls::HttpsConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::Handle;

/// An exporter that says, once a minute, why spans do not arrive.
#[derive(Debug)]
pub(crate) struct Telling<E> {
    exporter: E,
    endpoint: String,
    cause: Cause,
    told: Rarely,
}

/// Why the last connection failed, which OpenTelemetry's library does not pass on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cause(Arc<Mutex<Option<String>>>);

impl<E> Telling<E> {
    pub(crate) fn new(exporter: E, endpoint: &str, cause: Cause) -> Self {
        Self { exporter, endpoint: endpoint.to_owned(), cause, told: Rarely::new() }
    }
}

impl Cause {
    fn note(&self, error: &(dyn Error + 'static)) {
        let (mut words, mut source) = (error.to_string(), error.source());
        while let Some(error) = source {
            words += &format!(": {error}");
            source = error.source();
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<E: SpanExporter> SpanExporter for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        let cause = self.cause.take();
        if let Err(error) = exported
            && self.told.is_due(Instant::now())
        {
            tracing::warn!(collector = self.endpoint, spans, %error, cause, "traces do not reach the collector, and are lost");
        }
        // It is told of: the library would do so with each batch.
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// hyper's client, on the runtime that it needs, whoever asks: batches go out from a thread of their own.
#[derive(Debug, Clone)]
pub(crate) struct OnRuntime {
    pub(crate) client: HyperClient<HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>>,
    pub(crate) runtime: Handle,
    pub(crate) cause: Cause,
}

#[async_trait::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answered = self.runtime.spawn(async move { client.send_bytes(request).await }).await?;
        answered.inspect_err(|error| self.cause.note(&**error))
    }
}
