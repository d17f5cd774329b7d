//! What happens when the API server misbehaves, goes, or comes back with less than it knew?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use e2e::{Client, Cluster, Fault, FaultyApi, Options, Process, World, binary, eventually, root};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::Shared;
use crate::kubectl::until_condition;
use crate::routing::{chat, image, text, three_pools, until_answered};

/// Asks all the time; every answer must be the one that is entitled to be given.
struct Asking {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Result<u64>>,
}

impl Asking {
    fn start(client: &Client) -> Self {
        let (stop, client) = (Arc::new(AtomicBool::new(false)), client.clone());
        let stopped = Arc::clone(&stop);
        let asking = tokio::spawn(async move {
            let mut answers = 0;
            while !stopped.load(Ordering::Relaxed) {
                let answer = client.chat(&chat("chat", &image())).await?;
                ensure!(answer.shown() == "200 vision-0", "after {answers} answers: {}", answer.shown());
                answers += 1;
            }
            Ok(answers)
        });
        Self { stop, asking }
    }

    async fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let answers = self.asking.await.context("the client panicked")??;
        ensure!(answers > 10, "{answers} answers are no load");
        Ok(())
    }
}

/// A model that is applied now is served, and said to be.
async fn until_a_new_model_is_served(world: &World, name: &str) -> Result<()> {
    world
        .apply_model(name, &format!("{{modelName: {name}, targetModels: [{{name: v, poolRef: {{name: vision}}}}]}}"))?;
    until_answered(world, &chat(name, &text()), "200 vision-0").await?;
    until_condition(world, "inferencemodel", name, "Programmed=True Programmed: 1 of 1 pickers use it").await
}

async fn alive(world: &mut World) -> Result<()> {
    let live = world.controller_admin.get("/live").await?;
    ensure!(live.status == 200, "the controller is not alive: {}", world.controller.tail());
    let log = world.controller.log();
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

pub(crate) async fn refusals_silence_and_broken_watches_harm_nobody(shared: &Shared) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (api, mut world) = faulty_world(shared, folder.path()).await?;
    three_pools(&mut world).await?;
    until_condition(&world, "inferencemodel", "chat", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    let asking = Asking::start(&world.http);
    let faults = [Fault::Status(429), Fault::Status(500), Fault::Status(503), Fault::Expired, Fault::Silence];
    for (number, fault) in faults.into_iter().enumerate() {
        api.set(fault);
        if fault == Fault::Expired {
            // What watches went on from is gone: everything is listed anew, again and again, and works.
            until_a_new_model_is_served(&world, "while-expired").await?;
        } else {
            // Nobody can renew a lease, so nobody leads, and pickers keep what they have.
            let lost = number + 1 - usize::from(number > 3);
            eventually(&format!("{fault:?}: the controller steps down"), async || {
                let times = world.controller.log().matches("no longer leading").count();
                ensure!(times >= lost, "{times} times of {lost}: {}", world.controller.tail());
                Ok(())
            })
            .await?;
        }
        alive(&mut world).await?;
        api.set(Fault::None);
        until_a_new_model_is_served(&world, &format!("after-{number}"))
            .await
            .with_context(|| format!("{fault:?}: {}", world.controller.tail()))?;
    }
    asking.end().await
}

/// A world whose controller reaches the API server through one that misbehaves as it is told.
pub(crate) async fn faulty_world(shared: &Shared, folder: &std::path::Path) -> Result<(FaultyApi, World)> {
    let api = FaultyApi::start(shared.cluster()).await?;
    let kubeconfig = Some(api.kubeconfig(folder)?);
    let controller_args = vec!["--lease-duration=3s".into()];
    let world = shared.world_with(Options { kubeconfig, controller_args, ..Options::default() }).await?;
    Ok((api, world))
}

pub(crate) async fn an_event_that_hangs_holds_up_no_status(shared: &Shared) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (api, mut world) = faulty_world(shared, folder.path()).await?;
    api.set(Fault::SilenceOf("/events"));
    three_pools(&mut world).await?;
    for number in 0..3 {
        // Each says something that is worth an event.
        world.apply_model(&format!("lost-{number}"), "{modelName: lost, poolRef: {name: nowhere}}")?;
        until_a_new_model_is_served(&world, &format!("found-{number}")).await?;
    }
    until_condition(
        &world,
        "inferencemodel",
        "lost-2",
        "Accepted=False ModelNameInUse: modelName \"lost\" is served by InferenceModel lost-0, which is older or first by name; rename or \
         delete one",
    )
    .await?;
    alive(&mut world).await
}

