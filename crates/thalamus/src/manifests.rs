//! A folder of objects, as `kubectl apply -f` would take it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Error, Result, bail};
use api::llm_d::{GROUPS, InferenceModelRewrite, InferenceObjective, VERSION};
use api::{InferenceModel, InferencePool, PickerTemplate};
use index::{Change, Compiled, Event, Index};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodCondition, Service};
use kube::CustomResourceExt as _;
use serde_json::Value;

/// The objects of a folder. Kinds that do not matter here are passed over.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub pools: Vec<InferencePool>,
    pub models: Vec<InferenceModel>,
    pub templates: Vec<PickerTemplate>,
    pub objectives: Vec<InferenceObjective>,
    pub rewrites: Vec<InferenceModelRewrite>,
    pub pods: Vec<Pod>,
    pub services: Vec<Service>,
    pub deployments: Vec<Deployment>,
    /// Fields that an API server would drop: whose, and what they are called.
    pub strange: Vec<(String, String)>,
}

/// What old pools are now called (`inference.networking.x-k8s.io/v1alpha2`, gone since the extension's 1.1).
const MOVE_OLD_POOL: &str = "only pools of inference.networking.k8s.io/v1 are supported. Change apiVersion to that, put the labels of \
    selector under selector.matchLabels, write targetPortNumber: N as targetPorts: [{number: N}], and extensionRef as endpointPickerRef \
    with its portNumber as port: {number: N}";

impl Objects {
    /// Reads every `.yaml`, `.yml` and `.json` file of a folder, not of folders in it. An error names the file, the document and the
    /// field.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut objects = Self::default();
        for file in files(folder)? {
            if let Some(error) = objects.read_file(&file)?.into_iter().next() {
                return Err(error.context(file.display().to_string()));
            }
        }
        Ok(objects)
    }

    /// Reads files, and folders as [`Self::read`] does; beside the objects there are the files in which something could not be read,
    /// and what.
    pub fn read_all(paths: &[PathBuf]) -> Result<(Self, Vec<(String, String)>)> {
        let (mut objects, mut broken) = (Self::default(), Vec::new());
        for path in paths {
            for file in if path.is_dir() { files(path)? } else { vec![path.clone()] } {
                let errors = objects.read_file(&file)?;
                broken.extend(errors.into_iter().map(|error| (file.display().to_string(), first_line(&error))));
            }
        }
        Ok((objects, broken))
    }

    /// Adds the documents of a file; answers what is wrong with those that could not be read.
    fn read_file(&mut self, file: &Path) -> Result<Vec<Error>> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let documents: Vec<Value> = match serde_saphyr::from_multiple(&text).context("not valid YAML") {
            Ok(documents) => documents,
            Err(error) => return Ok(vec![error]),
        };
        let mut errors = Vec::new();
        for (number, document) in documents.into_iter().enumerate() {
            let items = match document.get("items").and_then(Value::as_array) {
                Some(items) => items.clone(),
                None => vec![document],
            };
            for item in items.into_iter().filter(|item| !item.is_null()) {
                errors.extend(self.add(item).err().map(|error| error.context(format!("document {}", number + 1))));
            }
        }
        Ok(errors)
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
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        let key = format!("{kind} {namespace}/{name}");
        let name = format!("{kind} {name}");
        if let Some((.., schema)) = SCHEMAS.iter().find(|(group, of, _)| *of == kind && version.starts_with(group)) {
            let mut fields = Vec::new();
            unknown_fields(&object, schema, "", &mut fields);
            self.strange.extend(fields.into_iter().map(|field| (key.clone(), field)));
        }
        match (version, kind) {
            ("inference.networking.k8s.io/v1", "InferencePool") => self.pools.push(read(object, &name)?),
            ("thalamus.dev/v1alpha1", "InferenceModel") => self.models.push(read(object, &name)?),
            ("thalamus.dev/v1alpha1", "PickerTemplate") => self.templates.push(read(object, &name)?),
            (version, "InferenceObjective") if of_llm_d(version) => self.objectives.push(read(object, &name)?),
            (version, "InferenceModelRewrite") if of_llm_d(version) => self.rewrites.push(read(object, &name)?),
            ("v1", "Pod") => self.pods.push(ready_unless_told_otherwise(read(object, &name)?)),
            ("v1", "Service") => self.services.push(read(object, &name)?),
            ("apps/v1", "Deployment") => self.deployments.push(read(object, &name)?),
            (old, "InferencePool") if old.starts_with("inference.networking.x-k8s.io/") => {
                bail!("{name} has apiVersion {old}: {MOVE_OLD_POOL}")
            }
            (_, "InferencePool" | "InferenceModel" | "PickerTemplate") => {
                bail!("{name}: unknown apiVersion {version}")
            }
            _ => tracing::debug!(kind, version, "object ignored"),
        }
        Ok(())
    }

    /// The objects as the index takes them: all there are of each kind.
    pub fn events(&self) -> [Event; 7] {
        [
            Event::Pool(Change::Relisted(self.pools.clone())),
            Event::Model(Change::Relisted(self.models.clone())),
            Event::Pod(Change::Relisted(self.pods.clone())),
            Event::Service(Change::Relisted(self.services.clone())),
            Event::Template(Change::Relisted(self.templates.clone())),
            Event::Objective(Change::Relisted(self.objectives.clone())),
            Event::Rewrite(Change::Relisted(self.rewrites.clone())),
        ]
    }

    /// What the objects mean where there are no others.
    pub(crate) fn compile(&self) -> Compiled {
        let mut index = Index::default();
        self.events().into_iter().for_each(|event| _ = index.observe(event));
        index.compile()
    }
}

fn of_llm_d(version: &str) -> bool {
    version.split_once('/').is_some_and(|(group, of)| GROUPS.contains(&group) && of == VERSION)
}

/// The schemas of our kinds, by group and kind.
static SCHEMAS: LazyLock<[(&str, &str, Value); 3]> = LazyLock::new(|| {
    let schema = |crd| api::manifest(&crd)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    [
        ("inference.networking.k8s.io/", "InferencePool", schema(InferencePool::crd())),
        ("thalamus.dev/", "InferenceModel", schema(InferenceModel::crd())),
        ("thalamus.dev/", "PickerTemplate", schema(PickerTemplate::crd())),
    ]
});

/// The fields of a value that its schema does not know, each with its path.
fn unknown_fields(value: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    match (value, schema["properties"].as_object()) {
        (Value::Array(items), _) => {
            for (place, item) in items.iter().enumerate() {
                unknown_fields(item, &schema["items"], &format!("{path}[{place}]"), found);
            }
        }
        (Value::Object(fields), Some(known)) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(schema) => unknown_fields(value, schema, &path, found),
                    None => found.push(unknown_field(&path, name, known.keys())),
                }
            }
        }
        _ => {}
    }
}

fn unknown_field<'k>(path: &str, name: &str, known: impl Iterator<Item = &'k String>) -> String {
    let near = known.map(|known| (strsim::jaro_winkler(name, known), known)).filter(|(score, _)| *score > 0.8);
    let nearest = near.max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = nearest.map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"));
    format!("unknown field `{path}`{hint}")
}

/// An error in a line: some parsers add a picture of the place.
fn first_line(error: &Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading the folder {}", folder.display()))?.path();
        if is_manifest(&path) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file is read, by its name.
pub(crate) fn is_manifest(path: &Path) -> bool {
    let is_text = path.extension().is_some_and(|is| is == "yaml" || is == "yml" || is == "json");
    is_text && path.file_stem().is_some_and(|stem| stem != "kustomization")
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
