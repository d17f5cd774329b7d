//! Keeps what managed pickers consist of in shape: makes it, mends what others changed, removes what is not wanted any more, and touches
//! nothing that is not ours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use api::InferencePool;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use index::{Change, ManagedPicker, ObjectKey};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::render::{self, BUNDLE, MANAGED_BY, Settings};
use super::rollout::{self, Progress};
use crate::lease::Term;
use crate::status::{MANAGER, is, within};
use crate::watch::{carry, dynamic, follow};

/// What is to be there.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Wanted {
    /// The picker of each managed pool.
    pub(crate) pickers: BTreeMap<ObjectKey, (InferencePool, ManagedPicker)>,
    /// Namespaces whose pickers need to verify us.
    pub(crate) namespaces: BTreeSet<String>,
}

/// How far the picker of a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PickerState {
    Running {
        ready: i64,
        wanted: i64,
        complete: bool,
    },
    /// Kubernetes gave up on it.
    Stuck {
        ready: i64,
        wanted: i64,
    },
    /// It is to be upgraded once the picker of another pool is.
    Queued {
        behind: ObjectKey,
    },
    /// Something of that name is there that we did not make.
    Conflict(String),
    Failed(String),
}

/// What pickers consist of, by API version, kind and plural.
const KINDS: [(&str, &str, &str, &str); 7] = [
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("apps", "v1", "Deployment", "deployments"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
];

/// Act this long after something changed: what changes together is seen together.
const QUIET: Duration = Duration::from_millis(100);

/// Between one time and the next: whoever takes back what we apply, and whose work we take back, must not keep the API server busy.
const PAUSE: Duration = Duration::from_millis(500);

/// Try again what failed.
const RETRY: Duration = Duration::from_secs(5);

/// How many pickers are worked on at once.
const AT_ONCE: usize = 8;

/// How many changes may wait.
const CHANGES: usize = 1024;

/// An object's kind, as a place in [`KINDS`], and its key.
type ChildKey = (usize, ObjectKey);

pub(crate) struct Keeper {
    pub(crate) client: Client,
    pub(crate) watch_namespace: Option<String>,
    pub(crate) settings: Settings,
    pub(crate) terms: watch::Receiver<Term>,
    pub(crate) wanted: watch::Receiver<Arc<Wanted>>,
    /// The certificate that vouches for us, once it is known.
    pub(crate) certificate: watch::Receiver<Option<String>>,
    /// Changes when watches must be begun anew.
    pub(crate) anew: watch::Receiver<u64>,
    pub(crate) states: watch::Sender<BTreeMap<ObjectKey, PickerState>>,
}

/// What is there, and what was last applied.
#[derive(Default)]
struct Seen {
    objects: BTreeMap<ChildKey, DynamicObject>,
    listed: BTreeSet<usize>,
    /// Of each object that was applied, what was wanted and what came of it: as long as both are as they were, nothing is to be done.
    applied: HashMap<ChildKey, (u64, u64)>,
}

/// What is to be done about one picker.
struct Plan {
    pool: ObjectKey,
    steps: Vec<Step>,
    state: Option<PickerState>,
}

enum Step {
    /// Nobody is known to be there: look, and make it.
    Make(DynamicObject),
    Mend(DynamicObject),
    Remove(ChildKey, Option<String>),
}

impl Keeper {
    /// Runs to the end of the process.
    pub(crate) async fn run(mut self) {
        let (sender, mut changes) = mpsc::channel(CHANGES);
        for (place, _) in KINDS.iter().enumerate() {
            let api = self.api_of(place, self.watch_namespace.as_deref());
            let again = move || followed(api.clone(), place);
            tokio::spawn(carry(again, self.anew.clone(), sender.clone(), move |change| (place, change)));
        }
        let mut seen = Seen::default();
        let mut due = None;
        let mut rested = Instant::now();
        loop {
            tokio::select! {
                change = changes.recv() => {
                    let Some((place, change)) = change else { return };
                    seen.observe(place, change);
                    due = due.or_else(|| Some(rested.max(Instant::now() + QUIET)));
                }
                heard = self.wanted.changed() => {
                    if heard.is_err() { return }
                    due = due.or_else(|| Some(rested.max(Instant::now() + QUIET)));
                }
                _ = self.terms.changed() => due = due.or_else(|| Some(rested.max(Instant::now() + QUIET))),
                _ = self.certificate.changed() => due = due.or_else(|| Some(rested.max(Instant::now() + QUIET))),
                () = crate::event_loop::at(due), if seen.listed.len() == KINDS.len() => {
                    let leads = self.terms.borrow_and_update().is_some();
                    let complete = !leads || self.keep(&mut seen).await;
                    rested = Instant::now() + PAUSE;
                    due = (!complete).then(|| Instant::now() + RETRY);
                }
            }
        }
    }

    /// Does what is to be done. Says whether all of it was.
    async fn keep(&mut self, seen: &mut Seen) -> bool {
        let wanted = Arc::clone(&self.wanted.borrow_and_update());
        let mut complete = self.keep_bundles(&wanted, seen).await;
        let plans = self.plans(&wanted, seen);
        let mut states = BTreeMap::new();
        let this = &*self;
        let mut done =
            futures::stream::iter(plans).map(async |plan| this.carry_out(plan).await).buffer_unordered(AT_ONCE);
        while let Some((pool, results, state)) = done.next().await {
            let mut state = state;
            for result in results {
                match result {
                    Ok(Done::Applied(key, wanted, object)) => seen.note(key, wanted, *object),
                    Ok(Done::Removed(key)) => seen.forget(&key),
                    Ok(Done::Foreign(what)) => {
                        complete = false;
                        state = Some(PickerState::Conflict(what));
                    }
                    Err(error) => {
                        complete = false;
                        let why = format!("{error:#}");
                        tracing::warn!(%pool, error = why, "the picker of a managed pool cannot be kept in shape");
                        state = Some(PickerState::Failed(why));
                    }
                }
            }
            let deployment = wanted.pickers.get(&pool).map(|(_, picker)| deployment_key(&pool, picker));
            let running = deployment.and_then(|key| seen.objects.get(&key)).map(running);
            if let Some(state) = state.or(running) {
                states.insert(pool, state);
            }
        }
        drop(done);
        self.states.send_if_modified(|known| {
            let changed = *known != states;
            *known = states;
            changed
        });
        complete
    }

    /// The authority's certificate, in every namespace that has a pool.
    async fn keep_bundles(&mut self, wanted: &Wanted, seen: &mut Seen) -> bool {
        let Some(certificate) = self.certificate.borrow_and_update().clone() else { return true };
        let mut complete = true;
        for namespace in &wanted.namespaces {
            let desired = render::bundle(namespace, &certificate);
            let Some(step) = seen.step(&desired, None) else { continue };
            match within(&self.terms, self.take(step)).await {
                Ok(Done::Applied(key, wanted, object)) => seen.note(key, wanted, *object),
                Ok(_) => tracing::warn!(
                    namespace,
                    "ConfigMap {BUNDLE} was not made by us; pickers there cannot verify us by it"
                ),
                Err(error) => {
                    complete = false;
                    tracing::warn!(namespace, error = format!("{error:#}"), "ConfigMap {BUNDLE} cannot be written");
                }
            }
        }
        complete
    }

    fn plans(&self, wanted: &Wanted, seen: &Seen) -> Vec<Plan> {
        let release = format!(
            "{:016x}",
            hash(&serde_json::json!([
                self.settings.image,
                self.settings.controller_url,
                self.settings.controller_namespace
            ]))
        );
        // The one that is being upgraded, or, where none is, the first that is to be.
        let mut upgrading = wanted.pickers.iter().find_map(|(pool, (_, picker))| {
            let deployment = seen.objects.get(&deployment_key(pool, picker))?;
            rollout::is_upgrading(deployment, &release).then(|| pool.clone())
        });
        let mut plans = Vec::new();
        for (key, (pool, picker)) in &wanted.pickers {
            let mut plan = Plan { pool: key.clone(), steps: Vec::new(), state: None };
            let mut objects = render::picker(pool, picker, &self.settings);
            let ours: BTreeSet<ChildKey> = objects.iter().map(child_key).collect();
            for desired in &mut objects {
                desired.annotations_mut().insert(rollout::RELEASE.to_owned(), release.clone());
                if picker.template.autoscaling.is_some()
                    && child_key(desired) == deployment_key(key, picker)
                    && let Some(replicas) =
                        seen.objects.get(&child_key(desired)).and_then(rollout::replicas_until_scaled)
                {
                    desired.data["spec"]["replicas"] = replicas.into();
                }
                let Some(step) = seen.step(desired, pool.uid().as_deref()) else { continue };
                let there = seen.objects.get(&child_key(desired));
                if child_key(desired) == deployment_key(key, picker)
                    && there.is_some_and(|there| rollout::is_upgrade(there, desired))
                {
                    match &upgrading {
                        Some(other) if other != key => {
                            plan.state = Some(PickerState::Queued { behind: other.clone() });
                            continue;
                        }
                        _ => upgrading = Some(key.clone()),
                    }
                }
                plan.steps.push(step);
            }
            plan.steps.extend(seen.stray(pool, &ours, picker));
            plans.push(plan);
        }
        plans
    }

    async fn carry_out(&self, plan: Plan) -> (ObjectKey, Vec<Result<Done>>, Option<PickerState>) {
        let mut results = Vec::new();
        for step in plan.steps {
            let result = within(&self.terms, self.take(step)).await;
            let stop = !matches!(result, Ok(Done::Applied(..) | Done::Removed(_)));
            results.push(result);
            if stop {
                break;
            }
        }
        (plan.pool, results, plan.state)
    }

    async fn take(&self, step: Step) -> Result<Done> {
        match step {
            Step::Make(desired) => {
                let (key, api) = self.place_of(&desired);
                let there =
                    api.get_opt(&desired.name_any()).await.with_context(|| format!("looking for {}", shown(&key)))?;
                match there {
                    // One whose label somebody took away is ours all the same.
                    Some(there) if !belongs(&there, owner_uid(&desired)) => {
                        Ok(Done::Foreign(why_foreign(&key, &there, &desired)))
                    }
                    Some(_) => self.apply(&api, key, desired, true).await,
                    None => self.apply(&api, key, desired, false).await,
                }
            }
            Step::Mend(desired) => {
                let (key, api) = self.place_of(&desired);
                self.apply(&api, key, desired, true).await
            }
            Step::Remove(key, uid) => {
                let api = self.api_of(key.0, Some(&key.1.namespace));
                let preconditions = Some(Preconditions { uid, ..Preconditions::default() });
                let params = DeleteParams { preconditions, ..DeleteParams::background() };
                match api.delete(&key.1.name, &params).await {
                    Err(error) if !is(&error, 404) => Err(error).with_context(|| format!("removing {}", shown(&key))),
                    _ => Ok(Done::Removed(key)),
                }
            }
        }
    }

    /// Without `force` a field that another owns is an error: where nothing of ours was, somebody else was quicker.
    async fn apply(
        &self,
        api: &Api<DynamicObject>,
        key: ChildKey,
        desired: DynamicObject,
        force: bool,
    ) -> Result<Done> {
        let params = PatchParams { force, ..PatchParams::apply(MANAGER) };
        let applied = api.patch(&desired.name_any(), &params, &Patch::Apply(&desired)).await;
        let applied = applied.with_context(|| format!("applying {}", shown(&key)))?;
        Ok(Done::Applied(key, hash(&desired), Box::new(applied)))
    }

    fn place_of(&self, object: &DynamicObject) -> (ChildKey, Api<DynamicObject>) {
        let key = child_key(object);
        let api = self.api_of(key.0, Some(&key.1.namespace));
        (key, api)
    }

    fn api_of(&self, place: usize, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version, kind, plural) = KINDS[place];
        dynamic(&self.client, namespace, &GroupVersionKind::gvk(group, version, kind), plural)
    }
}

