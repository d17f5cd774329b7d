//! Status on its way to the API server: one task writes, several objects at once, and of each always the newest that was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::{Condition, InferenceModel, InferenceModelStatus, InferencePool, ParentStatus};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use index::ObjectKey;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::events::{EventRecorder, Transition};
use crate::lease::Term;
use crate::metrics::Metrics;

/// Whose status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Pool(ObjectKey),
    Model(ObjectKey),
}

/// What to write: of a pool our own entry, or that there is none; of a model all.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Status {
    Pool(Option<ParentStatus>),
    Model(InferenceModelStatus),
}

/// A status to write, and what is told of it once it stands.
#[derive(Debug, Clone)]
pub(crate) struct StatusUpdate {
    pub(crate) status: Status,
    pub(crate) of: ObjectReference,
    pub(crate) transitions: Vec<Transition>,
}

/// What came of a write.
#[derive(Debug)]
pub(crate) struct WriteResult {
    pub(crate) key: Key,
    pub(crate) status: Status,
    pub(crate) succeeded: bool,
}

/// Writes what it is given, while this replica leads. A status that is given before the one before it was written replaces it.
#[derive(Debug)]
pub(crate) struct Writer {
    wanted: Arc<Mutex<BTreeMap<Key, StatusUpdate>>>,
    more: Arc<Notify>,
    results: mpsc::UnboundedReceiver<WriteResult>,
}

/// What a status is written with.
struct StatusWriter {
    client: Client,
    metrics: Metrics,
    terms: watch::Receiver<Term>,
    event_recorder: EventRecorder,
}

/// How long the API server may take for one status: in the end others wait behind it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many are written at once. After a first start there is one for each object; an API server that is some milliseconds away is waited
/// for by several together, and one that is busy is not flooded.
const AT_ONCE: usize = 8;

/// How often a conflict with another writer is tried again.
const CONFLICTS: usize = 5;

/// Whose fields these are, in managedFields.
pub(crate) const MANAGER: &str = "thalamus-controller";

impl Status {
    pub(crate) fn conditions(&self) -> &[Condition] {
        match self {
            Self::Pool(parent) => parent.as_ref().map_or(&[], |parent| &parent.conditions),
            Self::Model(model) => &model.conditions,
        }
    }

    /// Equal but for times.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let strip = |status: &Self| {
            let mut status = status.clone();
            let conditions = match &mut status {
                Self::Pool(parent) => parent.as_mut().map(|parent| &mut parent.conditions),
                Self::Model(model) => Some(&mut model.conditions),
            };
            for condition in conditions.into_iter().flatten() {
                condition.last_transition_time.0 = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
            }
            status
        };
        strip(self) == strip(other)
    }
}

impl Writer {
    pub(crate) fn start(
        client: Client,
        metrics: Metrics,
        terms: watch::Receiver<Term>,
        event_recorder: EventRecorder,
    ) -> Self {
        let wanted: Arc<Mutex<BTreeMap<Key, StatusUpdate>>> = Arc::default();
        let more = Arc::new(Notify::new());
        let (sender, results) = mpsc::unbounded_channel();
        let (wanted_there, more_there) = (Arc::clone(&wanted), Arc::clone(&more));
        let status_writer = StatusWriter { client, metrics, terms, event_recorder };
        tokio::spawn(async move {
            let (mut last, mut busy) = (None, BTreeSet::new());
            let mut under_way = FuturesUnordered::new();
            let mut at_once = AT_ONCE;
            loop {
                while busy.len() < at_once {
                    let mut wanted = wanted_there.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some((key, update)) = after(&mut wanted, last.as_ref(), &busy) else { break };
                    last = Some(key.clone());
                    busy.insert(key.clone());
                    under_way.push(status_writer.write(key, update));
                }
                tokio::select! {
                    Some(result) = under_way.next() => {
                        busy.remove(&result.key);
                        // What is refused is refused at once: to try several would only be to fail faster.
                        at_once = if result.succeeded { AT_ONCE } else { 1 };
                        if sender.send(result).is_err() {
                            return;
                        }
                    }
                    () = more_there.notified() => {}
                }
            }
        });
        Self { wanted, more, results }
    }

    pub(crate) fn write(&self, key: Key, mut update: StatusUpdate) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        // Another object may have had its name.
        if let Some(replaced) = wanted.remove(&key).filter(|replaced| replaced.of.uid == update.of.uid) {
            // What was to be told with it is told with this, but for what is different again.
            let told_otherwise = |one: &Transition| update.transitions.iter().any(|other| other.type_ == one.type_);
            let mut transitions: Vec<_> = replaced.transitions.into_iter().filter(|one| !told_otherwise(one)).collect();
            transitions.append(&mut update.transitions);
            update.transitions = transitions;
        }
        wanted.insert(key, update);
        self.more.notify_one();
    }

    /// The next thing that came of a write. Panics when the task that writes is gone: the event loop must not outlive it.
    #[expect(clippy::panic, reason = "a controller that cannot write would look alive and say nothing true")]
    pub(crate) async fn result(&mut self) -> WriteResult {
        match self.results.recv().await {
            Some(result) => result,
            None => panic!("the task that writes status ended, and with it every status"),
        }
    }
}

