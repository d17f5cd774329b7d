//! What model servers were found to be, by pod and port. What is found outlives no pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use routing::{Found, Uid};

use crate::observe::ObjectKey;

/// A model server of a cluster: a port of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKey {
    pub pod: ObjectKey,
    /// Of the pod, so that nothing is believed of one that took its name.
    pub uid: Uid,
    pub port: u16,
}

#[derive(Debug, Default)]
pub(crate) struct Finds(BTreeMap<ObjectKey, OfPod>);

#[derive(Debug)]
struct OfPod {
    uid: Uid,
    ports: BTreeMap<u16, Arc<Found>>,
}

impl Finds {
    /// Whether that is news.
    pub(crate) fn learn(&mut self, server: &ServerKey, found: Arc<Found>) -> bool {
        let of_pod = || OfPod { uid: server.uid, ports: BTreeMap::new() };
        let known = self.0.entry(server.pod.clone()).or_insert_with(of_pod);
        if known.uid != server.uid {
            *known = of_pod();
        }
        if known.ports.get(&server.port).is_some_and(|before| *before == found) {
            return false;
        }
        known.ports.insert(server.port, found);
        true
    }

    pub(crate) fn of(&self, pod: &ObjectKey, uid: Uid, port: u16) -> Option<&Arc<Found>> {
        self.0.get(pod).filter(|known| known.uid == uid)?.ports.get(&port)
    }

    /// Forgets pods that are not there any more.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&ObjectKey, Uid) -> bool) {
        self.0.retain(|pod, known| is_there(pod, known.uid));
    }
}
