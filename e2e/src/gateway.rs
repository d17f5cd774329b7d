//! Envoy, by the very files that users get.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, ensure};

use crate::{Client, Process, binary, envoy, eventually, root};

/// Envoy's configuration, the very file that users get, asking this picker.
pub(crate) fn envoy_manifest(picker: SocketAddr) -> Result<String> {
    let file = root().join("manifests/envoy/envoy.yaml");
    let config = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let here = format!("address: {}, port_value: {}", picker.ip(), picker.port());
    replaced(&config, "address: thalamus-picker, port_value: 9002", &here)
}

/// What stands there once replaced by something else.
pub(crate) fn replaced(config: &str, theirs: &str, here: &str) -> Result<String> {
    ensure!(config.matches(theirs).count() == 1, "a configuration must hold `{theirs}` once");
    Ok(config.replace(theirs, here))
}

/// Envoy with a configuration of which only the listeners' addresses are this machine's.
pub(crate) async fn start_envoy(folder: &Path, config: &str) -> Result<(Process, Client, SocketAddr)> {
    start_envoy_with(&envoy()?, folder, config, &[]).await
}

async fn start_envoy_with(
    program: &Path,
    folder: &Path,
    config: &str,
    env: &[(&str, &str)],
) -> Result<(Process, Client, SocketAddr)> {
    let anywhere = "address: 127.0.0.1, port_value: 0";
    let config = replaced(config, "address: 127.0.0.1, port_value: 19000", anywhere)?;
    let config = replaced(&config, "address: 0.0.0.0, port_value: 8080", anywhere)?;
    let config_path = folder.join("envoy.yaml");
    std::fs::write(&config_path, config).context("writing Envoy's configuration")?;
    let admin_path = folder.join("envoy.admin");
    // A file from before would name a port that is gone.
    let _ = std::fs::remove_file(&admin_path);
    let args = [
        "-c".to_owned(),
        config_path.display().to_string(),
        "--admin-address-path".to_owned(),
        admin_path.display().to_string(),
        // With it Envoy leaves shared memory behind, and ends with whoever started it.
        "--disable-hot-restart".to_owned(),
        "--concurrency".to_owned(),
        "1".to_owned(),
        "--log-level".to_owned(),
        "warn".to_owned(),
    ];
    let envoy = Process::start(folder, "envoy", program, &args, env)?;
    let (admin, listener) = eventually("Envoy listens", async || {
        let admin: SocketAddr = std::fs::read_to_string(&admin_path).context(envoy.tail())?.trim().parse()?;
        let admin = Client::new(admin);
        let listeners = admin.get("/listeners?format=json").await?.json();
        let listener = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
        let port =
            listener["port_value"].as_u64().and_then(|port| u16::try_from(port).ok()).context("no listener yet")?;
        Ok((admin, SocketAddr::from(([127, 0, 0, 1], port))))
    })
    .await?;
    Ok((envoy, admin, listener))
}

/// Envoy with a picker of these flags inside it.
pub async fn envoy_module(folder: &Path, flags: &[&str]) -> Result<(Process, Client)> {
    std::fs::create_dir_all(folder).context("making a folder")?;
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let (envoy, address) = start_envoy_module(folder, &flags, &[]).await?;
    Ok((envoy, Client::new(address)))
}

/// What Envoy says of a configuration with these flags when it is run to its end.
pub fn envoy_module_says(folder: &Path, flags: &[&str], args: &[&str]) -> Result<(ExitStatus, String)> {
    std::fs::create_dir_all(folder).context("making a folder")?;
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let path = folder.join("envoy.yaml");
    std::fs::write(&path, module_manifest(&flags)?).context("writing Envoy's configuration")?;
    let (name, place) = module_place()?;
    let output =
        Command::new(envoy()?).arg("-c").arg(&path).args(args).env(name, place).output().context("running Envoy")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status, String::from_utf8_lossy(&said).into_owned()))
}

/// The very file that users get, with these flags.
fn module_manifest(flags: &[String]) -> Result<String> {
    let file = root().join("manifests/envoy/module.yaml");
    let config = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let theirs = config.split_once("value: >-\n").and_then(|(_, rest)| rest.split_once("          - name:"));
    let (theirs, _) = theirs.context("the manifest holds the flags")?;
    let flags = flags.iter().fold(String::new(), |all, flag| format!("{all}                  {flag}\n"));
    replaced(&config, theirs, &flags)
}

/// Where Envoy finds the library.
fn module_place() -> Result<(&'static str, String)> {
    let library = binary("libthalamus_envoy.so")?;
    let place = library.parent().context("a library is in a folder")?.display().to_string();
    Ok(("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", place))
}

pub(crate) async fn start_envoy_module(
    folder: &Path,
    flags: &[String],
    changes: &[(&str, &str)],
) -> Result<(Process, SocketAddr)> {
    start_module_of(&envoy()?, folder, flags, changes).await
}

/// The same with this Envoy.
pub(crate) async fn start_module_of(
    program: &Path,
    folder: &Path,
    flags: &[String],
    changes: &[(&str, &str)],
) -> Result<(Process, SocketAddr)> {
    let (name, place) = module_place()?;
    let config =
        changes.iter().try_fold(module_manifest(flags)?, |config, (theirs, here)| replaced(&config, theirs, here));
    let (envoy, _, address) = start_envoy_with(program, folder, &config?, &[(name, &place)]).await?;
    Ok((envoy, address))
}
