//! `status`: the objects as they are, compiled by the controller's own index.

use std::fmt::Debug;

use anyhow::{Context as _, Result};
use api::{Condition, InferenceModel, InferencePool, Modalities, PickerTemplate};
use daemon::Table;
use index::{Change, Compiled, Event, Index, ManagedPicker, ObjectKey};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use routing::{Capability, ModalitySet, RoutingTable, Target};
use serde::de::DeserializeOwned;
use thalamus::screen::{Screen, line};

pub(crate) async fn run(client: &Client, namespace: Option<&str>, screen: Screen) -> Result<()> {
    let mut index = Index::default();
    let _ = index.observe(Event::Pool(list::<InferencePool>(client, namespace).await?));
    let _ = index.observe(Event::Model(list::<InferenceModel>(client, namespace).await?));
    let _ = index.observe(Event::Pod(list::<Pod>(client, namespace).await?));
    let _ = index.observe(Event::Service(list::<Service>(client, namespace).await?));
    let _ = index.observe(Event::Template(list::<PickerTemplate>(client, namespace).await?));
    let compiled = index.compile();
    if compiled.pools.is_empty() && compiled.models.is_empty() {
        line(&format!("No InferencePool and no InferenceModel in {}.", namespace.unwrap_or("any namespace")));
        return Ok(());
    }
    screen.table(&table(&index, &compiled));
    let mut wrong = wrong(&index, &compiled);
    wrong.extend(unready_pickers(client, namespace, &index, &compiled).await?);
    if !wrong.is_empty() {
        screen.title("Problems");
        let mut table = Table::default();
        table.row(["OBJECT", "CONDITION", "SAYS"]);
        for [object, condition, says] in wrong {
            table.row([object, condition, says]);
        }
        screen.table(&table);
    }
    Ok(())
}

async fn list<K>(client: &Client, namespace: Option<&str>) -> Result<Change<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let kind = K::kind(&());
    let listed = api.list(&ListParams::default()).await.with_context(|| format!("listing {kind}"))?;
    Ok(Change::Relisted(listed.items))
}

/// A row for each pool and target in it.
fn table(index: &Index, compiled: &Compiled) -> Table {
    let mut view = Table::default();
    view.row(["NAMESPACE", "POOL", "ENDPOINTS", "PICKERS", "MODEL", "TARGET", "TAKES", "GIVES", "ON OFFER", "FOUND"]);
    for (key, report) in &compiled.pools {
        let table = &compiled.tables[&key.namespace];
        let endpoints = report.verdicts.iter().find(|verdict| verdict.type_ == "EndpointsReady");
        let endpoints = endpoints.map_or("", |verdict| verdict.message.split(':').next().unwrap_or_default());
        let of_pool = [key.namespace.as_str(), key.name.as_str(), endpoints, pickers(index, key)];
        let targets =
            table.models.iter().flat_map(|(name, model)| model.targets.iter().map(move |target| (name, target)));
        let mut alone = true;
        for (model, target) in targets.filter(|(_, target)| *target.pool == *key.name) {
            alone = false;
            let Capability { input, output, .. } = target.capability;
            let offered = offered(table, target);
            let found = found(index, &key.namespace, model);
            let of_target =
                [model.to_string(), target.name.to_string(), input.to_string(), output.to_string(), offered, found];
            view.row(of_pool.iter().map(|&cell| cell.to_owned()).chain(of_target));
        }
        if alone {
            // A picker of the whole namespace goes by models where there are any, or another pool.
            let is_only = table.models.is_empty() && table.pools.len() == 1;
            let served = if is_only { "as is" } else { "as is, by a picker of this pool only" };
            let anything = ["(none)", "-", "-", "-", served, "-"];
            view.row(of_pool.iter().chain(&anything).map(|&cell| cell.to_owned()));
        }
    }
    view
}

/// What its servers were found to take, by the controller's word: `text+image`, with what nobody could tell as `video?`; `-` where none was asked.
fn found(index: &Index, namespace: &str, model: &str) -> String {
    let mut models =
        index.models().filter(|(key, object)| key.namespace == namespace && object.spec.model_name == model);
    let status = models.find_map(|(_, object)| object.status.as_ref());
    let Some(status) = status.filter(|status| status.conditions.iter().any(|one| one.type_ == "Verified")) else {
        return "-".into();
    };
    let input = |of: &Option<Modalities>| -> ModalitySet {
        of.iter().flat_map(|modalities| &modalities.input).map(|one| index::modality(*one)).collect()
    };
    let found = input(&status.found);
    let unknown = input(&status.modalities).difference(found);
    let known = Some(found).filter(|found| !found.is_empty()).map(|found| found.to_string());
    let words: Vec<String> = known.into_iter().chain(unknown.iter().map(|one| format!("{one}?"))).collect();
    words.join(", ")
}

