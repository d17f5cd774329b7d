//! The controller: watches the cluster, runs the index, writes status, publishes tables.
//!
//! ```text
//!  API server ──watch──► event_loop ──observe, compile──► index
//!             ◄─status──    │  owns the index: no locks
//!                           └──tables──► publish ══► pickers
//! ```
//!
//! Invariants:
//! - one task owns the index and decides what is written; others only carry;
//! - nothing is published before every kind was listed once;
//! - status is written only when it changes, and of a pool's parents only our own entry.

mod args;
mod event_loop;
mod metrics;
mod status;
mod view;
mod watch;

pub use args::Args;
