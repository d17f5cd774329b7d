//! The configuration of llm-d's router (`EndpointPickerConfig`), as far as its plugins have equivalents here (llm-d-router, `cmd/epp/runner/runner.go`).

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use scheduling::{Preference, Profile, Profiles, Scorer};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Read, weighted};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    // Charts leave out what they have nothing for, or leave it empty.
    plugins: Option<Vec<Plugin>>,
    scheduling_profiles: Option<Vec<ProfileSpec>>,
    /// What else it says.
    #[serde(flatten)]
    #[expect(clippy::zero_sized_map_values, reason = "a map is what can be read")]
    others: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Plugin {
    name: Option<String>,
    #[serde(rename = "type")]
    type_: String,
}

#[derive(Debug, Deserialize)]
struct ProfileSpec {
    name: String,
    plugins: Option<Vec<Reference>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    plugin_ref: String,
    weight: Option<f32>,
}

/// What a plugin is here.
enum Equivalent {
    Score(Scorer),
    /// It is so here in any case.
    Always,
    /// There is no such thing.
    None,
}

/// Its scorers, by weight, when nothing is configured: whoever writes them down has chosen nothing.
const DEFAULT: [(Scorer, f32); 3] = [(Scorer::ShortestQueue, 2.0), (Scorer::FreeKvCache, 2.0), (Scorer::Cached, 3.0)];

fn equivalent(type_: &str) -> Equivalent {
    match type_ {
        "queue-scorer" | "load-aware-scorer" => Equivalent::Score(Scorer::ShortestQueue),
        "running-requests-size-scorer" => Equivalent::Score(Scorer::FewestRunning),
        "kv-cache-utilization-scorer" | "kv-cache-scorer" => Equivalent::Score(Scorer::FreeKvCache),
        "active-request-scorer" => Equivalent::Score(Scorer::LeastActive),
        "token-load-scorer" => Equivalent::Score(Scorer::LeastQueued),
        "prefix-cache-scorer" | "precise-prefix-cache-scorer" | "mm-embeddings-cache-scorer" => {
            Equivalent::Score(Scorer::Cached)
        }
        // Sessions, cold prompts, load, caches, full servers and the order of those that wait.
        "session-affinity-scorer"
        | "session-affinity-filter"
        | "session-id-producer"
        | "no-hit-lru-scorer"
        | "max-score-picker"
        | "single-profile-handler"
        | "approx-prefix-cache-producer"
        | "token-producer"
        | "inflight-load-producer"
        | "mm-embeddings-cache-producer"
        | "metrics-data-source"
        | "core-metrics-extractor"
        | "openai-parser"
        | "anthropic-parser"
        | "vllmhttp-parser"
        | "passthrough-parser"
        | "utilization-detector"
        | "global-strict-fairness-policy"
        | "round-robin-fairness-policy"
        | "fcfs-ordering-policy"
        | "static-usage-limit-policy"
        | "agent-identity" => Equivalent::Always,
        _ => Equivalent::None,
    }
}

pub(super) fn read(text: &str) -> Result<Read> {
    let Config { plugins, scheduling_profiles, others } = serde_saphyr::from_str(text)?;
    let (plugins, scheduling_profiles) = (plugins.unwrap_or_default(), scheduling_profiles.unwrap_or_default());
    let types: BTreeMap<&str, &str> =
        plugins.iter().map(|plugin| (plugin.name.as_deref().unwrap_or(&plugin.type_), &*plugin.type_)).collect();
    let mut notes: Vec<String> = plugins
        .iter()
        .filter(|plugin| matches!(equivalent(&plugin.type_), Equivalent::None))
        .map(|plugin| format!("the plugin {} has no equivalent here", plugin.type_))
        .collect();
    for section in others.keys().filter(|key| !["apiVersion", "kind", "metadata"].contains(&&***key)) {
        let instead = match &**section {
            "flowControl" => ": --max-waiting and --max-wait bound the queue",
            "featureGates" => ": what is here is on",
            "dataLayer" => {
                ": endpoints come from the controller, and --scrape-interval says how often metrics are read"
            }
            _ => "",
        };
        notes.push(format!("{section} has no effect{instead}"));
    }
    let named = |name: &str| scheduling_profiles.iter().find(|profile| profile.name == name);
    // Where prompts are read elsewhere, who decodes is who is sent the request.
    let used = named("default").or(named("decode")).or(scheduling_profiles.first());
    for profile in scheduling_profiles.iter().filter(|profile| Some(&profile.name) != used.map(|used| &used.name)) {
        notes.push(format!("the profile {:?} has no effect: one decides for all requests", profile.name));
    }
    let named: Vec<(&str, Option<f32>)> = match used {
        Some(profile) => profile.plugins.iter().flatten().map(|plugin| (&*plugin.plugin_ref, plugin.weight)).collect(),
        None => types.keys().map(|name| (*name, None)).collect(),
    };
    let mut scores: BTreeMap<Scorer, f32> = BTreeMap::new();
    for (name, weight) in named {
        let Some(of) = types.get(name) else { bail!("the profile names the plugin {name:?}, which is not declared") };
        if let Equivalent::Score(scorer) = equivalent(of) {
            let weight = weight.unwrap_or(1.0);
            ensure!(weight.is_finite() && weight >= 0.0, "{name}: a weight is a number, and not below 0");
            *scores.entry(scorer).or_default() += weight;
        }
    }
    scores.retain(|_, weight| *weight > 0.0);
    let is_default =
        scores.len() == DEFAULT.len() && DEFAULT.iter().all(|(scorer, weight)| scores.get(scorer) == Some(weight));
    let prefers = if scores.is_empty() || is_default {
        notes.push("it names no scores but that router's defaults, so requests go where they cost least".to_owned());
        Preference::LeastCost
    } else {
        let words: Vec<String> =
            scores.iter().map(|(scorer, weight)| format!("{} {weight}", scorer.as_str())).collect();
        notes.push(format!("requests are scheduled by scores ({}), and not by what they cost", words.join(", ")));
        weighted(scores.into_iter().collect())?
    };
    Ok(Read { profiles: Profiles { rules: Vec::new(), rest: Profile { prefers, ..Profile::default() } }, notes })
}
