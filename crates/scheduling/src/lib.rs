//! Which of the endpoints that can take a request gets it.
//!
//! ```text
//!  candidates ──required filters──► those that can ──preferred filters, then cost──► Ranking: the best few, in order
//! ```
//!
//! A *filter* says which endpoints can or had better take a request, a *cost* what it is in milliseconds to have it there, a *profile* chains
//! them. For those who want another policy a *scorer* gives 0 to 1 in the place of the cost, as the field knows it. All of them are data.
//!
//! Invariants:
//! - an endpoint that fails a required filter is never ranked; one that fails a preferred filter comes after all that pass it;
//! - a cost looks at one endpoint alone, so that worsening one endpoint's load never makes it likelier; what is at home somewhere may cost some
//!   times as much there, where others send as well, and what is often asked for is now and then sent where it is not known yet;
//! - costs are of what this picker sent, which it knows at once; what metrics say comes late, to all pickers at once, and moves them slowly;
//! - time and randomness are arguments, and nothing here waits or fails: where nobody can, the answer says which filter left nobody.

mod copies;
mod cost;
mod fair;
mod filter;
mod load;
mod profile;
mod profiles;
mod scorer;
mod subset;

pub use cost::{Asked, Cost, Work};
pub use fair::{Asks, FairQueue, Lane, Place};
pub use filter::Filter;
pub use load::{Health, Load, SATURATED_KV_CACHE, SATURATED_WAITING, Scraped};
pub use profile::{Candidate, Choice, Exhausted, Explained, Preference, Profile, Ranked, Ranking, SchedulingRequest};
pub use profiles::{Profiles, Rule};
pub use scorer::Scorer;
pub use subset::Subset;
