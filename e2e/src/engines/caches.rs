//! What do engines' own caches say of where the picker sends requests?
//!
//! ```text
//!  clients ──► vLLM, any of them ──────────┐
//!          ──► picker ──► vLLM            ──► counters of each: tokens and pictures that were in its caches
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Engines, Fleet, Spec};
use crate::Client;
use crate::compare::start_picker;

/// What servers' caches counted, all together.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    tokens: f64,
    tokens_there: f64,
    pictures: f64,
    pictures_there: f64,
}

/// One way to the servers, measured.
struct Row {
    name: &'static str,
    counters: Counters,
    /// Of each request, until it was answered.
    took: Vec<Duration>,
    length: Duration,
}

/// Requests at once.
const CLIENTS: usize = 8;

/// Applications with a long prompt of their own, and pictures that are asked about.
const APPLICATIONS: usize = 16;
const PICTURES: usize = 60;

impl Engines {
    /// Starts everything, asks, and says what became of it, as a table.
    pub async fn bench(&self, folder: &Path, tell: impl Fn(&str)) -> Result<String> {
        let specs: Vec<Spec> = (0..self.servers)
            .map(|number| Spec::new(format!("m{number}"), "vision", &["--served-model-name", "m"]))
            .collect();
        let fleet = Fleet::start(&self.python, folder, &specs, &tell).await?;
        let addresses: Vec<_> = specs.iter().map(|spec| fleet.address(&spec.name)).collect();
        let servers: Vec<Client> = addresses.iter().map(|address| Client::new(*address)).collect();
        let (_picker, picker) = start_picker(folder, &addresses).await?;
        // Different texts and pictures each time, so that nothing of one is there for the other.
        tell("asking the servers, any of them");
        let by_chance = self.measured("any of them", &servers, &servers, 1).await?;
        tell("asking the picker");
        let by_cost = self.measured("thalamus", &[Client::new(picker)], &servers, 2).await?;
        Ok(table(&[by_chance, by_cost]))
    }

    /// The same questions in the same order, whoever is asked: any of `ways`, by chance, which is what a Service does.
    async fn measured(&self, name: &'static str, ways: &[Client], servers: &[Client], salt: u64) -> Result<Row> {
        let before = counters(servers).await?;
        let questions: Arc<Vec<Value>> = Arc::new(questions(self.requests, salt));
        let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (questions, next, ways) = (Arc::clone(&questions), Arc::clone(&next), ways.to_vec());
            clients.spawn(async move {
                let mut took = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(question) = questions.get(number) else { return anyhow::Ok(took) };
                    let began = Instant::now();
                    let answer = ways[fastrand::usize(..ways.len())].chat(question).await?;
                    ensure!(answer.status == 200, "{}", answer.shown());
                    took.push(began.elapsed());
                }
            });
        }
        let mut took = Vec::new();
        while let Some(some) = clients.join_next().await {
            took.extend(some.context("a client ended early")??);
        }
        let length = began.elapsed();
        took.sort_unstable();
        Ok(Row { name, counters: counters(servers).await?.since(before), took, length })
    }
}

/// Half of them to applications with a prompt of twelve kilobytes each, half about pictures of 150 KB.
fn questions(count: usize, salt: u64) -> Vec<Value> {
    let mut rng = Rng::with_seed(7);
    let pictures: Vec<String> = (0..PICTURES as u64).map(|number| picture(salt * 1000 + number)).collect();
    let question = |number: usize| {
        let ask = format!("question {number}?");
        let messages = if number.is_multiple_of(2) {
            let application = rng.usize(..APPLICATIONS);
            let system = format!("{salt}, application {application}: ") + &"be brief and kind. ".repeat(640);
            json!([{"role": "system", "content": system}, {"role": "user", "content": ask}])
        } else {
            let url = json!({"url": &*pictures[rng.usize(..PICTURES)]});
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": url}, {"type": "text", "text": ask}]}])
        };
        json!({"model": "m", "max_tokens": 8, "stream": true, "messages": messages})
    };
    (0..count).map(question).collect()
}

/// A bitmap of 224 × 224, as a URL: every picture library reads them, and none need write them.
fn picture(number: u64) -> String {
    const SIDE: u32 = 224;
    let pixels = SIDE * SIDE * 3;
    let mut bitmap = b"BM".to_vec();
    for word in [pixels + 54, 0, 54, 40, SIDE, SIDE, 1 | 24 << 16, 0, pixels, 0, 0, 0, 0] {
        bitmap.extend_from_slice(&word.to_le_bytes());
    }
    let mut rng = Rng::with_seed(number);
    bitmap.extend(std::iter::repeat_with(|| rng.u8(..)).take(pixels as usize));
    format!("data:image/bmp;base64,{}", BASE64_STANDARD.encode(bitmap))
}

async fn counters(servers: &[Client]) -> Result<Counters> {
    let mut all = Counters::default();
    for server in servers {
        let metrics = server.get("/metrics").await?;
        let sum =
            |name: &str| metrics.sum(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        all.tokens += sum("vllm:prefix_cache_queries_total")?;
        all.tokens_there += sum("vllm:prefix_cache_hits_total")?;
        all.pictures += sum("vllm:mm_cache_queries_total")?;
        all.pictures_there += sum("vllm:mm_cache_hits_total")?;
    }
    Ok(all)
}

impl Counters {
    fn since(self, before: Self) -> Self {
        Self {
            tokens: self.tokens - before.tokens,
            tokens_there: self.tokens_there - before.tokens_there,
            pictures: self.pictures - before.pictures,
            pictures_there: self.pictures_there - before.pictures_there,
        }
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| asked | tokens in a prefix cache | pictures in a cache | answered, median | 99th percentile | requests a second |\n|---|---|---|---|---|---|",
    );
    for Row { name, counters, took, length } in rows {
        let share = |some: f64, of: f64| some / of.max(1.0) * 100.0;
        let Counters { tokens, tokens_there, pictures, pictures_there } = *counters;
        let at = |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let rate = took.len() as f64 / length.as_secs_f64();
        _ = write!(
            text,
            "\n| {name} | {:.0} % | {:.0} % | {} ms | {} ms | {rate:.0} |",
            share(tokens_there, tokens),
            share(pictures_there, pictures),
            at(50).as_millis(),
            at(99).as_millis(),
        );
    }
    text
}
