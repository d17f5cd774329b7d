//! Speaks plain HTTP for a director, where there is no Envoy: a streaming reverse proxy that reads each request before it places it.
//!
//! ```text
//!  client ──HTTP/1.1, HTTP/2──► guard ──► server ──► Proxy ──Intake──► director
//!         ◄──── as it comes ───────────────────────── Proxy ◄──────────► model server (the next one when it cannot be reached)
//! ```
//!
//! Invariants:
//! - no head is read that another reader might read otherwise;
//! - an answer passes byte for byte as it comes: events are not gathered, nothing is parsed;
//! - a request is offered to another endpoint only when not one byte of it can have arrived at the first;
//! - a client that hangs up is felt by the model server at once, since both are one task;
//! - what a model server answers, whatever its status, is the client's answer and no mark against the server.

mod body;
mod cors;
mod forwarding;
mod guard;
mod proxy;
mod server;
mod websocket;

pub use cors::Cors;
pub use proxy::{Options, Proxy};
pub use server::serve;
