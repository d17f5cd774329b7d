//! `top`: load per endpoint, live.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use daemon::Table;
use http::Method;
use kube::Client;
use serde_json::Value;
use thalamus::screen::{Screen, line};

use crate::pickers;

/// The flags of `top`.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// A picker's admin port, such as http://127.0.0.1:9090. By default all pickers of the namespace are asked, over forwarded ports.
    #[arg(long)]
    picker: Option<String>,

    /// Show it once and exit.
    #[arg(long)]
    once: bool,

    /// How often to refresh.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    interval: Duration,
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
struct Fleet {
    /// By pool and endpoint.
    busy: BTreeMap<(String, String), Busy>,
    /// Requests that wait for room.
    waiting: u64,
}

pub(crate) async fn run(client: &Client, namespace: &str, args: &TopArgs, screen: Screen) -> Result<()> {
    loop {
        let Fleet { busy, waiting } = look(client, namespace, args).await?;
        if screen.colours && !args.once {
            // Back to the top, and everything below cleared.
            line("\x1b[H\x1b[J");
        }
        screen.table(&table(&busy));
        if waiting > 0 {
            line(&format!("{waiting} wait in the pickers for an endpoint with room"));
        }
        if args.once {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

async fn look(client: &Client, namespace: &str, args: &TopArgs) -> Result<Fleet> {
    let mut fleet = Fleet::default();
    for picker in pickers::find(client, namespace, args.picker.as_deref()).await? {
        let answer = picker.ask(client, Method::GET, "/debug/load", "application/json", Vec::new()).await?;
        fleet.waiting += answer["waiting"].as_u64().unwrap_or(0);
        for one in answer["endpoints"].as_array().context("the picker's answer has no list of endpoints")? {
            let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
            let number = |name: &str| one[name].as_u64().unwrap_or(0);
            let busy = fleet.busy.entry((text("pool"), text("endpoint"))).or_default();
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
    }
    Ok(fleet)
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
