//! The event loop: one task that owns the index, compiles when it is quiet, publishes, and says what status to write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::InferencePool;
use index::{Compiled, Event, Index, Listed, ObjectKey, PoolReport, Stale};
use k8s_openapi::jiff::Timestamp;
use publish::Publisher;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::lease::Term;
use crate::managed::{PickerState, Wanted};
use crate::metrics::Metrics;
use crate::report::{Due, Inputs, Reports};
use crate::service_accounts::ServiceAccounts;
use crate::status::Writer;
use daemon::Deadline;

/// Compile when no event came for this long …
const QUIET: Duration = Duration::from_millis(20);

/// … or when the oldest event not compiled is this old, since a busy cluster is never quiet. In a namespace of ten thousand
/// pods one that changed compiles in 2 ms, and all of it in 14 (`cargo bench -p index`).
const PATIENCE: Duration = Duration::from_millis(50);

/// How long to wait for kinds of other projects once all of ours were listed. A definition of theirs that is broken must not keep us from
/// ever being ready.
const OTHERS_PATIENCE: Duration = Duration::from_secs(5);

/// Write status this long after a table or an ack: in a busy cluster the next comes before anybody has read this one.
const STATUS_DELAY: Duration = Duration::from_millis(200);

pub(crate) struct EventLoop {
    index: Index,
    events: mpsc::Receiver<Event>,
    publisher: Publisher,
    writer: Writer,
    metrics: Metrics,
    ready: watch::Sender<bool>,
    /// For people who ask at the admin port.
    compiled: watch::Sender<Option<Arc<Compiled>>>,
    reports: Reports,
    /// Since when kinds of other projects alone are waited for.
    waiting_since: Option<Instant>,
    terms: watch::Receiver<Term>,
    /// Whether the cluster has gateways that say which pools they are attached to, once that is known.
    gateways: watch::Receiver<Option<bool>>,
    /// Since when this replica leads; a standby compiles and writes nothing.
    leading_since: Option<Instant>,
    managed: Managed,
    /// Whether model servers were looked at once, so that the first tables say what they are; none where nobody looks, or that is done.
    first_look: Option<watch::Receiver<bool>>,
}

