//! Pools: which pods belong to one, which endpoints that makes, and what is to be said of it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use api::{AppProtocol, InferencePool};
use routing::{Capability, Endpoint, FoundModel, ModalitySet, Pool, PoolPolicy, RoutingTable, Target};

use crate::condition::Verdict;
use crate::finds::Finds;
use crate::managed::{self, ManagedPicker};
use crate::observe::{Index, ObjectKey};
use crate::pod::{PodFacts, selects};

/// What is true of a pool. Whether pickers know it is not known here: see [`Verdict::programmed`].
#[derive(Debug, Clone, PartialEq)]
pub struct PoolReport {
    /// Which object of that name, and which generation of it.
    pub uid: Option<String>,
    pub generation: Option<i64>,
    /// The picker's Service, where the pool names one.
    pub picker_service: Option<String>,
    /// Whether that Service has a port for clients that come without a gateway, so that the pool needs none.
    pub takes_clients: bool,
    pub verdicts: Vec<Verdict>,
    /// The picker that is to be run for it, where it is managed and can be.
    pub managed: Option<ManagedPicker>,
    /// The service account that may read this pool alone: of one that is managed, whether or not its picker can be made now.
    pub bound_account: Option<String>,
    /// What is to be said where a gateway knows this pool and no other: whether every model with a target here has all its targets here.
    pub alone: Verdict,
    /// What models say that their targets in it take and give; none where no model has one there.
    pub declared: Option<Capability>,
}

/// The one verdict that changes with pods.
const ENDPOINTS_READY: &str = "EndpointsReady";

/// Pods by one label of each selector, so that a pool looks at its own pods alone.
pub(crate) struct Members<'a> {
    finds: &'a Finds,
    by_label: HashMap<Label<'a>, Vec<(&'a ObjectKey, &'a PodFacts)>>,
}

/// A namespace, and a label's name and value.
type Label<'a> = (&'a str, &'a str, &'a str);

/// The pods that a pool selects.
pub(crate) struct Selected<'a> {
    pool: &'a InferencePool,
    finds: &'a Finds,
    pods: Vec<(&'a ObjectKey, &'a PodFacts)>,
}

impl<'a> Members<'a> {
    /// Of these pools, and of these pods.
    pub(crate) fn of(
        pools: impl Iterator<Item = (&'a ObjectKey, &'a InferencePool)>,
        pods: impl Iterator<Item = (&'a ObjectKey, &'a PodFacts)>,
        finds: &'a Finds,
    ) -> Self {
        let first_label = |(key, pool): (&'a ObjectKey, &'a InferencePool)| {
            let (name, value) = pool.spec.selector.match_labels.iter().next()?;
            Some(((&*key.namespace, &**name, &**value), Vec::new()))
        };
        let mut by_label: HashMap<_, Vec<_>> = pools.filter_map(first_label).collect();
        for (key, pod) in pods {
            for (name, value) in &pod.labels {
                if let Some(pods) = by_label.get_mut(&(&*key.namespace, &**name, &**value)) {
                    pods.push((key, pod));
                }
            }
        }
        Self { finds, by_label }
    }

    /// The pods of `pool` in its namespace, by name.
    pub(crate) fn select(&self, pool: &'a InferencePool, namespace: &'a str) -> Selected<'a> {
        let labels = &pool.spec.selector.match_labels;
        let candidates =
            labels.iter().next().and_then(|(name, value)| self.by_label.get(&(namespace, &**name, &**value)));
        let belongs = |(_, pod): &&(&ObjectKey, &PodFacts)| !pod.ended && selects(labels, &pod.labels);
        Selected { pool, finds: self.finds, pods: candidates.into_iter().flatten().filter(belongs).copied().collect() }
    }
}

impl Selected<'_> {
    /// The pool as the table has it: each ready pod × each of its active target ports.
    pub(crate) fn pool(&self, policy: PoolPolicy) -> Pool {
        let mut endpoints = BTreeMap::new();
        for (key, pod) in self.pods.iter().filter(|(_, pod)| pod.ready) {
            let Some(ip) = pod.ip else { continue };
            for (rank, port) in self.pool.spec.target_ports.iter().enumerate() {
                if pod.serves_on(port.number.0) {
                    // The name that endpoint pickers give to it, so that their logs and ours can be laid side by side.
                    let name = format!("{}-rank-{rank}", key.name);
                    let address = SocketAddr::new(ip, port.number.0);
                    let found = self.finds.of(key, pod.uid, port.number.0).cloned();
                    let endpoint = Endpoint { address, uid: pod.uid, capability: pod.capability, found };
                    endpoints.insert(name.into(), endpoint);
                }
            }
        }
        let app_protocol = match self.pool.spec.app_protocol {
            AppProtocol::Http => routing::AppProtocol::Http,
            AppProtocol::H2c => routing::AppProtocol::H2c,
        };
        Pool { app_protocol, policy, endpoints }
    }
}

