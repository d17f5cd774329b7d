//! How a program ends, for a person.

use std::process::ExitCode;

/// Says what went wrong, from the outside in: never a backtrace, which `anyhow` would print where `RUST_BACKTRACE` is set, and which tells a
/// person nothing of their mistake.
pub fn ended(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("Error: {error:#}");
        ExitCode::FAILURE
    })
}