/// What the loop and the reconciler of managed pickers tell each other.
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
        gateways: watch::Receiver<Option<bool>>,
        managed: Managed,
        first_look: Option<watch::Receiver<bool>>,
    ) -> Self {
        Self {
            index,
            events,
            publisher,
            writer,
            metrics,
            ready,
            compiled,
            reports: Reports::default(),
            waiting_since: None,
            terms,
            gateways,
            leading_since: None,
            managed,
            first_look,
        }
    }

    /// Runs until the watches are gone.
    pub(crate) async fn run(mut self) {
        let mut standing = self.publisher.standing_changes();
        let mut changed: Option<Changed> = None;
        let mut status_due = Deadline::default();
        loop {
            let mut compile_due = Deadline::default();
            if let Some(due) = changed.as_ref().and_then(|changed| self.may_compile(changed)) {
                compile_due.at(due);
            }
            tokio::select! {
                event = self.events.recv() => {
                    let Some(event) = event else { return };
                    let has_status = matches!(event, Event::Pool(_) | Event::Model(_));
                    let stale = self.index.observe(event);
                    if stale != Stale::NOTHING {
                        changed = Some(Changed::again(changed, stale, Instant::now()));
                    } else if has_status {
                        // A status that somebody wrote changes no table; whether it says what is so is to be seen all the same.
                        status_due.within(STATUS_DELAY);
                    }
                }
                () = compile_due.reached() => {
                    self.compile(&changed.take().map_or(Stale::All, |changed| changed.stale));
                    status_due.within(STATUS_DELAY);
                }
                () = looked(&mut self.first_look) => {
                    self.first_look = None;
                    // Compiled once more, since the last of what was found may not be in it yet.
                    changed = Some(Changed::again(changed, Stale::All, Instant::now()));
                }
                _ = standing.changed() => status_due.within(STATUS_DELAY),
                _ = self.managed.states.changed() => status_due.within(STATUS_DELAY),
                Ok(()) = self.gateways.changed() => status_due.within(STATUS_DELAY),
                _ = self.terms.changed() => {
                    self.note_term();
                    status_due.within(STATUS_DELAY);
                }
                () = status_due.reached() => {
                    if let Some(again) = self.report() {
                        status_due.at(again);
                    }
                }
                result = self.writer.result() => {
                    // Compared once more either way: somebody may have written the same object meanwhile.
                    status_due.within(STATUS_DELAY);
                    self.reports.note(&result, Instant::now());
                }
            }
        }
    }

    /// When what changed may be compiled, as far as is known now.
    fn may_compile(&mut self, changed: &Changed) -> Option<Instant> {
        match self.index.listed() {
            Listed::TooLittle => None,
            Listed::AllButOthers => {
                let since = *self.waiting_since.get_or_insert_with(Instant::now);
                Some(changed.due().max(since + OTHERS_PATIENCE))
            }
            Listed::All => Some(changed.due()),
        }
    }

    fn note_term(&mut self) {
        let leads = self.terms.borrow_and_update().is_some();
        match self.leading_since {
            None if leads => self.leading_since = Some(Instant::now()),
            Some(_) if !leads => {
                self.leading_since = None;
                self.reports.forget();
            }
            _ => {}
        }
    }

    fn compile(&mut self, stale: &Stale) {
        let before = self.compiled.borrow().clone();
        if self.index.listed() != Listed::All && before.is_none() {
            tracing::error!(
                "the API server does not list InferenceObjectives or InferenceModelRewrites; the controller goes on without them until it does"
            );
        }
        // Pods change no picker that is wanted, and are most of what changes.
        let pickers_may_change = before.is_none() || *stale == Stale::All;
        let started = Instant::now();
        let compiled = before.map_or_else(|| self.index.compile(), |before| self.index.compile_again(&before, stale));
        self.metrics.compiled(stale, started.elapsed());
        let compiled = Arc::new(compiled);
        if self.first_look.is_none() {
            self.publish(&compiled, pickers_may_change);
        }
        self.compiled.send_replace(Some(compiled));
    }

    fn publish(&self, compiled: &Compiled, pickers_may_change: bool) {
        self.publisher.publish(compiled.tables.clone());
        if pickers_may_change {
            self.want_pickers(compiled);
        }
        self.ready.send_replace(true);
    }

    fn want_pickers(&self, compiled: &Compiled) {
        let account = |(key, report): (&ObjectKey, &Arc<PoolReport>)| {
            Some(((key.namespace.clone(), report.bound_account.clone()?), key.name.clone()))
        };
        self.managed.accounts.bind(compiled.pools.iter().filter_map(account).collect());
        let managed = compiled.pools.iter().filter_map(|(key, report)| Some((key, report.managed.as_ref()?)));
        // What belongs to a pool that is being deleted goes, and must not come back.
        let stays = |pool: &&InferencePool| pool.metadata.deletion_timestamp.is_none();
        let made = managed.filter_map(|(key, picker)| {
            let pool = self.index.pool(key).filter(stays)?;
            Some((key.clone(), (without_status(pool), picker.clone())))
        });
        let wanted = Wanted {
            pickers: made.collect(),
            namespaces: compiled.pools.keys().map(|key| key.namespace.clone()).collect(),
        };
        self.managed.wanted.send_if_modified(|known| {
            let changed = **known != wanted;
            if changed {
                *known = Arc::new(wanted);
            }
            changed
        });
    }

    /// Hands the writer what is to be written. Says when to look again, since patience ends without an event.
    fn report(&mut self) -> Option<Instant> {
        if self.first_look.is_some() {
            return None;
        }
        let compiled = self.compiled.borrow().clone()?;
        let inputs = Inputs {
            index: &self.index,
            compiled: &compiled,
            publisher: &self.publisher,
            pickers: &self.managed.states.borrow(),
            has_gateways: (*self.gateways.borrow())?,
            leading_since: self.leading_since?,
            now: Instant::now(),
            clock: Timestamp::now(),
        };
        let Due { updates, look_again } = self.reports.due(&inputs);
        for (key, update) in updates {
            self.writer.write(key, update);
        }
        look_again
    }
}

/// Until model servers were looked at; for ever where nobody does that any more.
async fn looked(first_look: &mut Option<watch::Receiver<bool>>) {
    match first_look {
        // One that is gone will not look.
        Some(looked) => _ = looked.wait_for(|looked| *looked).await,
        None => std::future::pending().await,
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
    stale: Stale,
}

impl Changed {
    fn again(before: Option<Self>, stale: Stale, now: Instant) -> Self {
        match before {
            Some(mut before) => {
                before.stale.merge(stale);
                Self { last: now, ..before }
            }
            None => Self { first: now, last: now, stale },
        }
    }

    fn due(&self) -> Instant {
        (self.last + QUIET).min(self.first + PATIENCE)
    }
}

#[cfg(test)]
mod tests;
