//! The binary as a newcomer runs it.

mod demo;
mod serve;
