//! Jobs that only their maker knows: which endpoint made which, learned from its answer, or by asking those that may have.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use routing::AppProtocol;

/// Where a job was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    pub pool: Arc<str>,
    pub endpoint: Arc<str>,
}

/// An endpoint that may have made a job.
#[derive(Debug, Clone)]
pub struct PossibleMaker {
    pub maker: Maker,
    pub address: SocketAddr,
    pub app_protocol: AppProtocol,
}

/// Asks endpoints for a job whose making nobody here saw: another picker did, or this one before it was started anew.
pub trait JobFinder: Send + Sync + std::fmt::Debug {
    /// The first that knows it. `authorization` is the client's own.
    fn find<'f>(
        &'f self,
        id: &'f str,
        authorization: Option<&'f str>,
        among: Vec<PossibleMaker>,
    ) -> Pin<Box<dyn Future<Output = Option<Maker>> + Send + 'f>>;
}

/// The last jobs that were made; of more the oldest are forgotten.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    makers: HashMap<String, Maker>,
    order: VecDeque<String>,
}

/// Some 50 MB of them, if their names are as long as they may be.
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
