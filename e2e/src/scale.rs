//! How the controller fares in a large cluster: a real API server, real objects, real subscribers. Prints figures and judges none.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use publish::{Access, Scope, Subscriber, Subscription};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::kubelet::running;
use crate::{Client, Cluster, Credentials, Process, binary};

/// How large.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub pools: usize,
    pub pods: usize,
    pub models: usize,
    /// Pickers of the whole namespace.
    pub pickers: usize,
    /// Pickers of each pool.
    pub pickers_of_each_pool: usize,
    /// The controller runs the pools' pickers, as far as it makes their objects.
    pub managed: bool,
    /// Pod changes a second.
    pub rate: u32,
    pub length: Duration,
}

/// A picker that was subscribed.
#[derive(Clone)]
struct Listener {
    /// Its pool, where it serves one alone.
    pool: Option<usize>,
    known: watch::Receiver<Subscription>,
}

/// Everything lives here: one namespace is the hardest case, since a picker of it has all of it.
const NAMESPACE: &str = "scale";

/// How many requests to the API server are under way at once.
const AT_ONCE: usize = 64;

impl Scale {
    /// Makes the cluster that large, changes pods at the rate, and tells what it took.
    #[expect(clippy::cast_precision_loss, reason = "figures for a person")]
    pub async fn run(self, cluster: &Cluster, folder: &Path, tell: impl Fn(&str)) -> Result<()> {
        cluster.apply(NAMESPACE, &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}"))?;
        cluster.make_home(NAMESPACE)?;
        let client = cluster.client().await?;
        let began = Instant::now();
        self.make_objects(&client).await?;
        tell(&format!(
            "{} pools, {} pods, {} models made in {} s",
            self.pools,
            self.pods,
            self.models,
            began.elapsed().as_secs()
        ));

        let (controller, address, admin) = start_controller(cluster, folder).await?;
        let credentials = cluster.write_credentials(NAMESPACE, folder)?;
        let began = Instant::now();
        let bytes = Arc::new(AtomicU64::new(0));
        let through = count_bytes(address, Arc::clone(&bytes)).await?;
        let of_pools = (0..self.pools).flat_map(|pool| std::iter::repeat_n(Some(pool), self.pickers_of_each_pool));
        let scopes: Vec<Option<usize>> = std::iter::repeat_n(None, self.pickers).chain(of_pools).collect();
        let mut pickers = Vec::new();
        for (number, pool) in scopes.into_iter().enumerate() {
            pickers.push(subscribe(number, pool, through, &credentials)?);
        }
        for Listener { pool, known } in &mut pickers {
            let of_pool = (0..self.pods).filter(|pod| pool.is_none_or(|pool| pod % self.pools == pool)).count();
            let complete = |known: &Subscription| {
                let table = known.received.as_ref().map(|received| &received.table);
                table.is_some_and(|table| table.addresses().len() == of_pool)
            };
            tokio::time::timeout(Duration::from_mins(5), known.wait_for(complete))
                .await
                .context("no snapshot came")??;
        }
        let (snapshots, resync) = (bytes.load(Ordering::Relaxed), began.elapsed());
        tell(&format!(
            "resync: {} pickers had all that is theirs {:.2} s after the controller said that it takes pickers; {:.0} KB each",
            pickers.len(),
            resync.as_secs_f64(),
            snapshots as f64 / 1000.0 / pickers.len() as f64
        ));
        // Statuses of all objects are written once; that is not what is measured.
        until_written(&admin, self.pools + self.models).await?;
        tell(&format!("statuses: all written {} s later", began.elapsed().saturating_sub(resync).as_secs()));

        let before = (bytes.load(Ordering::Relaxed), cpu_seconds(controller.pid()));
        let (mut latencies, changes) = self.change_pods(&client, &pickers).await?;
        latencies.sort_unstable();
        let at = |share: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
            let place = ((latencies.len() - 1) as f64 * share) as usize;
            latencies.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
        };
        let sent = bytes.load(Ordering::Relaxed) - before.0;
        let cpu = cpu_seconds(controller.pid()) - before.1;
        tell(&format!(
            "{} changes in {} s, seen by each of {} pickers that they concern: p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
            changes,
            self.length.as_secs(),
            self.pickers + self.pickers_of_each_pool,
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        ));
        tell(&format!(
            "on the wire, with TLS, HTTP/2 and acks: {:.0} bytes a change and picker that it concerns",
            sent as f64 / changes as f64 / (self.pickers + self.pickers_of_each_pool) as f64
        ));
        tell(&format!(
            "controller: {:.1} % of a core, {} MB resident",
            cpu / self.length.as_secs_f64() * 100.0,
            resident_megabytes(controller.pid())
        ));
        Ok(())
    }

    async fn make_objects(&self, client: &kube::Client) -> Result<()> {
        let pools = (0..self.pools).map(|pool| {
            let annotations = if self.managed { json!({"thalamus.dev/picker": "managed"}) } else { json!({}) };
            json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
                "metadata": {"name": format!("pool{pool}"), "annotations": annotations},
                "spec": {"selector": {"matchLabels": {"pool": pool.to_string()}}, "targetPorts": [{"number": 8000}],
                    "endpointPickerRef": {"name": format!("picker{pool}"), "port": {"number": 9002}}}})
        });
        let models = (0..self.models).map(|model| {
            let pool = model % self.pools;
            json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "InferenceModel", "metadata": {"name": format!("m{model}")},
                "spec": {"modelName": format!("m{model}"), "poolRef": {"name": format!("pool{pool}")}, "modalities": {"input": ["Text", "Image"]}}})
        });
        let objects: Vec<Value> = pools.chain(models).collect();
        let created = futures::stream::iter(objects).map(|object| create(client, object)).buffer_unordered(AT_ONCE);
        created.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<()>>>()?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let made = futures::stream::iter(0..self.pods).map(|pod| self.make_pod(&pods, pod)).buffer_unordered(AT_ONCE);
        made.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<()>>>().map(drop)
    }

    async fn make_pod(&self, pods: &Api<Pod>, pod: usize) -> Result<()> {
        let name = format!("pod{pod}");
        let object = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"pool": (pod % self.pools).to_string()}},
            "spec": {"nodeName": "fake", "containers": [{"name": "model-server", "image": "none"}]}});
        let object = serde_json::from_value(object).context("a pod")?;
        pods.create(&PostParams::default(), &object).await.with_context(|| format!("making {name}"))?;
        set_ready(pods, pod, true).await
    }

    /// Pods stop being ready and are again, one after another; answers with the time each took to reach each picker.
    async fn change_pods(&self, client: &kube::Client, pickers: &[Listener]) -> Result<(Vec<Duration>, usize)> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let latencies: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.rate);
        let began = Instant::now();
        let mut waiting = Vec::new();
        let mut change = 0;
        while began.elapsed() < self.length {
            ticks.tick().await;
            // Away, and back again when all others had their turn.
            let (pod, ready) = (change % self.pods, (change / self.pods) % 2 == 1);
            change += 1;
            let (pods, latencies) = (pods.clone(), Arc::clone(&latencies));
            let concerned = |one: &&Listener| one.pool.is_none_or(|pool| pod % self.pools == pool);
            let pickers: Vec<Listener> = pickers.iter().filter(concerned).cloned().collect();
            let (pool, endpoint) = (format!("pool{}", pod % self.pools), format!("pod{pod}-rank-0"));
            waiting.push(tokio::spawn(async move {
                set_ready(&pods, pod, ready).await?;
                // From the moment the API server has it.
                let changed = Instant::now();
                let seen = pickers.into_iter().map(async |Listener { mut known, .. }| {
                    let is_so = |known: &Subscription| {
                        let pools = known.received.as_ref().map(|received| &received.table.pools);
                        let pool = pools.and_then(|pools| pools.get(&*pool));
                        pool.is_some_and(|pool| pool.endpoints.contains_key(&*endpoint) == ready)
                    };
                    known.wait_for(is_so).await.map(drop).context("a picker ended")?;
                    Ok::<_, anyhow::Error>(changed.elapsed())
                });
                for took in futures::future::join_all(seen).await {
                    latencies.lock().unwrap_or_else(PoisonError::into_inner).push(took?);
                }
                Ok::<_, anyhow::Error>(())
            }));
        }
        for one in waiting {
            one.await.context("a change panicked")??;
        }
        let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((latencies, change))
    }
}

