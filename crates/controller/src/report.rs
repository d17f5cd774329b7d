//! What is to be said of each object, and whether it has been said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{
    CONTROLLER_NAME, Condition, InferenceModelStatus, InferencePool, Modalities, ParentReference, ParentStatus,
    annotations,
};
use index::{Compiled, Index, ModelReport, ObjectKey, PoolReport, Verdict, merge};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use publish::{Publisher, Standing};
use tokio::time::Instant;

use crate::events;
use crate::managed::{PickerState, Stage};
use crate::status::{Key, Status, StatusUpdate, WriteResult};

/// Try a status again that could not be written.
const RETRY: Duration = Duration::from_secs(2);

/// Pickers acknowledge in milliseconds. Until one has owed an answer for this long, `Programmed` stays what it was rather than say
/// "pending": it would only be written to be written again, with every pod that comes or goes.
const ACK_PATIENCE: Duration = Duration::from_secs(2);

/// A picker that lost its controller calls again within five seconds. So long after one left, or after this replica began to lead, it is
/// not said that there is none.
const PICKER_PATIENCE: Duration = Duration::from_secs(7);

/// Why an object is not programmed that is not in use.
const NOT_ACCEPTED: &str = "NotAccepted";

/// What was handed over to be written, by object.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    sent: BTreeMap<Key, Sent>,
    /// Until when one that could not be written is not tried again.
    failed: BTreeMap<Key, Instant>,
    /// What the statuses that stand were made from. In a cluster of thousands all but a few are made from the same as a moment ago, and to
    /// make them only to find that would be most of what a controller does.
    made_from: BTreeMap<Key, MadeFrom>,
    /// What was last said of each object, or would have been of a pool that has no entry of ours: what becomes of it is told by events all the
    /// same, and times go on when an entry that was taken away comes back.
    said: BTreeMap<Key, (Option<String>, Vec<Condition>)>,
    compiled: Arc<Compiled>,
}

/// What a status was made from, beside its report.
#[derive(Debug, PartialEq, Eq)]
struct MadeFrom {
    programmed: Option<Verdict>,
    picker: Option<PickerState>,
    attached: bool,
    version: Option<String>,
}

/// What is known of an object beside its report.
struct Heard<'a> {
    /// What pickers say of it.
    programmed: Programmed,
    /// What the reconciler says of its picker.
    picker: Option<&'a PickerState>,
    /// Whether it is for us to say anything.
    attached: bool,
}

/// Whether pickers decide by what is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Programmed {
    Says(Verdict),
    /// As it was, if that was said of this generation: of another no picker may have heard. Else this.
    Waits(Verdict),
}

/// A status on its way, or written and not seen yet.
#[derive(Debug)]
struct Sent {
    status: Status,
    /// Whose it is: another object of that name has none.
    uid: Option<String>,
    /// The object's version when it was handed over: as long as no other is seen, what was written stands.
    over: Option<String>,
    written: bool,
}

/// What the statuses are made from.
pub(crate) struct Inputs<'a> {
    pub(crate) index: &'a Index,
    pub(crate) compiled: &'a Arc<Compiled>,
    pub(crate) publisher: &'a Publisher,
    pub(crate) pickers: &'a BTreeMap<ObjectKey, PickerState>,
    /// Whether gateways say in the status of pools that they are attached to them.
    pub(crate) has_gateways: bool,
    /// Since when this replica leads.
    pub(crate) leading_since: Instant,
    pub(crate) now: Instant,
    pub(crate) clock: Timestamp,
}

/// What is to be written.
pub(crate) struct Due {
    pub(crate) updates: Vec<(Key, StatusUpdate)>,
    /// Patience with a picker ends without an event: when to look again.
    pub(crate) look_again: Option<Instant>,
}

// === impl Reports ===

