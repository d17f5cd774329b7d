//! The event loop: one task that owns the index, compiles when it is quiet, publishes, and says what status to write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{CONTROLLER_NAME, InferenceModelStatus, ParentReference, ParentStatus};
use index::{Compiled, Event, Index, ModelReport, ObjectKey, Pickers, PoolReport, Verdict, merge};
use k8s_openapi::jiff::Timestamp;
use publish::{Publisher, Standing};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::status::{Key, Outcome, Status, Writer};

/// Compile when no event came for this long …
const QUIET: Duration = Duration::from_millis(50);

/// … or when the oldest event not compiled is this old, since a busy cluster is never quiet.
const PATIENCE: Duration = Duration::from_millis(500);

/// Write status this long after a table or an ack: pickers acknowledge in milliseconds, and a status that says "pending" in between
/// would only be written to be written again.
const STATUS_DELAY: Duration = Duration::from_millis(100);

/// Try a status again that could not be written.
const STATUS_RETRY: Duration = Duration::from_secs(2);

pub(crate) struct EventLoop {
    index: Index,
    events: mpsc::Receiver<Event>,
    publisher: Publisher,
    writer: Writer,
    metrics: Metrics,
    ready: watch::Sender<bool>,
    /// For people who ask at the admin port.
    compiled: watch::Sender<Option<Arc<Compiled>>>,
    /// Written, or being written, and not seen yet.
    underway: BTreeMap<Key, Status>,
}

impl EventLoop {
    pub(crate) fn new(
        events: mpsc::Receiver<Event>,
        publisher: Publisher,
        writer: Writer,
        metrics: Metrics,
        ready: watch::Sender<bool>,
        compiled: watch::Sender<Option<Arc<Compiled>>>,
    ) -> Self {
        Self { index: Index::default(), events, publisher, writer, metrics, ready, compiled, underway: BTreeMap::new() }
    }

    /// Runs until the watches are gone.
    pub(crate) async fn run(mut self) {
        let mut standing = self.publisher.standing_changes();
        let mut changed: Option<Changed> = None;
        let mut status_due: Option<Instant> = None;
        loop {
            let compile_due = changed.as_ref().map(Changed::due);
            tokio::select! {
                event = self.events.recv() => {
                    let Some(event) = event else { return };
                    self.index.observe(event);
                    changed = Some(Changed::again(changed, Instant::now()));
                }
                () = at(compile_due), if self.index.is_synced() => {
                    changed = None;
                    self.compile();
                    status_due = status_due.or_else(|| Some(Instant::now() + STATUS_DELAY));
                }
                _ = standing.changed() => status_due = status_due.or_else(|| Some(Instant::now() + STATUS_DELAY)),
                () = at(status_due) => {
                    status_due = None;
                    self.write_status();
                }
                outcome = self.writer.outcome() => {
                    if let Outcome::Failed(key) = outcome {
                        self.underway.remove(&key);
                        status_due = status_due.or_else(|| Some(Instant::now() + STATUS_RETRY));
                    }
                }
            }
        }
    }

    fn compile(&mut self) {
        let started = Instant::now();
        let compiled = self.index.compile();
        self.metrics.compiled(started.elapsed());
        self.publisher.publish(compiled.tables.clone());
        self.compiled.send_replace(Some(Arc::new(compiled)));
        self.ready.send_replace(true);
    }

    /// Hands the writer each status that differs from the one last seen.
    fn write_status(&mut self) {
        let Some(compiled) = self.compiled.borrow().clone() else { return };
        self.underway.retain(|key, _| match key {
            Key::Pool(key) => self.index.pool(key).is_some(),
            Key::Model(key) => self.index.model(key).is_some(),
        });
        for (key, report) in &compiled.pools {
            let Some(pool) = self.index.pool(key) else { continue };
            let seen = pool.status.iter().flat_map(|status| &status.parents).find(|parent| parent.is_ours());
            let status = Status::Pool(self.pool_status(key, report, seen));
            self.hand_over(Key::Pool(key.clone()), status, seen.cloned().map(Status::Pool));
        }
        for (key, report) in &compiled.models {
            let Some(model) = self.index.model(key) else { continue };
            let seen = model.status.as_ref();
            let status = Status::Model(self.model_status(key, report, seen));
            self.hand_over(Key::Model(key.clone()), status, seen.cloned().map(Status::Model));
        }
    }

    fn pool_status(&self, key: &ObjectKey, report: &PoolReport, seen: Option<&ParentStatus>) -> ParentStatus {
        let standing = self.publisher.standing(&key.namespace, |pool| pool == key.name);
        let mut verdicts = report.verdicts.clone();
        verdicts.insert(2, programmed(standing));
        let parent = |group: &str, kind: &str, name: &str| ParentReference {
            group: group.into(),
            kind: kind.into(),
            name: name.into(),
            namespace: Some(key.namespace.clone()),
        };
        ParentStatus {
            parent_ref: match &report.picker_service {
                Some(service) => parent("", "Service", service),
                // Without a picker there is no parent but the pool itself.
                None => parent("inference.networking.k8s.io", "InferencePool", &key.name),
            },
            controller_name: Some(CONTROLLER_NAME.into()),
            conditions: merge(
                &verdicts,
                report.generation,
                seen.map_or(&[], |seen| &seen.conditions),
                Timestamp::now(),
            ),
        }
    }

    fn model_status(
        &self,
        key: &ObjectKey,
        report: &ModelReport,
        seen: Option<&InferenceModelStatus>,
    ) -> InferenceModelStatus {
        let pools: Vec<&str> = report.summary.pools.split(',').collect();
        let mut verdicts = report.verdicts.clone();
        verdicts.push(if report.accepted {
            programmed(self.publisher.standing(&key.namespace, |pool| pools.contains(&pool)))
        } else {
            Verdict {
                type_: "Programmed",
                holds: false,
                reason: "NotAccepted",
                message: "the object is not in use".into(),
            }
        });
        InferenceModelStatus {
            modalities: Some(report.on_offer.clone()),
            summary: Some(report.summary.clone()),
            conditions: merge(
                &verdicts,
                report.generation,
                seen.map_or(&[], |seen| &seen.conditions),
                Timestamp::now(),
            ),
        }
    }

    fn hand_over(&mut self, key: Key, status: Status, seen: Option<Status>) {
        if seen.is_some_and(|seen| seen == status) {
            self.underway.remove(&key);
            return;
        }
        if self.underway.get(&key).is_some_and(|underway| underway.says_the_same(&status)) {
            return;
        }
        self.underway.insert(key.clone(), status.clone());
        self.writer.write(key, status);
    }
}

fn programmed(standing: Standing) -> Verdict {
    let Standing { connected, current, refusals } = standing;
    Pickers { connected, current, refusals }.programmed()
}

/// Events that are not compiled yet.
struct Changed {
    first: Instant,
    last: Instant,
}

impl Changed {
    fn again(before: Option<Self>, now: Instant) -> Self {
        Self { first: before.map_or(now, |before| before.first), last: now }
    }

    fn due(&self) -> Instant {
        (self.last + QUIET).min(self.first + PATIENCE)
    }
}

/// Resolves at an instant, or never.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
