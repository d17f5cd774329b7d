//! The endpoint picker: subscribes to tables, polls load, and answers over ext_proc and plain HTTP.
//!
//! ```text
//!  controller ══tables══► subscription ──replace_table──► director ◄── ext-proc ◄══ gateways
//!  model servers ──/metrics──► poll ────────load────────►    ▲   └──── proxy    ◄══ clients
//!                                            metrics, log ◄──┘ observer
//! ```
//!
//! Invariants:
//! - no Kubernetes, directly or through another crate (a rule in `xtask` proves it): there is no service account to steal here;
//! - not ready before the first table; after it, ready whatever happens to the controller.

mod args;
mod ask_around;
mod controllers;
mod debug;
mod metrics;
mod page;
mod picker;
mod policy_file;
mod poll;
mod recent;
mod reference_flags;
mod search_path;
mod subscription;
mod table_file;
mod timer;
mod view;

pub use args::Args;
pub use metrics::Metrics;
pub use picker::{Options, Picker};
pub use reference_flags::ReferenceFlags;
