//! A file that says how requests are scheduled, where somebody wants another policy than the least cost: ours, or that of llm-d's router.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use director::Director;
use scheduling::{Filter, Preference, Profile, Profiles, Rule, Scorer};
use schemars::JsonSchema;
use serde::Deserialize;

mod reference;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// So many looks in a row that find nothing to read are no moment any more.
const BLIND: u32 = 3;

/// Larger files are not read.
const MAX_BYTES: u64 = 1 << 20;

/// Flags that name it.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PolicyArgs {
    /// A file that says which requests are scheduled otherwise than where they cost least: a SchedulingPolicy, or an EndpointPickerConfig of
    /// llm-d's router. Read again when it changes; one that cannot be read then changes nothing.
    #[arg(long)]
    config_file: Option<String>,

    /// The same, as YAML.
    #[arg(long)]
    config_text: Option<String>,
}

/// How some requests are scheduled otherwise than by the least cost. Read from `--config-file` or `--config-text`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SchedulingPolicy {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: Kind,
    /// The first that holds for a request decides; where none does, it goes where it costs least.
    #[schemars(length(max = 100))]
    rules: Vec<RuleSpec>,
}

#[derive(Debug, Deserialize, JsonSchema)]
enum ApiVersion {
    #[serde(rename = "thalamus.dev/v1alpha1")]
    V1Alpha1,
}

#[derive(Debug, Deserialize, JsonSchema)]
enum Kind {
    SchedulingPolicy,
}

/// How requests for these models and of these priorities are scheduled.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleSpec {
    /// Names as clients ask for them. All models where it is left out.
    #[serde(default)]
    models: Vec<String>,
    /// The least priority that it is for. Of objectives, or of models: Critical is 1, Standard 0, Sheddable -1.
    from_priority: Option<i32>,
    /// The highest.
    to_priority: Option<i32>,
    /// The endpoint with the highest weighted mean of these goes first. By least cost where it is left out.
    scores: Option<BTreeMap<ScoreName, f32>>,
    /// What an endpoint had better be, the more important first. Those that are not come after all others. By default all: `responsive`, `answering`,
    /// `queue`, `room`.
    prefers: Option<Vec<PreferenceName>>,
}

/// Each from 0 (worst) to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum ScoreName {
    /// 1 / (1 + requests of this picker there).
    Active,
    /// 1 / (1 + seconds of work that this picker sent there and that is not done).
    QueuedWork,
    /// 1 / (1 + requests in its queue, as its metrics say).
    Queue,
    /// 1 / (1 + requests that it works on, as its metrics say).
    Running,
    /// The free share of its KV cache, as its metrics say.
    KvCache,
    /// The share of the request's work that its caches spare: prefix and media.
    Cached,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum PreferenceName {
    /// It gives a sign of life, and gets on with its work.
    Responsive,
    /// What it was sent of late, it answered.
    Answering,
    /// Its queue takes another request of this picker. Without this, requests do not wait in the picker. Stands before `room`.
    Queue,
    /// Its queue is short, and its KV cache not full.
    Room,
}

/// What a file says, and what its reader should know of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Read {
    pub(crate) profiles: Profiles,
    pub(crate) notes: Vec<String>,
}

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Text(String),
}

/// A policy, and where it comes from.
#[derive(Debug)]
pub(crate) struct Policy {
    source: Source,
    read: Read,
    /// The text that was read last, well or not.
    last: String,
    /// How many looks in a row found nothing that can be read.
    blind: u32,
}

impl Source {
    fn text(&self) -> Result<String> {
        match self {
            Self::File(file) => {
                let size = std::fs::metadata(file)?.len();
                ensure!(size <= MAX_BYTES, "{size} bytes are more than the {MAX_BYTES} that are read");
                Ok(std::fs::read_to_string(file)?)
            }
            Self::Text(text) => Ok(text.clone()),
        }
    }

    /// As errors name it.
    fn name(&self) -> String {
        match self {
            Self::File(file) => format!("--config-file {}", file.display()),
            Self::Text(_) => "--config-text".to_owned(),
        }
    }
}

/// Reads one of either kind.
fn read(text: &str) -> Result<Read> {
    /// Enough of it to see whose it is.
    #[derive(Deserialize)]
    struct Head {
        kind: Option<String>,
    }
    let head: Head = serde_saphyr::from_str(text)?;
    match head.kind.as_deref() {
        Some("SchedulingPolicy") => Ok(Read { profiles: ours(serde_saphyr::from_str(text)?)?, notes: Vec::new() }),
        Some("EndpointPickerConfig") => reference::read(text),
        Some(other) => bail!("kind {other:?}: expected SchedulingPolicy, or llm-d's EndpointPickerConfig"),
        None => bail!("it has no kind: expected SchedulingPolicy, or llm-d's EndpointPickerConfig"),
    }
}

