//! The controller: watches the cluster, runs the index, writes status, publishes tables.
//!
//! ```text
//!  API server ──watch──► event_loop ──observe, compile──► index
//!             ◄─status──    │  owns the index: no locks
//!                           ├──tables──► publish ══► pickers
//!             ◄─pickers of managed pools── managed ◄─┘
//! ```
//!
//! Invariants:
//! - one task owns the index and decides what is written; others only carry;
//! - of several replicas all watch and compile, and one leads: it alone writes, and it alone takes pickers;
//! - nothing is published before every kind of ours was listed once; for llm-d's kinds it waits 5 s;
//! - status is written only when it changes, and of a pool's parents only our own entry.

mod args;
mod ca;
mod event_loop;
mod events;
mod lease;
mod managed;
mod metrics;
mod probing;
mod publish_server;
mod report;
mod service_accounts;
mod status;
mod view;

pub use args::Args;
