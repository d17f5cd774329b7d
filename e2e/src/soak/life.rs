//! What happens in a soak: each deed by chance, as it happens in clusters.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serde_json::{Value, json};

use super::{Declared, MODELS, POOLS, Shared, Standing, Summary, takes_images};
use crate::{Client, Cluster, Options, PickerPorts, PodSpec, Process, World, eventually};

/// A pod, a model and a pool (the first of each) stay: through all of it somebody stands ready, and may be relied on.
const ROCK: &str = "pool0-1";

/// What the controller runs for the first pool, which is managed.
pub(super) const PICKER: &str = "pool0-picker";

/// The world, and what happens in it.
pub(super) struct Life {
    pub(super) world: World,
    pub(super) shared: Arc<Shared>,
    controllers: [Option<Process>; 2],
    pickers: [(Option<Process>, PickerPorts); 2],
    paused: bool,
    rng: Rng,
    pods: u32,
    deeds: BTreeMap<&'static str, u64>,
}

impl Life {
    pub(super) async fn begin(cluster: Arc<Cluster>, folder: &Path, seed: u64) -> Result<Self> {
        let options = Options {
            controller_args: vec!["--lease-duration=3s".into()],
            picker_args: vec!["--drain-timeout=5s".into()],
            ..Options::default()
        };
        let mut world = World::start(cluster, folder, options).await?;
        let second = world.add_replica().await?;
        let ports = [PickerPorts::hold()?, PickerPorts::hold()?];
        let one = world.picker_beside("picker-a", &ports[0]).await?;
        let two = world.picker_beside("picker-b", &ports[1]).await?;
        let [first_ports, second_ports] = ports;
        world.kill_controller();
        let first = world.restart_replica(0).await?.process;
        let mut life = Self {
            world,
            shared: Arc::default(),
            controllers: [Some(first), Some(second.process)],
            pickers: [(Some(one), first_ports), (Some(two), second_ports)],
            paused: false,
            rng: Rng::with_seed(seed),
            pods: 0,
            deeds: BTreeMap::new(),
        };
        for pool in 0..POOLS {
            life.world.apply_pool(&format!("pool{pool}"))?;
            life.pod_comes(pool).await?;
        }
        for model in 0..MODELS {
            life.model_comes(model)?;
        }
        let managed = json!({"metadata": {"annotations": {"thalamus.dev/picker": "managed"}}, "spec": {"endpointPickerRef": {"name": PICKER}}});
        life.world.kubectl(&["patch", "inferencepool", "pool0", "--type=merge", "-p", &managed.to_string()])?;
        life.until_settled().await?;
        Ok(life)
    }

    /// Waits until every picker has heard of everything, and every status says so.
    pub(super) async fn until_settled(&self) -> Result<()> {
        eventually("everything is programmed", async || {
            let all: Value =
                serde_json::from_str(&self.world.kubectl(&["get", "inferencepool,inferencemodel", "-o", "json"])?)?;
            for object in all["items"].as_array().context("there is no list")? {
                let conditions = &object["status"]["conditions"];
                let conditions =
                    if conditions.is_null() { &object["status"]["parents"][0]["conditions"] } else { conditions };
                let conditions = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
                let says = |type_: &str| conditions.iter().find(|one| one["type"] == type_).unwrap_or(&Value::Null);
                let programmed = says("Programmed");
                // The two that are asked, and the world's own.
                let all = "3 of 3 pickers use it";
                ensure!(
                    programmed["message"] == all
                        && programmed["observedGeneration"] == object["metadata"]["generation"],
                    "{} {}: {conditions:?}",
                    object["kind"],
                    object["metadata"]["name"]
                );
            }
            Ok(())
        })
        .await
    }

    /// Waits until every picker has the pods that are ready, and no other.
    pub(super) async fn until_tables_are_true(&self) -> Result<()> {
        let ready: Vec<String> = {
            let truth = self.shared.truth();
            truth.pods.iter().filter(|(_, pod)| pod.ready.is_some()).map(|(name, _)| format!("{name}-rank-0")).collect()
        };
        let admins = self.admins();
        eventually("every picker has the pods that are ready, and no other", async || {
            for admin in &admins {
                let table = admin.get("/debug/table").await?.text();
                let missing = ready.iter().find(|name| !table.contains(&**name));
                ensure!(missing.is_none(), "{missing:?} is not there: {table}");
                ensure!(table.matches("-rank-0").count() == ready.len(), "more than {ready:?}: {table}");
            }
            Ok(())
        })
        .await
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        self.pickers.iter().map(|(_, ports)| Client::new(ports.http.address())).collect()
    }

