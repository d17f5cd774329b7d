//! A model server without a model: it takes what its models take, refuses the rest in vLLM's words, and says who it is in every answer,
//! so that a test sees where a request went.
//!
//! What it imitates was read off vLLM 0.32 (status, type, text and `param` of each refusal; metric names and how they move).
//! It stands in only where a GPU would be.

mod answer;
mod args;
mod jobs;
mod metrics;
pub mod questions;
mod reading;
mod realtime;
mod refusal;
mod responses;
mod server;

pub use args::{Args, ModelSpec};
pub use server::{Options, Sim, digest};
