//! Lines on their way to standard error. To write each by itself would cost a request more than to decide it, and whoever reads them slowly
//! would hold up requests.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Gathers lines, for a thread that writes them together: soon, or at once with a warning. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Lines(Arc<Shared>);

/// Waits for what is gathered to be written, when it is dropped. To be kept until the end of the program.
#[derive(Debug)]
#[must_use = "lines of the last moment are lost without it"]
pub struct LogGuard(());

#[derive(Debug, Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    /// The first line is there, or an urgent one.
    changed: Condvar,
    /// All is written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// Written, and empty: room for what is gathered next.
    spare: Vec<u8>,
    urgent: bool,
    lost: u64,
    /// Something is being written.
    writing: bool,
}

/// One line's way in.
#[derive(Debug)]
pub(super) struct Line<'l> {
    lines: &'l Lines,
    urgent: bool,
}

/// How long a line waits for others.
const SOON: Duration = Duration::from_millis(20);

/// So much is written at once without waiting for more.
const ENOUGH: usize = 64 << 10;

/// So much may wait while nobody reads; lines beyond are lost, and counted.
const MOST: usize = 4 << 20;

/// The lines of this process, once there are any.
static LINES: OnceLock<Lines> = OnceLock::new();

/// How long the end of a program waits for whoever reads its log.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for what is gathered to be written; not for ever, if nobody reads it.
pub(crate) fn flush() {
    if let Some(lines) = LINES.get() {
        lines.until_written();
    }
}

// === impl Lines ===

impl Lines {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Writes to standard error from now on, on a thread of its own. `lost` says that so many lines were lost.
    pub(super) fn start(&self, lost: fn(u64) -> String) -> io::Result<LogGuard> {
        // Of its own: a message of a panic must not wait for whoever reads slowly.
        let mut out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let lines = self.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || {
            loop {
                lines.wait();
                lines.write_to(&mut out, lost);
            }
        })?;
        let _ = LINES.set(self.clone());
        Ok(LogGuard(()))
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        // Each holder leaves it whole.
        self.0.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8], urgent: bool) {
        let mut gathered = self.lock();
        if gathered.bytes.len() + line.len() > MOST {
            gathered.lost += 1;
            return;
        }
        let first = gathered.bytes.is_empty();
        gathered.bytes.extend_from_slice(line);
        gathered.urgent |= urgent;
        if first || urgent || gathered.bytes.len() >= ENOUGH {
            self.0.changed.notify_one();
        }
    }

    /// Waits for a line, and then for others.
    fn wait(&self) {
        let gathered = self.lock();
        let gathered = self.0.changed.wait_while(gathered, |gathered| gathered.bytes.is_empty());
        let gathered = gathered.unwrap_or_else(PoisonError::into_inner);
        let is_few = |gathered: &mut Gathered| !gathered.urgent && gathered.bytes.len() < ENOUGH;
        let _gathered = self.0.changed.wait_timeout_while(gathered, SOON, is_few);
    }

    fn write_to(&self, out: &mut impl Write, lost: fn(u64) -> String) {
        let taken = {
            let mut gathered = self.lock();
            let bytes = std::mem::take(&mut gathered.spare);
            std::mem::replace(&mut *gathered, Gathered { bytes, writing: true, ..Gathered::default() })
        };
        // Where standard error is gone there is nobody to tell.
        let _ = out.write_all(&taken.bytes);
        if taken.lost > 0 {
            let _ = writeln!(out, "{}", lost(taken.lost));
        }
        let mut spare = taken.bytes;
        spare.clear();
        // A burst is not kept room for.
        spare.shrink_to(2 * ENOUGH);
        let mut gathered = self.lock();
        (gathered.writing, gathered.spare) = (false, spare);
        self.0.written.notify_all();
    }

    fn until_written(&self) {
        let mut gathered = self.lock();
        gathered.urgent = true;
        self.0.changed.notify_one();
        let is_left = |gathered: &mut Gathered| gathered.writing || !gathered.bytes.is_empty();
        let _gathered = self.0.written.wait_timeout_while(gathered, PATIENCE, is_left);
    }
}

impl<'l> MakeWriter<'l> for Lines {
    type Writer = Line<'l>;

    fn make_writer(&'l self) -> Line<'l> {
        Line { lines: self, urgent: true }
    }

    fn make_writer_for(&'l self, meta: &Metadata<'_>) -> Line<'l> {
        Line { lines: self, urgent: *meta.level() <= Level::WARN }
    }
}

/// A line comes in one piece (tracing-subscriber 0.3, `fmt_layer.rs`, `on_event`).
impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.push(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl LogGuard ===

impl LogGuard {
    /// Where lines are written as they come.
    pub(super) fn nothing_waits() -> Self {
        Self(())
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_together_and_in_order() {
        let lines = Lines::new();
        for line in ["one\n", "two\n"] {
            lines.push(line.as_bytes(), false);
        }
        let mut out = Vec::new();
        lines.write_to(&mut out, |lost| format!("{lost} lost"));
        lines.write_to(&mut out, |lost| format!("{lost} lost"));
        assert_eq!(out, b"one\ntwo\n");
    }

    #[test]
    fn an_urgent_line_and_a_full_buffer_wait_for_nothing() {
        let lines = Lines::new();
        lines.push(b"soon\n", false);
        lines.push(b"now\n", true);
        lines.wait();
        lines.write_to(&mut Vec::new(), |_| String::new());
        lines.push(&vec![b'x'; ENOUGH], false);
        lines.wait();
    }

    #[test]
    fn what_nobody_reads_is_bounded_and_counted() {
        let lines = Lines::new();
        for _ in 0..5 {
            lines.push(&vec![b'x'; MOST / 2], false);
        }
        let mut out = Vec::new();
        lines.write_to(&mut out, |lost| format!("{lost} lost"));
        assert!(out.ends_with(b"x3 lost\n"), "{}", out.len());
        assert!(out.len() < MOST + 100);
    }
}
