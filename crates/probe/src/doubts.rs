//! Servers of which somebody doubts what was found.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::Server;

/// Those that are watched, by host and port.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubts(Arc<Mutex<HashMap<String, watch::Sender<()>>>>);

impl Doubts {
    /// Changes whenever somebody doubts what was found of this server.
    pub(crate) fn of(&self, server: &Server) -> watch::Receiver<()> {
        let mut watched = self.lock();
        watched.retain(|_, doubted| doubted.receiver_count() > 0);
        watched.entry(server.to_string()).or_default().subscribe()
    }

    pub(crate) fn doubt(&self, server: SocketAddr) {
        if let Some(doubted) = self.lock().get(&server.to_string()) {
            doubted.send_replace(());
        }
    }

    pub(crate) fn doubt_all(&self) {
        for doubted in self.lock().values() {
            doubted.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        // Each change is whole before anything else could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
