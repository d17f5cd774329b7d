//! Which of several replicas leads: a Lease, held by renewing it.
//!
//! As client-go's leader election does it, clocks of machines are never compared: a replica takes over when it has itself seen the same
//! record for as long as the lease lasts. The holder counts from before it sent its last renewal, so it stops before anybody else begins.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Until when this replica leads, unless it renews; none while another does.
pub(crate) type Term = Option<Instant>;

/// A candidacy for a lease.
#[derive(Debug, Clone)]
pub(crate) struct Candidacy {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Who we are; two replicas must never share it. A process that starts again under the same name takes up where it stopped.
    pub(crate) identity: String,
    /// How long a holder that is silent stays the holder.
    pub(crate) duration: Duration,
}

/// How often a standby looks. A lease that is given up is taken within this.
const LOOK: Duration = Duration::from_millis(500);

impl Candidacy {
    /// Renewing three times before it runs out leaves room for an answer that is slow and for one that is lost.
    fn renewal(&self) -> Duration {
        self.duration / 4
    }

    /// How long a renewal is relied on. Shorter than the lease, so that what was begun at the last moment is over before another leads.
    fn reliance(&self) -> Duration {
        self.duration * 4 / 5
    }

    /// Holds the lease whenever it can, from when this replica is `ready` on, and tells by `term`. When `stop` is cancelled it gives the
    /// lease up and returns.
    ///
    /// As nothing else talks to the API server as often, it also finds out when watches must be begun anew, and counts it in `anew`: when the
    /// server knows less than it did, as after an etcd was restored from a snapshot (a watch that goes on from where it was would wait for
    /// what it has seen already), and when it answers again after silence (requests of that time may never be answered).
    pub(crate) async fn run(
        self,
        client: Client,
        ready: watch::Receiver<bool>,
        term: watch::Sender<Term>,
        anew: watch::Sender<u64>,
        stop: CancellationToken,
    ) {
        let api: Api<Object> = Api::namespaced(client, &self.namespace);
        let mut seen = Seen::default();
        let mut silent = false;
        loop {
            let began = Instant::now();
            let until = *term.borrow();
            // One that knows too little to lead looks on.
            let may_lead = *ready.borrow();
            let tried = self.try_to_hold(&api, &mut seen, may_lead, until.is_some());
            let tried = tokio::time::timeout_at(until.unwrap_or(began + self.duration), tried).await;
            if silent && tried.is_ok() {
                tracing::warn!("the API server answers again; relisting everything");
                anew.send_modify(|times| *times += 1);
            }
            silent = tried.is_err();
            let wait = match tried.context("the API server does not answer").flatten() {
                Ok(true) => {
                    let was_standby = term.send_replace(Some(began + self.reliance())).is_none();
                    if was_standby {
                        tracing::info!(lease = self.name, identity = self.identity, "leading");
                    }
                    self.renewal()
                }
                Ok(false) => {
                    self.step_down(&term, "another replica holds the lease");
                    LOOK
                }
                Err(error) if error.is::<Rewound>() => {
                    tracing::warn!("the API server lost its newest state; relisting everything");
                    anew.send_modify(|times| *times += 1);
                    LOOK
                }
                // Not lost yet: the term runs on until it ends.
                Err(error) => {
                    tracing::warn!(lease = self.name, error = format!("{error:#}"), "cannot renew or read the lease");
                    LOOK
                }
            };
            if term.borrow().is_some_and(|until| until <= Instant::now()) {
                self.step_down(&term, "the lease could not be renewed in time");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => break,
            }
        }
        if term.send_replace(None).is_some() {
            match tokio::time::timeout(Duration::from_secs(2), self.give_up(&api)).await {
                Ok(Ok(())) => tracing::info!(lease = self.name, "lease released"),
                Ok(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "cannot release the lease; it will expire");
                }
                Err(_) => tracing::warn!("cannot release the lease in time; it will expire"),
            }
        }
    }

    fn step_down(&self, term: &watch::Sender<Term>, why: &str) {
        term.send_if_modified(|term| {
            let led = term.take().is_some();
            if led {
                tracing::warn!(lease = self.name, why, "no longer leading");
            }
            led
        });
    }

    /// Reads the lease, and takes or renews it where that is due. Says whether it is ours now.
    async fn try_to_hold(&self, api: &Api<Object>, seen: &mut Seen, may_lead: bool, leads: bool) -> Result<bool> {
        let found = api.get_opt(&self.name).await.context("reading the lease")?;
        let now = Instant::now();
        if !seen.note_version(found.as_ref()) {
            return Err(Rewound.into());
        }
        let due = found.as_ref().is_none_or(|found| self.is_due(found, seen, now));
        if !due || !may_lead {
            return Ok(false);
        }
        let object = self.held(found.as_ref(), Timestamp::now());
        let written = match &found {
            None => api.create(&PostParams::default(), &object).await,
            Some(_) => api.replace(&self.name, &PostParams::default(), &object).await,
        };
        match written {
            Ok(written) => {
                seen.note_version(Some(&written));
                seen.record = Some((written.spec.unwrap_or_default(), now));
                Ok(true)
            }
            // Somebody annotated it, or another took it. While a term runs that is no reason to step down before it is known.
            Err(kube::Error::Api(status)) if status.code == 409 && leads => bail!("it changed in the meantime"),
            // Another replica was quicker; what it wrote is seen next time.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error).context("writing the lease"),
        }
    }

    /// Whether to write: ours to renew, given up, or silent for longer than it lasts.
    fn is_due(&self, found: &Object, seen: &mut Seen, now: Instant) -> bool {
        let record = found.spec.clone().unwrap_or_default();
        let holder = record.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        let lasts = record.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = lasts.map_or(self.duration, Duration::from_secs);
        match &seen.record {
            Some((known, since)) if *known == record => now.saturating_duration_since(*since) > lasts,
            _ => {
                seen.record = Some((record, now));
                false
            }
        }
    }

    /// The lease as it is when we hold it.
    fn held(&self, found: Option<&Object>, now: Timestamp) -> Object {
        let before = found.and_then(|found| found.spec.clone()).unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        Object {
            metadata: found.map_or_else(
                || ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                |found| found.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                // Whole seconds, and never fewer than we count on.
                lease_duration_seconds: i32::try_from(self.duration.as_millis().div_ceil(1000)).ok(),
                acquire_time: before.acquire_time.filter(|_| ours).or(Some(MicroTime(now))),
                renew_time: Some(MicroTime(now)),
                lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
                ..before
            }),
        }
    }

    async fn give_up(&self, api: &Api<Object>) -> Result<()> {
        let Some(mut found) = api.get_opt(&self.name).await.context("reading the lease")? else { return Ok(()) };
        let spec = found.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            bail!("another replica holds it already");
        }
        spec.holder_identity = None;
        api.replace(&self.name, &PostParams::default(), &found).await.context("writing the lease").map(drop)
    }
}

