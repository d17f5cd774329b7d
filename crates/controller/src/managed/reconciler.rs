//! Keeps what managed pickers consist of in shape: makes it, mends what others changed, removes what is not wanted any more, and touches
//! nothing that is not ours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use index::{Change, ObjectKey};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::child::{
    ChildKey, ChildKind, MANAGED_BY, belongs, child_key, hash, is_hands_off, owner, shown, why_foreign,
};
use super::plan::{Plan, plans};
use super::render::{self, BUNDLE, Settings};
use super::rollout::{Phase, Progress};
use super::seen::{Seen, Step};
use super::{Failures, PickerState, Stage, Wanted};
use crate::lease::Term;
use crate::status::{MANAGER, is, within};
use cluster_watch::{carry, follow, said};
use daemon::Deadline;

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

pub(crate) struct PickerReconciler {
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

impl PickerReconciler {
    /// Runs to the end of the process.
    pub(crate) async fn run(mut self) {
        let (sender, mut changes) = mpsc::channel(CHANGES);
        for kind in ChildKind::ALL {
            let api = kind.api(&self.client, self.watch_namespace.as_deref());
            let again = move || followed(api.clone(), kind);
            tokio::spawn(carry(again, self.anew.clone(), sender.clone(), move |change| (kind, change)));
        }
        let release = render::release(&self.settings);
        let (mut seen, mut failures) = (Seen::default(), Failures::default());
        let (mut due, mut rested) = (Deadline::default(), Instant::now());
        let mut led = self.terms.borrow_and_update().is_some();
        loop {
            tokio::select! {
                change = changes.recv() => {
                    let Some((kind, change)) = change else { return };
                    seen.observe(kind, change);
                    due.at(soon(rested));
                }
                heard = self.wanted.changed() => {
                    if heard.is_err() { return }
                    due.at(soon(rested));
                }
                _ = self.terms.changed() => {
                    let leads = self.terms.borrow_and_update().is_some();
                    // A term that goes on changes nothing.
                    if std::mem::replace(&mut led, leads) != leads {
                        due.at(soon(rested));
                        // What was known in a term before may be untrue in the next.
                        self.states.send_replace(BTreeMap::new());
                    }
                }
                _ = self.certificate.changed() => due.at(soon(rested)),
                () = due.reached(), if seen.is_complete() => {
                    let again = if led { self.keep(&release, &mut seen, &mut failures).await } else { None };
                    rested = Instant::now() + PAUSE;
                    if let Some(wait) = again {
                        due.within(wait);
                    }
                }
            }
        }
    }

    /// Does what is to be done. Says when to try again what could not be.
    async fn keep(&mut self, release: &str, seen: &mut Seen, failures: &mut Failures) -> Option<Duration> {
        let wanted = Arc::clone(&self.wanted.borrow_and_update());
        let mut again = self.keep_bundles(&wanted, seen, failures).await;
        failures.pickers.retain(|pool, _| wanted.pickers.contains_key(pool));
        let plans = plans(&wanted, seen, &self.settings, release, failures);
        self.states.send_if_modified(|states| {
            let before = states.len();
            states.retain(|pool, _| wanted.pickers.contains_key(pool));
            states.len() != before
        });
        let this = &*self;
        let mut done =
            futures::stream::iter(plans).map(async |plan| this.carry_out(plan).await).buffer_unordered(AT_ONCE);
        while let Some((pool, results, held_by)) = done.next().await {
            let held = held_by.is_some();
            let mut stage = held_by;
            let mut failed = None;
            for result in results {
                match result {
                    Ok(Done::Applied(key, wanted, object)) => seen.note(key, wanted, *object),
                    Ok(Done::Removed(key)) => seen.forget(&key),
                    Ok(Done::LeftAlone) => {}
                    Ok(Done::Overtaken) => again = Some(PAUSE),
                    Ok(Done::Foreign(what)) => {
                        failed = Some(what.clone());
                        stage = Some(Stage::Conflict(what));
                    }
                    Err(error) => {
                        let why = explained(&error);
                        // Said once: it may stay so for long.
                        if failures.why(&pool) != Some(&why) {
                            tracing::warn!(%pool, error = why, "cannot reconcile the picker of a managed pool");
                        }
                        failed = Some(why.clone());
                        stage = Some(Stage::Failed(why));
                    }
                }
            }
            match failed {
                Some(why) => {
                    // One that was held did not have its turn, and loses none.
                    if !held {
                        failures.note(&pool, why);
                    }
                    // For the first time it may have been its turn, and whoever is next need not wait for a retry.
                    let wait = if failures.times(&pool) == 1 { PAUSE } else { RETRY };
                    again = Some(again.map_or(wait, |again| again.min(wait)));
                }
                None if stage.is_none() => failures.forget(&pool),
                None => {}
            }
            if let Some(why) = failures.bundles.get(&pool.namespace) {
                stage = Some(Stage::Conflict(why.clone()));
            }
            let now = state(&pool, &wanted, seen, stage);
            // At once: another may take long.
            this.states.send_if_modified(|states| {
                let changed = states.get(&pool) != now.as_ref();
                match now {
                    Some(now) => _ = states.insert(pool, now),
                    None => _ = states.remove(&pool),
                }
                changed
            });
        }
        again
    }

