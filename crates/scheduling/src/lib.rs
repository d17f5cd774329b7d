//! Filters and scorers over endpoints, and the profile that chains them.
//!
//! ```text
//!  candidates ──required filters──► those that can ──preferred filters, scorers──► Ranking: the best few, in order
//! ```
//!
//! The words are the field's: a *filter* says which endpoints can or had better take a request, a *scorer* gives 0 to 1, a *profile* chains
//! them. All three are data.
//!
//! Invariants:
//! - an endpoint that fails a required filter is never ranked; one that fails a preferred filter comes after all that pass it;
//! - a scorer looks at one endpoint alone, so that worsening one endpoint's load never makes it likelier;
//! - what is not known of a queue or a cache is not taken for zero; of requests at most those that this picker sent are known then;
//! - time and randomness are arguments, and nothing here waits or fails: where nobody can, the answer says which filter left nobody.

mod filter;
mod load;
mod profile;
mod scorer;
mod subset;

pub use filter::Filter;
pub use load::{Health, Load, SATURATED_KV_CACHE, SATURATED_WAITING, Scraped};
pub use profile::{Candidate, Exhausted, Explained, Profile, Ranked, Ranking, SchedulingRequest};
pub use scorer::Scorer;
pub use subset::Subset;
