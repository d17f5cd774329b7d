//! A profile: filters and weighted scorers, run over the candidates of one target.

use routing::{Draw, Endpoint, Requirement};

use crate::{Filter, Health, Load, Scorer, Subset};

/// What is asked of the endpoints.
#[derive(Debug, Clone, Copy)]
pub struct SchedulingRequest<'a> {
    pub need: Requirement,
    pub subset: Option<&'a Subset>,
}

/// An endpoint, and what is known of it at the instant of the decision. Whoever offers it fills this in; scorers read nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub endpoint: &'a Endpoint,
    pub load: Load,
    pub health: Health,
    /// Its place among those that were offered, for whoever offered them.
    pub place: usize,
}

/// A candidate that can take the request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Of the candidate.
    pub place: usize,
    /// The weighted mean of the scorers, 0 to 1.
    pub score: f32,
    /// The most important of the preferred filters that it fails.
    pub lacks: Option<Filter>,
    /// How important that filter is; 0 where it lacks nothing. Whoever has less comes first, whatever the scores.
    pub demotion: usize,
    of_others: u32,
    tie_break: u64,
}

/// The best of the candidates, in order; at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    best: Vec<Ranked>,
    /// How many are as good as the first, but for their scores.
    pub equals: usize,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub enum Explained {
    /// This required filter removed it.
    LeftOut { by: Filter },
    /// It can take the request: what it lacks, its score, and what each scorer gave.
    Scored { lacks: Option<Filter>, score: f32, parts: Vec<(Scorer, f32)> },
}

/// Why no candidate can take the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exhausted {
    /// There was none to begin with.
    NoEndpoints,
    /// The required filter that the best of them failed.
    Filtered(Filter),
}

/// Filters, the more important ones first, and scorers with their weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pub filters: Vec<Filter>,
    pub scorers: Vec<(Scorer, f32)>,
}

// === impl Profile ===

impl Default for Profile {
    /// Those with room before those that are full, these before those that fail, and these before those that seem dead. Among equals whoever
    /// works on the fewest requests of ours.
    ///
    /// Queues and caches, as metrics tell of them, do not rank: whatever had the freest cache half a second ago would get everything until
    /// the next time it is asked (`thalamus simulate`, where ranking by them took half of the load that a fleet can bear).
    fn default() -> Self {
        Self {
            filters: vec![Filter::Capability, Filter::Subset, Filter::Responsive, Filter::Answering, Filter::Room],
            scorers: vec![(Scorer::LeastActive, 1.0)],
        }
    }
}

impl Profile {
    /// The best `limit` of the candidates, best first; a draw decides among equals, so that idle endpoints share the load.
    pub fn run<'a>(
        &self,
        request: &SchedulingRequest<'_>,
        candidates: impl IntoIterator<Item = Candidate<'a>>,
        limit: usize,
        draw: &mut Draw,
    ) -> Result<Ranking, Exhausted> {
        let weights = self.weights();
        // Two are compared even where one is wanted.
        let kept = limit.max(2);
        let mut exhausted = Exhausted::NoEndpoints;
        let mut best: Vec<Ranked> = Vec::with_capacity(kept + 1);
        let mut equals = 0;
        for candidate in candidates {
            let ranked = match self.judge(request, &candidate) {
                Err(filter) => {
                    exhausted = exhausted.max(Exhausted::Filtered(filter));
                    continue;
                }
                Ok((lacks, demotion)) => Ranked {
                    place: candidate.place,
                    score: self.score(&candidate, weights),
                    lacks,
                    demotion,
                    of_others: candidate.load.of_others(),
                    tie_break: draw.next(),
                },
            };
            match best.first() {
                Some(first) if first.demotion == ranked.demotion => equals += 1,
                Some(first) if first.demotion < ranked.demotion => {}
                _ => equals = 1,
            }
            if best.len() < kept || best.last().is_some_and(|last| ranked.precedes(last)) {
                let at = best.partition_point(|other| other.precedes(&ranked));
                best.insert(at, ranked);
                best.truncate(kept);
            }
        }
        // Of two that are equal, drawn by chance, the one with fewer requests of others: to prefer the least of all would send everything there,
        // from every picker, until it is asked again (Mitzenmacher, "How useful is old information?", 2000).
        if let [first, second, ..] = &mut *best
            && (first.demotion, first.score.to_bits()) == (second.demotion, second.score.to_bits())
            && second.of_others < first.of_others
        {
            std::mem::swap(first, second);
        }
        best.truncate(limit);
        if best.is_empty() { Err(exhausted) } else { Ok(Ranking { best, equals }) }
    }

    /// What becomes of one candidate, for a person.
    pub fn explain(&self, request: &SchedulingRequest<'_>, candidate: &Candidate<'_>) -> Explained {
        match self.judge(request, candidate) {
            Err(by) => Explained::LeftOut { by },
            Ok((lacks, _)) => Explained::Scored {
                lacks,
                score: self.score(candidate, self.weights()),
                parts: self.scorers.iter().map(|(scorer, _)| (*scorer, scorer.score(candidate))).collect(),
            },
        }
    }

    /// The required filter that it fails; or the preferred one, and how far from the last.
    fn judge(
        &self,
        request: &SchedulingRequest<'_>,
        candidate: &Candidate<'_>,
    ) -> Result<(Option<Filter>, usize), Filter> {
        let mut lacks = (None, 0);
        for (number, filter) in self.filters.iter().enumerate() {
            if !filter.keeps(request, candidate) {
                if filter.is_required() {
                    return Err(*filter);
                }
                if lacks.0.is_none() {
                    lacks = (Some(*filter), self.filters.len() - number);
                }
            }
        }
        Ok(lacks)
    }

    fn weights(&self) -> f32 {
        self.scorers.iter().map(|(_, weight)| weight).sum()
    }

    fn score(&self, candidate: &Candidate<'_>, weights: f32) -> f32 {
        // What is known of a server that is silent is what it said before; it is as good as nothing.
        if !candidate.health.responsive || weights <= 0.0 {
            return 0.0;
        }
        let sum: f32 = self.scorers.iter().map(|(scorer, weight)| scorer.score(candidate) * weight).sum();
        sum / weights
    }
}

// === impl Ranking ===

impl Ranking {
    pub fn best(&self) -> &Ranked {
        &self.best[0]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Ranked> {
        self.best.iter()
    }
}

// === impl Ranked ===

impl Ranked {
    fn precedes(&self, other: &Self) -> bool {
        self.demotion
            .cmp(&other.demotion)
            .then(other.score.total_cmp(&self.score))
            .then(self.tie_break.cmp(&other.tie_break))
            .is_lt()
    }
}

#[cfg(test)]
mod tests;
