//! A reader and a picker, over a real connection.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what helps a test may panic like it")]

mod conversation;
mod questions;
