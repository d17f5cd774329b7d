//! The binary as a newcomer runs it.

mod check;
mod demo;
mod serve;
mod servers;
mod serving;
