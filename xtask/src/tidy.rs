//! Rules of the repository, each a test.

mod files;
mod layers;
mod security;
