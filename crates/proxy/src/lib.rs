//! Speaks plain HTTP for a director, where there is no Envoy: a streaming reverse proxy that reads each request before it places it.
//!
//! ```text
//!  client ──HTTP/1.1, HTTP/2──► guard ──► server ──► Proxy ──Transaction──► director
//!         ◄──── as it comes ─────────────────────── Answer ◄── forward ◄──► model server (the next one where nobody saw it)
//! ```
//!
//! Invariants:
//! - no head of HTTP/1 is read that another reader might read otherwise;
//! - an answer passes byte for byte as it comes: events are not gathered, and of what is made only its name is read;
//! - an answer that breaks off never looks like one that has ended;
//! - a request is sent again only where no model server can have begun with it (`docs/retries.md`);
//! - a client that hangs up is felt by the model server at once, since both are one task;
//! - what a model server answers, whatever its status, is the client's answer.

mod body;
mod cors;
mod forward;
mod forwarding;
mod guard;
mod proxy;
mod server;
mod upload;
mod upstream;
mod websocket;

pub use cors::Cors;
pub use proxy::{Options, Proxy};
pub use server::{serve, until_idle};
