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
mod doubts;
mod engines;
mod failure;
mod listing;
mod mounted;
mod prober;
mod server;
mod settings;
mod watch;

pub use failure::Failure;
pub use prober::Prober;
pub use server::{BadServer, Server};
pub use settings::{KvEvents, Settings};
pub use watch::Pace;

/// What came of asking a model server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probed {
    pub found: routing::Found,
    pub settings: Settings,
    /// What could not be told and why, in sentences for people.
    pub doubts: Vec<String>,
}

/// What a server says in a few words: a version, a name.
fn words(value: &serde_json::Value) -> Option<String> {
    Some(clean(value.as_str()?, 64)).filter(|words| !words.is_empty())
}

/// So many characters of what a server says, without those that a terminal would act on.
fn clean(text: &str, most: usize) -> String {
    text.chars().filter(|c| is_shown(*c)).take(most).collect()
}

/// Whether a character shows as itself: control characters do not, nor do those that turn the direction of what follows.
fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
