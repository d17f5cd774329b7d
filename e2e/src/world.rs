//! A world: one namespace, one controller for it, one picker, one Envoy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use thalamus::manifests::Objects;
use thalamus::simulated;

use crate::gateway::{envoy_manifest, replaced, start_envoy, start_module_of};
use crate::{Client, Cluster, Credentials, Kubelet, PodSpec, Port, Process, binary, envoy, eventually};

/// What a world has that others do not.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The namespace; a new one when empty.
    pub namespace: String,
    /// The one pool the picker serves.
    pub pool: Option<String>,
    /// More flags for the picker.
    pub picker_args: Vec<String>,
    /// More of the picker's environment.
    pub picker_env: Vec<(&'static str, String)>,
    /// More flags for the controllers.
    pub controller_args: Vec<String>,
    /// Controllers have rights in this namespace alone.
    pub limited: bool,
    /// An Envoy with a picker inside it beside the other ways in, and one whose module asks the world's picker.
    pub module: bool,
    /// How the controllers reach the API server; with the rights of `manifests/controller` when empty.
    pub kubeconfig: Option<PathBuf>,
}

/// Another replica of the controller.
#[derive(Debug)]
pub struct Replica {
    pub process: Process,
    pub admin: Client,
}

/// A world. What it started ends with it.
#[derive(Debug)]
pub struct World {
    pub cluster: Arc<Cluster>,
    pub namespace: String,
    pub kubelet: Kubelet,
    pub controller: Process,
    pub picker: Process,
    pub envoy: Process,
    pub envoy_admin: Client,
    /// Through Envoy and ext_proc.
    pub gateway: Client,
    /// The picker's own HTTP port.
    pub http: Client,
    /// Through an Envoy with a picker inside it, and one that asks, where those were asked for.
    modules: Vec<(Process, Client)>,
    pub picker_admin: Client,
    pub controller_admin: Client,
    /// Where the picker is, also when it was killed and started anew.
    ports: PickerPorts,
    /// Where replicas of the controller take pickers, likewise.
    tables: Vec<Port>,
    pub credentials: Credentials,
    options: Options,
    folder: PathBuf,
}

/// Where a picker is.
#[derive(Debug)]
pub struct PickerPorts {
    ext_proc: Port,
    health: Port,
    pub http: Port,
    pub admin: Port,
}

impl PickerPorts {
    pub fn hold() -> Result<Self> {
        Ok(Self { ext_proc: Port::hold()?, health: Port::hold()?, http: Port::hold()?, admin: Port::hold()? })
    }
}

