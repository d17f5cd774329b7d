//! The API server, or one that `THALAMUS_TEST_KUBECONFIG` names.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::{Port, tools};

/// A cluster with our CRDs and our controller's account in it.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    /// What to take down in the end, and by which script; none for somebody else's cluster.
    folder: Option<PathBuf>,
    down: &'static str,
    /// Of the API server and of etcd, which tests kill and start again; none for somebody else's cluster.
    _ports: Vec<Port>,
}

/// A part of a cluster that was killed.
#[derive(Debug)]
pub struct Killed {
    component: String,
    command: Vec<String>,
}

/// What a picker proves itself with, and verifies the controller by.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub ca: PathBuf,
    pub token: PathBuf,
}

impl Cluster {
    /// Starts one in `folder`, or takes the one that is named, and applies what `manifests/default` holds.
    pub fn start(folder: &Path) -> Result<Self> {
        let cluster = match std::env::var_os("THALAMUS_TEST_KUBECONFIG") {
            Some(kubeconfig) => {
                Self { kubeconfig: kubeconfig.into(), folder: None, down: KUBE_DOWN, _ports: Vec::new() }
            }
            None => Self::start_bare(folder)?,
        };
        cluster.install()?;
        Ok(cluster)
    }

    /// Starts one that has nothing of ours in it.
    pub fn start_bare(folder: &Path) -> Result<Self> {
        Self::up("kube-up.sh", KUBE_DOWN, &folder.join("kube"), &[])
    }

    /// Starts a whole one, with controllers, a scheduler, and a node that runs pods of these images. Needs root, and the packages that
    /// `cargo xtask test` unpacks.
    pub fn start_with_node(folder: &Path, images: &[PathBuf]) -> Result<Self> {
        Self::up("node-up.sh", "node-down.sh", &folder.join("node"), images)
    }

    /// Starts one that has nothing of ours in it, with the controllers of Deployments and accounts, at this address.
    pub(crate) fn start_for_lab(folder: &Path, address: &str) -> Result<Self> {
        let env = [("KUBE_CM", "1"), ("KUBE_ADDR", address)];
        Self::up_with("kube-up.sh", KUBE_DOWN, &folder.join("kube"), &[], &env)
    }

    fn up(script: &str, down: &'static str, folder: &Path, args: &[PathBuf]) -> Result<Self> {
        Self::up_with(script, down, folder, args, &[])
    }

