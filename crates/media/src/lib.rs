//! What the bytes of one media item tell as they stream by.
//!
//! ```text
//!  text of a JSON string ──► TextReader ─┬ data: URL, base64 ──decode──┐
//!                                        └ http(s) URL ──► MediaUrl    ▼
//!  bytes of an uploaded file ───────────────────────────────► ByteReader: hash, Probe ──► Facts
//!  Facts, Family ──► tokens::estimate
//! ```
//!
//! Invariants:
//! - nothing is fetched; base64 is decoded and hashed through a buffer of 96 KiB, and of an item some hundred bytes stay, whatever its size;
//! - the result depends only on the bytes, never on how they were cut;
//! - the same bytes have the same [`Identity`], however a client spelled their base64;
//! - what bytes claim is a claim: facts bound what a server is asked to do, they prove nothing.

mod address;
mod base64;
mod bytes;
mod identity;
mod probe;
mod text;
pub mod tokens;
mod url;

pub use address::{PRIVATE_DOMAINS, Reach, is_within};
pub use bytes::ByteReader;
pub use identity::{Identity, NameScope};
pub use probe::{Facts, Probe};
pub use text::{Spelling, TextFound, TextReader};
pub use url::{MediaUrl, Scheme, UrlFault};
