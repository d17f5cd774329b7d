//! Model servers for Deployments whose images nobody can run here: for each pod a Deployment asks for, what a simulator should serve.

use anyhow::{Context, Result, ensure};
use index::ObjectKey;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use modelserver_sim::ModelSpec;
use routing::{Limits, RoutingTable};

use crate::manifests::Objects;

/// A pod without a place to run.
#[derive(Debug, Clone)]
pub struct SimulatedPod {
    pub pod: Pod,
    /// What its simulator serves: the targets of the pools that select it, narrowed by its annotations.
    pub models: Vec<ModelSpec>,
    pub port: u16,
}

/// The pods that the Deployments ask for and some pool selects, at the addresses that `ip` gives them.
pub fn pods(objects: &Objects, ip: impl FnMut(usize) -> String) -> Result<Vec<SimulatedPod>> {
    Ok(pods_of_deployments(objects, ip)?.into_iter().filter_map(|pod| simulated(objects, pod)).collect())
}

/// More pods of one Deployment are a slip of the hand; no cluster has them.
const MAX_REPLICAS: i32 = 10_000;

/// The pods that the Deployments ask for, all of them ready.
pub(crate) fn pods_of_deployments(objects: &Objects, mut ip: impl FnMut(usize) -> String) -> Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for deployment in &objects.deployments {
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        ensure!(
            replicas <= MAX_REPLICAS,
            "Deployment {name}: replicas: {replicas} is more than {MAX_REPLICAS}, the most that are looked at here"
        );
        for replica in 0..replicas {
            pods.push(pod(deployment, replica, &ip(pods.len())).context("a Deployment without a name")?);
        }
    }
    Ok(pods)
}

/// What a pod would serve, or none when no pool selects it. The index itself says which.
fn simulated(objects: &Objects, pod: Pod) -> Option<SimulatedPod> {
    let alone = Objects { pods: vec![pod.clone()], ..objects.clone() };
    let table = alone.compile().tables.remove(&ObjectKey::of(&pod).namespace)?;
    let (name, endpoint) = table.pools.iter().find_map(|(name, pool)| Some((name, pool.endpoints.values().next()?)))?;
    Some(SimulatedPod { models: models(&table, name, endpoint.capability), port: endpoint.address.port(), pod })
}

fn models(table: &RoutingTable, pool: &str, own: Option<routing::Capability>) -> Vec<ModelSpec> {
    let mut models: Vec<ModelSpec> = Vec::new();
    for target in table.models.values().flat_map(|model| &model.targets).filter(|target| &*target.pool == pool) {
        let capability = own.map_or(target.capability, |own| target.capability.intersection(own));
        match models.iter_mut().find(|known| *known.name == *target.name) {
            // Two models may offer one target differently; the server behind it is one.
            Some(known) => known.capability = known.capability.union(capability),
            None => models.push(ModelSpec { name: target.name.to_string(), capability, limits: Limits::NONE }),
        }
    }
    models
}

fn pod(deployment: &Deployment, replica: i32, ip: &str) -> Option<Pod> {
    let template = deployment.spec.as_ref()?.template.clone();
    let labels_and_annotations = template.metadata.unwrap_or_default();
    let name = format!("{}-{replica}", deployment.metadata.name.as_ref()?);
    let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
    Some(Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: deployment.metadata.namespace.clone(),
            ..labels_and_annotations
        },
        spec: template.spec,
        status: Some(PodStatus { pod_ip: Some(ip.to_owned()), conditions: Some(vec![ready]), ..PodStatus::default() }),
    })
}
