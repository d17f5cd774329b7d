//! Who owns what only a model server knows: learned from the answer that says it was made, or by asking those that may have made it.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use request::{IdSeeker, Owned, OwnedKind};

use crate::{EndpointId, KnownEndpoint};

/// Asks endpoints for what nobody here saw made: another picker did, or this one before it was started anew.
pub trait OwnerFinder: Send + Sync + std::fmt::Debug {
    /// The first that knows it. `authorization` is the client's own, and `client` its address where that is known.
    fn find<'f>(
        &'f self,
        owned: &'f Owned,
        authorization: Option<&'f str>,
        client: Option<IpAddr>,
        among: &'f [KnownEndpoint],
    ) -> Pin<Box<dyn Future<Output = Search> + Send + 'f>>;
}

/// What came of asking around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search {
    Found(EndpointId),
    /// All were asked, and nobody knows it.
    Nobody,
    /// Not all could be asked, or answered in time.
    Unfinished,
}

/// The owners of what was made last; of more than are remembered the oldest are forgotten.
#[derive(Debug, Default)]
pub struct Owners(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    owners: HashMap<Owned, EndpointId>,
    order: VecDeque<Owned>,
}

/// Reads in an answer what was made, and remembers who made it.
#[derive(Debug)]
pub(crate) struct Learner {
    owners: Arc<Owners>,
    seeker: IdSeeker,
}

/// Some 50 MB of them, if their ids are as long as they may be.
const MAX_OWNED: usize = 100_000;

impl Owners {
    pub fn remember(&self, what: Owned, owner: EndpointId) {
        let mut known = self.lock();
        if known.owners.insert(what.clone(), owner).is_none() {
            known.order.push_back(what);
        }
        if known.order.len() > MAX_OWNED
            && let Some(oldest) = known.order.pop_front()
        {
            known.owners.remove(&oldest);
        }
    }

    pub fn owner(&self, owned: &Owned) -> Option<EndpointId> {
        self.lock().owners.get(owned).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere leaves the maps whole: each call changes them at once.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Learner {
    pub(crate) fn new(owners: &Arc<Owners>, kind: OwnedKind) -> Self {
        Self { owners: Arc::clone(owners), seeker: IdSeeker::new(kind) }
    }

    /// Reads on; whether it has learned what there is to learn.
    pub(crate) fn learns(&mut self, bytes: &[u8], owner: &EndpointId) -> bool {
        self.seeker.feed(bytes);
        let Some(what) = self.seeker.found() else { return false };
        self.owners.remember(what, owner.clone());
        true
    }

    /// Somebody else has read it.
    pub(crate) fn learn(self, id: String, owner: &EndpointId) {
        self.owners.remember(Owned { kind: self.seeker.kind(), id }, owner.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let owners = Owners::default();
        let owner = EndpointId { pool: "p".into(), name: "e".into(), uid: "u".into(), port: 1 };
        let video = |number: usize| Owned { kind: OwnedKind::Video, id: number.to_string() };
        for number in 0..=MAX_OWNED {
            owners.remember(video(number), owner.clone());
            owners.remember(video(number), owner.clone());
        }
        assert_eq!((owners.owner(&video(0)), owners.owner(&video(1))), (None, Some(owner)));
    }
}
