//! `thalamus top`: how busy each endpoint is, live, as pickers see it. `kubectl thalamus top` shows the same of a cluster's.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use daemon::Table;
use http::{Request, Uri};
use http_body_util::Full;
use serde_json::Value;

use crate::admin;
use crate::screen::{Screen, line};

/// How often it is shown.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Pace {
    /// Show it once and exit.
    #[arg(long)]
    once: bool,

    /// How often to refresh.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    interval: Duration,
}

/// The flags of `thalamus top`.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Admin ports of pickers, as `thalamus serve` prints them: http://HOST:PORT or HOST:PORT.
    #[arg(required = true, value_name = "URL")]
    pickers: Vec<String>,

    #[command(flatten)]
    pace: Pace,
}

/// What is known of an endpoint: what pickers sent there adds up, what the server says of itself is the same for all.
#[derive(Debug, Default)]
struct Busy {
    address: String,
    in_flight: u64,
    /// Milliseconds of work.
    queued: f64,
    /// Tokens.
    cached: u64,
    running: u64,
    waiting: u64,
    kv_cache: f64,
    silent: Option<u64>,
    known: bool,
}

/// What all pickers know together.
#[derive(Debug, Default)]
pub struct Fleet {
    /// By pool and endpoint.
    busy: BTreeMap<(String, String), Busy>,
    /// Requests that wait for room.
    waiting: u64,
}

/// How long a picker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: TopArgs, screen: Screen) -> Result<ExitCode> {
    let load = |picker: &str| {
        let picker = picker.trim_start_matches("http://").trim_end_matches('/');
        format!("http://{picker}/debug/load")
            .parse::<Uri>()
            .with_context(|| format!("{picker:?}: expected http://HOST:PORT"))
    };
    let places: Vec<Uri> = args.pickers.iter().map(|picker| load(picker)).collect::<Result<_>>()?;
    show(args.pace, screen, async || {
        let mut fleet = Fleet::default();
        for place in &places {
            let asked = admin::over_http(Request::get(place).body(Full::default())?);
            let answered =
                tokio::time::timeout(PATIENCE, asked).await.context("no answer within five seconds").flatten();
            fleet.add(&answered.with_context(|| format!("asking {place}"))?)?;
        }
        Ok(fleet)
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what `look` finds, again and again.
pub async fn show(pace: Pace, screen: Screen, look: impl AsyncFn() -> Result<Fleet>) -> Result<()> {
    loop {
        let Fleet { busy, waiting } = look().await?;
        if screen.colours && !pace.once {
            // Back to the top, and everything below cleared.
            line("\x1b[H\x1b[J");
        }
        screen.table(&table(&busy));
        if waiting > 0 {
            line(&format!("{waiting} wait in the pickers for an endpoint with room"));
        }
        if pace.once {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(pace.interval) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

impl Fleet {
    /// What a picker's `/debug/load` says.
    pub fn add(&mut self, answer: &Value) -> Result<()> {
        self.waiting += answer["waiting"].as_u64().unwrap_or(0);
        for one in answer["endpoints"].as_array().context("the picker's answer has no list of endpoints")? {
            let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
            let number = |name: &str| one[name].as_u64().unwrap_or(0);
            let busy = self.busy.entry((text("pool"), text("endpoint"))).or_default();
            busy.address = text("address");
            busy.in_flight += number("inFlight");
            busy.queued += one["queuedMilliseconds"].as_f64().unwrap_or(0.0);
            busy.cached = busy.cached.max(number("cachedTokens"));
            busy.running = busy.running.max(number("running"));
            busy.waiting = busy.waiting.max(number("waiting"));
            busy.kv_cache = busy.kv_cache.max(one["kvCacheUsage"].as_f64().unwrap_or(0.0));
            busy.silent = busy.silent.max(one["silentSeconds"].as_u64());
            busy.known |= one["known"] == Value::Bool(true);
        }
        Ok(())
    }
}

fn table(all: &BTreeMap<(String, String), Busy>) -> Table {
    let mut table = Table::default();
    table.row([
        "POOL",
        "ENDPOINT",
        "ADDRESS",
        "IN FLIGHT",
        "QUEUED MS",
        "CACHED",
        "RUNNING",
        "WAITING",
        "KV CACHE",
        "",
    ]);
    for ((pool, endpoint), busy) in all {
        let scraped = |value: String| if busy.known { value } else { "?".to_owned() };
        table.row([
            pool.clone(),
            endpoint.clone(),
            busy.address.clone(),
            busy.in_flight.to_string(),
            format!("{:.0}", busy.queued),
            busy.cached.to_string(),
            scraped(busy.running.to_string()),
            scraped(busy.waiting.to_string()),
            scraped(format!("{:>3.0} % {}", busy.kv_cache * 100.0, bar(busy.kv_cache))),
            busy.silent.map(|seconds| format!("silent for {seconds} s")).unwrap_or_default(),
        ]);
    }
    table
}

/// A share as a bar of ten.
fn bar(share: f64) -> String {
    (0..10).map(|tenth| if share * 10.0 > f64::from(tenth) + 0.5 { '█' } else { '░' }).collect()
}