/// What of the namespace's table concerns a pool.
pub(crate) struct InTable<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) declared: Option<Capability>,
    /// Models with targets here and in other pools, and those.
    pub(crate) shared: Vec<(&'a str, Vec<&'a str>)>,
}

pub(crate) fn report(
    key: &ObjectKey,
    object: &InferencePool,
    selected: &Selected<'_>,
    managed: Result<Option<ManagedPicker>, Verdict>,
    InTable { pool, declared, shared }: &InTable<'_>,
    index: &Index,
) -> PoolReport {
    let declared = *declared;
    let picker = object.spec.endpoint_picker_ref.as_ref();
    let accepted = match picker {
        Some(_) => Verdict::yes("Accepted", "Accepted", "the pool is served"),
        None => Verdict::no(
            "Accepted",
            "EndpointPickerRefMissing",
            "endpointPickerRef is not set, so gateways cannot find the picker: set its Service and port. The picker's HTTP port serves the pool regardless",
        ),
    };
    let is_managed = !matches!(managed, Ok(None));
    let is_others = matches!(&managed, Err(verdict) if verdict.reason == managed::NAME_IN_USE);
    let mut verdicts = vec![
        accepted,
        resolved_refs(object, &key.namespace, is_managed, index),
        endpoints_ready(selected, declared, pool),
    ];
    let managed = managed.unwrap_or_else(|cannot| {
        verdicts.push(cannot);
        None
    });
    PoolReport {
        uid: object.metadata.uid.clone(),
        generation: object.metadata.generation,
        picker_service: picker.map(|picker| picker.name.clone()),
        takes_clients: picker
            .and_then(|picker| index.services.objects.get(&ObjectKey::new(&*key.namespace, &*picker.name)))
            .is_some_and(|service| service.takes_clients),
        verdicts,
        managed,
        alone: alone(shared),
        bound_account: picker.map(|picker| picker.name.clone()).filter(|_| is_managed && !is_others),
        declared,
    }
}

/// Gateways of most kinds send a request to the pool of its route, whatever a picker answers (docs/gateways.md).
fn alone(shared: &[(&str, Vec<&str>)]) -> Verdict {
    const TYPE: &str = "TargetsReachable";
    let Some((model, others)) = shared.first() else {
        return Verdict::yes(TYPE, "OnePool", "every model with a target in this pool has all its targets in it");
    };
    let more = match shared.len() {
        1 => String::new(),
        all => format!(", and so do {} more models", all - 1),
    };
    Verdict::no(
        TYPE,
        "OtherPools",
        format!(
            "model {model} has targets in pool {} as well{more}; most gateways send requests on this pool's route to this pool only (Envoy AI \
             Gateway does not), so requests that only other pools accept are not served: put the pods of all targets into one pool, or give each \
             pool a route of its own",
            others.join(", ")
        ),
    )
}

fn resolved_refs(object: &InferencePool, namespace: &str, is_managed: bool, index: &Index) -> Verdict {
    let invalid = |message: String| Verdict::no("ResolvedRefs", "InvalidExtensionRef", message);
    let Some(picker) = &object.spec.endpoint_picker_ref else {
        return Verdict::yes("ResolvedRefs", "ResolvedRefs", "there is no reference to resolve");
    };
    if !(picker.group.is_empty() && picker.kind == "Service") {
        return invalid(format!(
            "endpointPickerRef names a {} of group {:?}; a Service of the core group is expected",
            picker.kind, picker.group
        ));
    }
    let Some(service) = index.services.objects.get(&ObjectKey::new(namespace, &*picker.name)) else {
        let name = &picker.name;
        return invalid(if is_managed {
            format!("Service {name} is being created; see PickerReady")
        } else {
            format!(
                "there is no Service {name} in namespace {namespace}: run a picker there, or annotate the pool with {}: managed",
                api::annotations::PICKER
            )
        });
    };
    if service.external_name {
        return invalid(format!("Service {} is of type ExternalName, which gateways do not support", picker.name));
    }
    match picker.port {
        None => invalid(format!("endpointPickerRef does not set the port of Service {}", picker.name)),
        Some(port) if !service.ports.contains(&i32::from(port.number.0)) => {
            let ports: Vec<String> = service.ports.iter().map(ToString::to_string).collect();
            invalid(format!("Service {} has no port {}; it has {}", picker.name, port.number.0, ports.join(", ")))
        }
        Some(_) => Verdict::yes("ResolvedRefs", "ResolvedRefs", format!("Service {} exists", picker.name)),
    }
}

