//! The load board: what is known of each endpoint's load, written by edges and scraper, read by every decision.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use scheduling::Load;

/// One endpoint's load. Each field is read by itself: a decision may see a queue and a cache of two scrapes, which does no harm.
#[derive(Debug, Default)]
pub(crate) struct EndpointLoad {
    in_flight: AtomicU32,
    waiting: AtomicU32,
    running: AtomicU32,
    kv_cache_usage: AtomicU32,
    /// Nanoseconds after the epoch, plus one; 0 when it was never scraped.
    scraped_at: AtomicU64,
    /// The same for when it fell silent; 0 while it answers.
    silent_since: AtomicU64,
}

/// The load of every endpoint of the table, and of those that still hold a request.
#[derive(Debug)]
pub struct LoadBoard {
    epoch: Instant,
    endpoints: Mutex<HashMap<SocketAddr, Arc<EndpointLoad>>>,
}

impl EndpointLoad {
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LoadBoard {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self { epoch, endpoints: Mutex::default() }
    }

    /// Notes what an endpoint's metrics said at `at`. Only the scraped fields of `load` count.
    pub fn scraped(&self, address: SocketAddr, load: &Load, at: Instant) {
        let Some(endpoint) = self.lock().get(&address).map(Arc::clone) else { return };
        endpoint.waiting.store(load.waiting, Ordering::Relaxed);
        endpoint.running.store(load.running, Ordering::Relaxed);
        endpoint.kv_cache_usage.store(load.kv_cache_usage.to_bits(), Ordering::Relaxed);
        endpoint.scraped_at.store(self.stamp(at), Ordering::Relaxed);
        endpoint.silent_since.store(0, Ordering::Relaxed);
    }

    /// Notes that an endpoint's metrics port gave no answer at `at`. The silence began with the first time that it did not.
    pub fn silent(&self, address: SocketAddr, at: Instant) {
        let Some(endpoint) = self.lock().get(&address).map(Arc::clone) else { return };
        let _ = endpoint.silent_since.compare_exchange(0, self.stamp(at), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Notes that an endpoint answered, if not with metrics.
    pub fn alive(&self, address: SocketAddr) {
        if let Some(endpoint) = self.lock().get(&address) {
            endpoint.silent_since.store(0, Ordering::Relaxed);
        }
    }

    fn stamp(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX - 1) + 1
    }

    fn instant(&self, stamp: u64) -> Option<Instant> {
        stamp.checked_sub(1).map(|nanos| self.epoch + Duration::from_nanos(nanos))
    }

    /// What is known of an endpoint.
    pub fn load(&self, address: SocketAddr) -> Load {
        self.lock().get(&address).map(|endpoint| self.read(endpoint)).unwrap_or_default()
    }

    /// Requests under way, everywhere.
    pub fn in_flight(&self) -> u64 {
        self.lock().values().map(|endpoint| u64::from(endpoint.in_flight.load(Ordering::Relaxed))).sum()
    }

    pub(crate) fn read(&self, endpoint: &EndpointLoad) -> Load {
        Load {
            in_flight: endpoint.in_flight.load(Ordering::Relaxed),
            waiting: endpoint.waiting.load(Ordering::Relaxed),
            running: endpoint.running.load(Ordering::Relaxed),
            kv_cache_usage: f32::from_bits(endpoint.kv_cache_usage.load(Ordering::Relaxed)),
            scraped_at: self.instant(endpoint.scraped_at.load(Ordering::Relaxed)),
            silent_since: self.instant(endpoint.silent_since.load(Ordering::Relaxed)),
        }
    }

    /// The load of an address, new if it was not known.
    pub(crate) fn of(&self, address: SocketAddr) -> Arc<EndpointLoad> {
        Arc::clone(self.lock().entry(address).or_default())
    }

    /// Forgets endpoints that are in no table and hold no request.
    pub(crate) fn keep_only(&self, addresses: &BTreeSet<SocketAddr>) {
        self.lock().retain(|address, load| addresses.contains(address) || load.in_flight.load(Ordering::Relaxed) > 0);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Arc<EndpointLoad>>> {
        // Numbers are never half written, so a panic elsewhere leaves nothing to mistrust.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