/// What of a target ready endpoints offer now.
fn offered(table: &RoutingTable, target: &Target) -> String {
    match table.on_offer(target) {
        Some(now) if now.input == target.capability.input && now.output == target.capability.output => "all".into(),
        Some(now) => format!("{} to {}", now.input, now.output),
        None => "nothing".into(),
    }
}

/// Whether every picker decides by it, by the controller's word.
fn pickers(index: &Index, key: &ObjectKey) -> &'static str {
    let conditions = index.pool(key).map(ours).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Programmed") {
        Some(condition) if condition.status == "True" => "current",
        Some(condition) if condition.reason == "NoPicker" => "none",
        Some(_) => "behind",
        None => "unknown",
    }
}

fn ours(pool: &InferencePool) -> &[Condition] {
    let parents = pool.status.as_ref().map(|status| &*status.parents).unwrap_or_default();
    parents.iter().find(|parent| parent.is_ours()).map(|parent| &*parent.conditions).unwrap_or_default()
}

/// What is wrong with the pickers of managed pools of which the controller says nothing there.
async fn unready_pickers(
    client: &Client,
    namespace: Option<&str>,
    index: &Index,
    compiled: &Compiled,
) -> Result<Vec<[String; 3]>> {
    let is_unsaid = |key: &ObjectKey| index.pool(key).is_some_and(|pool| ours(pool).is_empty());
    let managed = compiled.pools.iter().filter_map(|(key, report)| Some((key, report.managed.as_ref()?)));
    let managed: Vec<_> = managed.filter(|(key, _)| is_unsaid(key)).collect();
    if managed.is_empty() {
        return Ok(Vec::new());
    }
    let Change::Relisted(there) = list::<Deployment>(client, namespace).await? else { return Ok(Vec::new()) };
    let row = |(key, picker): (&ObjectKey, &ManagedPicker)| {
        let is_its = |one: &&Deployment| ObjectKey::of(*one) == ObjectKey::new(&*key.namespace, &*picker.service);
        let status = there.iter().find(is_its).map(|one| one.status.clone().unwrap_or_default());
        let says = match &status {
            None => format!("there is no Deployment {}: kubectl describe inferencepool {}", picker.service, key.name),
            Some(status) => {
                let (ready, wanted) = (status.available_replicas.unwrap_or(0), status.replicas.unwrap_or(0));
                if ready > 0 && ready >= wanted {
                    return None;
                }
                format!("{ready} of {wanted} pickers are ready: kubectl describe deployment {}", picker.service)
            }
        };
        Some([format!("InferencePool {key}"), "PickerReady: NotReady".to_owned(), says])
    };
    Ok(managed.into_iter().filter_map(row).collect())
}

/// Every condition that does not hold, as it stands in the objects; of a pool that no gateway is attached to, of which the controller says
/// nothing there, as it would be.
fn wrong(index: &Index, compiled: &Compiled) -> Vec<[String; 3]> {
    let pools =
        index.pools().flat_map(|(key, pool)| ours(pool).iter().map(move |one| (format!("InferencePool {key}"), one)));
    let models = index.models().flat_map(|(key, model)| {
        let conditions = model.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
        conditions.iter().map(move |one| (format!("InferenceModel {key}"), one))
    });
    let said = pools.chain(models).filter(|(_, condition)| condition.status != "True");
    let said = said.map(|(object, one)| [object, format!("{}: {}", one.type_, one.reason), one.message.clone()]);
    let unsaid = compiled.pools.iter().filter(|(key, _)| index.pool(key).is_some_and(|pool| ours(pool).is_empty()));
    let verdicts = unsaid.flat_map(|(key, report)| report.verdicts.iter().map(move |verdict| (key, verdict)));
    let verdicts = verdicts.filter(|(_, verdict)| !verdict.holds).map(|(key, verdict)| {
        [format!("InferencePool {key}"), format!("{}: {}", verdict.type_, verdict.reason), verdict.message.clone()]
    });
    said.chain(verdicts).collect()
}