async fn create(client: &kube::Client, object: Value) -> Result<()> {
    let object: kube::core::DynamicObject = serde_json::from_value(object).context("an object")?;
    let kind = object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default();
    let resource = if kind == "InferencePool" {
        kube::core::ApiResource::erase::<api::InferencePool>(&())
    } else {
        kube::core::ApiResource::erase::<api::InferenceModel>(&())
    };
    let api = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    api.create(&PostParams::default(), &object).await.with_context(|| format!("making a {kind}")).map(drop)
}

async fn set_ready(pods: &Api<Pod>, pod: usize, ready: bool) -> Result<()> {
    let ip = format!("10.{}.{}.{}", pod / 62_500, pod / 250 % 250, pod % 250 + 1);
    let status = running(&ip, ready);
    let patched = pods.patch_status(&format!("pod{pod}"), &PatchParams::default(), &Patch::Merge(&status)).await;
    patched.with_context(|| format!("saying how pod{pod} is")).map(drop)
}

async fn start_controller(cluster: &Cluster, folder: &Path) -> Result<(Process, SocketAddr, Client)> {
    let args = [
        "--listen=127.0.0.1:0".to_owned(),
        "--admin-listen=127.0.0.1:0".to_owned(),
        format!("--watch-namespace={NAMESPACE}"),
        format!("--namespace={NAMESPACE}"),
        "--log-format=json".to_owned(),
    ];
    let kubeconfig = cluster.controllers_kubeconfig().display().to_string();
    let program = binary("thalamus-controller")?;
    let mut controller = Process::start(folder, "controller", &program, &args, &[("KUBECONFIG", &kubeconfig)])?;
    let said = controller.said("controller started").await?;
    controller.said("accepting pickers").await?;
    let address = |of: &str| said[of].as_str().context("said")?.parse::<SocketAddr>().context("an address");
    Ok((controller, address("listen")?, Client::new(address("admin")?)))
}

