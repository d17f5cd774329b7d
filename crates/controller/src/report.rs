//! What is to be said of each object, and whether it has been said.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{CONTROLLER_NAME, Condition, InferenceModelStatus, Modalities, ParentReference, ParentStatus};
use index::{Compiled, Index, ModelReport, ObjectKey, PoolReport, Verdict, merge};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use publish::{Publisher, Standing};
use tokio::time::Instant;

use crate::events;
use crate::managed::{PickerState, Stage};
use crate::status::{Key, Order, Outcome, Status};

/// Pickers acknowledge in milliseconds. Until one has owed an answer for this long, `Programmed` stays what it was rather than say
/// "pending": it would only be written to be written again, with every pod that comes or goes.
const ACK_PATIENCE: Duration = Duration::from_secs(2);

/// A picker that lost its controller calls again within five seconds. So long after one left, or after this replica began to lead, it is
/// not said that there is none.
const PICKER_PATIENCE: Duration = Duration::from_secs(7);

/// What was handed over to be written, by object.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    sent: BTreeMap<Key, Sent>,
}

/// A status on its way, or written and not seen yet.
#[derive(Debug)]
struct Sent {
    status: Status,
    /// The object's version when it was handed over: as long as no other is seen, what was written stands.
    over: Option<String>,
    written: bool,
}

/// What the statuses are made from.
pub(crate) struct Facts<'a> {
    pub(crate) index: &'a Index,
    pub(crate) compiled: &'a Compiled,
    pub(crate) publisher: &'a Publisher,
    pub(crate) pickers: &'a BTreeMap<ObjectKey, PickerState>,
    /// Since when this replica leads.
    pub(crate) leading_since: Instant,
    pub(crate) now: Instant,
    pub(crate) clock: Timestamp,
}

/// What is to be written.
pub(crate) struct Due {
    pub(crate) orders: Vec<(Key, Order)>,
    /// Patience with a picker ends without an event: when to look again.
    pub(crate) look_again: Option<Instant>,
}

// === impl Reports ===

impl Reports {
    /// Each status that differs from what stands, or will once everything on its way is written.
    pub(crate) fn due(&mut self, facts: &Facts<'_>) -> Due {
        let mut due = Due { orders: Vec::new(), look_again: None };
        self.sent.retain(|key, _| match key {
            Key::Pool(key) => facts.index.pool(key).is_some(),
            Key::Model(key) => facts.index.model(key).is_some(),
        });
        for (key, report) in &facts.compiled.pools {
            let Some(pool) = facts.index.pool(key) else { continue };
            let seen = pool.status.iter().flat_map(|status| &status.parents).find(|parent| parent.is_ours());
            let seen = seen.cloned().map(Status::Pool);
            self.compare(Key::Pool(key.clone()), pool, seen, &mut due, |before, due| {
                Status::Pool(facts.pool_status(key, report, before, due))
            });
        }
        for (key, report) in &facts.compiled.models {
            let Some(model) = facts.index.model(key) else { continue };
            let seen = model.status.clone().map(Status::Model);
            self.compare(Key::Model(key.clone()), model, seen, &mut due, |before, due| {
                Status::Model(facts.model_status(key, report, before, due))
            });
        }
        due
    }

    /// What came of a write.
    pub(crate) fn note(&mut self, outcome: &Outcome) {
        // Another may have taken its place meanwhile; that one's outcome is still to come.
        let Some(sent) = self.sent.get_mut(&outcome.key).filter(|sent| sent.status == outcome.status) else { return };
        sent.written = true;
        if !outcome.succeeded {
            self.sent.remove(&outcome.key);
        }
    }

    /// Nothing that was handed over will be written any more.
    pub(crate) fn forget(&mut self) {
        self.sent.clear();
    }

    fn compare(
        &mut self,
        key: Key,
        object: &impl Resource<DynamicType = ()>,
        seen: Option<Status>,
        due: &mut Due,
        status: impl FnOnce(&[Condition], &mut Due) -> Status,
    ) {
        let version = &object.meta().resource_version;
        let sent = self.sent.get(&key).filter(|sent| !sent.written || sent.over == *version);
        let stands = sent.map(|sent| sent.status.clone()).or(seen);
        let before = stands.as_ref().map_or(&[][..], Status::conditions);
        let status = status(before, due);
        if stands.as_ref().is_some_and(|stands| stands.says_the_same(&status)) {
            return;
        }
        let transitions = events::transitions(before, status.conditions());
        let sent = Sent { status: status.clone(), over: version.clone(), written: false };
        self.sent.insert(key.clone(), sent);
        due.orders.push((key, Order { status, of: object.object_ref(&()), transitions }));
    }
}

