//! The lab's one node: scheduler and kubelet in one loop, and what names lead to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::launch::{self, ApiServer};
use super::network::{HOST, PodNetwork};
use super::{Images, probe};

const NAME: &str = "lab";

/// How often everything is looked at.
const PAUSE: Duration = Duration::from_millis(300);

/// How long a process may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(3);

pub(super) struct Node {
    client: Client,
    server: ApiServer,
    folder: PathBuf,
    images: Images,
    pods: HashMap<String, RunningPod>,
    free: Vec<Ipv4Addr>,
    hosts: String,
}

struct RunningPod {
    pod: Pod,
    network: PodNetwork,
    folder: PathBuf,
    processes: Vec<(Container, Child)>,
    restarts: i32,
    /// What was said last.
    ready: Option<bool>,
}

impl Node {
    pub(super) fn new(client: Client, kubeconfig: &Path, folder: &Path, images: Images) -> Result<Self> {
        let config = kube::config::Kubeconfig::read_from(kubeconfig).context("reading the kubeconfig")?;
        let cluster = config.clusters.first().and_then(|named| named.cluster.as_ref()).context("it names a cluster")?;
        let url = cluster.server.as_deref().context("it names a server")?;
        let (_, place) = url.split_once("://").context("a URL")?;
        let (host, port) = place.split_once(':').context("a port")?;
        let server = ApiServer {
            kubeconfig: kubeconfig.to_owned(),
            ca: cluster.certificate_authority.clone().context("it names a CA")?.into(),
            host: host.to_owned(),
            port: port.to_owned(),
        };
        let free = (10..250).rev().map(|last| Ipv4Addr::new(10, 245, 0, last)).collect();
        let (pods, hosts) = (HashMap::new(), String::new());
        Ok(Self { client, server, folder: folder.to_owned(), images, pods, free, hosts })
    }

    pub(super) async fn run(mut self) {
        let mut beat = tokio::time::Instant::now();
        loop {
            if beat <= tokio::time::Instant::now() {
                self.say("its heartbeat", self.heartbeat().await);
                beat += Duration::from_secs(10);
            }
            let looked = self.look().await;
            self.say("its pods", looked);
            let named = self.name_services().await;
            self.say("its services", named);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A node that fails says so in a file: what it does is tried again.
    fn say(&self, what: &str, result: Result<()>) {
        use std::io::Write as _;
        let Err(error) = result else { return };
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("node.log"));
        let _ = log.and_then(|mut log| writeln!(log, "{what}: {error:#}"));
    }

    async fn heartbeat(&self) -> Result<()> {
        let now = k8s_openapi::jiff::Timestamp::now();
        let (params, force) = (PatchParams::apply("lab"), true);
        let params = PatchParams { force, ..params };
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME}});
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        nodes.patch(NAME, &params, &Patch::Apply(&node)).await?;
        let status = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME}, "status": {
            "capacity": {"pods": "200", "cpu": "64", "memory": "64Gi"},
            "addresses": [{"type": "InternalIP", "address": HOST}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
                "lastHeartbeatTime": now, "lastTransitionTime": now}],
        }});
        nodes.patch_status(NAME, &params, &Patch::Apply(&status)).await?;
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME},
            "spec": {"holderIdentity": NAME, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")}});
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
            Api::namespaced(self.client.clone(), "kube-node-lease");
        leases.patch(NAME, &params, &Patch::Apply(&lease)).await?;
        Ok(())
    }

    async fn look(&mut self) -> Result<()> {
        let wanted: Vec<Pod> = Api::<Pod>::all(self.client.clone()).list(&ListParams::default()).await?.items;
        let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
        let uids: BTreeSet<String> = wanted.iter().filter(stays).filter_map(ResourceExt::uid).collect();
        let gone: Vec<String> = self.pods.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        let gone: Vec<RunningPod> = gone.iter().filter_map(|uid| self.pods.remove(uid)).collect();
        let stopped = join_all(gone.into_iter().map(RunningPod::stop)).await;
        self.free.extend(stopped);
        for pod in wanted.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
            let now = DeleteParams::default().grace_period(0);
            let _gone = self.api(pod).delete(&pod.name_any(), &now).await;
        }
        for pod in wanted.into_iter().filter(|pod| stays(&pod)) {
            let uid = pod.uid().unwrap_or_default();
            if !self.pods.contains_key(&uid) {
                let started = self.start(pod).await;
                self.say("starting a pod", started);
            }
        }
        let probed = join_all(self.pods.values().map(RunningPod::is_ready)).await;
        let probed: Vec<(String, bool)> = self.pods.keys().cloned().zip(probed).collect();
        for (uid, ready) in probed {
            let Some(running) = self.pods.get_mut(&uid) else { continue };
            running.start_again(&self.images, &self.folder, &self.server)?;
            if running.ready != Some(ready) {
                running.ready = Some(ready);
                let status = running.status(ready);
                let name = running.pod.name_any();
                let api: Api<Pod> = Api::namespaced(self.client.clone(), &running.pod.namespace().unwrap_or_default());
                api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await?;
            }
        }
        Ok(())
    }

    fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }

    async fn start(&mut self, pod: Pod) -> Result<()> {
        let (uid, name) = (pod.uid().unwrap_or_default(), pod.name_any());
        let folder = self.folder.join(&uid);
        launch::volumes(&self.client, &pod, &folder, &self.server).await.with_context(|| format!("pod {name}"))?;
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
            let target = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NAME}});
            let _: Value = self.api(&pod).create_subresource("binding", &name, &PostParams::default(), &target).await?;
        }
        let network = PodNetwork::make(self.free.pop().context("no address is free")?)?;
        let mut running = RunningPod { pod, network, folder, processes: Vec::new(), restarts: 0, ready: None };
        running.start(&self.images, &self.folder, &self.server)?;
        self.pods.insert(uid, running);
        Ok(())
    }

    /// Writes what names lead to, and gives each Service of type LoadBalancer the address of its first ready pod.
    async fn name_services(&mut self) -> Result<()> {
        let slices = Api::<EndpointSlice>::all(self.client.clone()).list(&ListParams::default()).await?;
        let mut addresses: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for slice in slices {
            let Some(service) = slice.labels().get("kubernetes.io/service-name").cloned() else { continue };
            let of = addresses.entry((slice.namespace().unwrap_or_default(), service)).or_default();
            for endpoint in slice.endpoints {
                if endpoint.conditions.and_then(|conditions| conditions.ready).unwrap_or(true) {
                    of.extend(endpoint.addresses);
                }
            }
        }
        let mut hosts = "127.0.0.1 localhost\n".to_owned();
        for service in Api::<Service>::all(self.client.clone()).list(&ListParams::default()).await? {
            let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
            let Some(all) = addresses.get(&(namespace.clone(), name.clone())).filter(|all| !all.is_empty()) else {
                continue;
            };
            let spec = service.spec.unwrap_or_default();
            let shown = if spec.cluster_ip.as_deref() == Some("None") { all.len() } else { 1 };
            for ip in &all[..shown] {
                hosts +=
                    &format!("{ip} {name}.{namespace}.svc.cluster.local {name}.{namespace}.svc {name}.{namespace}\n");
            }
            let balancer = service.status.and_then(|status| status.load_balancer).and_then(|status| status.ingress);
            let is_told = balancer.iter().flatten().any(|ingress| ingress.ip.as_deref() == Some(&all[0]));
            if spec.type_.as_deref() == Some("LoadBalancer") && !is_told {
                let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": all[0], "ipMode": "VIP"}]}}});
                let services: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
                services.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
            }
        }
        if hosts != self.hosts {
            // The same file, not another in its place: it is mounted where every process looks.
            std::fs::write(self.folder.join("hosts"), &hosts).context("writing hosts")?;
            self.hosts = hosts;
        }
        Ok(())
    }
}