/// How many endpoints are ready, and of what kind: `3/4: 2 text+image, 1 text`.
pub(crate) fn endpoints_ready(selected: &Selected<'_>, declared: Option<Capability>, pool: &Pool) -> Verdict {
    let no = |reason, message: String| Verdict::no(ENDPOINTS_READY, reason, message);
    let ports = &selected.pool.spec.target_ports;
    let served = |pod: &PodFacts| ports.iter().filter(|port| pod.serves_on(port.number.0)).count();
    let all: usize = selected.pods.iter().map(|(_, pod)| served(pod)).sum();
    let ready = pool.endpoints.len();
    let labels = &selected.pool.spec.selector.match_labels;
    let labels = labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
    if selected.pods.is_empty() {
        return no("NoPods", format!("0/0: no pod has the labels {labels}"));
    }
    if all == 0 {
        let pods = selected.pods.len();
        return no("NoActivePorts", format!("0/0: {pods} pods, none with an active port: see annotation active-ports"));
    }
    if ready == 0 {
        return no("NoneReady", format!("0/{all}: no pod is ready: kubectl get pods -l {labels}"));
    }
    let mut kinds: BTreeMap<ModalitySet, usize> = BTreeMap::new();
    for endpoint in pool.endpoints.values() {
        if let Some(takes) = takes(endpoint, declared) {
            *kinds.entry(takes).or_default() += 1;
        }
    }
    let verified = pool.endpoints.values().filter(|endpoint| is_verified(endpoint, declared)).count();
    let mut kinds: Vec<(ModalitySet, usize)> = kinds.into_iter().collect();
    kinds.sort_by_key(|(takes, count)| (std::cmp::Reverse(*count), *takes));
    let kinds: Vec<String> = kinds.iter().map(|(takes, count)| format!("{count} {takes}")).collect();
    let mut message = format!("{ready}/{all}");
    if !kinds.is_empty() {
        message += &format!(": {}", kinds.join(", "));
    }
    // Short: kubectl shows it in a column.
    match verified {
        0 => {}
        all if all == ready => message += ", verified",
        some => message += &format!("; {some} verified"),
    }
    let words = selected.pods.iter().find_map(|(key, pod)| Some((&key.name, pod.unknown_words.first()?)));
    if let Some((pod, word)) = words {
        message += &format!("; pod {pod} is annotated with the unknown word {word:?}");
    }
    Verdict::yes(ENDPOINTS_READY, "EndpointsReady", message)
}

/// Whether an endpoint was asked, and takes all that is declared for its pool and that it does not take back itself.
fn is_verified(endpoint: &Endpoint, declared: Option<Capability>) -> bool {
    let said = said_to_take(endpoint, declared);
    endpoint.found.is_some() && said.is_none_or(|said| takes(endpoint, declared) == Some(said))
}

/// What an endpoint takes of what is declared for its pool; of one that nothing is declared for, what it says or was found to take.
fn takes(endpoint: &Endpoint, declared: Option<Capability>) -> Option<ModalitySet> {
    // Where something is declared, what nobody could tell stands.
    let of_model = |model: &FoundModel| if declared.is_some() { model.capability().input } else { model.input.yes() };
    let found = endpoint.found.as_ref().map(|found| found.models.values().map(of_model));
    let found = found.map(|models| models.fold(ModalitySet::EMPTY, ModalitySet::union));
    said_to_take(endpoint, declared).into_iter().chain(found).reduce(ModalitySet::intersection)
}

/// The same without what was found.
fn said_to_take(endpoint: &Endpoint, declared: Option<Capability>) -> Option<ModalitySet> {
    let own = endpoint.capability.map(|own| own.input);
    declared.map(|declared| declared.input).into_iter().chain(own).reduce(ModalitySet::intersection)
}

/// The models that have targets in several pools, by each of these, with the others.
pub(crate) fn shared(table: &RoutingTable) -> HashMap<&str, Vec<(&str, Vec<&str>)>> {
    let mut shared: HashMap<&str, Vec<(&str, Vec<&str>)>> = HashMap::new();
    for (name, model) in &table.models {
        let pools = Target::pools(&model.targets);
        for pool in pools.iter().filter(|_| pools.len() > 1) {
            let others = pools.iter().filter(|other| *other != pool).map(|other| &***other).collect();
            shared.entry(&***pool).or_default().push((&**name, others));
        }
    }
    shared
}

/// What the models say their targets take, by pool.
pub(crate) fn declared(table: &RoutingTable) -> HashMap<&str, Capability> {
    let mut declared: HashMap<&str, Capability> = HashMap::new();
    for target in table.models.values().flat_map(|model| &model.targets) {
        let known = declared.entry(&target.pool).or_insert(target.capability);
        *known = known.union(target.capability);
    }
    declared
}