/// What came of a step.
enum Done {
    Applied(ChildKey, u64, Box<DynamicObject>),
    Removed(ChildKey),
    Foreign(String),
}

impl Seen {
    fn observe(&mut self, place: usize, change: Change<DynamicObject>) {
        match change {
            Change::Applied(object) => _ = self.objects.insert((place, ObjectKey::of(&object)), object),
            Change::Deleted(key) => self.forget(&(place, key)),
            Change::Relisted(all) => {
                self.objects.retain(|key, _| key.0 != place);
                self.objects.extend(all.into_iter().map(|object| ((place, ObjectKey::of(&object)), object)));
                self.applied.retain(|key, _| self.objects.contains_key(key));
                self.listed.insert(place);
            }
        }
    }

    fn forget(&mut self, key: &ChildKey) {
        self.objects.remove(key);
        self.applied.remove(key);
    }

    /// Remembers what was applied and what came of it.
    fn note(&mut self, key: ChildKey, wanted: u64, object: DynamicObject) {
        self.applied.insert(key.clone(), (wanted, fingerprint(&object)));
        self.objects.insert(key, object);
    }

    /// What is to be done about one object; nothing where it is as it was left.
    fn step(&self, desired: &DynamicObject, owner: Option<&str>) -> Option<Step> {
        let key = child_key(desired);
        match self.objects.get(&key) {
            None => Some(Step::Make(desired.clone())),
            // It says that it is ours and is not this pool's: looked at again, and told.
            Some(there) if !belongs(there, owner) => Some(Step::Make(desired.clone())),
            Some(there) => {
                let as_it_was = self.applied.get(&key) == Some(&(hash(desired), fingerprint(there)));
                (!as_it_was).then(|| Step::Mend(desired.clone()))
            }
        }
    }

