//! Log lines, as text for people or JSON for machines.

mod lines;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use lines::Lines;
pub use lines::LogGuard;
pub(crate) use lines::flush;

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

fn lost_in_json(lost: u64) -> String {
    format!(r#"{{"level":"WARN","message":"log lines were lost: nobody read them","lines":{lost}}}"#)
}

impl LogArgs {
    /// Starts logging, to standard error: on a terminal line by line, elsewhere several at once, until the result is dropped.
    pub fn init(&self) -> Result<LogGuard> {
        let filter = EnvFilter::try_new(format!("{SAID_BY_US},{}", self.log));
        let filter = filter.with_context(|| format!("--log {:?}", self.log))?;
        let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let gathered = Lines::new();
        let writer =
            if on_terminal { BoxMakeWriter::new(std::io::stderr) } else { BoxMakeWriter::new(gathered.clone()) };
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
        let started = match self.log_format {
            LogFormat::Text => lines.with_ansi(on_terminal).try_init(),
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| anyhow::anyhow!("logging was already started: {error}"))?;
        if on_terminal {
            return Ok(LogGuard::nothing_waits());
        }
        let lost = match self.log_format {
            LogFormat::Text => |lost| format!("{lost} log lines were lost: nobody read them"),
            LogFormat::Json => lost_in_json,
        };
        gathered.start(lost).context("starting the thread that writes log lines")
    }
}
