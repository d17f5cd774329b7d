//! Log lines, as text for people or JSON for machines.

mod lines;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use lines::Lines;
pub use lines::LogGuard;

/// Flags for logging.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug, trace, or per crate as in `info,picker=debug`.
    #[arg(long, env = "THALAMUS_LOG", default_value = "info", global = true)]
    pub log: String,

    /// The format of log lines.
    #[arg(long, env = "THALAMUS_LOG_FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What libraries warn of with each try or each connection, and we say ourselves, once. `--log` may name them.
const SAID_BY_US: &str = "kube_client=error,kube_runtime=error,rustls=error";

impl LogArgs {
    /// Starts logging, to standard error: on a terminal line by line, elsewhere several at once, until the result is dropped.
    pub fn init(&self) -> Result<LogGuard> {
        let filter = EnvFilter::try_new(format!("{SAID_BY_US},{}", self.log));
        let filter = filter.with_context(|| format!("--log {:?}", self.log))?;
        let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let (writer, guard) = if on_terminal {
            (BoxMakeWriter::new(std::io::stderr), LogGuard::nothing_waits())
        } else {
            let (lines, guard) = Lines::start().context("starting the thread that writes log lines")?;
            (BoxMakeWriter::new(lines), guard)
        };
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
        let started = match self.log_format {
            LogFormat::Text => lines.with_ansi(on_terminal).try_init(),
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| anyhow::anyhow!("logging was already started: {error}"))?;
        Ok(guard)
    }
}