    /// What belongs to the pool and is not wanted any more. While its picker is not complete nothing goes: what serves now may be it.
    fn stray(&self, pool: &InferencePool, wanted: &BTreeSet<ChildKey>, picker: &ManagedPicker) -> Vec<Step> {
        let Some(uid) = pool.uid() else { return Vec::new() };
        let deployment = self.objects.get(&deployment_key(&ObjectKey::of(pool), picker));
        if !deployment.is_some_and(|deployment| Progress::of(deployment).complete) {
            return Vec::new();
        }
        let stray = self.objects.iter().filter(|(key, object)| belongs(object, Some(&uid)) && !wanted.contains(key));
        stray.map(|(key, object)| Step::Remove(key.clone(), object.uid())).collect()
    }
}

fn followed(api: Api<DynamicObject>, place: usize) -> BoxStream<'static, Change<DynamicObject>> {
    let kind = KINDS[place].2;
    let (label, value) = MANAGED_BY;
    let config = match kind {
        // By name, so that the right to see them can be limited to it.
        "ConfigMap" => watcher::Config::default().fields(&format!("metadata.name={BUNDLE}")),
        _ => watcher::Config::default().labels(&format!("{label}={value}")),
    };
    follow(api, config, kind.to_owned(), Ok)
}

fn child_key(object: &DynamicObject) -> ChildKey {
    let kind = object.types.as_ref().map_or("", |types| &*types.kind);
    let place = KINDS.iter().position(|(.., one, _)| *one == kind).unwrap_or(0);
    (place, ObjectKey::of(object))
}

