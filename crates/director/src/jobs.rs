//! Jobs that only their maker knows: which endpoint made which, learned from its answer.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a job was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    pub pool: Arc<str>,
    pub endpoint: Arc<str>,
}

/// The last jobs that were made; of more the oldest are forgotten.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    makers: HashMap<String, Maker>,
    order: VecDeque<String>,
}

/// Some 20 MB of them.
const MAX_JOBS: usize = 100_000;

impl Jobs {
    pub fn remember(&self, id: String, maker: Maker) {
        let mut known = self.lock();
        if known.makers.insert(id.clone(), maker).is_none() {
            known.order.push_back(id);
        }
        if known.order.len() > MAX_JOBS
            && let Some(oldest) = known.order.pop_front()
        {
            known.makers.remove(&oldest);
        }
    }

    pub fn maker(&self, id: &str) -> Option<Maker> {
        self.lock().makers.get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere leaves the maps whole: each call changes them at once.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let jobs = Jobs::default();
        let maker = Maker { pool: "p".into(), endpoint: "e".into() };
        for number in 0..=MAX_JOBS {
            jobs.remember(number.to_string(), maker.clone());
            jobs.remember(number.to_string(), maker.clone());
        }
        assert_eq!((jobs.maker("0"), jobs.maker("1")), (None, Some(maker)));
    }
}
