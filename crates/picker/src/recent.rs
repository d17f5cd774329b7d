//! The last decisions, kept while somebody looks at the picker's page.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use director::{Plan, Rejection};
use request::InferenceRequest;
use serde_json::{Value, json};

/// Clones share what is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// When somebody looked last, in milliseconds since 1970; 0 if nobody ever has.
    looked_at: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last: VecDeque<Value>,
    /// Of all that were kept.
    number: u64,
}

/// So many are kept.
const KEPT: usize = 50;

/// A page that is open asks every second: for so long after that decisions are kept. Nobody else pays for it.
const LOOKS: Duration = Duration::from_secs(10);

/// No more of a name that a client made up.
const MOST_OF_A_NAME: usize = 128;

impl Recent {
    /// What was kept, the newest first. Decisions are kept from now on.
    pub(crate) fn look(&self) -> Vec<Value> {
        self.0.looked_at.store(milliseconds(SystemTime::now()), Relaxed);
        self.lock().last.iter().rev().cloned().collect()
    }

    pub(crate) fn dispatched(&self, request: &InferenceRequest, plan: &Plan, took: Duration) {
        let Some(at) = self.watched_at() else { return };
        let first = plan.first();
        let model: Option<String> = request.model.as_ref().map(|name| name.chars().take(MOST_OF_A_NAME).collect());
        self.keep(json!({
            "at": at, "model": model, "operation": request.requires.operation.as_str(),
            "input": request.requires.input.to_string(), "output": request.requires.output.to_string(),
            "bytes": request.bytes, "media": request.media.len(), "pool": &**first.pool(),
            "endpoint": &*first.endpoint().name, "target": first.target.as_deref(), "why": plan.why.to_string(),
            "workMilliseconds": first.work.all().round(), "sparedMilliseconds": first.work.saved.round(),
            "waitedMilliseconds": plan.waited.as_millis(), "tookMicroseconds": took.as_micros(),
        }));
    }

    pub(crate) fn rejected(&self, rejection: &Rejection) {
        let Some(at) = self.watched_at() else { return };
        let message: String = rejection.to_string().chars().take(4 * MOST_OF_A_NAME).collect();
        let refused =
            json!({"status": rejection.status().as_u16(), "code": rejection.code().as_str(), "message": message});
        self.keep(json!({"at": at, "refused": refused}));
    }

    /// The time, while somebody looks.
    fn watched_at(&self) -> Option<u64> {
        let looked_at = self.0.looked_at.load(Relaxed);
        let now = (looked_at > 0).then(|| milliseconds(SystemTime::now()))?;
        (u128::from(now.saturating_sub(looked_at)) < LOOKS.as_millis()).then_some(now)
    }

    fn keep(&self, mut one: Value) {
        let mut kept = self.lock();
        kept.number += 1;
        one["number"] = kept.number.into();
        if kept.last.len() == KEPT {
            kept.last.pop_front();
        }
        kept.last.push_back(one);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Each change is whole before anything else could panic.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_looks_at_is_not_kept_and_what_is_kept_is_bounded() {
        let recent = Recent::default();
        recent.rejected(&Rejection::UnknownPath);
        assert!(recent.look().is_empty());
        for _ in 0..2 * KEPT {
            recent.rejected(&Rejection::UnknownPath);
        }
        let kept = recent.look();
        assert_eq!((kept.len(), &kept[0]["number"]), (KEPT, &json!(2 * KEPT)));
        assert_eq!(kept[0]["refused"]["code"], "unknown_path");
    }
}
