//! From a pod to the processes that stand for it: volumes as folders, environment, command lines.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, KeyToPath, Pod, Secret, ServiceAccount, Volume, VolumeMount,
};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};

use super::network::PodNetwork;

/// What stands for an image.
#[derive(Debug, Clone, Default)]
pub struct Program {
    pub path: PathBuf,
    /// Before the arguments of the pod.
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// As in a cluster: it finds the API server by its service account. Else it is given the administrator's kubeconfig.
    pub in_cluster: bool,
}

/// Where the API server is, for pods.
#[derive(Debug, Clone)]
pub(super) struct ApiServer {
    pub(super) kubeconfig: PathBuf,
    pub(super) ca: PathBuf,
    pub(super) host: String,
    pub(super) port: String,
}

/// Where a service account's token is in a pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The volume by which it is there.
const ACCOUNT_VOLUME: &str = "service-account";

/// How long tokens are good for.
const TOKEN_SECONDS: i64 = 3600;

fn namespace(pod: &Pod) -> String {
    pod.namespace().unwrap_or_default()
}

fn account(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".into())
}

/// Fills a folder for each volume of a pod. Fails where something that it needs is not there yet.
pub(super) async fn volumes(client: &Client, pod: &Pod, folder: &Path, server: &ApiServer) -> Result<()> {
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let into = folder.join(&volume.name);
        std::fs::create_dir_all(&into).context("making a volume")?;
        fill(client, pod, volume, &into).await.with_context(|| format!("volume {}", volume.name))?;
    }
    let into = folder.join(ACCOUNT_VOLUME);
    std::fs::create_dir_all(&into).context("making a volume")?;
    std::fs::write(into.join("token"), token(client, pod, None).await?)?;
    std::fs::write(into.join("namespace"), namespace(pod))?;
    std::fs::copy(&server.ca, into.join("ca.crt")).context("copying the CA")?;
    Ok(())
}

async fn fill(client: &Client, pod: &Pod, volume: &Volume, into: &Path) -> Result<()> {
    if let Some(source) = &volume.config_map {
        config_map(client, pod, &source.name, source.items.as_deref(), into).await?;
    }
    if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.as_ref()) {
        let secret = Api::<Secret>::namespaced(client.clone(), &namespace(pod)).get(name).await?;
        for (key, value) in secret.data.unwrap_or_default() {
            std::fs::write(into.join(key), value.0)?;
        }
    }
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(source) = &source.config_map {
            config_map(client, pod, &source.name, source.items.as_deref(), into).await?;
        }
        if let Some(source) = &source.service_account_token {
            std::fs::write(into.join(&source.path), token(client, pod, source.audience.clone()).await?)?;
        }
    }
    Ok(())
}

async fn config_map(client: &Client, pod: &Pod, name: &str, items: Option<&[KeyToPath]>, into: &Path) -> Result<()> {
    let map = Api::<ConfigMap>::namespaced(client.clone(), &namespace(pod)).get(name).await?;
    for (key, value) in map.data.unwrap_or_default() {
        let path = items.map_or(Some(&*key), |items| items.iter().find(|item| item.key == key).map(|item| &*item.path));
        if let Some(path) = path {
            std::fs::write(into.join(path), value)?;
        }
    }
    Ok(())
}

async fn token(client: &Client, pod: &Pod, audience: Option<String>) -> Result<String> {
    let spec = TokenRequestSpec {
        audiences: audience.into_iter().collect(),
        expiration_seconds: Some(TOKEN_SECONDS),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &namespace(pod));
    let made = accounts.create_token_request(&account(pod), &PostParams::default(), &request).await?;
    Ok(made.status.context("a token was to be made")?.token)
}

/// Starts a container's program in the pod's network, with its volumes where it mounts them.
pub(super) fn start(
    pod: &Pod,
    container: &Container,
    program: &Program,
    network: &PodNetwork,
    folder: &Path,
    log: &Path,
    server: &ApiServer,
) -> Result<Child> {
    let env = environment(pod, container, program, network, folder, server);
    let expanded =
        |text: &String| env.iter().fold(text.clone(), |text, (name, value)| text.replace(&format!("$({name})"), value));
    let mut mounts: Vec<(PathBuf, String)> = Vec::new();
    for VolumeMount { name, mount_path, .. } in container.volume_mounts.iter().flatten() {
        mounts.push((folder.join(name), mount_path.clone()));
    }
    if program.in_cluster {
        mounts.retain(|(_, at)| at != ACCOUNT);
        mounts.push((folder.join(ACCOUNT_VOLUME), ACCOUNT.to_owned()));
    }
    let mut script = String::new();
    for (from, at) in &mounts {
        ensure!(
            at.starts_with("/var/") || at.starts_with("/run/"),
            "{at}: pods of a lab mount below /var and /run alone"
        );
        script += &format!("mkdir -p {at} && mount --bind {} {at} && ", from.display());
    }
    let log = std::fs::File::options().create(true).append(true).open(log).context("opening a log")?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", network.path()));
    command.args(["unshare", "--mount", "sh", "-c", &format!("{script}exec \"$@\""), "sh"]);
    command.arg(&program.path).args(&program.args).args(container.args.iter().flatten().map(expanded));
    command.env_clear().envs(&env).current_dir("/").process_group(0);
    let started = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    started.with_context(|| format!("starting {}", program.path.display()))
}

fn environment(
    pod: &Pod,
    container: &Container,
    program: &Program,
    network: &PodNetwork,
    folder: &Path,
    server: &ApiServer,
) -> BTreeMap<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut env = BTreeMap::from([("PATH".to_owned(), path), ("HOME".to_owned(), folder.display().to_string())]);
    if program.in_cluster {
        env.insert("KUBERNETES_SERVICE_HOST".into(), server.host.clone());
        env.insert("KUBERNETES_SERVICE_PORT".into(), server.port.clone());
    } else {
        env.insert("KUBECONFIG".into(), server.kubeconfig.display().to_string());
    }
    for variable in container.env.iter().flatten() {
        env.insert(variable.name.clone(), value(pod, variable, network));
    }
    env.extend(program.env.clone());
    env
}

fn value(pod: &Pod, variable: &EnvVar, network: &PodNetwork) -> String {
    if let Some(value) = &variable.value {
        return value.clone();
    }
    let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
    match field.map(|field| &*field.field_path) {
        Some("metadata.name") => pod.name_any(),
        Some("metadata.namespace") => namespace(pod),
        Some("metadata.uid") => pod.uid().unwrap_or_default(),
        Some("status.podIP") => network.ip.to_string(),
        Some("spec.serviceAccountName") => account(pod),
        _ => String::new(),
    }
}
