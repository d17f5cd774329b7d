//! Reads an inference request (OpenAI-style HTTP) chunk by chunk, and splices in a target model.
//!
//! ```text
//!  path ───────────► Resource: what is asked for
//!  chunks ──feed──► Scanner ──finish──► InferenceRequest: model, requirement, media, unsafe_features, where the model's name stands
//!                   ├ json  bytes → tokens, resumable at every byte     ├ form  bytes → parts
//!                   └ reading  tokens → findings, by the grammar        └ form_reading  parts → findings
//!  chunks, splices ──splice──► chunks with those ranges replaced (the model's name is one), nothing else touched
//! ```
//!
//! Invariants:
//! - no body is kept, joined or copied: what stays is bounded by [`Limits`] and by a few short fields;
//! - nothing is fetched or logged, and content never appears in an error: positions, field names and words of `modalities` do;
//! - the result depends neither on how a body is cut into chunks nor on the order of its keys;
//! - what a model server would read in two ways (a field given twice) is refused, so that router and server never disagree.

mod fields;
mod findings;
mod form;
mod form_reading;
mod frame;
mod grammar;
mod json;
mod keys;
mod owned;
mod part;
mod path;
mod placeholders;
mod prompt;
mod reading;
mod scanner;
mod splice;
mod unreadable;

pub use fields::{Field, Holds, Shape};
pub use findings::{MediaItem, ModelSpan, NameEncoding, PartPath, UnsafeFeatureAt, UuidAt};
pub use owned::{IdSeeker, Owned, OwnedKind};
pub use path::{Resource, is_parameter, without_slash};
pub use placeholders::Placeholders;
pub use prompt::{Piece, Prompt};
pub use scanner::{FAIRNESS_HEADERS, InferenceRequest, Limits, RequestHead, SESSION_HEADERS, Scanner};
pub use splice::{Splice, splice};
pub use unreadable::Unreadable;