/// What was seen of the lease.
#[derive(Debug, Default)]
struct Seen {
    /// The record, and since when it is known unchanged.
    record: Option<(LeaseSpec, Instant)>,
    /// The newest version of the object. Versions are etcd's revisions, which only grow as long as etcd remembers.
    version: u64,
}

/// The API server knows an older version of the lease than it did.
#[derive(Debug, thiserror::Error)]
#[error("the API server lost its newest state")]
struct Rewound;

impl Seen {
    /// Takes note of a version; false when it is older than one that was seen, after which it counts from there.
    fn note_version(&mut self, found: Option<&Object>) -> bool {
        let version =
            found.and_then(|found| found.metadata.resource_version.as_ref()?.parse::<u64>().ok()).unwrap_or(0);
        let older = version < self.version;
        self.version = version;
        !older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidacy(identity: &str) -> Candidacy {
        let (namespace, name) = ("n".to_owned(), "l".to_owned());
        Candidacy { namespace, name, identity: identity.to_owned(), duration: Duration::from_secs(10) }
    }

    #[test]
    fn a_lease_is_taken_when_given_up_ours_or_silent_for_as_long_as_it_lasts() {
        let (a, b) = (candidacy("a"), candidacy("b"));
        let (start, time) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let held = a.held(None, time);
        let mut seen = Seen::default();
        assert!(a.is_due(&held, &mut Seen::default(), start), "ours to renew");
        assert!(!b.is_due(&held, &mut seen, start), "seen for the first time");
        assert!(!b.is_due(&held, &mut seen, start + Duration::from_secs(9)));
        let renewed = a.held(Some(&held), time + jiff_seconds(1));
        assert!(!b.is_due(&renewed, &mut seen, start + Duration::from_secs(15)), "renewed in between");
        assert!(b.is_due(&renewed, &mut seen, start + Duration::from_secs(26)));
        let mut given_up = renewed.clone();
        given_up.spec.as_mut().unwrap().holder_identity = None;
        assert!(b.is_due(&given_up, &mut Seen::default(), start));
        let taken = b.held(Some(&given_up), time).spec.unwrap();
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(2)));
    }

    #[test]
    fn an_api_server_that_went_back_in_time_is_found_out() {
        let at = |version: &str| {
            let mut lease = candidacy("a").held(None, Timestamp::UNIX_EPOCH);
            lease.metadata.resource_version = Some(version.to_owned());
            lease
        };
        let mut seen = Seen::default();
        assert!(seen.note_version(Some(&at("7"))) && seen.note_version(Some(&at("9"))));
        assert!(!seen.note_version(Some(&at("8"))), "older");
        assert!(seen.note_version(Some(&at("8"))), "and from there on it counts again");
        assert!(!seen.note_version(None), "it never was");
    }

    #[test]
    fn a_holder_stops_before_another_begins() {
        let one = candidacy("a");
        assert!(one.reliance() < one.duration && one.renewal() * 3 <= one.reliance());
    }

    fn jiff_seconds(seconds: i64) -> k8s_openapi::jiff::SignedDuration {
        k8s_openapi::jiff::SignedDuration::from_secs(seconds)
    }
}
