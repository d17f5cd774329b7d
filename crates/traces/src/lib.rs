//! What became of single requests, told to an OpenTelemetry collector, where the environment names one.
//!
//! ```text
//!  gateway.request                   from the head to the last byte of the answer, or to why there is none
//!  ├─ gateway.request_orchestration  from the end of the body to the decision
//!  │  ├─ wait_for_room               where it waited, or somebody was asked first
//!  │  └─ run_scheduler_profile       the decision that holds
//!  └─ chat tiny-vision               an attempt: what goes to the endpoint names this one as its parent
//! ```
//!
//! Names are those of llm-d's picker, and of OpenTelemetry's conventions for generative AI. Nothing of a prompt or an answer goes out: the name
//! of the model is the only word of a client's.

mod attributes;
mod collector;
mod environment;
mod exporter;
mod follow;

pub use collector::Traces;
