//! Keeps what the watches said, and compiles it into routing tables and status conditions.
//!
//! ```text
//!  Event ──observe──► Index ──compile──► Compiled ─┬─ tables: one RoutingTable a namespace ──► publish
//!  (a pool, a model,  a store of each kind         └─ reports: what is true of each object ──► status
//!   a pod, a Service, …,
//!   what a server was found to be)
//! ```
//!
//! Invariants:
//! - pure: no client, no clock, no task; whatever order events come in, the same cluster state compiles to the same result,
//!   at once or again from what is stale since the last time;
//! - an object that is wrong is not an error: it is left out of the table, and its report says why and what to do;
//! - a namespace sees nothing of another.

mod compile;
mod condition;
mod finds;
mod llm_d;
mod managed;
mod model;
mod observe;
mod pod;
mod policy;
mod pool;
mod stale;
mod verified;

pub use compile::Compiled;
pub use condition::{Verdict, clipped, merge};
pub use finds::ServerKey;
pub use managed::{ManagedPicker, PICKER_READY};
pub use model::{ModelReport, modality};
pub use observe::{Change, Event, Index, Listed, ManagedByDefault, ObjectKey};
pub use policy::operation;
pub use pool::PoolReport;
pub use stale::Stale;