impl World {
    /// Starts one in a folder of its own below `folder`.
    pub async fn start(cluster: Arc<Cluster>, folder: &Path, options: Options) -> Result<Self> {
        let namespace = if options.namespace.is_empty() { next_namespace() } else { options.namespace.clone() };
        let folder = folder.join(&namespace);
        std::fs::create_dir_all(&folder).context("making a folder")?;
        cluster.apply(&namespace, &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"))?;
        cluster.make_home(&namespace)?;
        let mut options = options;
        if options.limited {
            options.kubeconfig = Some(cluster.limited_account(&namespace)?);
        }
        let kubelet = Kubelet::new(cluster.client().await?, &namespace, &folder);

        let tables = vec![Port::hold()?];
        let Replica { process: mut controller, admin: controller_admin } =
            start_controller(&cluster, &folder, &namespace, &options, 0, &tables[0]).await?;
        controller.said("accepting pickers").await?;
        let credentials = cluster.write_credentials(&namespace, &folder)?;
        let ports = PickerPorts::hold()?;
        let picker = start_picker(&folder, &namespace, &options, &credentials, &tables, &ports).await?;
        let (envoy, envoy_admin, gateway) = start_envoy(&folder, &envoy_manifest(ports.ext_proc.address())?).await?;
        let mut world = Self {
            cluster,
            namespace,
            kubelet,
            controller,
            picker,
            envoy,
            envoy_admin,
            gateway: Client::new(gateway),
            http: Client::new(ports.http.address()),
            modules: Vec::new(),
            picker_admin: Client::new(ports.admin.address()),
            controller_admin,
            ports,
            tables,
            credentials,
            options,
            folder,
        };
        world.until_ready().await?;
        if world.options.module {
            let modules = [world.another_module("module", &[]).await?, world.asking_module("asking", &[]).await?];
            world.modules.extend(modules);
        }
        Ok(world)
    }

    /// Where the picker takes ext_proc.
    pub fn ext_proc(&self) -> SocketAddr {
        self.ports.ext_proc.address()
    }

    /// Where the picker takes gRPC's health service alone.
    pub fn health(&self) -> SocketAddr {
        self.ports.health.address()
    }

    /// Every way in: each must give the same answers.
    pub fn ways(&self) -> Vec<&Client> {
        let modules = self.modules.iter().map(|(_, client)| client);
        [&self.gateway, &self.http].into_iter().chain(modules).collect()
    }

    /// Envoy with a picker inside it, by the very file that users get, but for these words.
    pub async fn another_module(&self, name: &str, changes: &[(&str, &str)]) -> Result<(Process, Client)> {
        let flags = picker_flags(&self.namespace, &self.options, &self.credentials, &self.tables);
        self.module_with(&envoy()?, name, flags, changes).await
    }

    /// One of another version.
    pub async fn module_of(&self, program: &Path, name: &str) -> Result<(Process, Client)> {
        let flags = picker_flags(&self.namespace, &self.options, &self.credentials, &self.tables);
        self.module_with(program, name, flags, &[]).await
    }

    /// Envoy with a module that asks the world's picker, likewise.
    pub async fn asking_module(&self, name: &str, changes: &[(&str, &str)]) -> Result<(Process, Client)> {
        let mut flags = vec![format!("--ask=http://{}", self.ports.ext_proc)];
        flags.extend(self.options.picker_args.iter().cloned());
        self.module_with(&envoy()?, name, flags, changes).await
    }

    async fn module_with(
        &self,
        program: &Path,
        name: &str,
        mut flags: Vec<String>,
        changes: &[(&str, &str)],
    ) -> Result<(Process, Client)> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).context("making a folder")?;
        flags.push("--admin-listen=127.0.0.1:0".into());
        let (envoy, address) = start_module_of(program, &folder, &flags, changes).await?;
        let client = Client::new(address);
        eventually("the picker inside Envoy has a table", async || {
            let answer = client.get("/v1/models").await?;
            ensure!(answer.status != 503, "{}\n{}", answer.shown(), envoy.tail());
            Ok(())
        })
        .await?;
        Ok((envoy, client))
    }

    /// Another Envoy before the same picker, whose configuration differs from the manifest in these words.
    pub async fn another_gateway(&self, name: &str, changes: &[(&str, &str)]) -> Result<(Process, Client)> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).context("making a folder")?;
        let mut config = envoy_manifest(self.ext_proc())?;
        for (theirs, here) in changes {
            config = replaced(&config, theirs, here)?;
        }
        let (envoy, _, address) = start_envoy(&folder, &config).await?;
        Ok((envoy, Client::new(address)))
    }

    /// Waits until the picker has a table.
    pub async fn until_ready(&self) -> Result<()> {
        eventually("the picker is ready", async || {
            let answer = self.picker_admin.get("/ready").await?;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        })
        .await
    }

    /// Waits until each Envoy believes that the picker is well.
    pub async fn until_gateway_asks(&self) -> Result<()> {
        for client in self.ways() {
            eventually("Envoy reaches the picker", async || {
                let answer = client.get("/nothing").await?;
                let code = &answer.json()["error"]["code"];
                ensure!(code.is_string() && code != "not_ready", "{}", answer.shown());
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Applies objects to the namespace.
    pub fn apply(&self, objects: &str) -> Result<()> {
        self.cluster.apply(&self.namespace, objects).map(drop)
    }

    /// A pool of pods labelled `pool: <name>`.
    pub fn apply_pool(&self, name: &str) -> Result<()> {
        self.apply(&format!(
            "{{apiVersion: inference.networking.k8s.io/v1, kind: InferencePool, metadata: {{name: {name}}}, spec: {{selector: {{matchLabels: \
             {{pool: {name}}}}}, targetPorts: [{{number: 8000}}], endpointPickerRef: {{name: thalamus-picker, port: {{number: 9002}}}}}}}}"
        ))
    }

    /// A model with this spec.
    pub fn apply_model(&self, name: &str, spec: &str) -> Result<()> {
        self.apply(&format!(
            "{{apiVersion: thalamus.dev/v1alpha1, kind: InferenceModel, metadata: {{name: {name}}}, spec: {spec}}}"
        ))
    }

    /// Runs kubectl in the namespace.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", &self.namespace];
        all.extend(args);
        self.cluster.kubectl(&all)
    }

    /// The example as a user applies it, and a simulated pod for each that its Deployments ask for.
    pub async fn apply_example(&mut self, example: &Path) -> Result<()> {
        self.cluster.kubectl(&["apply", "--server-side", "-k", &example.display().to_string()])?;
        let objects = Objects::read(example)?;
        for pod in simulated::pods(&objects, |_| "127.0.0.1".into())? {
            let models = pod.models.iter().map(ToString::to_string);
            let metadata = pod.pod.metadata;
            let spec = PodSpec {
                name: metadata.name.unwrap_or_default(),
                labels: metadata.labels.unwrap_or_default(),
                annotations: metadata.annotations.unwrap_or_default(),
                models: models.collect(),
                ..PodSpec::default()
            };
            self.kubelet.run(spec).await?;
        }
        Ok(())
    }

    /// Kills the controller; [`World::start_controller`] brings it back.
    pub fn kill_controller(&mut self) {
        self.controller.kill();
    }

    pub async fn start_controller(&mut self) -> Result<()> {
        let Replica { mut process, admin, .. } = self.restart_replica(0).await?;
        process.said("accepting pickers").await?;
        self.controller = process;
        self.controller_admin = admin;
        Ok(())
    }

    /// Starts the first replica of the controller in another way.
    pub async fn restart_controller_with(&mut self, args: &[&str]) -> Result<()> {
        self.options.controller_args.extend(args.iter().map(|&arg| arg.to_owned()));
        self.start_controller().await
    }

    /// Where its logs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the first replica takes pickers.
    pub fn controller_url(&self) -> String {
        format!("https://{}", self.tables[0])
    }

    /// Starts one more replica of the controller, and a picker that knows of it in the place of the one there is.
    pub async fn add_replica(&mut self) -> Result<Replica> {
        let number = self.tables.len();
        self.tables.push(Port::hold()?);
        let replica = self.restart_replica(number).await?;
        self.picker.kill();
        self.start_picker().await?;
        self.until_ready().await?;
        Ok(replica)
    }

    /// Starts another picker at the ports of the one that was killed.
    pub async fn start_picker(&mut self) -> Result<()> {
        self.picker =
            start_picker(&self.folder, &self.namespace, &self.options, &self.credentials, &self.tables, &self.ports)
                .await?;
        Ok(())
    }

    /// Starts a picker beside the world's own.
    pub async fn picker_beside(&self, name: &str, ports: &PickerPorts) -> Result<Process> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).context("making a folder")?;
        start_picker(&folder, &self.namespace, &self.options, &self.credentials, &self.tables, ports).await
    }

    /// Starts a replica of the controller where it was, or is to be; it may find that another leads.
    pub async fn restart_replica(&self, number: usize) -> Result<Replica> {
        let at = &self.tables[number];
        start_controller(&self.cluster, &self.folder, &self.namespace, &self.options, number, at).await
    }

    /// Lets everything run on, and says what runs.
    pub fn leave(self) -> Vec<String> {
        let mut pids = vec![self.controller.leave(), self.picker.leave(), self.envoy.leave()];
        pids.extend(self.kubelet.leave());
        pids
    }
}

