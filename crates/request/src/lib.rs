//! Reads an inference request (OpenAI-style HTTP) chunk by chunk, and splices in a target model.
//!
//! ```text
//!  chunks ──feed──► Scanner ──finish──► InferenceRequest: model, requirement, media, stream, where the model's name stands
//!                   ├ json     bytes → tokens, resumable at every byte
//!                   └ reading  tokens → what routing needs to know
//!  chunks, span, target ──rewrite──► chunks with the model's bytes replaced, nothing else touched
//! ```
//!
//! Invariants:
//! - no body is kept, joined or copied: what stays is bounded by [`Limits`] and by a few short fields;
//! - nothing is fetched, decoded or logged, and a body never appears in an error: positions and field names do;
//! - the result depends neither on how a body is cut into chunks nor on the order of its keys;
//! - what a model server would read in two ways (a field given twice) is refused, so that router and server never disagree.

mod json;
mod operation;
mod reading;
mod rewrite;
mod scanner;
mod unreadable;

pub use operation::Operation;
pub use reading::{Host, MediaItem, PartPath};
pub use rewrite::rewrite;
pub use scanner::{InferenceRequest, Limits, RequestHead, Scanner};
pub use unreadable::Unreadable;
