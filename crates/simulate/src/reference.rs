//! What leaders choose by, from their formulas, to be held against: llm-d's router 0.10 by its default profile and by that of its multimodal
//! guide, and LMetric. Each knows its own requests at once, and keeps an index of what it sent where, as large as the servers' caches.

use std::collections::HashMap;

use fastrand::Rng;
use routing::ModalitySet;
use scheduling::Scraped;

use crate::cache::PrefixCache;
use crate::policy::{Choice, Policy, PolicyName, needs};
use crate::scenario::Scenario;
use crate::workload::{Job, Micros};

/// One picker of theirs.
pub(crate) struct Reference {
    name: PolicyName,
    servers: Vec<Server>,
    running: HashMap<usize, Running>,
    rng: Rng,
}

/// What it knows of a server.
struct Server {
    takes: ModalitySet,
    is_there: bool,
    index: PrefixCache,
    scraped: Scraped,
    in_flight: u32,
    /// Tokens of prompts that it was sent, that are in no cache, and that have not come to their first byte.
    tokens: u64,
}

struct Running {
    server: usize,
    tokens: u64,
    tried: Vec<usize>,
}

/// `affinityThreshold` of the guide, and the longest wait for it (`maxTTFTPenaltyMs`) at the pace that it was measured by
/// (`peakPrefillThroughput`, in tokens a second).
const THRESHOLD: f64 = 0.6;
const MAX_PENALTY_MS: f64 = 36_000.0;
const TOKENS_A_SECOND: f64 = 15_928.0;

impl Reference {
    pub(crate) fn new(name: PolicyName, scenario: &Scenario, seed: u64) -> Self {
        let server = |takes, is_there, kv_tokens| Server {
            takes,
            is_there,
            index: PrefixCache::new(kv_tokens),
            scraped: Scraped::default(),
            in_flight: 0,
            tokens: 0,
        };
        let groups = scenario.servers.iter();
        let servers = groups.flat_map(|group| {
            let takes = group.takes().unwrap_or_default();
            (0..group.count).map(move |_| server(takes, group.join_at.is_none(), group.kv_tokens))
        });
        Self { name, servers: servers.collect(), running: HashMap::new(), rng: Rng::with_seed(seed) }
    }

    fn pick(&mut self, number: usize, job: &Job, tried: Vec<usize>) -> Option<usize> {
        let able = |(number, server): (usize, &Server)| {
            let can = server.is_there && server.takes.is_superset(needs(job)) && !tried.contains(&number);
            can.then_some(number)
        };
        let able: Vec<usize> = self.servers.iter().enumerate().filter_map(able).collect();
        let all = job.tokens();
        let uncached = |server: usize| all - self.servers[server].index.known(&job.chain);
        let scores: Vec<(f64, usize)> = match self.name {
            PolicyName::LlmD => {
                let queues = able.iter().map(|server| f64::from(self.servers[*server].scraped.waiting.unwrap_or(0)));
                let (least, most) = queues.clone().fold((f64::MAX, 0.0), |(a, b), queue| (queue.min(a), queue.max(b)));
                let score = |(server, queue): (&usize, f64)| {
                    let prefix = 1.0 - uncached(*server) as f64 / all.max(1) as f64;
                    let queue = if most > least { (most - queue) / (most - least) } else { 1.0 };
                    let free = 1.0 - f64::from(self.servers[*server].scraped.kv_cache_usage.unwrap_or(0.0));
                    (3.0 * prefix + 2.0 * queue + 2.0 * free, *server)
                };
                able.iter().zip(queues).map(score).collect()
            }
            PolicyName::LlmDMultimodal => {
                let wait = |server: &usize| self.servers[*server].tokens as f64 / TOKENS_A_SECOND * 1000.0;
                let knows = |server: &&usize| 1.0 - uncached(**server) as f64 / all.max(1) as f64 >= THRESHOLD;
                let sticky: Vec<usize> = able.iter().filter(knows).copied().collect();
                let least = |of: &[usize]| of.iter().map(wait).fold(f64::MAX, f64::min);
                let keeps = !sticky.is_empty() && least(&sticky) - least(&able) <= MAX_PENALTY_MS;
                let of = if keeps { sticky } else { able };
                of.iter()
                    .map(|server| (-((self.servers[*server].tokens + uncached(*server)) as f64), *server))
                    .collect()
            }
            // What it would have to read, with what waits there, times the requests that it works on.
            _ => {
                let cost = |server: &usize| {
                    let Server { tokens, in_flight, .. } = &self.servers[*server];
                    (tokens + uncached(*server)) as f64 * f64::from(in_flight + 1)
                };
                able.iter().map(|server| (-cost(server), *server)).collect()
            }
        };
        let best = scores.iter().map(|(score, _)| *score).fold(f64::MIN, f64::max);
        let equals: Vec<usize> = scores.iter().filter(|(score, _)| *score >= best).map(|(_, server)| *server).collect();
        let server = *equals.get(self.rng.usize(..equals.len().max(1)))?;
        let tokens = uncached(server);
        let chosen = &mut self.servers[server];
        if chosen.index.enter(&job.chain, 0).is_some() {
            chosen.index.leave(&job.chain, 0);
        }
        chosen.in_flight += 1;
        chosen.tokens += tokens;
        self.running.insert(number, Running { server, tokens, tried });
        Some(server)
    }

    fn read(&mut self, number: usize) {
        if let Some(running) = self.running.get_mut(&number) {
            self.servers[running.server].tokens -= std::mem::take(&mut running.tokens);
        }
    }
}

impl Policy for Reference {
    fn choose(&mut self, number: usize, job: &Job, _: Micros) -> Choice {
        self.pick(number, job, Vec::new()).into()
    }

    fn refused(&mut self, number: usize, server: usize, job: &Job, now: Micros) -> Option<usize> {
        let mut tried = self.running.get_mut(&number).map(|running| std::mem::take(&mut running.tried))?;
        tried.push(server);
        self.ended(number, server, false, now);
        self.pick(number, job, tried)
    }

    fn joins(&mut self, server: usize) {
        self.servers[server].is_there = true;
    }

    fn first_byte(&mut self, number: usize, _: Micros) {
        self.read(number);
    }

    fn ended(&mut self, number: usize, server: usize, _: bool, _: Micros) {
        self.read(number);
        if self.running.remove(&number).is_some() {
            self.servers[server].in_flight -= 1;
        }
    }

    fn scraped(&mut self, server: usize, metrics: Option<(Scraped, u64)>, _: Micros) {
        if let Some((scraped, _)) = metrics {
            self.servers[server].scraped = scraped;
        }
    }
}
