//! Both processes in one, without Kubernetes: objects from a folder, the same index, the same publish stream over a pipe in memory, the
//! same picker.
//!
//! ```text
//!  folder ──manifests──► index ──► Publisher ══ in memory ══► Picker ──► HTTP, ext_proc
//!                                                               ▲
//!  demo: simulated model servers for the folder's Deployments ──┘
//! ```
//!
//! Invariant: no Kubernetes client, so that the demo builds without one.

pub mod admin;
mod args;
pub mod check;
mod demo;
mod fleet;
mod local;
pub mod manifests;
mod matrix;
mod probe_command;
pub mod screen;
mod serve;
mod simulate;
pub mod simulated;
pub mod top;
mod tour;

pub use args::Args;