impl RunningPod {
    fn containers(&self) -> Vec<Container> {
        self.pod.spec.as_ref().map(|spec| spec.containers.clone()).unwrap_or_default()
    }

    fn start(&mut self, images: &Images, logs: &Path, server: &ApiServer) -> Result<()> {
        for container in self.containers() {
            let image = container.image.clone().unwrap_or_default();
            let program = images.iter().find(|(name, _)| image.contains(*name)).map(|(_, program)| program);
            let program = program.with_context(|| format!("no program stands for the image {image}"))?;
            let name =
                format!("{}.{}.{}.log", self.pod.namespace().unwrap_or_default(), self.pod.name_any(), container.name);
            let log = logs.join(name);
            let child = launch::start(&self.pod, &container, program, &self.network, &self.folder, &log, server)?;
            self.processes.push((container, child));
        }
        Ok(())
    }

    /// Starts all of it again where one of its processes ended.
    fn start_again(&mut self, images: &Images, logs: &Path, server: &ApiServer) -> Result<()> {
        let has_ended = self.processes.iter_mut().any(|(_, child)| matches!(child.try_wait(), Ok(Some(_))));
        if !has_ended {
            return Ok(());
        }
        for (_, child) in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.processes.clear();
        self.restarts += 1;
        self.start(images, logs, server)
    }

    async fn is_ready(&self) -> bool {
        let ip = IpAddr::V4(self.network.ip);
        let probes = self.processes.iter().map(|(container, _)| probe::is_ready(ip, container));
        join_all(probes).await.into_iter().all(|ready| ready)
    }

    fn status(&self, ready: bool) -> Value {
        let (now, word) = (k8s_openapi::jiff::Timestamp::now(), if ready { "True" } else { "False" });
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": now});
        let container = |container: &Container| {
            json!({"name": container.name, "image": container.image, "imageID": "", "ready": ready, "started": ready,
                "restartCount": self.restarts, "state": {"running": {"startedAt": now}}})
        };
        json!({"status": {
            "phase": "Running", "podIP": self.network.ip, "podIPs": [{"ip": self.network.ip}], "hostIP": HOST, "startTime": now,
            "conditions": [condition("PodScheduled", "True"), condition("Initialized", "True"),
                condition("ContainersReady", word), condition("Ready", word)],
            "containerStatuses": self.containers().iter().map(container).collect::<Vec<_>>(),
        }})
    }

    /// Ends its processes, and answers with the address that is free again.
    async fn stop(mut self) -> Ipv4Addr {
        for (_, child) in &self.processes {
            let _ = super::system("kill", &["-TERM", &child.id().to_string()]);
        }
        let given_up = tokio::time::Instant::now() + GRACE;
        for (_, child) in &mut self.processes {
            while matches!(child.try_wait(), Ok(None)) && tokio::time::Instant::now() < given_up {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        // What is left of it is in nobody's way.
        let _ = self.network.remove();
        let _ = std::fs::remove_dir_all(&self.folder);
        self.network.ip
    }
}
