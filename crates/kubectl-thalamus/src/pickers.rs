//! Pickers, and how their admin ports are reached: by a forwarded port, as `kubectl port-forward` does it, or at a URL.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use thalamus::admin;

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
        let body = Full::new(Bytes::from(body));
        let answered = match self {
            Self::Pod { namespace, name } => {
                let pods = Api::namespaced(client.clone(), namespace);
                let request = ask.uri(path).header("host", name).body(body)?;
                over_forwarded_port(&pods, name, request).await
            }
            Self::Url(url) => admin::over_http(ask.uri(format!("{url}{path}")).body(body)?).await,
        };
        answered.with_context(|| format!("asking picker {}", self.name()))
    }
}

async fn over_forwarded_port(pods: &Api<Pod>, name: &str, request: Request<Full<Bytes>>) -> Result<Value> {
    let mut forwarder = pods.portforward(name, &[ADMIN]).await.context("forwarding its admin port")?;
    let stream = forwarder.take_stream(ADMIN).context("its admin port was not forwarded")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answered = admin::json_of(sender.send_request(request).await?).await;
    connection.abort();
    forwarder.abort();
    answered
}