impl Reports {
    /// Each status that differs from what stands, or will once everything on its way is written.
    pub(crate) fn due(&mut self, inputs: &Inputs<'_>) -> Due {
        let mut due = Due { updates: Vec::new(), look_again: None };
        let metadata = |key: &Key| match key {
            Key::Pool(key) => inputs.index.pool(key).map(Resource::meta),
            Key::Model(key) => inputs.index.model(key).map(Resource::meta),
        };
        self.sent.retain(|key, sent| metadata(key).is_some_and(|metadata| metadata.uid == sent.uid));
        self.made_from.retain(|key, _| metadata(key).is_some());
        self.said.retain(|key, (uid, _)| metadata(key).is_some_and(|metadata| metadata.uid == *uid));
        self.failed.retain(|key, until| *until > inputs.now && metadata(key).is_some());
        // One that took another's place, or changed, and is not compiled yet: there is nothing to say of it before that.
        let is_of = |metadata: &ObjectMeta, uid: &Option<String>, generation| {
            metadata.uid == *uid && metadata.generation == generation
        };
        let before = std::mem::replace(&mut self.compiled, Arc::clone(inputs.compiled));
        for (key, report) in &inputs.compiled.pools {
            let Some(pool) = inputs.index.pool(key) else { continue };
            if !is_of(&pool.metadata, &report.uid, report.generation) {
                continue;
            }
            let heard = Heard {
                programmed: inputs.programmed_pool(key, &mut due),
                picker: report.managed.as_ref().and_then(|_| inputs.pickers.get(key)),
                attached: inputs.is_attached(pool, report),
            };
            let of = Key::Pool(key.clone());
            if is_same(before.pools.get(key), report) && self.is_made(&of, &heard, pool) {
                continue;
            }
            let seen = parents(pool).find(|parent| parent.is_ours()).cloned();
            self.compare(of, pool, Some(Status::Pool(seen)), &heard, inputs.now, &mut due, |before| {
                Status::Pool(Some(inputs.pool_status(key, report, &heard.programmed, before)))
            });
        }
        for (key, report) in &inputs.compiled.models {
            let Some(model) = inputs.index.model(key) else { continue };
            if !is_of(&model.metadata, &report.uid, report.generation) {
                continue;
            }
            let heard =
                Heard { programmed: inputs.programmed_model(key, report, &mut due), picker: None, attached: true };
            let of = Key::Model(key.clone());
            if is_same(before.models.get(key), report) && self.is_made(&of, &heard, model) {
                continue;
            }
            let seen = model.status.clone().map(Status::Model);
            self.compare(of, model, seen, &heard, inputs.now, &mut due, |before| {
                Status::Model(inputs.model_status(report, &heard.programmed, before))
            });
        }
        due
    }

    /// Whether what stands was made from the same.
    fn is_made(&self, key: &Key, heard: &Heard<'_>, object: &impl Resource<DynamicType = ()>) -> bool {
        let Some(made_from) = self.made_from.get(key) else { return false };
        let programmed = match &heard.programmed {
            Programmed::Says(verdict) => made_from.programmed.as_ref() == Some(verdict),
            Programmed::Waits(_) => true,
        };
        programmed
            && made_from.picker.as_ref() == heard.picker
            && made_from.attached == heard.attached
            && made_from.version == object.meta().resource_version
    }

    /// What came of a write.
    pub(crate) fn note(&mut self, result: &WriteResult, now: Instant) {
        if !result.succeeded {
            self.failed.insert(result.key.clone(), now + RETRY);
        }
        self.made_from.remove(&result.key);
        // Another may have taken its place meanwhile; that one's result is still to come.
        let Some(sent) = self.sent.get_mut(&result.key).filter(|sent| sent.status == result.status) else { return };
        sent.written = true;
        if !result.succeeded {
            self.sent.remove(&result.key);
        }
    }

    /// Nothing that was handed over will be written any more.
    pub(crate) fn forget(&mut self) {
        self.sent.clear();
        self.made_from.clear();
        self.failed.clear();
    }

