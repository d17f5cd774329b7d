//! A fleet of model servers in virtual time, and the real director before it: where would requests go, and how long would they wait?
//!
//! ```text
//!  scenario ──► workload ──jobs──► policy: the director, or one that it is held against ──server──► engine: queue, encoder, steps, caches
//!                                     ▲ metrics, first bytes, ends                                     │
//!                                     └────────────────────── fleet: what happens next ◄───────────────┘──► report
//! ```
//!
//! Invariants:
//! - the same scenario and seed give the same numbers; policies draw for themselves, so that all of them get the same requests;
//! - the director is the one that decides in production, asked as its edges ask it, with metrics as old as real ones;
//! - times of the model are fitted on measured operators, and on nothing that a policy could be tuned by ([`rates`](self)).

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "times and counts of a simulation are far below where they would lose anything"
)]

mod cache;
mod engine;
mod fleet;
mod page;
mod policy;
mod rates;
mod reference;
mod report;
mod scenario;
mod workload;

pub use fleet::{Outcome, simulate};
pub use page::page;
pub use policy::{Part, PolicyName};
pub use rates::Hardware;
pub use report::{Row, Simulated, markdown, run, table};
pub use scenario::{Burst, Group, Kind, Scenario};
