//! The endpoint picker: subscribes to tables, scrapes load, and answers over ext_proc and plain HTTP.
//!
//! ```text
//!  controller ══tables══► subscription ──replace_table──► director ◄── ext-proc ◄══ gateways
//!  model servers ──/metrics──► scrape ──────load────────►    ▲   └──── proxy    ◄══ clients
//!                                            metrics, log ◄──┘ witness
//! ```
//!
//! Invariants:
//! - no Kubernetes, directly or through another crate (a rule in `xtask` proves it): there is no service account to steal here;
//! - not ready before the first table; after it, ready whatever happens to the controller.

mod args;
mod controllers;
mod debug;
mod jobs;
mod metrics;
mod picker;
mod reference_flags;
mod scrape;
mod subscription;
mod table_file;
mod view;

pub use args::Args;
pub use metrics::Metrics;
pub use picker::{Options, Picker};
pub use reference_flags::ReferenceFlags;
