//! Pickers, and how their admin ports are reached: through the API server, or at a URL.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

/// The admin port of pickers' pods.
const ADMIN: u16 = 9090;

/// Labels of pickers' pods: of managed ones, and of those in manifests/picker.
const LABELS: [&str; 2] = ["app.kubernetes.io/name=thalamus-picker", "app=thalamus-picker"];

/// A picker that can be asked.
#[derive(Debug, Clone)]
pub(crate) enum PickerAddress {
    Pod { namespace: String, name: String },
    Url(String),
}

/// The pickers of a namespace, or the one at a URL.
pub(crate) async fn find(client: &Client, namespace: &str, url: Option<&str>) -> Result<Vec<PickerAddress>> {
    if let Some(url) = url {
        return Ok(vec![PickerAddress::Url(url.trim_end_matches('/').to_owned())]);
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut found = Vec::new();
    for labels in LABELS {
        let list = pods.list(&ListParams::default().labels(labels)).await.context("looking for pickers")?;
        found.extend(
            list.into_iter()
                .filter(is_ready)
                .map(|pod| PickerAddress::Pod { namespace: namespace.to_owned(), name: pod.name_any() }),
        );
    }
    if found.is_empty() {
        bail!(
            "no picker is ready in namespace {namespace} (pods labelled {}); name one with --picker URL",
            LABELS.join(" or ")
        );
    }
    Ok(found)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

impl PickerAddress {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Pod { name, .. } => name,
            Self::Url(url) => url,
        }
    }

    /// Asks its admin port; the answer is JSON.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Value> {
        let ask = Request::builder().method(method).header("content-type", content_type);
        let answered = match self {
            Self::Pod { namespace, name } => {
                let uri = format!("/api/v1/namespaces/{namespace}/pods/{name}:{ADMIN}/proxy{path}");
                client.request(ask.uri(uri).body(body)?).await.map_err(anyhow::Error::from)
            }
            Self::Url(url) => over_http(ask.uri(format!("{url}{path}")).body(Full::new(Bytes::from(body)))?).await,
        };
        answered.with_context(|| format!("asking picker {}", self.name()))
    }
}

async fn over_http(request: Request<Full<Bytes>>) -> Result<Value> {
    let response = HttpClient::builder(TokioExecutor::new()).build_http().request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body).trim());
    serde_json::from_slice(&body).context("the answer is not JSON")
}
