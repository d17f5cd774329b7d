//! `thalamus serve` in a process of its own, and what it answers.

#![expect(clippy::unwrap_used, reason = "what helps a test may panic like it")]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) struct Serving {
    process: Child,
    /// What it logs as it begins to serve, with its addresses.
    line: Value,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `thalamus serve` at a free port.
pub(crate) fn command(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalamus"));
    command.args(["--log-format", "json", "serve", "--listen", "127.0.0.1:0"]).args(args);
    command
}

impl Serving {
    pub(crate) fn start(args: &[impl AsRef<OsStr>]) -> Self {
        let mut process = command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains(r#""message":"serving""#)).expect("it serves");
        // Read on, or the process would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, line: serde_json::from_str(&line).unwrap() }
    }

    /// The address that it said it listens at, by the name of the field.
    pub(crate) fn address(&self, field: &str) -> &str {
        self.line[field].as_str().unwrap()
    }

    fn ask(&self, model: &str, content: &Value) -> String {
        let body = json!({"model": model, "messages": [{"role": "user", "content": content}]}).to_string();
        let url = format!("http://{}/v1/chat/completions", self.address("listen"));
        let output = Command::new("curl").args(["-s", &url, "-d", &body]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    pub(crate) fn until(&self, model: &str, content: &Value, expected: &str) {
        let given_up = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.ask(model, content);
            if answer.contains(expected) {
                return;
            }
            assert!(Instant::now() < given_up, "{answer} instead of {expected}");
        }
    }
}