    /// The authority's certificate, in every namespace that has a pool. Says when to try again what could not be written.
    async fn keep_bundles(&mut self, wanted: &Wanted, seen: &mut Seen, failures: &mut Failures) -> Option<Duration> {
        let Some(certificate) = self.certificate.borrow_and_update().clone() else {
            failures.bundles.clear();
            return None;
        };
        let mut foreign = BTreeMap::new();
        let mut again = None;
        for namespace in &wanted.namespaces {
            let Some(step) = seen.step(render::bundle(namespace, &certificate), None) else { continue };
            match within(&self.terms, self.take(step)).await {
                Ok(Done::Applied(key, wanted, object)) => seen.note(key, wanted, *object),
                Ok(Done::Foreign(why)) => {
                    // Said once: it may stay so for long.
                    if !failures.bundles.contains_key(namespace) {
                        tracing::warn!(namespace, why, "cannot publish the CA that pickers verify the controller with");
                    }
                    foreign.insert(namespace.clone(), why);
                }
                Ok(_) => {}
                Err(error) => {
                    again = Some(RETRY);
                    tracing::warn!(namespace, error = explained(&error), "cannot write ConfigMap {BUNDLE}");
                }
            }
        }
        failures.bundles = foreign;
        again
    }

    async fn carry_out(&self, plan: Plan) -> (ObjectKey, Vec<Result<Done>>, Option<Stage>) {
        let mut results = Vec::new();
        for step in plan.steps {
            let result = within(&self.terms, self.take(step)).await;
            let stop = !matches!(result, Ok(Done::Applied(..) | Done::Removed(_) | Done::LeftAlone));
            results.push(result);
            if stop {
                break;
            }
        }
        (plan.pool, results, plan.held_by)
    }

    async fn take(&self, step: Step) -> Result<Done> {
        match step {
            Step::Make(desired) => {
                let (key, api) = self.place_of(&desired)?;
                let there =
                    api.get_opt(&desired.name_any()).await.with_context(|| format!("looking for {}", shown(&key)))?;
                let owner = owner(&desired).map(|owner| &*owner.uid);
                match there {
                    // One whose label somebody took away is ours all the same.
                    Some(there) if !belongs(&there, owner) => Ok(Done::Foreign(why_foreign(&key, &there, &desired))),
                    Some(there) if is_hands_off(&there) => Ok(Done::LeftAlone),
                    Some(_) => self.apply(&api, key, desired, None, true).await,
                    None => self.apply(&api, key, desired, None, false).await,
                }
            }
            Step::Mend(desired, over) => {
                let (key, api) = self.place_of(&desired)?;
                self.apply(&api, key, desired, over, true).await
            }
            Step::Remove(key, uid) => {
                let api = key.0.api(&self.client, Some(&key.1.namespace));
                let preconditions = Some(Preconditions { uid, ..Preconditions::default() });
                let params = DeleteParams { preconditions, ..DeleteParams::background() };
                match api.delete(&key.1.name, &params).await {
                    Err(error) if !is(&error, 404) => Err(error).with_context(|| format!("removing {}", shown(&key))),
                    _ => Ok(Done::Removed(key)),
                }
            }
        }
    }

