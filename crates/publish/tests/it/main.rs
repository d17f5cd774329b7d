//! Both ends together, over a pipe in memory.

mod laws;
mod pairs;
mod tables;
