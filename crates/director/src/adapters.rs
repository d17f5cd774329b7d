//! Adapters that a server works with at once. An engine batches requests of so many (vLLM's `--max-loras`, V1's scheduler); those of another
//! wait until one of these is done with, however much else is free.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use routing::ModelName;

/// What a server's metrics say of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdaptersRead {
    /// With how many it works at once.
    pub most: usize,
    /// With which it does, and which wait until it does.
    pub running: Vec<String>,
    pub waiting: Vec<String>,
}

/// What is known of one server.
#[derive(Debug, Default)]
pub(crate) struct Adapters {
    /// Nothing is looked up where a server has none.
    are_told: AtomicBool,
    known: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    read: AdaptersRead,
    /// Those of our own requests, and of how many: metrics are old.
    ours: Vec<(ModelName, u32)>,
}

impl Adapters {
    pub(crate) fn note(&self, read: AdaptersRead) {
        self.are_told.store(read.most > 0, Relaxed);
        self.lock().read = read;
    }

    /// Whether a request of this adapter would be worked on. Where nobody says how many there may be, nobody says that it would not.
    pub(crate) fn have_place_for(&self, adapter: &str) -> bool {
        if !self.are_told.load(Relaxed) {
            return true;
        }
        let Held { read: AdaptersRead { most, running, waiting }, ours } = &*self.lock();
        if named_in(waiting, adapter) {
            return false;
        }
        if named_in(running, adapter) || ours.iter().any(|(name, _)| **name == *adapter) {
            return true;
        }
        let others = ours.iter().filter(|(name, _)| !named_in(running, name) && !named_in(waiting, name)).count();
        running.len() + waiting.len() + others < *most
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

fn named_in(names: &[String], name: &str) -> bool {
    names.iter().any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(most: usize, running: &[&str], waiting: &[&str]) -> AdaptersRead {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        AdaptersRead { most, running: owned(running), waiting: owned(waiting) }
    }

    #[test]
    fn one_more_has_a_place_while_there_are_any_and_one_that_runs_has_it_already() {
        let adapters = Adapters::default();
        assert!(adapters.have_place_for("a"), "nobody says how many there may be");
        adapters.note(read(2, &["a"], &[]));
        assert!(adapters.have_place_for("b"));
        // What was sent there since takes a place as well.
        adapters.enter(&"b".into());
        adapters.enter(&"b".into());
        assert_eq!(["a", "b", "c"].map(|name| adapters.have_place_for(name)), [true, true, false]);
        // The same, once its metrics say so: nobody counts twice.
        adapters.note(read(3, &["a", "b"], &[]));
        assert!(adapters.have_place_for("c"));
        adapters.note(read(2, &["a"], &[]));
        adapters.leave(&"b".into());
        assert!(!adapters.have_place_for("c"));
        adapters.leave(&"b".into());
        assert!(adapters.have_place_for("c"));
        // One that waits there would go on waiting.
        adapters.note(read(2, &["a", "b"], &["c"]));
        assert_eq!(["a", "b", "c", "d"].map(|name| adapters.have_place_for(name)), [true, true, false, false]);
        adapters.note(AdaptersRead::default());
        assert!(adapters.have_place_for("d"), "it says no more of adapters");
    }
}