    #[expect(clippy::too_many_arguments, reason = "one object and all that is known of it, named once")]
    fn compare(
        &mut self,
        key: Key,
        object: &impl Resource<DynamicType = ()>,
        seen: Option<Status>,
        heard: &Heard<'_>,
        now: Instant,
        due: &mut Due,
        status: impl FnOnce(&[Condition]) -> Status,
    ) {
        if let Some(until) = self.failed.get(&key) {
            due.no_later_than(*until);
            return;
        }
        let version = &object.meta().resource_version;
        // What was written is seen by now, or somebody wrote over it.
        if let Some(sent) = self.sent.get(&key).filter(|sent| sent.written && sent.over != *version) {
            let overwritten = matches!((&sent.status, &seen), (Status::Pool(Some(_)), Some(Status::Pool(None))));
            self.sent.remove(&key);
            if overwritten && heard.attached {
                // Whoever writes all parents anew whenever they change is not to be answered at once, again and again.
                self.failed.insert(key, now + RETRY);
                due.no_later_than(now + RETRY);
                return;
            }
        }
        let stands = self.sent.get(&key).map(|sent| sent.status.clone()).or(seen);
        let stood = stands.as_ref().map_or(&[][..], Status::conditions);
        let before = if stood.is_empty() {
            self.said.get(&key).map(|(_, said)| said.clone()).unwrap_or_default()
        } else {
            stood.to_vec()
        };
        let status = status(&before);
        let transitions = events::transitions(&before, status.conditions());
        self.said.insert(key.clone(), (object.meta().uid.clone(), status.conditions().to_vec()));
        let status = if heard.attached { status } else { Status::Pool(None) };
        let said = match &heard.programmed {
            Programmed::Says(verdict) => Some(verdict.clone()),
            Programmed::Waits(_) => None,
        };
        let made_from = MadeFrom {
            programmed: said,
            picker: heard.picker.cloned(),
            attached: heard.attached,
            version: version.clone(),
        };
        self.made_from.insert(key.clone(), made_from);
        // Of a pool without an entry only what became of it may be left to tell.
        let is_told = heard.attached || transitions.is_empty();
        if is_told && stands.as_ref().is_some_and(|stands| stands.says_the_same(&status)) {
            return;
        }
        let uid = object.meta().uid.clone();
        let sent = Sent { status: status.clone(), uid, over: version.clone(), written: false };
        self.sent.insert(key.clone(), sent);
        due.updates.push((key, StatusUpdate { status, of: object.object_ref(&()), transitions }));
    }
}

/// Whether a report is what it was: one that is shared need not be read.
fn is_same<T: PartialEq>(before: Option<&Arc<T>>, now: &Arc<T>) -> bool {
    before.is_some_and(|before| Arc::ptr_eq(before, now) || before == now)
}

/// Whether a gateway is attached. Which kind it is cannot be told: Istio and Envoy AI Gateway name no controller in their entries.
fn has_gateway(pool: &InferencePool) -> bool {
    parents(pool).any(is_gateway)
}

fn is_gateway(parent: &ParentStatus) -> bool {
    !parent.is_ours() && parent.parent_ref.kind != "Status"
}

fn parents(pool: &InferencePool) -> impl Iterator<Item = &ParentStatus> {
    pool.status.iter().flat_map(|status| &status.parents)
}

// === impl Due ===

impl Due {
    fn no_later_than(&mut self, instant: Instant) {
        self.look_again = self.look_again.into_iter().chain([instant]).min();
    }
}

// === impl Inputs ===

