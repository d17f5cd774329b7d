//! What is simulated: a fleet, who asks it for what, and what may go wrong.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use routing::{Modality, ModalitySet};
use serde::Deserialize;

use crate::rates::Hardware;

/// A scenario file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    /// What it is about, in a sentence.
    pub about: String,
    pub servers: Vec<Group>,
    /// Requests a second, each a load of its own.
    pub rates: Vec<f64>,
    /// For how long requests come.
    #[serde(rename = "for", deserialize_with = "duration")]
    pub length: Duration,
    /// Of what comes before, nothing is counted.
    #[serde(default, deserialize_with = "duration")]
    pub warmup: Duration,
    pub requests: Vec<Kind>,
    /// A first token later than this is a failure to whoever waits.
    #[serde(deserialize_with = "duration")]
    pub first_token_within: Duration,
    /// Pickers that know nothing of each other; each request comes to one of them by chance.
    #[serde(default = "one")]
    pub pickers: usize,
    /// Now and then more of them come.
    #[serde(default)]
    pub burst: Option<Burst>,
}

/// So many times as many requests, so long, each time that so much time has passed.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Burst {
    pub times: f64,
    #[serde(rename = "for", deserialize_with = "duration")]
    pub length: Duration,
    #[serde(deserialize_with = "duration")]
    pub every: Duration,
}

/// Servers alike. Those of one name are one pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Group {
    pub name: String,
    pub count: usize,
    pub hardware: Hardware,
    /// Modalities, such as `text, image`.
    pub takes: String,
    /// Tokens of its KV cache, and of its encoder's.
    pub kv_tokens: u64,
    pub media_tokens: u64,
    /// One of them takes so many times as long.
    #[serde(default)]
    pub slow_one: Option<f64>,
    /// One of them dies so long after the beginning.
    #[serde(default, deserialize_with = "perhaps_duration")]
    pub one_dies_at: Option<Duration>,
    /// They are there only so long after the beginning, with nothing in their caches.
    #[serde(default, deserialize_with = "perhaps_duration")]
    pub join_at: Option<Duration>,
}

/// Requests alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Kind {
    /// How many of all, as a weight.
    #[serde(default = "one_weight")]
    pub share: f64,
    /// Of one of so many groups, whose requests begin alike with so many tokens.
    #[serde(default = "one")]
    pub groups: usize,
    #[serde(default)]
    pub prefix: u32,
    /// Tokens of its own.
    pub text: u32,
    /// Pictures, and their millions of pixels; any of so many that there are in all, or else always the same in a group.
    #[serde(default)]
    pub pictures: usize,
    #[serde(default)]
    pub of_pictures: Option<usize>,
    #[serde(default)]
    pub megapixels: f64,
    /// Whether its own text stands before its pictures, so that no prefix of it is known.
    #[serde(default)]
    pub asks_first: bool,
    /// Tokens of the answer.
    pub answer: u32,
    /// How often it goes on with what was said before, and how long after the end of an answer.
    #[serde(default = "one")]
    pub turns: usize,
    #[serde(default, deserialize_with = "duration")]
    pub thinks: Duration,
    /// Who comes first where there is not enough for all. Not below zero: what may be shed is not counted here.
    #[serde(default)]
    pub priority: i32,
}

fn one() -> usize {
    1
}

fn one_weight() -> f64 {
    1.0
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

fn perhaps_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

impl Scenario {
    /// Reads a file's text; says what is wrong with it.
    pub fn read(text: &str) -> Result<Self> {
        let scenario: Self = serde_saphyr::from_str(text).context("not a scenario")?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Of each server, whether it is there when the first request comes.
    pub(crate) fn there_at_first(&self) -> Vec<bool> {
        self.servers.iter().flat_map(|group| std::iter::repeat_n(group.join_at.is_none(), group.count)).collect()
    }

    /// Whether requests of a kind come before others.
    pub(crate) fn is_important(&self, kind: usize) -> bool {
        let priorities = self.requests.iter().map(|kind| kind.priority);
        self.requests[kind].priority > 0 && priorities.max() == Some(self.requests[kind].priority)
    }

    /// Says what is wrong with it.
    pub fn check(&self) -> Result<()> {
        ensure!(self.servers.iter().any(|group| group.count > 0), "servers: there are none");
        ensure!(!self.requests.is_empty(), "requests: there are none");
        ensure!(
            !self.rates.is_empty() && self.rates.iter().all(|rate| *rate > 0.0 && *rate <= 1e6),
            "rates: numbers of requests a second, above 0 and up to a million"
        );
        ensure!(self.pickers > 0, "pickers: at least 1");
        if let Some(Burst { times, length, every }) = self.burst {
            ensure!(
                (1.0..=1000.0).contains(&times) && length < every,
                "burst: times is 1 to 1000, and for is shorter than every"
            );
        }
        for group in &self.servers {
            group.takes().with_context(|| format!("servers: {}: takes", group.name))?;
        }
        for kind in &self.requests {
            let sound = kind.share > 0.0 && kind.turns > 0 && kind.groups > 0 && kind.of_pictures != Some(0);
            ensure!(sound, "requests: share, turns, groups and ofPictures are above 0");
            ensure!(kind.priority >= 0, "requests: a priority is not below 0");
            ensure!(kind.answer > 0, "requests: an answer has a token");
            let needs = if kind.pictures > 0 { ModalitySet::TEXT.with(Modality::Image) } else { ModalitySet::TEXT };
            let takes = |group: &Group| group.takes().is_ok_and(|takes| takes.is_superset(needs));
            ensure!(self.servers.iter().any(takes), "requests: no server takes {needs}");
        }
        Ok(())
    }
}

impl Group {
    pub(crate) fn takes(&self) -> Result<ModalitySet> {
        Ok(ModalitySet::parse_list(&self.takes)?)
    }
}
