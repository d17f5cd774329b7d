//! Right answers when servers are wrong: each of these was seen of a real one.

#![expect(clippy::unwrap_used, reason = "what helps a test may panic like it")]

mod breaks;
mod early;
mod refusals;
mod retries;
mod silence;
mod world;
