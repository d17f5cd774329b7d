//! A table as objects: what a person would have written of the same servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use api::{
    EndpointPickerRef, FailureMode, InferenceModel, InferenceModelSpec, InferencePool, InferencePoolSpec, MaxItems,
    Modalities, PoolRef, PoolSelector, Port, PortNumber, TargetLimits, TargetModel,
};
use routing::{Capability, Limits, Modality, ModalitySet, Model, OperationSet, Pool, PoolName, RoutingTable, Target};
use serde::Serialize;

use crate::fleet::object_name;

const FILES: [&str; 2] = ["pools.yaml", "models.yaml"];

/// Fails where something would be written over.
pub(super) fn check(folder: &Path) -> Result<()> {
    match FILES.iter().find(|file| folder.join(file).exists()) {
        Some(file) => bail!("--save {}: {file} is there already; name another folder, or remove it", folder.display()),
        None => Ok(()),
    }
}

/// More targets than this no InferenceModel takes.
const MOST_TARGETS: usize = 32;

/// Writes the objects; answers what a person should know of them, and does next.
pub(super) fn save(folder: &Path, namespace: &str, table: &RoutingTable, unanswered: &[String]) -> Result<Vec<String>> {
    if table.pools.is_empty() {
        bail!("--save {}: no server has answered yet, so there is nothing to write", folder.display());
    }
    let mut said = Vec::new();
    if !unanswered.is_empty() {
        said.push(format!("left out, since they have not answered: {}", unanswered.join(", ")));
    }
    let mut table = by_port(table);
    table.models.retain(|name, model| {
        let many = model.targets.len();
        if many > MOST_TARGETS {
            said.push(format!(
                "left out: model {name} has {many} targets, and an InferenceModel takes {MOST_TARGETS}; name fewer by --as {name}=MODEL,MODEL"
            ));
        }
        (1..=MOST_TARGETS).contains(&many)
    });
    let pools: Vec<InferencePool> = table.pools.iter().map(|(name, pool)| self::pool(name, pool, namespace)).collect();
    let mut models: BTreeMap<String, InferenceModel> = BTreeMap::new();
    for (name, model) in &table.models {
        let object = object_name(name, |name| models.contains_key(name));
        models.insert(object.clone(), self::model(&object, name, model, namespace));
    }
    let models: Vec<InferenceModel> = models.into_values().collect();
    fs::create_dir_all(folder).with_context(|| format!("--save {}", folder.display()))?;
    write(&folder.join(FILES[0]), &pools)?;
    write(&folder.join(FILES[1]), &models)?;
    let servers = |pool: &Pool| pool.endpoints.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    said.extend(
        table.pools.iter().map(|(name, pool)| format!("label the pods of {} with 'pool={name}'", servers(pool))),
    );
    said.push(format!("then: kubectl apply -f {}", folder.display()));
    Ok(said)
}

/// The same with a pool for each port: every port of an InferencePool counts for each of its pods. What serves nothing is no target.
fn by_port(table: &RoutingTable) -> RoutingTable {
    let mut split = RoutingTable::default();
    // Of each pool: what it became, and how many servers are in each.
    let mut became: BTreeMap<PoolName, Vec<(PoolName, u32)>> = BTreeMap::new();
    for (name, pool) in &table.pools {
        let ports: BTreeSet<u16> = pool.endpoints.values().map(|endpoint| endpoint.address.port()).collect();
        for (number, port) in ports.iter().enumerate() {
            let is_taken = |name: &str| table.pools.contains_key(name) || split.pools.contains_key(name);
            let new = if number == 0 { name.clone() } else { object_name(&format!("{name}-{port}"), is_taken).into() };
            let of_port = pool.endpoints.iter().filter(|(_, endpoint)| endpoint.address.port() == *port);
            let endpoints: BTreeMap<_, _> =
                of_port.map(|(name, endpoint)| (Arc::clone(name), endpoint.clone())).collect();
            let many = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
            became.entry(name.clone()).or_default().push((new.clone(), many));
            split.pools.insert(new, Arc::new(Pool { endpoints, ..Pool::clone(pool) }));
        }
    }
    for (name, model) in &table.models {
        let serving = model.targets.iter().filter(|target| !target.capability.operations.is_empty());
        let targets = serving.flat_map(|target| {
            let pools = became.get(&target.pool).into_iter().flatten();
            pools.map(|(pool, many)| Target { pool: pool.clone(), weight: *many, ..target.clone() })
        });
        split.models.insert(name.clone(), Arc::new(Model::new(targets.collect())));
    }
    split
}