impl Inputs<'_> {
    /// Whether the pool has a parent, so that an entry among its parents is true: "an empty list means that no parents are associated"
    /// with it (InferencePool v1). A gateway says of itself that it is one; our picker is one where clients come to it; and where the
    /// cluster has no Gateway API nobody but us can say anything.
    fn is_attached(&self, pool: &InferencePool, report: &PoolReport) -> bool {
        !self.has_gateways || report.takes_clients || has_gateway(pool)
    }

    fn programmed_pool(&self, key: &ObjectKey, due: &mut Due) -> Programmed {
        self.programmed(&self.publisher.standing(&key.namespace, [key.name.as_str()]), due)
    }

    fn programmed_model(&self, key: &ObjectKey, report: &ModelReport, due: &mut Due) -> Programmed {
        if !report.accepted {
            return Programmed::Says(Verdict::no("Programmed", NOT_ACCEPTED, "the object is not in use"));
        }
        let pools = report.pools.iter().map(|pool| &**pool);
        self.programmed(&self.publisher.standing(&key.namespace, pools), due)
    }

    fn pool_status(
        &self,
        key: &ObjectKey,
        report: &PoolReport,
        programmed: &Programmed,
        before: &[Condition],
    ) -> ParentStatus {
        let mut verdicts = report.verdicts.clone();
        verdicts.push(programmed.verdict(before, report.generation));
        if self.index.pool(key).is_some_and(has_gateway) {
            verdicts.push(report.alone.clone());
        }
        if report.managed.is_some() {
            verdicts.push(self.picker_ready(key, report.generation, before));
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
        report: &ModelReport,
        programmed: &Programmed,
        before: &[Condition],
    ) -> InferenceModelStatus {
        let mut verdicts = report.verdicts.clone();
        verdicts.push(programmed.verdict(before, report.generation));
        InferenceModelStatus {
            modalities: Some(report.on_offer.clone()),
            declared: Some(report.declared.clone()),
            lost: Some(report.lost.clone()).filter(|lost| *lost != Modalities::default()),
            found: Some(report.found.clone()).filter(|found| *found != Modalities::default()),
            summary: Some(report.summary.clone()),
            conditions: merge(&verdicts, report.generation, before, self.clock),
        }
    }

    fn picker_ready(&self, key: &ObjectKey, generation: Option<i64>, before: &[Condition]) -> Verdict {
        let is_deleted = |pool: &InferencePool| pool.metadata.deletion_timestamp.is_some();
        if self.index.pool(key).is_some_and(is_deleted) {
            return Verdict::no(index::PICKER_READY, "Deleting", "the pool is being deleted, and its picker with it");
        }
        // The reconciler of one that has just begun to lead has not looked at all of them yet.
        self.pickers.get(key).map_or_else(
            || {
                Verdict::as_it_was(index::PICKER_READY, before, generation)
                    .unwrap_or_else(|| Verdict::no(index::PICKER_READY, "Pending", "the picker is being created"))
            },
            picker_ready,
        )
    }

    /// How the pickers stand, or, while there is reason to wait for them, that.
    fn programmed(&self, standing: &Standing, due: &mut Due) -> Programmed {
        let Standing { connected, current, refusals, owing_since, left_at } = standing;
        let verdict = Verdict::programmed(*connected, *current, refusals);
        if verdict.holds || !refusals.is_empty() {
            return Programmed::Says(verdict);
        }
        let patience = match connected {
            0 => left_at.map_or(self.leading_since, |left| left.max(self.leading_since)) + PICKER_PATIENCE,
            // Nobody owes what was not sent yet.
            _ => owing_since.unwrap_or(self.now) + ACK_PATIENCE,
        };
        if self.now >= patience {
            return Programmed::Says(verdict);
        }
        due.no_later_than(patience);
        Programmed::Waits(match connected {
            0 => Verdict::no("Programmed", "Pending", "waiting for a picker to connect"),
            _ => verdict,
        })
    }
}

// === impl Programmed ===

impl Programmed {
    fn verdict(&self, before: &[Condition], generation: Option<i64>) -> Verdict {
        match self {
            Self::Says(verdict) => verdict.clone(),
            Self::Waits(verdict) => {
                let was = Verdict::as_it_was("Programmed", before, generation);
                was.filter(|was| was.reason != NOT_ACCEPTED).unwrap_or_else(|| verdict.clone())
            }
        }
    }
}

/// How far the picker of a managed pool is, as a condition.
fn picker_ready(state: &PickerState) -> Verdict {
    let verdict = |holds, reason: &'static str, message: String| Verdict {
        type_: index::PICKER_READY,
        holds,
        reason: reason.into(),
        message,
    };
    let PickerState { ready, wanted, stage, hands_off } = state;
    let serves = *ready > 0;
    let mut count = format!("{ready} of {wanted} pickers are ready");
    if !hands_off.is_empty() {
        count += &format!(" (not managed, because of annotation {}: {})", annotations::HANDS_OFF, hands_off.join(", "));
    }
    // What went wrong is shown first, and what serves all the same after it.
    let still = if serves { format!(" ({count}, unchanged)") } else { String::new() };
    match stage {
        Stage::Complete => verdict(true, "Ready", count),
        Stage::Rolling => verdict(serves, "Progressing", format!("{count}; the others are starting")),
        Stage::Stuck => {
            verdict(serves, "Stuck", format!("{count}, and the rollout timed out: see kubectl describe deployment"))
        }
        Stage::Queued { behind } => {
            verdict(serves, "UpgradeQueued", format!("{count}; waiting for the upgrade of the picker of pool {behind}"))
        }
        Stage::Conflict(why) => verdict(false, "Conflict", format!("{why}{still}")),
        Stage::Failed(why) => verdict(false, "Failed", format!("{why}{still}")),
    }
}

#[cfg(test)]
mod tests;
