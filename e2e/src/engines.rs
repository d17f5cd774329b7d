//! Real model servers: vLLM on CPU with tiny models of every kind, which `e2e/engines` writes and starts.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{Client, Port, Process, root};

mod caches;
mod check;

/// A Python environment with `e2e/engines/requirements.txt`, and what is done with it.
#[derive(Debug)]
pub struct Engines {
    pub python: PathBuf,
    /// Servers whose caches are looked at.
    pub servers: usize,
    /// Requests to each of the two ways.
    pub requests: usize,
}

/// How long servers may take to start, on a machine that has never done it.
const PATIENCE: Duration = Duration::from_mins(10);

/// A server to start.
#[derive(Debug, Clone)]
struct Spec {
    name: String,
    /// As `tiny_models.py` calls it.
    model: &'static str,
    /// Flags of its own; `{models}` stands for the folder with the models.
    args: Vec<String>,
}

/// Servers that run, by name. They end with it.
#[derive(Debug)]
struct Fleet {
    process: Process,
    ports: BTreeMap<String, Port>,
}

impl Spec {
    fn new(name: impl Into<String>, model: &'static str, args: &[&str]) -> Self {
        Self { name: name.into(), model, args: args.iter().map(ToString::to_string).collect() }
    }
}

impl Fleet {
    /// The servers, once they answer.
    async fn start(python: &Path, folder: &Path, specs: &[Spec], tell: &impl Fn(&str)) -> Result<Self> {
        let (python, scripts, models) = (python.join("bin/python"), root().join("e2e/engines"), folder.join("models"));
        let mut kinds: Vec<&str> = specs.iter().map(|spec| spec.model).collect();
        if kinds.contains(&"text") {
            kinds.push("lora");
        }
        kinds.sort_unstable();
        kinds.dedup();
        tell(&format!("writing {} tiny models", kinds.len()));
        let written = Command::new(&python)
            .arg("-Wignore")
            .arg(scripts.join("tiny_models.py"))
            .arg(&models)
            .args(&kinds)
            .output();
        let written = written.with_context(|| format!("running {}", python.display()))?;
        ensure!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        let ports = specs.iter().map(|spec| Ok((spec.name.clone(), Port::hold()?)));
        let ports: BTreeMap<String, Port> = ports.collect::<Result<_>>()?;
        let servers: Vec<Value> = specs
            .iter()
            .map(|spec| {
                let args: Vec<String> =
                    spec.args.iter().map(|arg| arg.replace("{models}", &models.display().to_string())).collect();
                json!({"model": models.join(spec.model), "port": ports[&spec.name].number(), "args": args})
            })
            .collect();
        let list = folder.join("servers.json");
        std::fs::write(&list, Value::from(servers).to_string()).context("writing the list of servers")?;
        let args = ["-Wignore".into(), scripts.join("fleet.py"), folder.to_owned(), list];
        let fleet = Self { process: Process::start_to_talk_to(folder, "fleet", &python, &args)?, ports };
        let began = Instant::now();
        for (number, name) in fleet.ports.keys().enumerate() {
            fleet.until_healthy(name, folder).await?;
            tell(&format!("{} of {} servers answer, after {} s", number + 1, specs.len(), began.elapsed().as_secs()));
        }
        Ok(fleet)
    }

    async fn until_healthy(&self, name: &str, folder: &Path) -> Result<()> {
        let (client, began) = (self.client(name), Instant::now());
        while !client.get("/health").await.is_ok_and(|answer| answer.status == 200) {
            if began.elapsed() > PATIENCE {
                bail!("{name} does not answer after {PATIENCE:?}; see {}\n{}", folder.display(), self.process.tail());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.ports[name].address()
    }

    fn client(&self, name: &str) -> Client {
        Client::new(self.address(name))
    }

    /// Starts a server anew with other flags.
    fn restart(&mut self, name: &str, args: &[&str]) -> Result<()> {
        let line = json!({"port": self.address(name).port(), "args": args});
        let stdin = self.process.stdin().context("the fleet listens to nobody")?;
        writeln!(stdin, "{line}").context("talking to the fleet")
    }
}
