//! A profile: filters, scorers and a picker in a row, run over the candidates of one target.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use routing::{Draw, Endpoint, Requirement};

use crate::{
    Covers, Filter, FreeKvCache, HighestScore, InSubset, LeastActive, Load, NotSaturated, NotSilent, Picker, Scorer,
    ShortestQueue,
};

/// What is asked of the endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub need: Requirement,
    pub subset: Option<&'a Subset>,
}

/// Addresses that a gateway allows: `ip:port`, or `ip` for each port of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subset {
    addresses: Vec<SocketAddr>,
    hosts: Vec<IpAddr>,
}

/// An endpoint, and its load at the instant of the decision.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub name: &'a Arc<str>,
    pub endpoint: &'a Endpoint,
    pub load: Load,
    /// Its place among those that were offered, for whoever offered them.
    pub place: usize,
}

/// A candidate that passed the filters.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    pub candidate: Candidate<'a>,
    /// The weighted mean of the scorers, 0 to 1.
    pub score: f32,
    pub(crate) tie_break: u64,
}

/// The candidates that may take the request, best first; at least one. Those after the first are fallbacks.
#[derive(Debug)]
pub struct Ranking<'a>(Vec<Scored<'a>>);

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub enum Explained {
    /// The filter of this name removed it.
    LeftOut { by: &'static str },
    /// It passed; its score, and what each scorer gave.
    Scored { score: f32, parts: Vec<(&'static str, f32)> },
}

/// No candidate passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// There was none to begin with.
    NoEndpoints,
    /// The filter of this name removed the last.
    Filtered(&'static str),
}

/// Filters, scorers with their weights, and a picker.
#[derive(Debug)]
pub struct Profile {
    filters: Vec<Box<dyn Filter>>,
    scorers: Vec<(Box<dyn Scorer>, f32)>,
    picker: Box<dyn Picker>,
}

// === impl Profile ===

impl Profile {
    pub fn new(filters: Vec<Box<dyn Filter>>, scorers: Vec<(Box<dyn Scorer>, f32)>, picker: Box<dyn Picker>) -> Self {
        Self { filters, scorers, picker }
    }

    /// The profiles to try in turn, each without a filter that the one before had: first those with room, then those that live, then
    /// whoever there is. Least active, shortest queue and free cache count alike.
    pub fn in_turn() -> [Self; 3] {
        let with = |filters: Vec<Box<dyn Filter>>| Self::new(filters, standard_scorers(), Box::new(HighestScore));
        [
            with(vec![Box::new(Covers), Box::new(InSubset), Box::new(NotSilent), Box::new(NotSaturated)]),
            with(vec![Box::new(Covers), Box::new(InSubset), Box::new(NotSilent)]),
            with(vec![Box::new(Covers), Box::new(InSubset)]),
        ]
    }

    /// Ranks the candidates that may take the request.
    pub fn run<'a>(
        &self,
        ask: &Ask<'_>,
        candidates: impl IntoIterator<Item = Candidate<'a>>,
        draw: &mut Draw,
    ) -> Result<Ranking<'a>, Exhausted> {
        let mut exhausted = Exhausted::NoEndpoints;
        let mut furthest = 0;
        let mut scored = Vec::new();
        for candidate in candidates {
            match self.filters.iter().position(|filter| !filter.keep(ask, &candidate)) {
                None => scored.push(Scored { candidate, score: self.score(&candidate), tie_break: 0 }),
                // The filter that the best of them reached is the reason worth telling.
                Some(at) if at >= furthest => {
                    furthest = at;
                    exhausted = Exhausted::Filtered(self.filters[at].name());
                }
                Some(_) => {}
            }
        }
        if scored.is_empty() {
            return Err(exhausted);
        }
        self.picker.order(&mut scored, draw);
        Ok(Ranking(scored))
    }

    /// What becomes of one candidate, for a person.
    pub fn explain(&self, ask: &Ask<'_>, candidate: &Candidate<'_>) -> Explained {
        match self.filters.iter().find(|filter| !filter.keep(ask, candidate)) {
            Some(filter) => Explained::LeftOut { by: filter.name() },
            None => Explained::Scored {
                score: self.score(candidate),
                parts: self.scorers.iter().map(|(scorer, _)| (scorer.name(), scorer.score(candidate))).collect(),
            },
        }
    }

    fn score(&self, candidate: &Candidate<'_>) -> f32 {
        // What is known of a silent server is what it said before; it is as good as none.
        if candidate.load.is_silent() {
            return 0.0;
        }
        let total: f32 = self.scorers.iter().map(|(_, weight)| weight).sum();
        let sum: f32 = self.scorers.iter().map(|(scorer, weight)| scorer.score(candidate) * weight).sum();
        if total > 0.0 { sum / total } else { 0.0 }
    }
}

fn standard_scorers() -> Vec<(Box<dyn Scorer>, f32)> {
    vec![(Box::new(LeastActive), 1.0), (Box::new(ShortestQueue), 1.0), (Box::new(FreeKvCache), 1.0)]
}

// === impl Ranking ===

impl<'a> Ranking<'a> {
    pub fn best(&self) -> &Scored<'a> {
        &self.0[0]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Scored<'a>> {
        self.0.iter()
    }
}

// === impl Subset ===

impl Subset {
    /// Reads items such as `10.0.0.1:8000`, `[fd00::1]:8000` or `10.0.0.1`; each may be a comma-separated list. What is no address
    /// allows nothing, so that a list of only such items is an empty one.
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>) -> Self {
        let mut subset = Self::default();
        for item in items.into_iter().flat_map(|item| item.split(',')).map(str::trim) {
            if let Ok(address) = item.parse() {
                subset.addresses.push(address);
            } else if let Ok(host) = item.trim_start_matches('[').trim_end_matches(']').parse() {
                subset.hosts.push(host);
            }
        }
        subset
    }

    pub fn allows(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address) || self.hosts.contains(&address.ip())
    }
}

#[cfg(test)]
mod tests;
