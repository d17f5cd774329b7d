//! A request that was read in one process is decided in another: a picker is asked with a few hundred bytes, whatever the body weighs.
//!
//! ```text
//!  reader ──InferenceRequest──► wire ──Question──► Asker ══ one stream for all requests ══► Decisions ──► director
//!         ◄──Told: dispatch, reply─────┘                ◄═════════════════════════════════ │
//!         ──what came of it──► Asked ──Report──────────────────────────────────────────────┘ the attempt counts at the picker
//! ```
//!
//! Invariants:
//! - no byte of a text or of media goes out; what a client authorizes by only where a decision hangs on it;
//! - a request that was dispatched counts at its endpoint until its reader says how it ended, or is gone;
//! - a word that the other end does not know refuses the question: what narrows a request is never lost on the way.

mod asker;
mod outbox;
mod proto;
mod server;
mod wire;

/// Largest question: a thousand media items with long names of hosts, or more with shorter ones.
const MAX_QUESTION: usize = 1 << 20;

/// How a request ended whose endpoint was not asked; other ends have the words of [`director::Ending`].
const UNSEEN: &str = "unseen";

pub use asker::{Asked, Asker, Told};
pub use director::Dialect;
pub use server::{Decisions, Options};
pub use wire::{Answer, Instruction, Question, Undecodable};
