//! Outcomes as a table, for people.

use std::fmt::Write as _;

use crate::fleet::{Outcome, simulate};
use crate::policy::PolicyName;
use crate::scenario::Scenario;

/// What all seeds of one policy under one load say.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub rate: f64,
    pub policy: PolicyName,
    /// Milliseconds to the first token: of half, of nine tenths, of all but a hundredth. Of each seed.
    pub p50: Vec<f64>,
    pub p90: Vec<f64>,
    pub p99: Vec<f64>,
    /// Requests a second whose first token came in time.
    pub goodput: Vec<f64>,
    /// The share of the most important that is among them; none where all are as important.
    pub important: Option<f64>,
    pub failed: usize,
    pub tokens_saved: f64,
    pub media_saved: f64,
}

/// A scenario's name, the scenario, and what came of it.
pub type Simulated<'s> = (String, &'s Scenario, Vec<Row>);

/// Simulates a scenario under each of its loads and of these policies, several seeds at once. `tell` hears how far it is.
pub fn run(scenario: &Scenario, seeds: u64, policies: &[PolicyName], tell: impl Fn(f64, PolicyName)) -> Vec<Row> {
    let mut rows = Vec::new();
    for rate in &scenario.rates {
        for policy in policies {
            tell(*rate, *policy);
            rows.push(Row::of(*rate, *policy, &outcomes(scenario, *rate, *policy, seeds)));
        }
    }
    rows
}

fn outcomes(scenario: &Scenario, rate: f64, policy: PolicyName, seeds: u64) -> Vec<Outcome> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        let some = |first: u64| {
            move || {
                (first..seeds)
                    .step_by(threads as usize)
                    .map(|seed| simulate(scenario, rate, policy, seed))
                    .collect::<Vec<_>>()
            }
        };
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(some(first))).collect();
        let joined =
            running.into_iter().map(|some| some.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect()
    })
}

impl Row {
    fn of(rate: f64, policy: PolicyName, outcomes: &[Outcome]) -> Self {
        let at = |share: f64| outcomes.iter().map(|outcome| percentile(&outcome.first_tokens, share)).collect();
        let mean = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / outcomes.len().max(1) as f64;
        Self {
            rate,
            policy,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            goodput: outcomes.iter().map(|one| one.in_time as f64 / one.length.as_secs_f64()).collect(),
            important: (outcomes.iter().any(|one| one.important > 0))
                .then(|| mean(|one| one.important_in_time as f64 / one.important.max(1) as f64)),
            failed: outcomes.iter().map(|one| one.failed).sum(),
            tokens_saved: mean(|one| one.tokens_saved),
            media_saved: mean(|one| one.media_saved),
        }
    }
}

/// What is left out of documents: each is behind one of the others in every scenario.
const NOT_IN_DOCUMENTS: [PolicyName; 2] = [PolicyName::Random, PolicyName::PowerOfTwo];

/// A table for documents: of each load the median of all seeds, to the first token in milliseconds by half and by all but a hundredth, and requests
/// a second whose first token came in time. The most that are in time stand out, and whatever is within two hundredths of them. Loads at which no policy
/// differs from the first are left out, unless `all_loads`.
pub fn markdown(all: &[Simulated<'_>], policies: &[PolicyName], all_loads: bool) -> String {
    let policies: Vec<_> = policies.iter().filter(|policy| !NOT_IN_DOCUMENTS.contains(policy)).collect();
    let mut text = String::from("| scenario | requests a second |");
    for policy in &policies {
        _ = write!(text, " {} |", policy.as_str());
    }
    text += "\n|---|---|";
    text += &"---|".repeat(policies.len());
    for (name, scenario, rows) in all {
        for rate in &scenario.rates {
            let of = |policy| rows.iter().find(|row| row.policy == policy && row.rate.to_bits() == rate.to_bits());
            let rows: Vec<&Row> = policies.iter().filter_map(|policy| of(**policy)).collect();
            if !all_loads && !rows.iter().any(|row| differ(rows[0], row)) {
                continue;
            }
            let best = rows.iter().map(|row| middle(&row.goodput)).fold(0.0, f64::max);
            _ = write!(text, "\n| `{name}` | {rate} |");
            for row in rows {
                let mark = if middle(&row.goodput) >= best * 0.98 { "**" } else { "" };
                let important = row.important.map(|share| format!(", {:.0} %", share * 100.0)).unwrap_or_default();
                _ = write!(
                    text,
                    " {:.0}/{:.0}, {mark}{:.1}{mark}{important} |",
                    middle(&row.p50),
                    middle(&row.p99),
                    middle(&row.goodput)
                );
            }
        }
    }
    text
}

/// By more than a fiftieth in time, or a tenth to the first token of the last hundredth.
fn differ(one: &Row, other: &Row) -> bool {
    let apart = |of: fn(&Row) -> &Vec<f64>, by: f64| {
        let (one, other) = (middle(of(one)), middle(of(other)));
        (one - other).abs() > by * one.max(other)
    };
    apart(|row| &row.goodput, 0.02) || apart(|row| &row.p99, 0.1)
}

pub(crate) fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile(&sorted, 0.5)
}

/// Of numbers in order; 0 of none.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let place = (last as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or(0.0)
}

/// The rows, with the least and the most of all seeds.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:>8}  {:<16}{:>22}{:>22}{:>22}{:>20}{:>8}{:>8}{:>8}{:>11}\n",
        "requests",
        "policy",
        "TTFT p50, ms",
        "p90",
        "p99",
        "in time, a second",
        "failed",
        "tokens",
        "media",
        "important"
    );
    text += &format!(
        "{:>8}  {:<16}{:>22}{:>22}{:>22}{:>20}{:>8}{:>8}{:>8}{:>11}\n",
        "a second", "", "", "", "", "", "", "saved", "saved", "in time"
    );
    for row in rows {
        let Row { rate, policy, p50, p90, p99, goodput, important, failed, tokens_saved, media_saved } = row;
        let important = important.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0));
        _ = writeln!(
            text,
            "{rate:>8}  {:<16}{:>22}{:>22}{:>22}{:>20}{failed:>8}{:>7.0}%{:>7.0}%{important:>11}",
            policy.as_str(),
            spread(p50, 0),
            spread(p90, 0),
            spread(p99, 0),
            spread(goodput, 1),
            tokens_saved * 100.0,
            media_saved * 100.0,
        );
    }
    text
}

/// The median, and the least and the most.
fn spread(values: &[f64], digits: usize) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return String::new() };
    format!("{:.digits$} ({least:.digits$}–{most:.digits$})", percentile(&sorted, 0.5))
}
