//! Adapters that a server works with at once. An engine batches requests of so many (vLLM's `--max-loras`, V1's scheduler); those of another
//! wait until one of these is done with, however much else is free.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use routing::ModelName;

use crate::STALE_AFTER;

/// What a server's metrics say of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdaptersRead {
    /// With how many it works at once.
    pub most: usize,
    /// Those that it has requests of, the oldest first. Which of them it works with is not told apart: vLLM names all of them as running and as
    /// waiting (`v1/metrics/stats.py`, `LoRARequestStates`).
    pub named: Vec<String>,
}

/// What is known of one server.
#[derive(Debug, Default)]
pub(crate) struct Adapters {
    /// When it was told; 0 where it was not, and nothing is looked up.
    told_at: AtomicU64,
    known: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    read: AdaptersRead,
    /// Those of our own requests, and of how many: metrics are old.
    ours: Vec<(ModelName, u32)>,
}

impl Adapters {
    /// As read at `now`, in nanoseconds.
    pub(crate) fn note(&self, read: Option<AdaptersRead>, now: u64) {
        self.told_at.store(if read.is_some() { now } else { 0 }, Relaxed);
        if let Some(read) = read {
            self.lock().read = read;
        }
    }

    /// Whether a request of this adapter would be worked on: it comes among the first of those that there are requests of. Where nobody has said
    /// of late how many there may be, nobody says that it would not.
    pub(crate) fn have_place_for(&self, adapter: &str, now: u64) -> bool {
        let told_at = self.told_at.load(Relaxed);
        let is_old = Duration::from_nanos(now.saturating_sub(told_at)) >= STALE_AFTER;
        if told_at == 0 || is_old {
            return true;
        }
        let Held { read: AdaptersRead { most, named }, ours } = &*self.lock();
        let is_named = |name: &str| named.iter().any(|known| known == name);
        let since = ours.iter().map(|(name, _)| &**name).filter(|name| !is_named(name));
        let mut in_order = named.iter().map(String::as_str).chain(since);
        let before = in_order.clone().count();
        in_order.position(|name| name == adapter).unwrap_or(before) < *most
    }

    /// A request of this adapter goes there.
    pub(crate) fn enter(&self, adapter: &ModelName) {
        let ours = &mut self.lock().ours;
        match ours.iter_mut().find(|(name, _)| name == adapter) {
            Some((_, requests)) => *requests += 1,
            None => ours.push((adapter.clone(), 1)),
        }
    }

    /// It is over.
    pub(crate) fn leave(&self, adapter: &ModelName) {
        self.lock().ours.retain_mut(|(name, requests)| {
            *requests -= u32::from(name == adapter);
            *requests > 0
        });
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Each change is whole before anything else could panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000_000_000;

    fn read(most: usize, named: &[&str]) -> AdaptersRead {
        AdaptersRead { most, named: named.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn the_first_that_there_are_requests_of_are_worked_with_and_one_more_while_there_is_a_place() {
        let adapters = Adapters::default();
        let have = |names: [&str; 3]| names.map(|name| adapters.have_place_for(name, NOW));
        assert_eq!(have(["a", "b", "c"]), [true, true, true], "nobody says how many there may be");
        adapters.note(Some(read(2, &["a"])), NOW);
        assert_eq!(have(["a", "b", "c"]), [true, true, true]);
        // What was sent there since takes a place as well.
        adapters.enter(&"b".into());
        adapters.enter(&"b".into());
        assert_eq!(have(["a", "b", "c"]), [true, true, false]);
        // What went there for want of anything better waits, and makes no place for others of its kind.
        adapters.enter(&"c".into());
        assert_eq!(have(["a", "b", "c"]), [true, true, false]);
        adapters.leave(&"c".into());
        // The same, once its metrics say so: nobody counts twice.
        adapters.note(Some(read(3, &["a", "b"])), NOW);
        assert_eq!(have(["a", "b", "c"]), [true, true, true]);
        adapters.note(Some(read(2, &["a"])), NOW);
        adapters.leave(&"b".into());
        assert_eq!(have(["a", "b", "c"]), [true, true, false]);
        adapters.leave(&"b".into());
        assert_eq!(have(["a", "b", "c"]), [true, true, true]);
        // More than it works with: the last wait.
        adapters.note(Some(read(2, &["a", "b", "c"])), NOW);
        assert_eq!(have(["a", "b", "c"]), [true, true, false]);
    }

    #[test]
    fn what_is_not_said_any_more_is_not_believed_for_long() {
        let adapters = Adapters::default();
        adapters.note(Some(read(1, &["a"])), NOW);
        let seconds = |seconds: u64| adapters.have_place_for("b", NOW + seconds * 1_000_000_000);
        assert_eq!([0, 4, 5].map(seconds), [false, false, true]);
        adapters.note(None, NOW);
        assert!(adapters.have_place_for("b", NOW));
    }
}