    fn up_with(
        script: &str,
        down: &'static str,
        folder: &Path,
        args: &[PathBuf],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let script = tools::root().join("e2e/kube").join(script);
        std::fs::create_dir_all(folder).context("making a folder")?;
        std::fs::write(folder.join("audit-policy.yaml"), AUDIT).context("writing an audit policy")?;
        // Some clusters ask who makes an object that goes with its owner; this one does.
        let flags = format!(
            "--audit-policy-file={0}/audit-policy.yaml --audit-log-path={0}/audit.log \
             --enable-admission-plugins=OwnerReferencesPermissionEnforcement",
            folder.display()
        );
        let ports = [Port::hold()?, Port::hold()?, Port::hold()?];
        let numbers = ports.each_ref().map(|port| port.number().to_string()).join(" ");
        let mut up = Command::new(&script);
        up.env("KUBE_PORTS", numbers)
            .arg(folder)
            .args(args)
            .env("KUBE_APISERVER_FLAGS", flags)
            .envs(env.iter().copied());
        let output = up.stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("running {}", script.display()))?;
        if !output.status.success() {
            take_down(down, folder);
            bail!("{} failed", script.display());
        }
        let kubeconfig = String::from_utf8_lossy(&output.stdout).trim().to_owned().into();
        Ok(Self { kubeconfig, folder: Some(folder.to_owned()), down, _ports: ports.into() })
    }

    /// Applies what users apply, and no more.
    pub fn install(&self) -> Result<()> {
        // One that another owns stays as it is.
        if self.kubectl(&["get", "crd/inferencepools.inference.networking.k8s.io"]).is_err() {
            self.kubectl(&["create", "-k", &path("crds/inference-pool")])?;
        }
        self.kubectl(&["apply", "--server-side", "-k", &path("crds")])?;
        self.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd/inferencepools.inference.networking.k8s.io",
            "crd/inferencemodels.thalamus.dev",
            "crd/pickertemplates.thalamus.dev",
        ])?;
        self.kubectl(&["apply", "--server-side", "-k", &path("manifests/default")])?;
        self.write_controllers_kubeconfig()
    }

    /// Takes it down at once, if it is ours and still there.
    pub fn end(&self) {
        if let Some(folder) = self.folder.as_ref().filter(|folder| folder.exists()) {
            take_down(self.down, folder);
        }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl as the administrator, and answers with what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output =
            kubectl().arg("--kubeconfig").arg(&self.kubeconfig).args(args).output().context("running kubectl")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        bail!("kubectl {}: {}{said}", args.join(" "), String::from_utf8_lossy(&output.stderr))
    }

    /// Whether every pod of a Deployment is there, of its newest template, and available; the error says what is amiss.
    pub fn deployment_stands(&self, namespace: &str, deployment: &str) -> Result<()> {
        let said = self.kubectl(&["get", "deployment", deployment, "-n", namespace, "-o", "json"])?;
        let object: Value = serde_json::from_str(&said).context("reading a Deployment")?;
        let number = |at: &str| object.pointer(at).and_then(Value::as_i64).unwrap_or(0);
        let wanted = number("/spec/replicas");
        let is = ["/status/availableReplicas", "/status/updatedReplicas", "/status/replicas"].map(number);
        ensure!(is == [wanted; 3], "{wanted} wanted; {is:?} are available, updated, there");
        Ok(())
    }

    /// Applies a text of objects of one namespace.
    pub fn apply(&self, namespace: &str, objects: &str) -> Result<String> {
        self.apply_with(&["-n", namespace], objects)
    }

    /// Applies a text of objects that name their namespaces.
    pub fn apply_all(&self, objects: &str) -> Result<String> {
        self.apply_with(&[], objects)
    }

    fn apply_with(&self, args: &[&str], objects: &str) -> Result<String> {
        use std::io::Write as _;
        let mut child = kubectl()
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("running kubectl")?;
        child.stdin.take().context("its input is ours")?.write_all(objects.as_bytes()).context("telling kubectl")?;
        let output = child.wait_with_output().context("waiting for kubectl")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Gives our controller in another namespace the rights that it has in its own, for worlds that each have a controller.
    pub fn make_home(&self, namespace: &str) -> Result<()> {
        let role = "jsonpath={.rules}";
        let rules = self.kubectl(&["get", "role", "thalamus-controller", "-n", "thalamus-system", "-o", role])?;
        let head = "apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: thalamus-controller}";
        self.apply(
            namespace,
            &format!(
                "{{{head}, kind: Role, rules: {rules}}}\n---\n{{{head}, kind: RoleBinding, roleRef: {{apiGroup: rbac.authorization.k8s.io, \
                 kind: Role, name: thalamus-controller}}, subjects: [{{kind: ServiceAccount, name: thalamus-controller, namespace: \
                 thalamus-system}}]}}\n---\n{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: thalamus-picker}}}}"
            ),
        )
        .map(drop)
    }

    /// Writes what a picker has of its pod: the authority that vouches for the controller, and a token of its service account.
    pub fn write_credentials(&self, namespace: &str, folder: &Path) -> Result<Credentials> {
        let secret = [
            "get",
            "secret",
            "thalamus-controller-ca",
            "-n",
            namespace,
            "-o",
            "go-template={{index .data \"ca.crt\" | base64decode}}",
        ];
        let token = ["create", "token", "thalamus-picker", "-n", namespace, "--audience", "thalamus-controller"];
        let credentials = Credentials { ca: folder.join("ca.crt"), token: folder.join("token") };
        std::fs::write(&credentials.ca, self.kubectl(&secret)?).context("writing the CA")?;
        std::fs::write(&credentials.token, self.kubectl(&token)?).context("writing the token")?;
        Ok(credentials)
    }

    /// Sends a signal to a part of it: `kube-apiserver` or `etcd`.
    pub fn signal(&self, component: &str, signal: &str) -> Result<()> {
        let (pid, _) = self.component(component)?;
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status().context("running kill")?;
        ensure!(status.success(), "{component} is not running");
        Ok(())
    }

    /// Kills a part of it. What comes back starts it again as it was.
    pub fn kill(&self, component: &str) -> Result<Killed> {
        let (pid, command) = self.component(component)?;
        self.signal(component, "KILL")?;
        while Path::new(&format!("/proc/{pid}/cwd")).exists() {
            std::thread::yield_now();
        }
        Ok(Killed { component: component.to_owned(), command })
    }

    /// Starts what was killed, at the same ports and with the same data.
    pub fn restart(&self, killed: &Killed) -> Result<()> {
        let folder = self.folder.as_ref().context("the cluster is not ours")?;
        let log = File::options().append(true).create(true).open(folder.join(format!("{}.log", killed.component)))?;
        let (program, args) = killed.command.split_first().context("it had a command line")?;
        let child = Command::new(tools::kube().join(program))
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        std::fs::write(folder.join(format!("{}.pid", killed.component)), child.id().to_string())?;
        Ok(())
    }

    /// What our controller asked for, a line of JSON each; none in somebody else's cluster.
    pub fn audit_log(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("audit.log"))
    }

    /// Gives an account the rights that `manifests/namespaced` gives, in one namespace, and writes a kubeconfig for it.
    pub fn limited_account(&self, namespace: &str) -> Result<PathBuf> {
        let account = "kind: ServiceAccount, name: limited, namespace: thalamus-system";
        let binding = |kind: &str, name: &str, of: &str| {
            format!(
                "{{apiVersion: rbac.authorization.k8s.io/v1, kind: {kind}, metadata: {{name: {name}}}, roleRef: {{apiGroup: \
                 rbac.authorization.k8s.io, {of}}}, subjects: [{{{account}}}]}}"
            )
        };
        let objects = [
            binding("RoleBinding", "limited-pools", "kind: ClusterRole, name: thalamus-controller"),
            binding("RoleBinding", "limited-home", "kind: Role, name: thalamus-controller"),
            binding("ClusterRoleBinding", "limited-tokens", "kind: ClusterRole, name: thalamus-controller-tokens"),
        ];
        self.apply(namespace, &objects.join("\n---\n"))?;
        let path = self.kubeconfig.with_file_name("limited.kubeconfig");
        self.write_kubeconfig("system:serviceaccount:thalamus-system:limited", &path)?;
        Ok(path)
    }

    /// Where etcd keeps what it knows.
    pub fn etcd_data(&self) -> Result<PathBuf> {
        Ok(self.folder.as_ref().context("the cluster is not ours")?.join("etcd"))
    }

    /// The process of a part, and its command line.
    fn component(&self, component: &str) -> Result<(String, Vec<String>)> {
        let folder = self.folder.as_ref().context("the cluster is not ours")?;
        let pid = std::fs::read_to_string(folder.join(format!("{component}.pid"))).context("reading a pid")?;
        let pid = pid.trim().to_owned();
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).context("reading a command line")?;
        let command = command.split_terminator('\0').map(str::to_owned).collect();
        Ok((pid, command))
    }

    /// A client as the administrator.
    pub async fn client(&self) -> Result<Client> {
        client_of(&self.kubeconfig).await
    }

    /// A client with the rights of our controller.
    pub(crate) async fn controllers_client(&self) -> Result<Client> {
        client_of(&self.controllers_kubeconfig()).await
    }

    /// A kubeconfig with the rights of our controller and no more: every test runs under the RBAC that users apply.
    pub fn controllers_kubeconfig(&self) -> PathBuf {
        self.kubeconfig.with_file_name("controller.kubeconfig")
    }

    fn write_controllers_kubeconfig(&self) -> Result<()> {
        self.write_kubeconfig(
            "system:serviceaccount:thalamus-system:thalamus-controller",
            &self.controllers_kubeconfig(),
        )
    }

    /// Writes a kubeconfig with the rights of an account.
    pub fn write_kubeconfig(&self, account: &str, path: &Path) -> Result<()> {
        let mut kubeconfig = Kubeconfig::read_from(&self.kubeconfig).context("reading the kubeconfig")?;
        for user in &mut kubeconfig.auth_infos {
            if let Some(auth) = &mut user.auth_info {
                auth.impersonate = Some(account.into());
            }
        }
        let text = serde_json::to_string(&kubeconfig).context("writing a kubeconfig")?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    pub fn leave(mut self) -> Option<PathBuf> {
        self.folder.take()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// What is asked for is written down, so that our controller's rights can be compared with what it does. It is the administrator, who
/// speaks in its name.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
    {"level": "Metadata", "users": ["admin"]}, {"level": "None"}]}"#;

/// What ends an API server without a node.
const KUBE_DOWN: &str = "kube-down.sh";

fn take_down(script: &str, folder: &Path) {
    let script = tools::root().join("e2e/kube").join(script);
    if let Err(error) = Command::new(&script).arg(folder).status() {
        complain(&format!("{}: {error}", script.display()));
    }
}

#[expect(clippy::print_stderr, reason = "there is nobody else to tell")]
fn complain(line: &str) {
    eprintln!("{line}");
}

/// The kubectl that belongs to the API server, or else the machine's.
pub fn kubectl() -> Command {
    Command::new(tools::kubectl())
}

async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("reading the kubeconfig")?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.context("using the kubeconfig")?;
    Client::try_from(config).context("making a client")
}

fn path(below: &str) -> String {
    tools::root().join(below).display().to_string()
}
