//! The vocabulary of Thalamus: models, modalities, capabilities, the routing table, and the functions that read it.
//!
//! ```text
//!  index ──builds──► RoutingTable ◄──carries── publish
//!                        │ route(model, requirement)
//!                        ▼
//!  director ◄── Route: tiers of weighted targets, the tightest fit first
//! ```
//!
//! Invariants, mostly absences:
//! - no I/O, no clock, no randomness of its own: a draw is an argument ([`Draw`]);
//! - a table is immutable once built; whoever wants another builds another;
//! - nothing here knows Kubernetes, HTTP, or how a table travels.

mod capability;
mod client;
mod draw;
mod family;
mod format;
mod found;
mod limits;
mod media;
mod modality;
mod name;
mod operation;
mod policy;
mod route;
mod table;
mod uid;
mod unfit;

pub use capability::{Capability, Fit, Missing, Requirement};
pub use client::client_of;
pub use draw::Draw;
pub use family::{Family, UnknownFamily};
pub use format::{Format, UnknownFormat};
pub use found::{Found, FoundModel, Known, Offer, Offers};
pub use limits::{Exceeded, Limits, Size};
pub use media::{HostPattern, MediaPolicy, MediaRule, MediaSource, UnsafeFeature};
pub use modality::{Modality, ModalitySet, UnknownModality};
pub use name::{ModelName, PoolName};
pub use operation::{Operation, OperationSet};
pub use policy::{PoolPolicy, Rewrite};
pub use route::{NoRoute, OrderedTarget, Route, Tier};
pub use table::{AppProtocol, Criticality, Endpoint, Model, Parts, Pool, RoutingTable, Target};
pub use uid::Uid;
pub use unfit::{ERROR_MESSAGES, Unfit};
