//! The claims, each a test; a file answers one question. Run by `cargo xtask test`.
//!
//! A harness of its own, because the API server is started once and taken down in the end, whatever the tests do.

fn main() {}
