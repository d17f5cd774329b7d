//! The stream between controller and picker: its protobuf, both its ends, and the diff between tables.
//!
//! ```text
//!  Tables ──publish──► Publisher ══ snapshot, deltas ══► Subscriber ──► Subscription: the last good table
//!                         ▲ ◄══════ ack, nack ══════════     │
//!                         └─ Standing: who decides by what   └─ reconnects, jittered
//! ```
//!
//! Invariants:
//! - an update is taken whole or refused whole, and a refused one leaves the last good table in place;
//! - every connection begins with a snapshot: there is no resuming, so there is nothing about it to get wrong;
//! - at most one update is unacknowledged: a slow picker skips revisions and queues none;
//! - a picker is sent its scope, and of the rest of its namespace which pools each model is in and nothing else; and only when an [`Authorizer`] admits it.

mod authorizer;
mod delta;
mod feed;
mod in_memory;
mod proto;
mod publisher;
mod saved;
mod session;
mod subscriber;
#[doc(hidden)]
pub mod testing;
mod wire;

pub use authorizer::{Anyone, Authorizer};
pub use delta::{Delta, EndpointKey, NotApplicable, PoolHead};
pub use proto::routing_tables_server::RoutingTablesServer;
pub use publisher::{Publisher, Sessions, Standing, revision_of_the_clock};
pub use saved::{Unusable, restore, save};
pub use subscriber::{Access, Backoff, Received, Subscriber, Subscription};
pub use wire::{MAX_MESSAGE_BYTES, SCHEMA, Undecodable};

/// What a picker serves: a namespace, or one pool of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    pub namespace: String,
    pub pool: Option<String>,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.pool {
            None => write!(f, "namespace {}", self.namespace),
            Some(pool) => write!(f, "pool {pool} in namespace {}", self.namespace),
        }
    }
}