fn ours(SchedulingPolicy { rules, .. }: SchedulingPolicy) -> Result<Profiles> {
    ensure!(rules.len() <= 100, "{} rules are more than 100", rules.len());
    let rule = |(number, rule): (usize, RuleSpec)| {
        let RuleSpec { models, from_priority, to_priority, scores, prefers } = rule;
        let (from, to) = (from_priority.unwrap_or(i32::MIN), to_priority.unwrap_or(i32::MAX));
        ensure!(from <= to, "rules[{number}]: fromPriority {from} is above toPriority {to}");
        let scores = scores.map(|scores| {
            let weights: Vec<(Scorer, f32)> =
                scores.into_iter().map(|(name, weight)| (name.scorer(), weight)).collect();
            weighted(weights).with_context(|| format!("rules[{number}].scores"))
        });
        let prefers_cost = Preference::LeastCost;
        let profile = Profile {
            filters: prefers
                .map_or_else(|| Ok(Filter::ALL.to_vec()), filters)
                .with_context(|| format!("rules[{number}].prefers"))?,
            prefers: scores.transpose()?.unwrap_or(prefers_cost),
        };
        Ok(Rule { models, priorities: from..=to, profile })
    };
    let rules = rules.into_iter().enumerate().map(rule).collect::<Result<_>>()?;
    Ok(Profiles { rules, rest: Profile::default() })
}

/// Those without which nobody can take a request come first.
fn filters(preferred: Vec<PreferenceName>) -> Result<Vec<Filter>> {
    let place = |name: PreferenceName| preferred.iter().position(|known| *known == name);
    if let (Some(queue), Some(room)) = (place(PreferenceName::Queue), place(PreferenceName::Room)) {
        ensure!(queue < room, "whatever lacks queue lacks room as well: name queue first");
    }
    let required = Filter::ALL.into_iter().filter(|filter| filter.is_required());
    let mut preferred: Vec<Filter> = preferred.into_iter().map(PreferenceName::filter).collect();
    // What was refused of late, and where a prompt seems to fit, is no matter of taste, and counts for more than how busy a server is.
    let of_load = preferred.iter().position(|filter| matches!(filter, Filter::Queue | Filter::Room));
    let place = of_load.unwrap_or(preferred.len());
    preferred.splice(place..place, [Filter::Willing, Filter::Context]);
    // Nor is where an adapter would wait for others, which counts for less.
    preferred.push(Filter::Adapter);
    Ok(required.chain(preferred).collect())
}

fn weighted(weights: Vec<(Scorer, f32)>) -> Result<Preference> {
    ensure!(!weights.is_empty(), "no score is named");
    for (scorer, weight) in &weights {
        ensure!(weight.is_finite() && *weight > 0.0, "{}: a weight is a number above 0", scorer.as_str());
    }
    Ok(Preference::Scores(weights))
}

impl ScoreName {
    const fn scorer(self) -> Scorer {
        match self {
            Self::Active => Scorer::LeastActive,
            Self::QueuedWork => Scorer::LeastQueued,
            Self::Queue => Scorer::ShortestQueue,
            Self::Running => Scorer::FewestRunning,
            Self::KvCache => Scorer::FreeKvCache,
            Self::Cached => Scorer::Cached,
        }
    }
}

impl PreferenceName {
    const fn filter(self) -> Filter {
        match self {
            Self::Responsive => Filter::Responsive,
            Self::Answering => Filter::Answering,
            Self::Queue => Filter::Queue,
            Self::Room => Filter::Room,
        }
    }
}

// === impl PolicyArgs ===

impl PolicyArgs {
    /// What the flags name, read once; none where they name nothing, as charts write flags whose values have none.
    pub(crate) fn read(&self) -> Result<Option<Policy>> {
        let given = |flag: &Option<String>| flag.clone().filter(|value| !value.is_empty());
        let source = match (given(&self.config_file), given(&self.config_text)) {
            (Some(_), Some(_)) => bail!("--config-file and --config-text: give one of them"),
            (Some(file), None) => Source::File(file.into()),
            (None, Some(text)) => Source::Text(text),
            (None, None) => return Ok(None),
        };
        Policy::new(source).map(Some)
    }
}

// === impl Policy ===

impl Policy {
    fn new(source: Source) -> Result<Self> {
        let last = source.text().with_context(|| source.name())?;
        let read = read(&last).with_context(|| source.name())?;
        Ok(Self { source, read, last, blind: 0 })
    }

    /// Schedules by what it says, now and whenever its file changes; one that cannot be read changes nothing. Runs to the end of the process.
    pub(crate) async fn follow(mut self, director: Arc<Director>) {
        self.put(&director);
        while matches!(self.source, Source::File(_)) {
            tokio::time::sleep(LOOK).await;
            match self.look() {
                Ok(false) => {}
                Ok(true) => self.put(&director),
                Err(error) => tracing::error!(error = format!("{error:#}"), "the scheduling policy stays as it was"),
            }
        }
    }

    /// Whether it has changed. Of one that cannot be read it is said once.
    fn look(&mut self) -> Result<bool> {
        let now = match self.source.text() {
            Ok(now) => now,
            Err(error) => {
                self.blind += 1;
                // One that is being replaced is gone for a moment.
                return if self.blind == BLIND { Err(error.context(self.source.name())) } else { Ok(false) };
            }
        };
        self.blind = 0;
        if now == self.last {
            return Ok(false);
        }
        let read = read(&now);
        self.last = now;
        self.read = read.with_context(|| self.source.name())?;
        Ok(true)
    }

    fn put(&self, director: &Director) {
        let Read { profiles, notes } = &self.read;
        let from = self.source.name();
        tracing::info!(from, rules = profiles.rules.len(), "scheduling policy read");
        for note in notes {
            tracing::warn!(from, "{note}");
        }
        director.replace_profiles(profiles.clone());
    }
}

#[cfg(test)]
mod tests;
