//! Stories: what happens in a cluster, and what the index makes of it.

mod laws;
mod stories;
mod world;
