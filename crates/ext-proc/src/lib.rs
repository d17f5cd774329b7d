//! Speaks Envoy's external-processing protocol, as an endpoint picker does, for a director.
//!
//! ```text
//!  gateway ══ one gRPC stream a request ══► service ──ProcessingRequest──► Exchange (sans-IO) ──► director
//!          ◄═════════════════════════════════        ◄──ProcessingResponse─┘
//!                                               health: ready when there is a table
//! ```
//!
//! Invariants:
//! - one stream is one exchange, and it stays open to the end of the response: a gateway that loses it early sends the request
//!   anywhere, cut short, or not at all;
//! - the destination stands in the header and in the metadata, and both are equal;
//! - no request is placed before its body was read: that needs FULL_DUPLEX_STREAMED or BUFFERED, and other modes are refused in words;
//! - a client's own destination header never survives.

mod exchange;
mod health;
pub mod proto;
mod service;

pub use health::{HEALTH_TIMEOUT, HealthCheck};
pub use proto::external_processor_server::ExternalProcessorServer;
pub use service::{ExtProc, Options};