    fn admins(&self) -> Vec<Client> {
        self.pickers.iter().map(|(_, ports)| Client::new(ports.admin.address())).collect()
    }

    pub(super) fn summary(&self) -> Summary {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Summary {
            requests: number(&self.shared.requests),
            answered: number(&self.shared.answered),
            relied_on: number(&self.shared.relied_on),
            refused: number(&self.shared.refused),
            asked_again: number(&self.shared.asked_again),
            deeds: self.deeds.clone(),
        }
    }

    /// One thing that happens.
    pub(super) async fn deed(&mut self) -> Result<()> {
        let what = match self.rng.u32(..100) {
            0..20 => self.pod_comes_or_goes().await?,
            20..35 => self.pod_wavers().await?,
            35..50 => self.model_comes_or_goes()?,
            50..58 => self.pool_goes_and_comes().await?,
            58..66 => self.controller_dies().await?,
            66..74 => self.picker_dies().await?,
            74..80 => self.api_server_stands_still().await?,
            80..84 => self.managed_picker_is_broken()?,
            _ => {
                tokio::time::sleep(Duration::from_millis(self.rng.u64(50..1500))).await;
                return Ok(());
            }
        };
        *self.deeds.entry(what).or_default() += 1;
        Ok(())
    }

    async fn pod_comes(&mut self, pool: u32) -> Result<()> {
        self.pods += 1;
        let name = format!("pool{pool}-{}", self.pods);
        let model = format!("t{pool}={}", if takes_images(pool) { "text,image" } else { "text" });
        let latency = Duration::from_millis(self.rng.u64(..30));
        let spec = PodSpec::new(&name, &format!("pool{pool}"), &[&model]).with_latency(latency);
        self.world.kubelet.run(spec).await?;
        self.shared.truth().pods.insert(name, Standing { pool, ready: Some(Instant::now()) });
        Ok(())
    }

