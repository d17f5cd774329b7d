//! Kubernetes Events: what changed in the conditions of an object, for whoever runs `kubectl describe`.

use std::collections::HashMap;
use std::time::Duration;

use api::{CONTROLLER_NAME, Condition};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

/// A condition that became another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) holds: bool,
    pub(crate) type_: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Events for one object at once, and how long until it may have one more. A pool whose pods come and go must not fill the cluster with
/// them; the conditions say how it is.
const BURST: u32 = 8;
const REFILL: Duration = Duration::from_mins(1);

/// Of how many objects is remembered what they had.
const OBJECTS: usize = 10_000;

/// What conditions became: those that changed in status or reason, and of an object that had none those that do not hold.
pub(crate) fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Transition> {
    let changed = after.iter().filter(|now| match before.iter().find(|then| then.type_ == now.type_) {
        Some(then) => then.status != now.status || (now.status != "True" && then.reason != now.reason),
        None => now.status != "True",
    });
    changed
        .map(|now| Transition {
            holds: now.status == "True",
            type_: now.type_.clone(),
            reason: now.reason.clone(),
            message: now.message.clone(),
        })
        .collect()
}

/// How many objects' transitions may wait to be told. Events that find no room are left out: the conditions stand.
/// After a first start every object with something wrong has some.
const WAITING: usize = OBJECTS;

/// How long the API server may take for one Event.
const PATIENCE: Duration = Duration::from_secs(5);

/// For how long a transition is news: where each Event hangs, thousands of them would be told for hours.
const NEWS: Duration = Duration::from_mins(5);

/// Tells Events, and not too many, beside whatever else is written: one that hangs must not hold up a status.
#[derive(Debug, Clone)]
pub(crate) struct EventRecorder(mpsc::Sender<PendingEvents>);

/// What became of an object, and when.
#[derive(Debug)]
struct PendingEvents {
    since: Instant,
    of: ObjectReference,
    transitions: Vec<Transition>,
}

impl EventRecorder {
    pub(crate) fn start(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: CONTROLLER_NAME.to_owned(), instance: Some(instance) };
        let mut telling = EventWriter { recorder: Recorder::new(client, reporter), allowances: Allowances::default() };
        let (sender, mut to_tell) = mpsc::channel::<PendingEvents>(WAITING);
        tokio::spawn(async move {
            while let Some(PendingEvents { since, of, transitions }) = to_tell.recv().await {
                if since.elapsed() < NEWS {
                    telling.tell(&of, transitions).await;
                } else {
                    left_out(&of);
                }
            }
        });
        Self(sender)
    }

    pub(crate) fn tell(&self, of: ObjectReference, transitions: Vec<Transition>) {
        if transitions.is_empty() {
            return;
        }
        let untold = PendingEvents { since: Instant::now(), of, transitions };
        if let Err(TrySendError::Full(untold) | TrySendError::Closed(untold)) = self.0.try_send(untold) {
            left_out(&untold.of);
        }
    }
}

fn left_out(of: &ObjectReference) {
    tracing::warn!(object = ?of.name, "events dropped: those before them took too long to write");
}

/// The task that tells.
struct EventWriter {
    recorder: Recorder,
    allowances: Allowances,
}

impl EventWriter {
    /// One Event for each, as far as the object has any left. Those that cannot be written are not missed.
    async fn tell(&mut self, of: &ObjectReference, transitions: Vec<Transition>) {
        for Transition { holds, type_, reason, message } in transitions {
            let key =
                format!("{}/{}", of.namespace.as_deref().unwrap_or_default(), of.uid.as_deref().unwrap_or_default());
            if !self.allowances.take(&key, Instant::now()) {
                tracing::debug!(object = ?of.name, type_, reason, "event dropped: too many for this object");
                continue;
            }
            let event = Event {
                type_: if holds { EventType::Normal } else { EventType::Warning },
                reason,
                note: Some(index::clipped(message, 1024)),
                action: type_,
                secondary: None,
            };
            match tokio::time::timeout(PATIENCE, self.recorder.publish(&event, of)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(object = ?of.name, %error, "an event could not be written"),
                Err(_) => {
                    tracing::warn!(object = ?of.name, "an event could not be written: the API server does not answer");
                }
            }
        }
    }
}

/// A bucket of tokens for each object.
#[derive(Debug, Default)]
struct Allowances(HashMap<String, (u32, Instant)>);

impl Allowances {
    fn take(&mut self, key: &str, now: Instant) -> bool {
        // Those that are full again need not be remembered.
        if self.0.len() >= OBJECTS {
            self.0.retain(|_, (_, since)| now.saturating_duration_since(*since) < REFILL * BURST);
        }
        if self.0.len() >= OBJECTS && !self.0.contains_key(key) {
            return false;
        }
        let (left, since) = self.0.entry(key.to_owned()).or_insert((BURST, now));
        let refills =
            u32::try_from(now.saturating_duration_since(*since).as_secs() / REFILL.as_secs()).unwrap_or(BURST);
        if refills > 0 {
            (*left, *since) = (left.saturating_add(refills).min(BURST), now);
        }
        let allowed = *left > 0;
        *left = left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn what_becomes_another_is_told_and_a_new_number_is_not() {
        let ready = |status, reason, message| condition("EndpointsReady", status, reason, message);
        let told = |before: &[Condition], after: &[Condition]| -> Vec<String> {
            transitions(before, after).into_iter().map(|one| one.reason).collect()
        };
        assert_eq!(told(&[ready("True", "R", "1/2")], &[ready("True", "R", "2/2")]), [""; 0]);
        assert_eq!(told(&[ready("True", "R", "1/2")], &[ready("False", "NoneReady", "0/2")]), ["NoneReady"]);
        assert_eq!(told(&[ready("False", "NoPods", "")], &[ready("False", "NoneReady", "")]), ["NoneReady"]);
        assert_eq!(told(&[], &[ready("True", "R", ""), condition("Accepted", "False", "Invalid", "")]), ["Invalid"]);
    }

    #[test]
    fn an_object_that_changes_all_the_time_is_told_of_now_and_then() {
        let (mut allowances, start) = (Allowances::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let told = (0..600).filter(|second| allowances.take("a", at(*second))).count();
        assert!((16..=18).contains(&told), "{told} in ten minutes");
        assert!(allowances.take("b", at(600)), "others are not held up");
    }
}