fn write<O: Serialize>(file: &Path, objects: &[O]) -> Result<()> {
    let mut text = String::new();
    for object in objects {
        let object = serde_json::to_value(object).context("an object as JSON")?;
        text += "---\n";
        text += &serde_saphyr::to_string(&object).context("an object as YAML")?;
    }
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

fn pool(name: &str, pool: &Pool, namespace: &str) -> InferencePool {
    let ports: BTreeSet<u16> = pool.endpoints.values().map(|endpoint| endpoint.address.port()).collect();
    let spec = InferencePoolSpec {
        selector: PoolSelector { match_labels: BTreeMap::from([("pool".to_owned(), name.to_owned())]) },
        target_ports: ports.into_iter().map(|port| Port { number: PortNumber(port) }).collect(),
        app_protocol: api::AppProtocol::Http,
        endpoint_picker_ref: Some(picker()),
    };
    let mut object = InferencePool::new(name, spec);
    // Those are of the definition, and not of each object.
    object.metadata.annotations = None;
    object.metadata.namespace = Some(namespace.to_owned());
    object
}

/// As the examples have it.
fn picker() -> EndpointPickerRef {
    EndpointPickerRef {
        group: String::new(),
        kind: "Service".into(),
        name: "thalamus-picker".into(),
        port: Some(Port { number: PortNumber(9002) }),
        failure_mode: FailureMode::FailClose,
    }
}

fn model(object: &str, name: &str, model: &Model, namespace: &str) -> InferenceModel {
    let spec = InferenceModelSpec {
        model_name: name.to_owned(),
        criticality: api::Criticality::default(),
        pool_ref: None,
        modalities: None,
        operations: Vec::new(),
        target_models: model.targets.iter().map(|one| target(one, model.targets.len() > 1)).collect(),
        media: None,
        first_byte_timeout_seconds: None,
    };
    let mut object = InferenceModel::new(object, spec);
    object.metadata.namespace = Some(namespace.to_owned());
    object
}

fn target(target: &Target, is_one_of_many: bool) -> TargetModel {
    let Capability { input, output, operations } = target.capability;
    let list = |set: ModalitySet| api::Modality::ALL.into_iter().filter(move |one| set.contains(index::modality(*one)));
    TargetModel {
        name: target.name.to_string(),
        pool_ref: Some(PoolRef { name: target.pool.to_string() }),
        modalities: Some(Modalities {
            input: list(input).filter(|one| *one != api::Modality::Embedding).collect(),
            output: list(output).collect(),
        }),
        operations: if operations == OperationSet::ALL {
            Vec::new()
        } else {
            api::Operation::ALL.into_iter().filter(|one| operations.contains(index::operation(*one))).collect()
        },
        family: None,
        limits: limits(target.limits),
        weight: is_one_of_many.then(|| i32::try_from(target.weight).unwrap_or(i32::MAX)),
    }
}

fn limits(limits: Limits) -> Option<TargetLimits> {
    let [image, audio, video] = [Modality::Image, Modality::Audio, Modality::Video].map(|one| limits.items(one));
    let max_items = MaxItems { image, audio, video };
    let max_items = Some(max_items).filter(|items| *items != MaxItems::default());
    let all = TargetLimits { context_length: limits.context(), max_items };
    Some(all).filter(|all| *all != TargetLimits::default())
}
