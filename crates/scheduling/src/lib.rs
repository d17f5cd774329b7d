//! Filters, scorers and pickers over endpoints and their load, and the profile that chains them.
//!
//! ```text
//!  candidates ──filters──► those that may ──scorers──► score each ──picker──► Ranking, best first
//! ```
//!
//! The words are the field's: a *filter* removes, a *scorer* gives 0 to 1, a *picker* chooses, a *profile* chains them.
//!
//! Invariants:
//! - filters only remove; a scorer looks at one endpoint alone, so that worsening one endpoint's load never makes it likelier;
//! - time and randomness are arguments, and nothing here waits or fails: an empty ranking says which filter emptied it.

mod filter;
mod load;
mod picker;
mod profile;
mod scorer;

pub use filter::{Covers, Filter, InSubset, NotSaturated, NotSilent};
pub use load::{Load, SATURATED_KV_CACHE, SATURATED_WAITING, SILENT_AFTER, STALE_AFTER};
pub use picker::{HighestScore, Picker};
pub use profile::{Ask, Candidate, Exhausted, Explained, Profile, Ranking, Scored, Subset};
pub use scorer::{FreeKvCache, LeastActive, Scorer, ShortestQueue};
