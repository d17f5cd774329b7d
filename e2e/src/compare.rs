//! What a router costs, beside Envoy alone, in one run: CPU of everything that stands between a client and its model server.
//!
//! ```text
//!  client ──► (what is compared: processes of their own) ──► two servers that read and answer
//!  └────────────────── this process ───────────────────────────────┘
//! ```

mod bodies;
mod echo;
mod server;
mod systems;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{Client, envoy, root};
use bodies::Body;
pub use echo::echo;
use systems::System;
pub(crate) use systems::start_picker;

/// What is compared with what, and for how long.
#[derive(Debug, Clone)]
pub struct Compare {
    /// How often each system is measured with each body, in turns.
    pub rounds: usize,
    /// A Python environment with `sglang-router` and `vllm-router`, to be compared as well.
    pub peers: Option<std::path::PathBuf>,
    /// Only systems whose names hold this word; Envoy alone always.
    pub only: Option<String>,
    /// Only bodies whose names begin so.
    pub body: Option<String>,
    /// More flags for our pickers.
    pub flags: Vec<String>,
}

/// What one system cost.
#[derive(Debug)]
struct Row {
    name: String,
    /// For each body, over all rounds: CPU of a request as a multiple of what Envoy alone took in the same round.
    ratios: Vec<Vec<f64>>,
    /// Likewise, in microseconds.
    micros: Vec<Vec<f64>>,
    peak: u64,
    settled: u64,
}

impl Compare {
    /// The table, as text.
    pub async fn run(&self, folder: &Path, tell: impl Fn(&str)) -> Result<String> {
        let servers = [server::start("127.0.0.11").await?, server::start("127.0.0.12").await?];
        let systems = systems::start(folder, servers, self, &tell).await?;
        let mut bodies = bodies::all();
        bodies.retain(|body| self.body.as_ref().is_none_or(|name| body.name.starts_with(&**name)));
        let mut rows: Vec<Row> = systems.iter().map(|system| Row::new(&system.name, bodies.len())).collect();
        for (system, row) in systems.iter().zip(&mut rows) {
            for body in &bodies {
                // Nobody is measured cold.
                if let Err(error) = measured(system, body, body.requests.div_ceil(4)).await {
                    tell(&format!("{} does not take {}: {error:#}", row.name, body.name));
                }
            }
            system.forget_peak();
        }
        for round in 1..=self.rounds {
            tell(&format!("round {round} of {}", self.rounds));
            for (place, body) in bodies.iter().enumerate() {
                let mut alone = f64::NAN;
                for (system, row) in systems.iter().zip(&mut rows) {
                    let Ok(cost) = measured(system, body, body.requests).await else { continue };
                    if alone.is_nan() {
                        alone = cost;
                    }
                    row.ratios[place].push(cost / alone);
                    row.micros[place].push(cost * 1e6);
                }
            }
        }
        for (system, row) in systems.iter().zip(&mut rows) {
            row.peak = system.memory("VmHWM");
        }
        tell("waiting ten seconds, for what memory is given back");
        tokio::time::sleep(Duration::from_secs(10)).await;
        for (system, row) in systems.iter().zip(&mut rows) {
            row.settled = system.memory("VmRSS");
        }
        Ok(table(&bodies, &rows, self.rounds))
    }
}

impl Row {
    fn new(name: &str, bodies: usize) -> Self {
        Self {
            name: name.to_owned(),
            ratios: vec![Vec::new(); bodies],
            micros: vec![Vec::new(); bodies],
            peak: 0,
            settled: 0,
        }
    }
}

/// CPU of a request, in seconds.
async fn measured(system: &System, body: &Body, requests: usize) -> Result<f64> {
    let before = system.cpu();
    let mut clients = JoinSet::new();
    for number in 0..body.connections {
        // A client of its own: a connection each.
        let (client, content) = (Client::new(system.address), Bytes::clone(&body.content));
        let share = requests / body.connections + usize::from(number < requests % body.connections);
        clients.spawn(async move {
            for _ in 0..share {
                let answer = client.post("/v1/chat/completions", content.clone()).await?;
                ensure!(answer.status == 200, "{}", answer.shown());
            }
            Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client.context("a client panicked")??;
    }
    Ok((system.cpu() - before) / f64::from(u32::try_from(requests)?))
}

fn table(bodies: &[Body], rows: &[Row], rounds: usize) -> String {
    let mut table = String::from("| CPU of a request, Envoy alone = 1 |");
    for body in bodies {
        _ = write!(table, " {} |", body.name);
    }
    table += " peak MiB | settled MiB |\n|---|";
    table += &"---|".repeat(bodies.len() + 2);
    for row in rows {
        _ = write!(table, "\n| {} |", row.name);
        for (ratios, micros) in row.ratios.iter().zip(&row.micros) {
            match (spread(ratios), spread(micros)) {
                (Some([least, median, most]), Some([_, micros, _])) => {
                    _ = write!(table, " **{median:.2}** ({least:.2}–{most:.2}), {micros:.0} µs |");
                }
                _ => table += " – |",
            }
        }
        _ = write!(table, " {} | {} |", row.peak >> 20, row.settled >> 20);
    }
    _ = write!(table, "\n\nMedian of {rounds} rounds, with the least and the most. {}.\n", machine());
    table
}

/// Where the table stands in docs/performance.md.
const BEGIN: &str = "<!-- written by cargo xtask compare --write -->\n";
const END: &str = "<!-- end -->";

/// Puts the table into docs/performance.md, in the place of the one that is there.
pub fn write_table(table: &str) -> Result<()> {
    let path = root().join("docs/performance.md");
    let written = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let (before, rest) = written.split_once(BEGIN).context("docs/performance.md has a place for the table")?;
    let (_, after) = rest.split_once(END).context("docs/performance.md says where the table ends")?;
    std::fs::write(&path, format!("{before}{BEGIN}\n{table}\n{END}{after}"))
        .with_context(|| format!("writing {}", path.display()))
}

/// What was measured on, as the kernel and Envoy say it.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let envoy = envoy().ok().and_then(|envoy| std::process::Command::new(envoy).arg("--version").output().ok());
    let envoy = envoy.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // `… version: <commit>/1.40.0/…`
    let version = envoy.split("version:").nth(1).and_then(|rest| rest.split('/').nth(1)).unwrap_or("?");
    format!("{cores} × {}, Linux {}, Envoy {version}", model.trim_start_matches([' ', '\t', ':']), kernel.trim())
}

fn spread(of: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some([*sorted.first()?, sorted[sorted.len() / 2], *sorted.last()?])
}
