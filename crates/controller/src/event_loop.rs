//! The event loop: one task that owns the index, compiles when it is quiet, publishes, and says what status to write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{CONTROLLER_NAME, Condition, InferenceModelStatus, InferencePool, Modalities, ParentReference, ParentStatus};
use index::{Compiled, Event, Index, ManagedPicker, ModelReport, ObjectKey, PoolReport, Verdict, merge};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;
use publish::{Publisher, Standing};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::authority::ServiceAccounts;
use crate::events;
use crate::lease::Term;
use crate::managed::{PickerState, Wanted};
use crate::metrics::Metrics;
use crate::status::{Key, Order, Status, Writer};

/// Compile when no event came for this long …
const QUIET: Duration = Duration::from_millis(20);

/// … or when the oldest event not compiled is this old, since a busy cluster is never quiet. A thousand pools with ten thousand pods
/// compile in 15 ms (`cargo bench -p index`).
const PATIENCE: Duration = Duration::from_millis(100);

/// Write status this long after a table or an ack: in a busy cluster the next comes before anybody has read this one.
const STATUS_DELAY: Duration = Duration::from_millis(200);

/// Pickers acknowledge in milliseconds. For this long after a table, `Programmed` stays what it was rather than say "pending": it would
/// only be written to be written again, with every pod that comes or goes.
const ACK_PATIENCE: Duration = Duration::from_secs(2);

/// A picker that lost its controller calls again within five seconds. A controller that has just begun to lead gives them that long
/// before it says that there are none.
const PICKER_PATIENCE: Duration = Duration::from_secs(7);

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
    /// Being written.
    underway: BTreeMap<Key, Status>,
    /// When the newest table was published.
    published: Instant,
    terms: watch::Receiver<Term>,
    /// Since when this replica leads; a standby compiles and writes nothing.
    leading_since: Option<Instant>,
    managed: Managed,
}

/// What the loop and the keeper of managed pickers tell each other.
pub(crate) struct Managed {
    pub(crate) wanted: watch::Sender<Arc<Wanted>>,
    pub(crate) states: watch::Receiver<BTreeMap<ObjectKey, PickerState>>,
    /// Whose tokens are good for one pool alone.
    pub(crate) accounts: ServiceAccounts,
}