// === impl Facts ===

impl Facts<'_> {
    fn pool_status(&self, key: &ObjectKey, report: &PoolReport, before: &[Condition], due: &mut Due) -> ParentStatus {
        let standing = self.publisher.standing(&key.namespace, |pool| pool == key.name);
        let mut verdicts = report.verdicts.clone();
        verdicts.push(self.programmed(&standing, before, report.generation, due));
        if report.managed.is_some() {
            verdicts.push(picker_ready(self.pickers.get(key)));
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
            conditions: merge(&verdicts, report.generation, before, self.clock),
        }
    }

    fn model_status(
        &self,
        key: &ObjectKey,
        report: &ModelReport,
        before: &[Condition],
        due: &mut Due,
    ) -> InferenceModelStatus {
        let mut verdicts = report.verdicts.clone();
        verdicts.push(if report.accepted {
            let standing = self.publisher.standing(&key.namespace, |pool| report.pools.iter().any(|own| own == pool));
            self.programmed(&standing, before, report.generation, due)
        } else {
            Verdict::no("Programmed", "NotAccepted", "the object is not in use")
        });
        InferenceModelStatus {
            modalities: Some(report.on_offer.clone()),
            declared: Some(report.declared.clone()),
            lost: Some(report.lost.clone()).filter(|lost| *lost != Modalities::default()),
            summary: Some(report.summary.clone()),
            conditions: merge(&verdicts, report.generation, before, self.clock),
        }
    }

    /// `Programmed` as the pickers stand. While there is reason to wait for them it stays as it was, if it was said of this generation: of
    /// another no picker may have heard.
    fn programmed(&self, standing: &Standing, before: &[Condition], generation: Option<i64>, due: &mut Due) -> Verdict {
        let Standing { connected, current, refusals, owing_since, left_at } = standing;
        let verdict = Verdict::programmed(*connected, *current, refusals);
        if verdict.holds || !refusals.is_empty() {
            return verdict;
        }
        let patience = match connected {
            0 => left_at.map_or(self.leading_since, |left| left.max(self.leading_since)) + PICKER_PATIENCE,
            // Nobody owes what was not sent yet.
            _ => owing_since.unwrap_or(self.now) + ACK_PATIENCE,
        };
        if self.now >= patience {
            return verdict;
        }
        due.look_again = due.look_again.into_iter().chain([patience]).min();
        Verdict::as_it_was("Programmed", before, generation).unwrap_or_else(|| match connected {
            0 => Verdict::no("Programmed", "Pending", "waiting for a picker to connect"),
            _ => verdict,
        })
    }
}

/// How far the picker of a managed pool is, as a condition.
fn picker_ready(state: Option<&PickerState>) -> Verdict {
    let verdict = |holds, reason: &'static str, message: String| {
        if holds {
            Verdict::yes(index::PICKER_READY, reason, message)
        } else {
            Verdict::no(index::PICKER_READY, reason, message)
        }
    };
    let Some(PickerState { ready, wanted, stage }) = state else {
        return verdict(false, "Pending", "the picker is being made".into());
    };
    let serves = *ready > 0;
    let count = format!("{ready} of {wanted} pickers are ready");
    // What went wrong is shown first, and what serves all the same after it.
    let still = if serves { format!(" ({count}, as they were)") } else { String::new() };
    match stage {
        Stage::Complete => verdict(true, "Ready", count),
        Stage::Rolling => verdict(serves, "Progressing", format!("{count}; the others are on their way")),
        Stage::Stuck => verdict(
            serves,
            "Stuck",
            format!("{count}, and Kubernetes gave up waiting: see kubectl describe of the Deployment"),
        ),
        Stage::Queued { behind } => {
            verdict(serves, "UpgradeQueued", format!("{count}; will be upgraded after the picker of pool {behind}"))
        }
        Stage::Conflict(why) => verdict(false, "Conflict", format!("{why}{still}")),
        Stage::Failed(why) => verdict(false, "Failed", format!("{why}{still}")),
    }
}

#[cfg(test)]
mod tests;