async fn start_controller(
    cluster: &Cluster,
    folder: &Path,
    namespace: &str,
    options: &Options,
    number: usize,
    listen: &Port,
) -> Result<Replica> {
    let kubeconfig = options.kubeconfig.clone().unwrap_or_else(|| cluster.controllers_kubeconfig());
    let kubeconfig = kubeconfig.display().to_string();
    let mut args = vec![
        format!("--listen={listen}"),
        "--admin-listen=127.0.0.1:0".into(),
        format!("--watch-namespace={namespace}"),
        format!("--namespace={namespace}"),
        // As of a pod whose container starts again: it takes up its lease where it left it.
        format!("--name=thalamus-controller-{number}"),
        "--log-format=json".into(),
    ];
    args.extend(options.controller_args.iter().cloned());
    let name = format!("controller-{number}");
    let mut process =
        Process::start(folder, &name, &binary("thalamus-controller")?, &args, &[("KUBECONFIG", &kubeconfig)])?;
    let said = process.said("controller started").await?;
    Ok(Replica { process, admin: Client::new(address(&said["admin"])?) })
}

/// What the picker's image says to its allocator (ADR 0016).
pub(crate) const AS_IN_ITS_IMAGE: [(&str, &str); 1] = [("MIMALLOC_ARENA_PURGE_MULT", "1")];

/// The flags that any picker of a namespace needs.
fn picker_flags(namespace: &str, options: &Options, credentials: &Credentials, tables: &[Port]) -> Vec<String> {
    let mut args = vec![
        format!("--controller={}", tables.iter().map(|at| format!("https://{at}")).collect::<Vec<_>>().join(",")),
        format!("--controller-ca={}", credentials.ca.display()),
        format!("--token-file={}", credentials.token.display()),
        format!("--namespace={namespace}"),
        "--scrape-interval=100ms".into(),
    ];
    args.extend(options.pool.iter().map(|pool| format!("--pool={pool}")));
    args.extend(options.picker_args.iter().cloned());
    args
}

async fn start_picker(
    folder: &Path,
    namespace: &str,
    options: &Options,
    credentials: &Credentials,
    tables: &[Port],
    ports: &PickerPorts,
) -> Result<Process> {
    let mut args = picker_flags(namespace, options, credentials, tables);
    args.extend([
        format!("--ext-proc-listen={}", ports.ext_proc),
        format!("--health-listen={}", ports.health),
        format!("--http-listen={}", ports.http),
        format!("--admin-listen={}", ports.admin),
        "--log-format=json".into(),
    ]);
    let more = options.picker_env.iter().map(|(name, value)| (*name, &**value));
    let env: Vec<(&str, &str)> = AS_IN_ITS_IMAGE.into_iter().chain(more).collect();
    let mut picker = Process::start(folder, "picker", &binary("thalamus-picker")?, &args, &env)?;
    picker.said("picker started").await?;
    Ok(picker)
}

pub(crate) fn address(said: &serde_json::Value) -> Result<SocketAddr> {
    said.as_str().context("an address was to be said")?.parse().context("an address")
}

fn next_namespace() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!("world-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed))
}
