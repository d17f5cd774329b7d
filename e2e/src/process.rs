//! A child process with a log, ended with its handle.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::eventually;

/// What runs now. Children have process groups of their own, so an interrupt reaches this program alone, and it must tell them.
/// None once all of it was ended: nothing may start any more.
static RUNNING: Mutex<Option<BTreeSet<u32>>> = Mutex::new(Some(BTreeSet::new()));

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts a program in a process group of its own, its output in `<folder>/<name>.log`.
    pub fn start<A: AsRef<OsStr>>(
        folder: &Path,
        name: &str,
        program: &Path,
        args: &[A],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        Self::start_with(folder, name, program, args, env, Stdio::null())
    }

    /// The same, and it may be talked to: see [`Self::stdin`].
    pub fn start_to_talk_to<A: AsRef<OsStr>>(folder: &Path, name: &str, program: &Path, args: &[A]) -> Result<Self> {
        Self::start_with(folder, name, program, args, &[], Stdio::piped())
    }

    fn start_with<A: AsRef<OsStr>>(
        folder: &Path,
        name: &str,
        program: &Path,
        args: &[A],
        env: &[(&str, &str)],
        stdin: Stdio,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut child = Command::new(program)
            .args(args)
            .envs(env.iter().copied())
            .stdin(stdin)
            .stdout(output.try_clone().context("a log has two writers")?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        match running().as_mut() {
            Some(running) => _ = running.insert(child.id()),
            None => {
                let _ = child.kill();
                bail!("this program is ending");
            }
        }
        Ok(Self { name: name.to_owned(), child: Some(child), log })
    }

    /// Where it reads, if anybody may write there.
    pub fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.child.as_mut()?.stdin.as_mut()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Waits for a JSON log line with this message.
    pub async fn said(&mut self, message: &str) -> Result<Value> {
        eventually(&format!("{} says {message:?}", self.name), async || {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            let log = std::fs::read_to_string(&self.log)?;
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            match (lines.into_iter().find(|line| line["message"] == message), ended) {
                (Some(line), _) => Ok(line),
                (None, Some(status)) => bail!("{} ended with {status}:\n{}", self.name, self.tail()),
                (None, None) => bail!("{} has not said {message:?}; its log ends with:\n{}", self.name, self.tail()),
            }
        })
        .await
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it without a word, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            forget(child.id());
            // A process that is gone already is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end.
    pub fn terminate(&self) -> Result<()> {
        self.signal("TERM")
    }

    /// Sends a signal by its name, such as STOP.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &self.pid().to_string()])
            .status()
            .context("running kill")?;
        if status.success() { Ok(()) } else { bail!("{} is not running", self.name) }
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), async || {
            let child = self.child.as_mut().context("it was killed")?;
            child.try_wait()?.with_context(|| format!("{name} is still running"))
        })
        .await
    }

    /// Lets it run on when its handle is gone. Answers with what [`end`] needs.
    pub(crate) fn leave(mut self) -> String {
        let pid = self.pid();
        forget(pid);
        self.child.take();
        format!("{pid} {}", command_of(&pid.to_string()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends everything that runs, for a program that is interrupted: nothing is dropped then.
pub fn end_all() {
    for pid in running().take().into_iter().flatten() {
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    }
}

fn forget(pid: u32) {
    if let Some(running) = running().as_mut() {
        running.remove(&pid);
    }
}

fn running() -> MutexGuard<'static, Option<BTreeSet<u32>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a process that was left, unless its number belongs to another by now.
pub fn end(left: &str) {
    if let Some((pid, command)) = left.split_once(' ')
        && command_of(pid) == command
    {
        // One that ended by itself is what is wanted.
        let _ = Command::new("kill").args(["-KILL", pid]).status();
    }
}

fn command_of(pid: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// A line of `/proc/<pid>/status`, such as VmRSS, in bytes; none of a process that is gone.
pub fn memory(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}
