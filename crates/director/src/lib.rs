//! The life of a request: read, route, filter, score, pick, or say why not.
//!
//! ```text
//!  edge ──chunks──► Intake ──InferenceRequest──► Director ──► Decision: endpoints, target model, why
//!                                                  │  ▲       or Rejection: status, code, param, words
//!                                        one table │  │ one load board
//! ```
//!
//! Invariants:
//! - a decision is made at one instant from one snapshot: nothing here waits, and no clock is read;
//! - nothing here logs or counts: a decision and a rejection are values, and whoever wants to know of them is a [`Witness`];
//! - every edge makes the same decision, because there is one call to make it.

mod director;
mod front;
mod intake;
mod load;
mod media;
mod rejection;

pub use director::{Decision, Director, EndpointChoice, InFlight, MAX_CHOICES, Why};
pub use front::{Front, Witness};
pub use intake::Intake;
pub use load::LoadBoard;
pub use media::{MediaRefusal, RefusalCause};
pub use rejection::{ErrorBody, Rejection};
