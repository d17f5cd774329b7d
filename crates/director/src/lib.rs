//! The life of a request: read, route, filter, score, pick, or say why not.
//!
//! ```text
//!  edge ──chunks──► Intake ──InferenceRequest──► Front ──► Director ──► Decision: endpoints, target model, why
//!                                                │         │  ▲       or Rejection: code, param, words
//!                     Reply: lists of models ◄───┘         │  │
//!                                                one table │  │ one load board
//! ```
//!
//! Invariants:
//! - a decision is made at one instant from one snapshot, and no clock is read; only finding out who made a job waits, before it;
//! - nothing here logs or counts: a decision and a rejection are values, and whoever wants to know of them is a [`Witness`];
//! - every edge makes the same decision, because there is one call to make it.

mod budget;
mod code;
mod director;
mod front;
mod intake;
mod jobs;
mod load;
mod policy;
mod rejection;
mod reply;

pub use budget::{Budget, Reservation};
pub use code::Code;
pub use director::{
    Bound, Considered, Decision, Destination, Director, EndpointChoice, Explanation, InFlight, MAX_CHOICES, Why,
};
pub use front::{Front, Outcome, Witness};
pub use intake::Intake;
pub use jobs::{JobFinder, Jobs, Maker, PossibleMaker};
pub use load::LoadBoard;
pub use policy::{MediaRefusal, RefusalCause};
pub use rejection::{Dialect, Rejection};
pub use reply::Reply;
