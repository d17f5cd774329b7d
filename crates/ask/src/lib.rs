//! A request that was read in one process is decided in another: a picker is asked with some hundred bytes, and with some more for a
//! long prompt, whatever its media weigh.
//!
//! ```text
//!  reader ──InferenceRequest──► wire ──Question──► Asker ══ one stream for all requests ══► Decisions ──► director
//!         ◄──Told: dispatch, reply─────┘                ◄═════════════════════════════════ │
//!         ──what came of it──► Asked ──Report──────────────────────────────────────────────┘ the attempt counts at the picker
//! ```
//!
//! Invariants:
//! - no byte of a text or of media goes out, only keyed hashes; what a client authorizes by only where a decision hangs on it;
//! - a request that was dispatched counts at its endpoint until its reader says how it ended, or is gone;
//! - a word that the other end does not know refuses the question: what narrows a request is never lost on the way.

mod asker;
mod outbox;
mod proto;
mod server;
mod wire;

/// Largest question: a thousand media items with long names of hosts, or more with shorter ones.
const MAX_QUESTION: usize = 1 << 20;

/// Where the picker says by what key it tells prompts apart.
const HASH_KEY: &str = "thalamus-hash-key";

/// How a request ended whose endpoint was not asked; other ends have the words of [`director::Ending`].
const UNSEEN: &str = "unseen";

pub use asker::{Asked, Asker, Told};
pub use director::Dialect;
pub use server::{Decisions, Options};
pub use wire::{Answer, Instruction, Question, Undecodable};