/// Passes connections on, and counts what comes back.
async fn count_bytes(to: SocketAddr, bytes: Arc<AtomicU64>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
    let address = listener.local_addr().context("listening")?;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let bytes = Arc::clone(&bytes);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await?;
                let (mut near_reads, mut near_writes) = near.split();
                let (mut far_reads, mut far_writes) = far.split();
                let up = async { tokio::io::copy(&mut near_reads, &mut far_writes).await.map(drop) };
                let down = async {
                    let mut buffer = vec![0; 64 << 10];
                    loop {
                        let read = tokio::io::AsyncReadExt::read(&mut far_reads, &mut buffer).await?;
                        if read == 0 {
                            return Ok(());
                        }
                        bytes.fetch_add(read as u64, Ordering::Relaxed);
                        tokio::io::AsyncWriteExt::write_all(&mut near_writes, &buffer[..read]).await?;
                    }
                };
                tokio::try_join!(up, down).map(drop)
            });
        }
    });
    Ok(address)
}

fn subscribe(number: usize, pool: Option<usize>, at: SocketAddr, credentials: &Credentials) -> Result<Listener> {
    let ca = Certificate::from_pem(std::fs::read_to_string(&credentials.ca).context("reading the CA")?);
    let token = std::fs::read_to_string(&credentials.token).context("reading the token")?.trim().to_owned();
    let endpoint =
        Endpoint::from_shared(format!("https://{at}"))?.tls_config(ClientTlsConfig::new().ca_certificate(ca))?;
    let access = move |_| Ok(Access { channel: endpoint.connect_lazy(), token: Some(token.clone()), others: false });
    let (sender, receiver) = watch::channel(Subscription::default());
    let scope = Scope { namespace: NAMESPACE.to_owned(), pool: pool.map(|pool| format!("pool{pool}")) };
    tokio::spawn(
        Subscriber { picker: format!("picker-{number}"), scope, contradicted: mpsc::channel(1).1, memory: None }
            .run(access, sender),
    );
    Ok(Listener { pool, known: receiver })
}

/// Waits until the controller has written a status of each of so many objects, and writes no more.
async fn until_written(controller: &Client, objects: usize) -> Result<()> {
    const LOOK: Duration = Duration::from_secs(2);
    let mut before = 0;
    let written = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let metrics = controller.get("/metrics").await?.text();
            let written = metrics.lines().find_map(|line| line.strip_prefix(WRITTEN)?.trim().parse::<usize>().ok());
            let now = written.unwrap_or_default();
            if now >= objects && std::mem::replace(&mut before, now) == now {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(10), written).await.context("statuses are written without an end")?
}

/// Counts statuses that were written.
const WRITTEN: &str = "thalamus_controller_status_writes_total{outcome=\"written\"}";

/// User and system time of a process. A tick is 10 ms on every Linux there is.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn resident_megabytes(pid: u32) -> u64 {
    crate::memory(pid, "VmRSS").unwrap_or(0) >> 20
}