pub(crate) async fn a_broken_kind_of_another_project_keeps_nobody_from_leading(shared: &Shared) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (api, mut world) = faulty_world(shared, folder.path()).await?;
    three_pools(&mut world).await?;
    world.kill_controller();
    api.set(Fault::StatusOf("inferenceobjectives", 500));
    world.start_controller().await?;
    until_a_new_model_is_served(&world, "without-objectives").await?;
    ensure!(world.controller.log().contains("does not list InferenceObjectives"), "{}", world.controller.tail());
    Ok(())
}

pub(crate) async fn a_replica_that_cannot_list_does_not_lead(shared: &Shared) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (api, mut world) = faulty_world(shared, folder.path()).await?;
    three_pools(&mut world).await?;
    until_condition(&world, "inferencemodel", "chat", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    world.controller.terminate()?;
    ensure!(world.controller.ended().await?.success(), "{}", world.controller.tail());
    api.set(Fault::StatusOf("/pods", 500));
    let replica = world.restart_replica(0).await?;
    let holder = || world.kubectl(&["get", "lease", "thalamus-controller", "-o", "jsonpath={.spec.holderIdentity}"]);
    eventually("it tried to list more than once", async || {
        let tries = replica.process.log().matches("watch interrupted").count();
        ensure!(tries >= 3, "{tries}: {}", replica.process.tail());
        Ok(())
    })
    .await?;
    ensure!(holder()?.is_empty(), "{} leads and knows of no pods", holder()?);
    api.set(Fault::None);
    eventually("it leads", async || {
        ensure!(holder()? == "thalamus-controller-0", "{:?}", holder());
        Ok(())
    })
    .await
}