impl StatusWriter {
    async fn write(&self, key: Key, update: StatusUpdate) -> WriteResult {
        let StatusUpdate { status, of, transitions } = update;
        let written = within(&self.terms, async {
            let written = tokio::time::timeout(PATIENCE, write(&self.client, &key, &status, of.uid.as_deref())).await;
            written.context("the API server does not answer")?
        })
        .await;
        self.metrics.status_written(written.is_ok());
        match &written {
            // Nobody's term: an event that comes late does no harm.
            Ok(()) => self.event_recorder.tell(of, transitions),
            Err(error) => {
                tracing::warn!(object = ?key, error = format!("{error:#}"), "cannot write status; will try again");
            }
        }
        WriteResult { key, status, succeeded: written.is_ok() }
    }
}

/// The order that comes after the last one, and begins again behind the end: no object that is written often, or slowly, keeps others from
/// their turn. One of an object that is being written waits for that.
fn after<T>(wanted: &mut BTreeMap<Key, T>, last: Option<&Key>, busy: &BTreeSet<Key>) -> Option<(Key, T)> {
    let behind = wanted.range((last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
    let key = behind.chain(wanted.iter()).map(|(key, _)| key).find(|key| !busy.contains(*key)).cloned()?;
    wanted.remove_entry(&key)
}

/// Runs a write for as long as this replica leads, and not a moment longer.
pub(crate) async fn within<T>(terms: &watch::Receiver<Term>, write: impl Future<Output = Result<T>>) -> Result<T> {
    let mut terms = terms.clone();
    let term = *terms.borrow_and_update();
    let until = term.filter(|until| *until > Instant::now()).context("this replica does not lead")?;
    tokio::select! {
        written = tokio::time::timeout_at(until, write) => written.context("the term ended before the API server answered")?,
        _ = terms.wait_for(Option::is_none) => bail!("this replica stopped leading before the API server answered"),
    }
}

/// Writes to the object with this uid: one that took its name meanwhile is not spoken of.
async fn write(client: &Client, key: &Key, status: &Status, uid: Option<&str>) -> Result<()> {
    match (key, status) {
        (Key::Pool(key), Status::Pool(parent)) => write_pool(client, key, parent.as_ref(), uid).await,
        (Key::Model(key), Status::Model(status)) => write_model(client, key, status, uid).await,
        _ => Ok(()),
    }
}

/// A model's status is all ours.
async fn write_model(client: &Client, key: &ObjectKey, status: &InferenceModelStatus, uid: Option<&str>) -> Result<()> {
    let models: Api<InferenceModel> = Api::namespaced(client.clone(), &key.namespace);
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "add", "path": "/status", "value": status},
    ]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
    match models
        .patch_status(&key.name, &PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() }, &patch)
        .await
    {
        Err(error) if is(&error, 404) => Ok(()),
        other => other.map(drop).context("patching the status"),
    }
}

/// Of a pool's parents one entry is ours. The list is atomic, so it is read, changed and written as a whole, as JSON: what others wrote
/// there passes through untouched, known to us or not.
async fn write_pool(client: &Client, key: &ObjectKey, ours: Option<&ParentStatus>, uid: Option<&str>) -> Result<()> {
    let pools: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &key.namespace, &ApiResource::erase::<InferencePool>(&()));
    for _ in 0..CONFLICTS {
        let Some(mut pool) = pools.get_opt(&key.name).await.context("reading the pool")? else { return Ok(()) };
        if pool.metadata.uid.as_deref() != uid || !replace_ours(&mut pool.data, ours) {
            return Ok(());
        }
        match pools
            .replace_status(
                &key.name,
                &PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() },
                &pool,
            )
            .await
        {
            Ok(_) => return Ok(()),
            Err(error) if is(&error, 409) => {}
            Err(error) if is(&error, 404) => return Ok(()),
            Err(error) => return Err(error).context("replacing the status"),
        }
    }
    bail!("the pool's status changed {CONFLICTS} times while it was being written")
}

/// Puts our entry in its place among the parents, or takes it away; says whether that changed anything.
fn replace_ours(pool: &mut Value, ours: Option<&ParentStatus>) -> bool {
    let ours = ours.map(|ours| json!(ours));
    if !pool["status"].is_object() {
        pool["status"] = json!({});
    }
    let parents = match pool["status"]["parents"].as_array() {
        Some(parents) => parents.clone(),
        None => Vec::new(),
    };
    let is_ours = |parent: &Value| parent["controllerName"] == api::CONTROLLER_NAME;
    if parents.iter().filter(|parent| is_ours(parent)).eq(&ours) {
        return false;
    }
    let mut replaced: Vec<Value> = parents.into_iter().filter(|parent| !is_ours(parent)).collect();
    replaced.extend(ours);
    pool["status"]["parents"] = Value::Array(replaced);
    true
}

pub(crate) fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests;
