//! Makes the `:authority` values harmless that the h2 crate refuses, as the bytes of an HTTP/2 connection pass.
//!
//! Istio's ext_proc cluster sends its own name as `:authority`: `outbound|9002||picker.ns.svc.cluster.local`. gRPC servers in Go and C++
//! take it; h2 0.4 resets the stream with PROTOCOL_ERROR. Nobody here reads the value, so another one of the same length takes its place:
//! both ends count the same bytes in their HPACK tables, and no frame changes its size.
//!
//! ```text
//!  socket ──bytes──► Mender: frames ──header block──► hpack ──value──► huffman ──► h2
//!                    (what is no HTTP/2 passes as it is)
//! ```
//!
//! Invariants:
//! - pure: bytes in, as many bytes out; how they are cut into pieces changes nothing;
//! - what h2 takes passes untouched, and so does whatever is malformed in another way: to refuse that is h2's task;
//! - at most [`MAX_HELD`] bytes of a connection are kept.
//!
//! To be removed when h2 takes such names. ADR 0012 says what else was looked at.

mod frames;
mod hpack;
mod huffman;
mod refusals;

pub use frames::{MAX_HELD, Mender, Passed};
pub use refusals::{Refusal, Refusals};
