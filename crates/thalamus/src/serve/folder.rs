//! A folder of objects, watched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::ResourceExt as _;
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::{Ports, Serving};
use crate::local::LocalController;
use crate::manifests::{Objects, is_manifest};

/// How often to see whether the folder is still the same.
const GLANCE: Duration = Duration::from_secs(1);

/// How long a folder must be quiet before it is read: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// And how long its quiet is waited for at most.
const LOUD: Duration = Duration::from_secs(1);

pub(super) async fn run(manifests: PathBuf, namespace: Option<String>, ports: Ports) -> Result<()> {
    // Watched before it is read, so that no change falls between.
    let (look, mut looks) = mpsc::channel(1);
    let folder = manifests.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // A folder that is read tells of it as well, and a log in it is written for each look; a full channel means that a look is due
        // anyway.
        let matters = |path: &PathBuf| is_manifest(path) || *path == folder;
        if event.map_or(true, |event| !event.kind.is_access() && event.paths.iter().any(matters)) {
            let _ = look.try_send(());
        }
    })
    .context("watching folders")?;
    watcher
        .watch(&manifests, RecursiveMode::NonRecursive)
        .with_context(|| format!("--manifests {}", manifests.display()))?;

    let objects = Objects::read(&manifests)?;
    let namespace = match namespace {
        Some(namespace) => namespace,
        None => the_namespace(&objects)?,
    };
    let mut controller = LocalController::new();
    apply(&mut controller, &objects);

    let Serving { mut task, .. } = ports.serve(&controller, &namespace, &manifests.display().to_string()).await?;
    let mut known_folder = folder_id(&manifests);
    loop {
        tokio::select! {
            ended = &mut task => return ended.context("the server failed")?,
            Some(()) = looks.recv() => {
                // A folder that is never quiet is read all the same.
                let quiet = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, looks.recv()).await {} };
                let _ = tokio::time::timeout(LOUD, quiet).await;
                reload(&mut controller, &manifests, &namespace);
            }
            // What no event tells of: a folder that is gone and comes back.
            () = tokio::time::sleep(GLANCE) => if known_folder != folder_id(&manifests) {
                known_folder = folder_id(&manifests);
                if watcher.watch(&manifests, RecursiveMode::NonRecursive).is_ok() {
                    reload(&mut controller, &manifests, &namespace);
                }
            }
        }
    }
}

/// Which folder stands at a path: another one after it was replaced.
fn folder_id(folder: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Some(std::fs::metadata(folder).ok()?.ino())
}

fn reload(controller: &mut LocalController, manifests: &Path, namespace: &str) {
    match Objects::read(manifests) {
        Ok(objects) => {
            tracing::info!(
                pools = objects.pools.len(),
                models = objects.models.len(),
                pods = objects.pods.len(),
                "objects reloaded"
            );
            let here = |pool: &api::InferencePool| pool.namespace().unwrap_or_else(|| "default".into()) == namespace;
            if !objects.pools.is_empty() && !objects.pools.iter().any(here) {
                tracing::warn!(namespace, "no pool is in the namespace that is served; set theirs with --namespace");
            }
            apply(controller, &objects);
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot read the folder; keeping what was read before");
        }
    }
}

fn apply(controller: &mut LocalController, objects: &Objects) {
    for (of, what) in &objects.strange {
        tracing::warn!("{of}: {what}");
    }
    for wrong in controller.apply(objects) {
        tracing::warn!("{wrong}");
    }
}

/// The one namespace of the pools.
fn the_namespace(objects: &Objects) -> Result<String> {
    let mut namespaces: Vec<String> =
        objects.pools.iter().map(|pool| pool.namespace().unwrap_or_else(|| "default".into())).collect();
    namespaces.sort();
    namespaces.dedup();
    match namespaces.as_slice() {
        [] => Ok("default".into()),
        [one] => Ok(one.clone()),
        several => bail!("the pools are in namespaces {}; choose one with --namespace", several.join(", ")),
    }
}
