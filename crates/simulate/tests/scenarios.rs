//! Every scenario can be read, and its numbers are always the same.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what helps a test may panic like it")]

use std::time::Duration;

use simulate::{Outcome, PolicyName, Scenario, simulate};

fn scenarios() -> Vec<(String, Scenario)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut all: Vec<(String, Scenario)> = files
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let scenario = Scenario::read(&text).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
            (path.file_stem().unwrap().to_string_lossy().into_owned(), scenario)
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

fn scenario(name: &str) -> Scenario {
    scenarios().into_iter().find(|(known, _)| known == name).unwrap().1
}

/// A short while of it.
fn short(name: &str) -> Scenario {
    Scenario { length: Duration::from_secs(12), warmup: Duration::from_secs(2), ..scenario(name) }
}

fn median(outcome: &Outcome) -> f64 {
    outcome.first_tokens[outcome.first_tokens.len() / 2]
}

#[test]
fn every_scenario_says_what_it_is_about_and_the_same_each_time() {
    for (name, scenario) in scenarios() {
        assert!(scenario.about.ends_with('.'), "{name}");
        let scenario = Scenario { length: Duration::from_secs(4), warmup: Duration::ZERO, ..scenario };
        for policy in PolicyName::ALL {
            let run = || simulate(&scenario, scenario.rates[0], policy, 7);
            let outcome = run();
            assert!(outcome.requests > 0, "{name}, {}", policy.as_str());
            assert_eq!(outcome, run(), "{name}, {}", policy.as_str());
        }
    }
}

#[test]
fn all_policies_get_the_same_requests_and_no_request_is_lost() {
    for name in ["repeated-pictures", "tiers", "text-and-films"] {
        let scenario = short(name);
        let outcomes = PolicyName::ALL.map(|policy| simulate(&scenario, scenario.rates[0], policy, 1));
        for outcome in &outcomes {
            assert_eq!(outcome.requests, outcomes[0].requests, "{name}");
            assert_eq!(outcome.first_tokens.len(), outcome.requests, "{name}: each comes to its first token");
            assert_eq!(outcome.failed, 0, "{name}");
        }
    }
}

#[test]
fn more_load_means_more_waiting() {
    let scenario = short("text-alone");
    let medians = [10.0, 60.0, 200.0].map(|rate| median(&simulate(&scenario, rate, PolicyName::RoundRobin, 1)));
    assert!(medians.is_sorted(), "{medians:?}");
    // Alone on an idle server: a prompt of 1,000 tokens, and the way.
    assert!((35.0..60.0).contains(&medians[0]), "{medians:?}");
}

#[test]
fn caches_spare_what_was_there_before() {
    let scenario = short("one-hot-picture");
    let outcome = simulate(&scenario, 40.0, PolicyName::RoundRobin, 1);
    assert!(outcome.media_saved > 0.9, "{}", outcome.media_saved);
    let cold = simulate(&short("text-alone"), 40.0, PolicyName::RoundRobin, 1);
    assert!(cold.tokens_saved < 0.01, "{}", cold.tokens_saved);
}

#[test]
fn a_server_that_dies_costs_what_it_had_and_no_more_where_connections_are_tried_again() {
    let mut scenario = short("one-that-dies");
    scenario.servers[0].one_dies_at = Some(Duration::from_secs(6));
    let outcome = simulate(&scenario, 40.0, PolicyName::Thalamus, 1);
    assert!((1..60).contains(&outcome.failed), "{}", outcome.failed);
    assert!(outcome.requests > 300, "{}", outcome.requests);
}

/// Requests in time, of three seeds of a minute.
fn in_time(scenario: &Scenario, rate: f64, policy: PolicyName) -> usize {
    let scenario = Scenario { length: Duration::from_mins(1), warmup: Duration::from_secs(10), ..scenario.clone() };
    (0..3).map(|seed| simulate(&scenario, rate, policy, seed).in_time).sum()
}

/// What is known late must not be believed too much: ranking by queues and caches once took half of what a fleet can bear.
#[test]
fn the_director_is_level_with_the_best() {
    let all = scenarios();
    std::thread::scope(|scope| {
        for (name, scenario) in &all {
            scope.spawn(move || {
                let rate = scenario.rates[1];
                let (ours, others): (Vec<_>, Vec<_>) = PolicyName::ALL.into_iter().partition(|policy| policy.is_ours());
                let best = others.into_iter().map(|other| in_time(scenario, rate, other)).max().unwrap();
                for ours in ours {
                    let (name, of_ours) =
                        (format!("{name}, {rate} a second, {}", ours.as_str()), in_time(scenario, rate, ours));
                    assert!(of_ours * 50 >= best * 49, "{name}: {of_ours} in time, and the best has {best}");
                }
            });
        }
    });
}

/// Affinity once kept what everybody asks about at a few servers, and texts in a narrow tier: half waited a tenth longer than elsewhere.
#[test]
fn half_wait_hardly_longer_than_at_the_best() {
    for (name, rate) in [("one-hot-picture", 80.0), ("tiers", 100.0)] {
        let scenario = scenario(name);
        let half = |policy| {
            let mut medians = [1, 2, 3].map(|seed| median(&simulate(&scenario, rate, policy, seed)));
            medians.sort_by(f64::total_cmp);
            medians[1]
        };
        let others = PolicyName::ALL.into_iter().filter(|policy| !policy.is_ours());
        let (best, ours) = (others.map(half).fold(f64::INFINITY, f64::min), half(PolicyName::Thalamus));
        assert!(ours < best * 1.06, "{name}: {ours} ms, and the best has {best}");
    }
}

#[test]
fn where_media_are_asked_about_again_it_serves_far_more_than_leaders_do() {
    for name in ["one-hot-picture", "questions-first"] {
        let scenario = scenario(name);
        let of = |policy| in_time(&scenario, 80.0, policy);
        let (theirs, ours) =
            (of(PolicyName::LlmDMultimodal), [PolicyName::Thalamus, PolicyName::ThalamusUntold].map(of));
        assert!(ours.iter().all(|ours| *ours * 10 >= theirs * 13), "{name}: {ours:?}, and they {theirs}");
    }
}

#[test]
fn what_is_wrong_with_a_scenario_is_said() {
    let good = include_str!("../scenarios/tiers.yaml");
    for (theirs, wrong, why) in [
        ("firstTokenWithin: 500ms", "firstTokenWithin: soon", "firstTokenWithin"),
        ("rates: [20, 60, 100]", "rates: [0]", "rates:"),
        ("takes: text,", "takes: txt,", "unknown modality"),
        ("answer: 200", "answer: 0", "an answer has a token"),
        ("count: 4", "cuont: 4", "cuont"),
        ("'text, image'", "'text'", "no server takes"),
    ] {
        assert!(good.contains(theirs), "{theirs}");
        let error = format!("{:#}", Scenario::read(&good.replace(theirs, wrong)).unwrap_err());
        assert!(error.contains(why), "{wrong}: {error}");
    }
}