    /// Without `force` a field that another owns is an error: where nothing of ours was, somebody else was quicker. With a version in `over`
    /// so is any other.
    async fn apply(
        &self,
        api: &Api<DynamicObject>,
        key: ChildKey,
        mut desired: DynamicObject,
        over: Option<String>,
        force: bool,
    ) -> Result<Done> {
        let wanted = hash(&desired);
        let overtaken = over.is_some();
        desired.metadata.resource_version = over;
        let params = PatchParams { force, ..PatchParams::apply(MANAGER) };
        match api.patch(&desired.name_any(), &params, &Patch::Apply(&desired)).await {
            Ok(applied) => Ok(Done::Applied(key, wanted, Box::new(applied))),
            Err(error) if overtaken && is(&error, 409) => Ok(Done::Overtaken),
            Err(error) => Err(error).with_context(|| format!("applying {}", shown(&key))),
        }
    }

    fn place_of(&self, object: &DynamicObject) -> Result<(ChildKey, Api<DynamicObject>)> {
        let key = child_key(object).context("unexpected kind of object")?;
        let api = key.0.api(&self.client, Some(&key.1.namespace));
        Ok((key, api))
    }
}

/// What came of a step.
enum Done {
    Applied(ChildKey, u64, Box<DynamicObject>),
    Removed(ChildKey),
    /// Its owner took it back.
    LeftAlone,
    /// It is not any more what it was when this was planned.
    Overtaken,
    Foreign(String),
}

/// When to act on what changed now.
fn soon(rested: Instant) -> Instant {
    rested.max(Instant::now() + QUIET)
}

fn followed(api: Api<DynamicObject>, kind: ChildKind) -> BoxStream<'static, Change<DynamicObject>> {
    let (label, value) = MANAGED_BY;
    let config = match kind {
        // By name, so that the right to see them can be limited to it.
        ChildKind::ConfigMap => watcher::Config::default().fields(&format!("metadata.name={BUNDLE}")),
        _ => watcher::Config::default().labels(&format!("{label}={value}")),
    };
    follow(said(api, config), kind.name().to_owned(), Ok).boxed()
}

/// How far a pool's picker is; nothing where there is nothing to say yet.
fn state(pool: &ObjectKey, wanted: &Wanted, seen: &Seen, stage: Option<Stage>) -> Option<PickerState> {
    let (object, picker) = wanted.pickers.get(pool)?;
    let uid = object.uid();
    let hands_off = uid.iter().flat_map(|uid| seen.hands_off(uid)).map(shown).collect();
    let there = seen.deployment(ObjectKey::new(&*pool.namespace, &*picker.service), uid.as_deref());
    let Some(Progress { ready, wanted, phase }) = there.map(Progress::of) else {
        return stage.map(|stage| PickerState { ready: 0, wanted: 0, stage, hands_off });
    };
    let running = match phase {
        Phase::Stuck => Stage::Stuck,
        Phase::Complete => Stage::Complete,
        Phase::Unseen | Phase::Rolling | Phase::Scaling => Stage::Rolling,
    };
    Some(PickerState { ready, wanted, stage: stage.unwrap_or(running), hands_off })
}

/// What the API server said, in its own words: the rest of its answer repeats them.
fn explained(error: &anyhow::Error) -> String {
    let mut said = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            said.push(status.message.clone());
            break;
        }
        said.push(cause.to_string());
    }
    said.join(": ")
}

#[cfg(test)]
mod tests;