impl EventLoop {
    #[expect(clippy::too_many_arguments, reason = "each is a different end of a channel, wired in one place")]
    pub(crate) fn new(
        index: Index,
        events: mpsc::Receiver<Event>,
        publisher: Publisher,
        writer: Writer,
        metrics: Metrics,
        ready: watch::Sender<bool>,
        compiled: watch::Sender<Option<Arc<Compiled>>>,
        terms: watch::Receiver<Term>,
        managed: Managed,
    ) -> Self {
        Self {
            index,
            events,
            publisher,
            writer,
            metrics,
            ready,
            compiled,
            underway: BTreeMap::new(),
            published: Instant::now(),
            terms,
            leading_since: None,
            managed,
        }
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
                _ = self.managed.states.changed() => {
                    status_due = status_due.or_else(|| Some(Instant::now() + STATUS_DELAY));
                }
                _ = self.terms.changed() => {
                    self.note_term();
                    status_due = self.leading_since.map(|_| Instant::now() + STATUS_DELAY);
                }
                () = at(status_due) => {
                    let complete = self.write_status();
                    status_due = (!complete).then(|| Instant::now() + ACK_PATIENCE / 4);
                }
                outcome = self.writer.outcome() => {
                    // Compared once more either way: somebody may have written the same object meanwhile.
                    let wait = if outcome.succeeded { STATUS_DELAY } else { STATUS_RETRY };
                    self.underway.remove(&outcome.key);
                    status_due = status_due.or_else(|| Some(Instant::now() + wait));
                }
            }
        }
    }

    fn note_term(&mut self) {
        let leads = self.terms.borrow_and_update().is_some();
        match self.leading_since {
            None if leads => self.leading_since = Some(Instant::now()),
            Some(_) if !leads => {
                self.leading_since = None;
                self.underway.clear();
            }
            _ => {}
        }
    }

    fn compile(&mut self) {
        let started = Instant::now();
        let compiled = self.index.compile();
        self.metrics.compiled(started.elapsed());
        self.publisher.publish(compiled.tables.clone());
        self.want_pickers(&compiled);
        self.published = Instant::now();
        self.compiled.send_replace(Some(Arc::new(compiled)));
        self.ready.send_replace(true);
    }

    fn want_pickers(&self, compiled: &Compiled) {
        let managed = compiled.pools.iter().filter_map(|(key, report)| {
            let (pool, picker) = (self.index.pool(key)?, report.managed.as_ref()?);
            Some((key.clone(), (without_status(pool), picker.clone())))
        });
        let wanted = Wanted {
            pickers: managed.collect(),
            namespaces: compiled.pools.keys().map(|key| key.namespace.clone()).collect(),
        };
        let account = |(key, (_, picker)): (&ObjectKey, &(_, ManagedPicker))| {
            ((key.namespace.clone(), picker.service.clone()), key.name.clone())
        };
        self.managed.accounts.bind(wanted.pickers.iter().map(account).collect());
        self.managed.wanted.send_if_modified(|known| {
            let changed = **known != wanted;
            if changed {
                *known = Arc::new(wanted);
            }
            changed
        });
    }

    /// Hands the writer each status that differs from the one last seen. Says whether all of them are final; else it is to be called
    /// again, since patience ends without an event.
    fn write_status(&mut self) -> bool {
        let Some(compiled) = self.compiled.borrow().clone().filter(|_| self.leading_since.is_some()) else {
            return true;
        };
        let mut complete = true;
        for (key, report) in &compiled.pools {
            let Some(pool) = self.index.pool(key) else { continue };
            let seen = pool.status.iter().flat_map(|status| &status.parents).find(|parent| parent.is_ours());
            let status = self.pool_status(key, report, seen, &mut complete);
            let (seen, of) = (seen.cloned().map(Status::Pool), pool.object_ref(&()));
            self.hand_over(Key::Pool(key.clone()), Status::Pool(status), seen.as_ref(), of);
        }
        for (key, report) in &compiled.models {
            let Some(model) = self.index.model(key) else { continue };
            let seen = model.status.as_ref();
            let status = self.model_status(key, report, seen, &mut complete);
            let (seen, of) = (seen.cloned().map(Status::Model), model.object_ref(&()));
            self.hand_over(Key::Model(key.clone()), Status::Model(status), seen.as_ref(), of);
        }
        complete
    }

    /// `Programmed` as the pickers stand, or, while there is reason to wait for them, as it was.
    fn programmed(&self, standing: &Standing, before: &[Condition], complete: &mut bool) -> Option<Verdict> {
        let Standing { connected, current, refusals } = standing;
        let verdict = Verdict::programmed(*connected, *current, refusals);
        let patience = match (verdict.holds || !refusals.is_empty(), connected) {
            (true, _) => return Some(verdict),
            (false, 0) => self.leading_since.unwrap_or(self.published) + PICKER_PATIENCE,
            (false, _) => self.published + ACK_PATIENCE,
        };
        if Instant::now() >= patience {
            return Some(verdict);
        }
        *complete = false;
        let known = before.iter().find(|condition| condition.type_ == "Programmed")?;
        let reason = [Verdict::programmed(1, 1, &[]).reason, "NoPicker", "Refused", "Pending"]
            .into_iter()
            .find(|reason| *reason == known.reason)?;
        Some(Verdict { type_: "Programmed", holds: known.status == "True", reason, message: known.message.clone() })
    }

    fn pool_status(
        &self,
        key: &ObjectKey,
        report: &PoolReport,
        seen: Option<&ParentStatus>,
        complete: &mut bool,
    ) -> ParentStatus {
        let before = seen.map_or(&[][..], |seen| &seen.conditions);
        let standing = self.publisher.standing(&key.namespace, |pool| pool == key.name);
        let mut verdicts = report.verdicts.clone();
        verdicts.extend(self.programmed(&standing, before, complete));
        if report.managed.is_some() {
            verdicts.push(picker_ready(self.managed.states.borrow().get(key)));
        }
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
            conditions: merge(&verdicts, report.generation, before, Timestamp::now()),
        }
    }

    fn model_status(
        &self,
        key: &ObjectKey,
        report: &ModelReport,
        seen: Option<&InferenceModelStatus>,
        complete: &mut bool,
    ) -> InferenceModelStatus {
        let before = seen.map_or(&[][..], |seen| &seen.conditions);
        let mut verdicts = report.verdicts.clone();
        if report.accepted {
            let standing = self.publisher.standing(&key.namespace, |pool| report.pools.iter().any(|own| own == pool));
            verdicts.extend(self.programmed(&standing, before, complete));
        } else {
            let message = "the object is not in use".to_owned();
            verdicts.push(Verdict { type_: "Programmed", holds: false, reason: "NotAccepted", message });
        }
        InferenceModelStatus {
            modalities: Some(report.on_offer.clone()),
            declared: Some(report.declared.clone()),
            lost: Some(report.lost.clone()).filter(|lost| *lost != Modalities::default()),
            summary: Some(report.summary.clone()),
            conditions: merge(&verdicts, report.generation, before, Timestamp::now()),
        }
    }

    fn hand_over(&mut self, key: Key, status: Status, seen: Option<&Status>, of: ObjectReference) {
        let same = |other: &Status| other.says_the_same(&status);
        if seen.is_some_and(same) || self.underway.get(&key).is_some_and(same) {
            return;
        }
        self.underway.insert(key.clone(), status.clone());
        let before = seen.map_or(&[][..], Status::conditions);
        let transitions = events::transitions(before, status.conditions());
        self.writer.write(key, Order { status, of, transitions });
    }
}

/// How far the picker of a managed pool is, as a condition.
fn picker_ready(state: Option<&PickerState>) -> Verdict {
    let verdict = |holds, reason, message: String| Verdict { type_: index::PICKER_READY, holds, reason, message };
    match state {
        None => verdict(false, "Pending", "the picker is being made".into()),
        Some(PickerState::Running { ready, wanted, complete: true }) => {
            verdict(true, "Ready", format!("{ready} of {wanted} pickers are ready"))
        }
        Some(PickerState::Running { ready, wanted, .. }) => verdict(
            *ready > 0,
            "Progressing",
            format!("{ready} of {wanted} pickers are ready; the others are on their way"),
        ),
        Some(PickerState::Stuck { ready, wanted }) => verdict(
            *ready > 0,
            "Stuck",
            format!(
                "{ready} of {wanted} pickers are ready, and Kubernetes gave up waiting: see kubectl describe of the Deployment"
            ),
        ),
        Some(PickerState::Queued { behind }) => {
            verdict(true, "UpgradeQueued", format!("will be upgraded after the picker of pool {behind}"))
        }
        Some(PickerState::Conflict(why)) => verdict(false, "Conflict", why.clone()),
        Some(PickerState::Failed(why)) => verdict(false, "Failed", why.clone()),
    }
}

/// What a picker is made from: a pool without what is written often.
fn without_status(pool: &InferencePool) -> InferencePool {
    let mut pool = InferencePool { status: None, ..pool.clone() };
    let metadata = &mut pool.metadata;
    (metadata.managed_fields, metadata.resource_version, metadata.generation) = (None, None, None);
    pool
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
pub(crate) async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
