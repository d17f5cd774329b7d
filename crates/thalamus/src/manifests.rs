//! A folder of objects, as `kubectl apply -f` would take it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use api::{InferenceModel, InferencePool};
use index::{Change, Event};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodCondition, Service};
use serde_json::Value;

/// The objects of a folder. Kinds that do not matter here are passed over.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub pools: Vec<InferencePool>,
    pub models: Vec<InferenceModel>,
    pub pods: Vec<Pod>,
    pub services: Vec<Service>,
    pub deployments: Vec<Deployment>,
}

impl Objects {
    /// Reads every `.yaml`, `.yml` and `.json` file of a folder, not of folders in it. An error names the file, the document and the
    /// field.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut objects = Self::default();
        for file in files(folder)? {
            let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            objects.parse(&text).with_context(|| file.display().to_string())?;
        }
        Ok(objects)
    }

    /// Adds the documents of a text.
    fn parse(&mut self, text: &str) -> Result<()> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("not valid YAML")?;
        for (number, document) in documents.into_iter().enumerate() {
            let items = match document.get("items").and_then(Value::as_array) {
                Some(items) => items.clone(),
                None => vec![document],
            };
            for item in items.into_iter().filter(|item| !item.is_null()) {
                self.add(item).with_context(|| format!("document {}", number + 1))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, object: Value) -> Result<()> {
        let (Some(version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else {
            // A kustomization without a kind is no object.
            if object.get("resources").is_some() {
                return Ok(());
            }
            bail!("an object needs apiVersion and kind");
        };
        let Some(name) = object["metadata"]["name"].as_str().filter(|name| !name.is_empty()) else {
            bail!("{kind}: metadata.name is missing");
        };
        let name = format!("{kind} {name}");
        match (version, kind) {
            ("inference.networking.k8s.io/v1", "InferencePool") => self.pools.push(read(object, &name)?),
            ("thalamus.dev/v1alpha1", "InferenceModel") => self.models.push(read(object, &name)?),
            ("v1", "Pod") => self.pods.push(ready_unless_told_otherwise(read(object, &name)?)),
            ("v1", "Service") => self.services.push(read(object, &name)?),
            ("apps/v1", "Deployment") => self.deployments.push(read(object, &name)?),
            (_, "InferencePool" | "InferenceModel") => bail!("{name}: apiVersion {version} is not known here"),
            _ => tracing::debug!(kind, version, "object passed over"),
        }
        Ok(())
    }

    /// The objects as the index takes them: all there are of each kind.
    pub fn events(&self) -> [Event; 4] {
        [
            Event::Pool(Change::Relisted(self.pools.clone())),
            Event::Model(Change::Relisted(self.models.clone())),
            Event::Pod(Change::Relisted(self.pods.clone())),
            Event::Service(Change::Relisted(self.services.clone())),
        ]
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading the folder {}", folder.display()))?.path();
        let is_manifest =
            path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json");
        let is_kustomization = path.file_stem().is_some_and(|stem| stem == "kustomization");
        if is_manifest && !is_kustomization && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read<T: serde::de::DeserializeOwned>(object: Value, name: &str) -> Result<T> {
    serde_json::from_value(object).with_context(|| name.to_owned())
}

/// Nobody writes conditions into a file: a pod that has an address and says nothing of its readiness is ready.
fn ready_unless_told_otherwise(mut pod: Pod) -> Pod {
    if let Some(status) = pod.status.as_mut().filter(|status| status.pod_ip.is_some()) {
        status.conditions.get_or_insert_with(|| {
            vec![PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() }]
        });
    }
    pod
}