/// A cluster of its own, since it is to be killed.
async fn own_world(shared: &Shared, name: &str) -> Result<(Arc<Cluster>, World)> {
    let folder = shared.folder().join(name);
    std::fs::create_dir_all(&folder)?;
    let cluster = Arc::new(Cluster::start(&folder)?);
    let options = Options { controller_args: vec!["--lease-duration=3s".into()], ..Options::default() };
    let mut world = World::start(Arc::clone(&cluster), &folder, options).await?;
    three_pools(&mut world).await?;
    until_condition(&world, "inferencemodel", "chat", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    Ok((cluster, world))
}

async fn until_back(cluster: &Cluster) -> Result<()> {
    eventually("the API server is back", async || cluster.kubectl(&["get", "--raw", "/readyz"]).map(drop)).await
}

pub(crate) async fn the_api_server_is_gone_for_longer_than_a_lease(shared: &Shared) -> Result<()> {
    let (cluster, mut world) = own_world(shared, "gone").await?;
    let asking = Asking::start(&world.http);
    let api_server = cluster.kill("kube-apiserver")?;
    eventually("the controller steps down", async || {
        ensure!(world.controller.log().contains("no longer leading"), "{}", world.controller.tail());
        Ok(())
    })
    .await?;
    alive(&mut world).await?;
    cluster.restart(&api_server)?;
    until_back(&cluster).await?;
    until_a_new_model_is_served(&world, "after").await?;
    asking.end().await?;
    // Stopped in its tracks rather than gone: connections stand, and nothing comes.
    let asking = Asking::start(&world.http);
    cluster.signal("kube-apiserver", "STOP")?;
    eventually("the controller steps down again", async || {
        let times = world.controller.log().matches("no longer leading").count();
        ensure!(times >= 2, "{times} times: {}", world.controller.tail());
        Ok(())
    })
    .await?;
    cluster.signal("kube-apiserver", "CONT")?;
    until_back(&cluster).await?;
    until_a_new_model_is_served(&world, "after-all").await?;
    alive(&mut world).await?;
    asking.end().await
}

pub(crate) async fn an_older_etcd_is_restored_and_the_world_goes_back_with_it(shared: &Shared) -> Result<()> {
    let (cluster, mut world) = own_world(shared, "restored").await?;
    // What etcd knew, and then more than that.
    let (api_server, etcd) = (cluster.kill("kube-apiserver")?, cluster.kill("etcd")?);
    let (data, backup) = (cluster.etcd_data()?, shared.folder().join("restored/backup"));
    copy(&data, &backup)?;
    cluster.restart(&etcd)?;
    cluster.restart(&api_server)?;
    until_back(&cluster).await?;
    for number in 0..5 {
        until_a_new_model_is_served(&world, &format!("late-{number}")).await?;
    }
    let (api_server, etcd) = (cluster.kill("kube-apiserver")?, cluster.kill("etcd")?);
    std::fs::remove_dir_all(&data)?;
    copy(&backup, &data)?;
    cluster.restart(&etcd)?;
    cluster.restart(&api_server)?;
    until_back(&cluster).await?;
    // What came later was never there; what is applied now counts, whatever version it has.
    eventually("a model of the lost time is gone", async || {
        let answer = world.gateway.chat(&chat("late-0", &text())).await?;
        ensure!(answer.json()["error"]["code"] == "model_not_found", "{}", answer.shown());
        Ok(())
    })
    .await?;
    until_a_new_model_is_served(&world, "now").await?;
    world.kubelet.set_ready("vision-0", false).await?;
    until_answered(&world, &chat("chat", &image()), "200 omni-0").await?;
    alive(&mut world).await
}

pub(crate) async fn crds_may_come_later_and_change(shared: &Shared) -> Result<()> {
    let folder = shared.folder().join("bare");
    std::fs::create_dir_all(&folder)?;
    let cluster = Cluster::start_bare(&folder)?;
    let flags = ["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--namespace=default", "--log-format=json"];
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let binary = binary("thalamus-controller")?;
    let mut controller = Process::start(&folder, "early", &binary, &flags, &[("KUBECONFIG", &kubeconfig)])?;
    let said = controller.said("controller started").await?;
    let admin = Client::new(said["admin"].as_str().context("said")?.parse()?);
    eventually("it says what to do", async || {
        ensure!(controller.log().contains("install the CRDs: kubectl apply"), "{}", controller.tail());
        Ok(())
    })
    .await?;
    ensure!(
        admin.get("/ready").await?.status == 503 && admin.get("/live").await?.status == 200,
        "alive, and not ready"
    );
    for folder in ["crds", "crds/inference-pool"] {
        cluster.kubectl(&["create", "-k", &root().join(folder).display().to_string()])?;
    }
    eventually("it is ready", async || {
        ensure!(admin.get("/ready").await?.status == 200, "{}", controller.tail());
        Ok(())
    })
    .await?;
    // Under its feet: another schema, and the same objects.
    let pool = r#"{"apiVersion":"inference.networking.k8s.io/v1","kind":"InferencePool","metadata":{"name":"p"},
        "spec":{"selector":{"matchLabels":{"a":"b"}},"targetPorts":[{"number":8000}],"endpointPickerRef":{"name":"x","port":{"number":1}}}}"#;
    cluster.apply("default", pool)?;
    let add = r#"[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/new","value":{"type":"string"}}]"#;
    let crd = "crd/inferencepools.inference.networking.k8s.io";
    cluster.kubectl(&["patch", crd, "--type=json", "-p", add])?;
    cluster.apply("default", &pool.replace(r#""targetPorts""#, r#""new":"x","targetPorts""#))?;
    eventually("the pool of the new schema has a status", async || {
        let pool: Value = serde_json::from_str(&cluster.kubectl(&["get", "inferencepool", "p", "-o", "json"])?)?;
        let conditions = &pool["status"]["parents"][0]["conditions"];
        ensure!(conditions[0]["observedGeneration"] == 2, "{pool}");
        ensure!(pool["spec"]["new"] == "x", "what it does not know is kept");
        Ok(())
    })
    .await?;
    ensure!(admin.get("/live").await?.status == 200, "{}", controller.tail());
    cluster.end();
    Ok(())
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().context("running cp")?;
    ensure!(status.success(), "copying {}", from.display());
    Ok(())
}