    async fn pod_comes_or_goes(&mut self) -> Result<&'static str> {
        let pool = self.rng.u32(..POOLS);
        let here: Vec<String> = {
            let truth = self.shared.truth();
            truth.pods.iter().filter(|(_, pod)| pod.pool == pool).map(|(name, _)| name.clone()).collect()
        };
        if here.len() < 2 || here.len() < 4 && self.rng.bool() {
            self.pod_comes(pool).await?;
            return Ok("pods come");
        }
        let name = here[self.rng.usize(..here.len())].clone();
        if name == ROCK {
            return Ok("pods stay");
        }
        self.pod_goes(&name).await?;
        Ok("pods go")
    }

    /// As Kubernetes does it: it is not ready any more, and ends when nobody sends it anything.
    async fn pod_goes(&mut self, name: &str) -> Result<()> {
        if let Some(pod) = self.shared.truth().pods.get_mut(name) {
            pod.ready = None;
        }
        self.world.kubelet.set_ready(name, false).await?;
        let admins = self.admins();
        eventually(&format!("no picker knows {name}"), async || {
            for admin in &admins {
                let table = admin.get("/debug/table").await?.text();
                ensure!(!table.contains(&format!("{name}-rank-0")), "{table}");
            }
            Ok(())
        })
        .await?;
        // What was sent before is answered by then: no simulator takes longer.
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.world.kubelet.delete(name).await?;
        self.shared.truth().pods.remove(name);
        Ok(())
    }

    async fn pod_wavers(&mut self) -> Result<&'static str> {
        let names: Vec<String> = self.shared.truth().pods.keys().filter(|name| *name != ROCK).cloned().collect();
        let Some(name) = names.get(self.rng.usize(..names.len().max(1))).cloned() else { return Ok("pods waver") };
        if let Some(pod) = self.shared.truth().pods.get_mut(&name) {
            pod.ready = None;
        }
        self.world.kubelet.set_ready(&name, false).await?;
        tokio::time::sleep(Duration::from_millis(self.rng.u64(..400))).await;
        self.world.kubelet.set_ready(&name, true).await?;
        if let Some(pod) = self.shared.truth().pods.get_mut(&name) {
            pod.ready = Some(Instant::now());
        }
        Ok("pods waver")
    }

    fn model_comes(&mut self, model: u32) -> Result<()> {
        let pool = if model == 0 { 0 } else { self.rng.u32(..POOLS) };
        let modalities = if takes_images(pool) { "[Text, Image]" } else { "[Text]" };
        let spec = format!(
            "{{modelName: m{model}, targetModels: [{{name: t{pool}, poolRef: {{name: pool{pool}}}, modalities: {{input: {modalities}}}}}]}}"
        );
        self.world.apply_model(&format!("m{model}"), &spec)?;
        let mut truth = self.shared.truth();
        truth.gone.remove(&format!("m{model}"));
        truth.models.insert(format!("m{model}"), Declared { pool, since: Instant::now() });
        Ok(())
    }

    fn model_comes_or_goes(&mut self) -> Result<&'static str> {
        let model = self.rng.u32(1..MODELS);
        let name = format!("m{model}");
        let there = self.shared.truth().models.remove(&name).is_some();
        if there && self.rng.bool() {
            self.world.kubectl(&["delete", "inferencemodel", &name])?;
            self.shared.truth().gone.insert(name, Instant::now());
            return Ok("models go");
        }
        self.model_comes(model)?;
        Ok(if there { "models move" } else { "models come" })
    }

    async fn pool_goes_and_comes(&mut self) -> Result<&'static str> {
        let pool = self.rng.u32(1..POOLS);
        let name = format!("pool{pool}");
        let doubt = |shared: &Shared, since: Option<Instant>| {
            for pod in shared.truth().pods.values_mut().filter(|pod| pod.pool == pool) {
                pod.ready = since;
            }
        };
        doubt(&self.shared, None);
        self.world.kubectl(&["delete", "inferencepool", &name])?;
        tokio::time::sleep(Duration::from_millis(self.rng.u64(..800))).await;
        self.world.apply_pool(&name)?;
        doubt(&self.shared, Some(Instant::now()));
        Ok("pools go and come")
    }

    async fn controller_dies(&mut self) -> Result<&'static str> {
        let number = self.rng.usize(..self.controllers.len());
        if let Some(mut controller) = self.controllers[number].take() {
            if self.rng.bool() {
                controller.terminate()?;
                controller.ended().await?;
            } else {
                controller.kill();
            }
        }
        tokio::time::sleep(Duration::from_millis(self.rng.u64(..1500))).await;
        self.controllers[number] = Some(self.world.restart_replica(number).await?.process);
        Ok("controllers die")
    }

    async fn picker_dies(&mut self) -> Result<&'static str> {
        let number = self.rng.usize(..self.pickers.len());
        let (process, ports) = &mut self.pickers[number];
        if let Some(mut picker) = process.take() {
            if self.rng.bool() {
                picker.terminate()?;
                picker.ended().await?;
            } else {
                picker.kill();
            }
        }
        let name = ["picker-a", "picker-b"][number];
        *process = Some(self.world.picker_beside(name, ports).await?);
        // Before another goes, this one must have a table: a controller may have died, too.
        let admin = Client::new(ports.admin.address());
        eventually("the picker is ready again", async || {
            let ready = admin.get("/ready").await?;
            ensure!(ready.status == 200, "{}", ready.text());
            Ok(())
        })
        .await?;
        Ok("pickers die")
    }

    fn managed_picker_is_broken(&mut self) -> Result<&'static str> {
        let parts = ["service", "deployment", "networkpolicy", "serviceaccount"];
        let part = parts[self.rng.usize(..parts.len())];
        self.world.kubectl(&["delete", part, PICKER, "--ignore-not-found"])?;
        Ok("managed pickers break")
    }

    async fn api_server_stands_still(&mut self) -> Result<&'static str> {
        self.world.cluster.signal("kube-apiserver", "STOP")?;
        self.paused = true;
        tokio::time::sleep(Duration::from_millis(self.rng.u64(500..6000))).await;
        self.api_server_goes_on();
        Ok("pauses")
    }

    pub(super) fn api_server_goes_on(&mut self) {
        if std::mem::take(&mut self.paused) {
            // If it is gone, whatever asks it next says so.
            let _ = self.world.cluster.signal("kube-apiserver", "CONT");
        }
    }
}
