//! Plays the kubelet: makes pods, runs a simulator for each at an address of its own, and says in their status how they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::{Process, binary, eventually};

/// A pod to run.
#[derive(Debug, Clone, Default)]
pub struct PodSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// What its simulator serves: `NAME=text,image` or `NAME=text:text,audio`.
    pub models: Vec<String>,
    pub latency: Duration,
    /// How many requests its simulator works on at once.
    pub slots: Option<usize>,
}

/// The pods of one namespace.
#[derive(Debug)]
pub struct Kubelet {
    pods: Api<Pod>,
    folder: PathBuf,
    running: BTreeMap<String, (Process, SocketAddr)>,
}

/// Every pod's port.
const PORT: u16 = 8000;

impl PodSpec {
    /// A pod labelled `pool: <pool>` that serves these models.
    pub fn new(name: &str, pool: &str, models: &[&str]) -> Self {
        let labels = BTreeMap::from([("pool".to_owned(), pool.to_owned())]);
        Self {
            name: name.to_owned(),
            labels,
            models: models.iter().map(|&model| model.to_owned()).collect(),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn with_latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }
}

impl Kubelet {
    pub(crate) fn new(client: Client, namespace: &str, folder: &Path) -> Self {
        Self { pods: Api::namespaced(client, namespace), folder: folder.to_owned(), running: BTreeMap::new() }
    }

    /// Runs a pod and says that it is ready.
    pub async fn run(&mut self, pod: PodSpec) -> Result<SocketAddr> {
        let name = pod.name.clone();
        self.create(&pod).await?;
        let address = self.start(&pod).await?;
        self.set_status(&name, &address.ip().to_string(), true).await?;
        Ok(address)
    }

    /// Runs a pod that is another program, which `start` starts at its address, and says that it is ready.
    pub async fn run_as(
        &mut self,
        pod: &PodSpec,
        start: impl AsyncFnOnce(SocketAddr) -> Result<Process>,
    ) -> Result<SocketAddr> {
        self.create(pod).await?;
        let address = SocketAddr::new(next_ip().parse().context("an address")?, PORT);
        let process = start(address).await?;
        self.running.insert(pod.name.clone(), (process, address));
        self.set_status(&pod.name, &address.ip().to_string(), true).await?;
        Ok(address)
    }

    /// Makes the object, and nothing else.
    pub async fn create(&self, pod: &PodSpec) -> Result<()> {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod.name, "labels": pod.labels, "annotations": pod.annotations},
            "spec": {"nodeName": "fake", "containers": [{"name": "model-server", "image": "modelserver-sim"}]},
        });
        let object = serde_json::from_value(object).context("a pod")?;
        self.pods.create(&PostParams::default(), &object).await.with_context(|| format!("making pod {}", pod.name))?;
        Ok(())
    }

    /// Starts the simulator of a pod, at a new address, and waits until it answers.
    pub async fn start(&mut self, pod: &PodSpec) -> Result<SocketAddr> {
        let address = SocketAddr::new(next_ip().parse().context("an address")?, PORT);
        let mut args = vec!["--listen".to_owned(), address.to_string(), "--name".to_owned(), pod.name.clone()];
        args.extend([
            "--latency".to_owned(),
            format!("{}ms", pod.latency.as_millis()),
            "--log-format".to_owned(),
            "json".to_owned(),
        ]);
        args.extend(pod.slots.iter().flat_map(|slots| ["--slots".to_owned(), slots.to_string()]));
        args.extend(pod.models.iter().flat_map(|model| ["--model".to_owned(), model.clone()]));
        let mut process =
            Process::start(&self.folder, &format!("pod-{}", pod.name), &binary("modelserver-sim")?, &args, &[])?;
        process.said("model server simulator started").await?;
        self.running.insert(pod.name.clone(), (process, address));
        Ok(address)
    }

    pub async fn set_ready(&self, name: &str, ready: bool) -> Result<()> {
        let address = self.address(name)?;
        self.set_status(name, &address.ip().to_string(), ready).await
    }

    pub async fn set_status(&self, name: &str, ip: &str, ready: bool) -> Result<()> {
        self.patch_status(name, &running(ip, ready)).await
    }

    async fn patch_status(&self, name: &str, status: &Value) -> Result<()> {
        let patched = self.pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
        patched.with_context(|| format!("saying how pod {name} is"))?;
        Ok(())
    }

    /// Stops the process where it stands: it accepts connections and never answers, as a stuck engine does.
    pub fn freeze(&self, name: &str) -> Result<()> {
        self.running.get(name).with_context(|| format!("pod {name} does not run"))?.0.signal("STOP")
    }

    /// Ends the process and leaves the object as it is: a machine that died before anybody noticed.
    pub fn crash(&mut self, name: &str) {
        self.running.remove(name);
    }

    /// Deletes the object and ends the process.
    pub async fn delete(&mut self, name: &str) -> Result<()> {
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.pods.delete(name, &at_once).await.with_context(|| format!("deleting pod {name}"))?;
        eventually(&format!("pod {name} is gone"), async || match self.pods.get_opt(name).await? {
            None => Ok(()),
            Some(_) => anyhow::bail!("pod {name} is still there"),
        })
        .await?;
        self.crash(name);
        Ok(())
    }

    pub fn address(&self, name: &str) -> Result<SocketAddr> {
        self.running.get(name).map(|(_, address)| *address).with_context(|| format!("pod {name} does not run"))
    }

    pub(crate) fn leave(self) -> Vec<String> {
        self.running.into_values().map(|(process, _)| process.leave()).collect()
    }
}

/// The status of a pod that runs.
pub(crate) fn running(ip: &str, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

/// An address of this machine that no other pod has: 127/8 is all ours, and the process id keeps two programs apart.
fn next_ip() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{}", 100 + std::process::id() % 150, number / 250, number % 250 + 1)
}
