//! Rules of the repository, each a test.

mod dependencies;
mod files;
mod layers;
mod security;
mod versions;
