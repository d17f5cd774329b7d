//! The picker inside Envoy: an HTTP filter that reads each request as it comes by and names its endpoint, or asks a picker for it with a few
//! hundred bytes.
//!
//! ```text
//!  Envoy ──hooks──► hooks ──► Filter ──► director        one a request, on Envoy's workers
//!        ◄─callbacks─ abi ◄─────┘           ▲
//!                        Service: tables, load, admin    one a process, on a thread of its own
//!                                 or an Asker ══► a picker
//! ```
//!
//! Invariants:
//! - no panic leaves a hook: it costs one request, not Envoy;
//! - a hook neither waits nor reads files or sockets;
//! - what Envoy lends is not kept beyond the hook that it was lent to.

#[expect(unsafe_code, reason = "the callbacks of Envoy are functions of C")]
mod abi;
mod course;
mod filter;
mod flags;
#[expect(unsafe_code, reason = "the hooks are called with pointers")]
mod hooks;
mod service;
mod splices;
