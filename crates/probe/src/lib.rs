//! Asks model servers what they are and what they can do.
//!
//! ```text
//!  Server ──Prober::probe──► what it lists ──► which engine ──► how that engine is asked ──► Found
//!                            /v1/models        engines.rs       engines/…
//!  Server ──watch──► Found, again whenever it may have changed
//! ```
//!
//! Invariants:
//! - nothing is generated, loaded or changed: what is asked costs an engine less than reading one prompt;
//! - whatever comes back is bounded in time and size, and what it says is held to be a claim: an answer that an engine gives to anything
//!   is none;
//! - what cannot be told stays unknown, with the reason.

mod asker;
mod engines;
mod failure;
mod listing;
mod mounted;
mod prober;
mod server;
mod watch;

pub use failure::Failure;
pub use prober::Prober;
pub use server::{BadServer, Server};
pub use watch::Pace;

/// What came of asking a model server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probed {
    pub found: routing::Found,
    /// What could not be told and why, in sentences for people.
    pub doubts: Vec<String>,
}

/// What a server says in a few words: a version, a name.
fn words(value: &serde_json::Value) -> Option<String> {
    let words = value.as_str()?.chars().filter(|c| !c.is_control()).take(64).collect::<String>();
    (!words.is_empty()).then_some(words)
}