fn deployment_key(pool: &ObjectKey, picker: &ManagedPicker) -> ChildKey {
    let place = KINDS.iter().position(|(.., kind, _)| *kind == "Deployment").unwrap_or(0);
    (place, ObjectKey::new(&*pool.namespace, &*picker.service))
}

/// Whether we made it: for the pool with this uid, or, without one, by our label.
fn belongs(object: &DynamicObject, owner: Option<&str>) -> bool {
    match owner {
        Some(_) => owner_uid(object) == owner,
        None => object.labels().get(MANAGED_BY.0).is_some_and(|value| value == MANAGED_BY.1),
    }
}

fn owner_uid(object: &DynamicObject) -> Option<&str> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true)).map(|owner| &*owner.uid)
}

fn why_foreign(key: &ChildKey, there: &DynamicObject, desired: &DynamicObject) -> String {
    let owner = |object: &DynamicObject| object.owner_references().iter().find(|o| o.controller == Some(true)).cloned();
    match (owner(there), owner(desired)) {
        (Some(old), Some(ours)) if old.kind == ours.kind && old.name == ours.name => {
            format!(
                "{} is left from a pool of this name that was deleted; it goes when Kubernetes collects it",
                shown(key)
            )
        }
        (Some(other), _) => {
            format!(
                "{} belongs to {} {}; name another Service in endpointPickerRef",
                shown(key),
                other.kind,
                other.name
            )
        }
        (None, _) => format!(
            "{} is there already and was not made by Thalamus; delete it, or name another Service in endpointPickerRef",
            shown(key)
        ),
    }
}

fn shown((place, key): &ChildKey) -> String {
    format!("{} {}", KINDS[*place].2, key.name)
}

fn running(deployment: &DynamicObject) -> PickerState {
    let Progress { ready, wanted, complete, stuck, .. } = Progress::of(deployment);
    if stuck { PickerState::Stuck { ready, wanted } } else { PickerState::Running { ready, wanted, complete } }
}

/// What of an object is ours to keep, or could be: everything but its status and what the API server counts.
fn fingerprint(object: &DynamicObject) -> u64 {
    let metadata = &object.metadata;
    let annotations: Option<BTreeMap<&String, &String>> = metadata
        .annotations
        .as_ref()
        .map(|all| all.iter().filter(|(name, _)| !name.starts_with("deployment.kubernetes.io/")).collect());
    let mut data = object.data.clone();
    if let Some(data) = data.as_object_mut() {
        data.remove("status");
    }
    hash(&serde_json::json!([metadata.labels, annotations, metadata.owner_references, metadata.uid, data]))
}

fn hash(value: &impl serde::Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(value).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
