//! A profile: filters and what orders those that pass, run over the candidates of one target.

use std::net::IpAddr;

use routing::{Draw, Endpoint, Limits, Offer, Requirement, Size};

use crate::{Cost, Filter, Health, Load, Scorer, Subset, Work, copies};

/// What is asked of the endpoints.
#[derive(Debug, Clone, Copy)]
pub struct SchedulingRequest<'a> {
    pub need: Requirement,
    /// How much it brings, and how much of that its target takes as its object says.
    pub size: Size,
    pub limits: Limits,
    pub subset: Option<&'a Subset>,
    /// What its prompt begins with, where a server that reads it will know it later.
    pub content: Option<u64>,
}

/// An endpoint, and what is known of it at the instant of the decision. Whoever offers it fills this in; scorers read nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub endpoint: &'a Endpoint,
    /// What it offers of the model that is asked for; none where it does not serve it.
    pub offer: Option<Offer>,
    pub load: Load,
    pub health: Health,
    /// What the request asks of it.
    pub work: Work,
    /// False where the adapter that is asked for would wait until the engine is done with another.
    pub has_adapter_place: bool,
    /// Of the work that it was sent of late, the share that it was spared, since it had that from before: 0 to 1.
    pub spared_share: f32,
    /// Its place among those that were offered, for whoever offered them.
    pub place: usize,
}

/// A candidate that can take the request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Of the candidate.
    pub place: usize,
    /// What the request asks of it, and what stands before that.
    pub parts: Cost,
    /// The less, the better: milliseconds, or what scorers leave of 1.
    pub cost: f32,
    /// The most important of the preferred filters that it fails; one of the endpoint's state before one of the request.
    pub lacks: Option<Filter>,
    /// How important all are that it fails together; 0 where it lacks nothing. Whoever has less comes first, whatever the scores.
    pub demotion: usize,
    /// What it would cost if the endpoint had nothing of the request in its caches.
    pub cost_anew: f32,
    tie_break: u64,
}

/// The best of the candidates, in order; at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    best: Vec<Ranked>,
    /// How many are as good as the first, but for what they cost.
    pub equals: usize,
    pub choice: Choice,
    /// What the cheapest of them costs.
    pub least: f32,
}

/// Why the first of a ranking comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It is the cheapest.
    Cheapest,
    /// It is the cheapest for what it has in its caches: another would be, if nobody had anything of the request.
    Cached,
    /// Others send the like there, though it costs more than elsewhere.
    Home,
    /// It is to have what is often asked for, though for now it costs more than elsewhere.
    Copy,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub enum Explained {
    /// This required filter removed it.
    LeftOut { by: Filter },
    /// It can take the request: what it lacks, and what it costs there.
    Costs { lacks: Option<Filter>, cost: Cost },
    /// The same, by scores.
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

/// Filters, the more important ones first, and what orders those that pass as many.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pub filters: Vec<Filter>,
    pub prefers: Preference,
}

/// What makes one endpoint better than another.
#[derive(Debug, Clone, PartialEq)]
pub enum Preference {
    /// The least [`Cost`].
    LeastCost,
    /// The highest weighted mean of these.
    Scores(Vec<(Scorer, f32)>),
}

/// So many endpoints are many: of fewer, all may be at fault.
const MANY: usize = 4;

/// Costs within this share of the least are equal: they are estimates.
pub(crate) const NEAR: f32 = 0.05;

/// The least such share where nobody has what a prompt begins with, and it is worth something that all send it to the same endpoint.
const NEAR_HOME: f32 = 0.1;

// === impl SchedulingRequest ===

impl SchedulingRequest<'_> {
    /// How much one endpoint takes at once: what its target declares, and what was found there.
    pub(crate) fn limits_at(&self, candidate: &Candidate<'_>) -> Limits {
        candidate.offer.map_or(self.limits, |offer| self.limits.intersection(offer.limits))
    }
}

// === impl Profile ===

impl Default for Profile {
    /// Those with room before those that are full, these before those that fail, and these before those that seem dead. Among equals where
    /// the request costs least.
    fn default() -> Self {
        Self { filters: Filter::ALL.to_vec(), prefers: Preference::LeastCost }
    }
}

impl Profile {
    /// The best `limit` of the candidates, best first. Among those that are nearly equal a draw decides, so that idle endpoints share the
    /// load; or what the prompt begins with, so that several pickers, and one after its restart, send the same to the same.
    pub fn run<'a>(
        &self,
        request: &SchedulingRequest<'_>,
        candidates: impl IntoIterator<Item = Candidate<'a>>,
        limit: usize,
        draw: &mut Draw,
    ) -> Result<Ranking, Exhausted> {
        let mut exhausted = Exhausted::NoEndpoints;
        let candidates = candidates.into_iter();
        let mut all: Vec<Ranked> = Vec::with_capacity(candidates.size_hint().1.unwrap_or(0));
        let (mut is_known, mut doubtful, mut company) = (false, Vec::new(), Company::default());
        for candidate in candidates {
            match self.judge(request, &candidate) {
                Err(filter) => exhausted = exhausted.max(Exhausted::Filtered(filter)),
                Ok((lacks, demotion)) => {
                    if lacks == Some(Filter::Answering) && candidate.health.doubts > 0 {
                        let health = Health { answering: true, ..candidate.health };
                        let besides = self.judge(request, &Candidate { health, ..candidate }).unwrap_or_default();
                        doubtful.push((candidate.health.doubts, all.len(), besides));
                    }
                    is_known |= demotion == 0 && candidate.work.saved > candidate.work.all();
                    if demotion == 0 {
                        company.add(&candidate);
                    }
                    let work = candidate.work;
                    let cost = self.cost(&candidate);
                    let anew = || self.cost(&Candidate { work: work.anew(), ..candidate });
                    let cost_anew = if work.saved > 0.0 { anew() } else { cost };
                    let parts = Cost::new(work, &candidate.load);
                    let tie_break = place_of(candidate.endpoint);
                    all.push(Ranked { place: candidate.place, parts, cost, lacks, demotion, cost_anew, tie_break });
                }
            }
        }
        spare_half(&mut all, doubtful);
        let Some(demotion) = all.iter().map(|ranked| ranked.demotion).min() else { return Err(exhausted) };
        let (salt, near, has_home) = match request.content {
            Some(content) if !is_known => (content, NEAR_HOME, true),
            _ => (draw.next(), NEAR, false),
        };
        let worth = if has_home && self.prefers == Preference::LeastCost { company.worth() } else { 0.0 };
        for ranked in &mut all {
            ranked.tie_break = Draw::new(salt ^ ranked.tie_break).next();
        }
        let first = || all.iter().filter(|ranked| ranked.demotion == demotion);
        let equals = first().count();
        let cheapest = first().min_by(|one, other| one.cost.total_cmp(&other.cost));
        let (least, pace) = cheapest.map_or((0.0, 1.0), |ranked| (ranked.cost, ranked.parts.pace));
        let least_anew = first().map(|ranked| ranked.cost_anew).fold(f32::INFINITY, f32::min);
        // A pace counts twice for a home at a price: to agree on a slow server is worth nothing.
        let at_home =
            |ranked: &Ranked| ranked.cost * (ranked.parts.pace / pace).max(1.0) <= least * (1.0 + near + worth);
        let is_near = |ranked: &Ranked| ranked.cost <= least * (1.0 + near) || worth > 0.0 && at_home(ranked);
        let copy = cheapest.filter(|_| self.prefers == Preference::LeastCost && !has_home);
        let copy = copy.and_then(|cheapest| copies::due(cheapest, first(), draw)).map(|ranked| ranked.place);
        let is_copy = |ranked: &Ranked| copy == Some(ranked.place);
        // Costs are never below zero, so that their bits are in their order.
        let order = |ranked: &Ranked| {
            let is_near = ranked.demotion == demotion && is_near(ranked);
            let cost = if is_near { 0 } else { ranked.cost.to_bits() };
            // Of those that are nearly equal whoever does the least, but for a home, which is worth a little.
            let in_flight = if is_near && !has_home { ranked.parts.in_flight } else { 0 };
            (ranked.demotion, !is_copy(ranked), cost, in_flight, ranked.tie_break, ranked.place)
        };
        let limit = limit.max(1);
        if limit < all.len() {
            all.select_nth_unstable_by_key(limit, order);
            all.truncate(limit);
        }
        all.sort_unstable_by_key(order);
        let choice = match all[0] {
            first if is_copy(&first) => Choice::Copy,
            first if has_home && first.cost > least * (1.0 + near) => Choice::Home,
            first if worth == 0.0 && first.cost_anew > least_anew * (1.0 + NEAR_HOME) => Choice::Cached,
            _ => Choice::Cheapest,
        };
        Ok(Ranking { best: all, equals, choice, least })
    }

    /// What becomes of one candidate, for a person.
    pub fn explain(&self, request: &SchedulingRequest<'_>, candidate: &Candidate<'_>) -> Explained {
        match self.judge(request, candidate) {
            Err(by) => Explained::LeftOut { by },
            Ok((lacks, _)) => match &self.prefers {
                Preference::LeastCost => Explained::Costs { lacks, cost: Cost::new(candidate.work, &candidate.load) },
                Preference::Scores(scorers) => Explained::Scored {
                    lacks,
                    score: score(candidate, scorers),
                    parts: scorers.iter().map(|(scorer, _)| (*scorer, scorer.score(candidate))).collect(),
                },
            },
        }
    }

    /// The required filter that it fails; or the preferred one, and how important all of those are that it fails.
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
                // A bit for each, so that of those that lack one the better ones come first all the same.
                lacks.1 |= 1 << (self.filters.len() - number);
                if lacks.0.is_none_or(Filter::is_of_the_request) {
                    lacks.0 = Some(*filter);
                }
            }
        }
        Ok(lacks)
    }

    fn cost(&self, candidate: &Candidate<'_>) -> f32 {
        match &self.prefers {
            Preference::LeastCost => Cost::new(candidate.work, &candidate.load).total(),
            Preference::Scores(scorers) => 1.0 - score(candidate, scorers),
        }
    }
}

/// Who sends requests to the endpoints that are as good as any, and whether it matters who has what.
#[derive(Debug, Clone, Copy, Default)]
struct Company {
    endpoints: f32,
    /// Sums of [`Load::others_share`] and [`Candidate::spared_share`].
    others: f32,
    spared: f32,
}

/// What it is worth to agree on a home where all requests are of others, as a share of the least cost.
const WORTH_OF_COMPANY: f32 = 4.0;

/// Agreeing is worth all of that where so much of the work is spared: while pickers do not agree, hardly more can be.
const WELL_SPARED: f32 = 0.25;

impl Company {
    fn add(&mut self, candidate: &Candidate<'_>) {
        self.endpoints += 1.0;
        self.others += candidate.load.others_share;
        self.spared += candidate.spared_share;
    }

    /// What it is worth that all pickers send the same to the same endpoint, as a share of the least cost: nothing to one that is alone, or
    /// where nothing comes again.
    fn worth(&self) -> f32 {
        let endpoints = self.endpoints.max(1.0);
        let (others, spared) = (self.others / endpoints, self.spared / endpoints);
        WORTH_OF_COMPANY * others.min(1.0) * (spared / WELL_SPARED).min(1.0)
    }
}

/// An endpoint that fails, though it takes connections: how often in a row, its place among all, and what it lacks besides.
type Doubtful = (u32, usize, (Option<Filter>, usize));

/// Where most of many fail, it may be what they are asked: no more than half of them are left alone, but for those that surely fail.
fn spare_half(all: &mut [Ranked], mut doubtful: Vec<Doubtful>) {
    if all.len() < MANY || doubtful.is_empty() {
        return;
    }
    let fails = |ranked: &&Ranked| matches!(ranked.lacks, Some(Filter::Responsive | Filter::Answering));
    let too_many = all.iter().filter(fails).count().saturating_sub(all.len() / 2);
    doubtful.sort_unstable_by_key(|(doubts, place, _)| (*doubts, *place));
    for (_, place, besides) in doubtful.into_iter().take(too_many) {
        (all[place].lacks, all[place].demotion) = besides;
    }
}

fn score(candidate: &Candidate<'_>, scorers: &[(Scorer, f32)]) -> f32 {
    let weights: f32 = scorers.iter().map(|(_, weight)| weight).sum();
    // What is known of a server that is silent is what it said before; it is as good as nothing.
    if !candidate.health.responsive || weights <= 0.0 {
        return 0.0;
    }
    let sum: f32 = scorers.iter().map(|(scorer, weight)| scorer.score(candidate) * weight).sum();
    sum / weights
}

/// An endpoint's place among all, wherever it is seen from. Mixed with a content it says how near it is to that one's home, by rendezvous
/// hashing (Thaler and Ravishankar, 1998): whoever knows the same endpoints finds the same one, and the contents of one that goes spread
/// over all others.
fn place_of(endpoint: &Endpoint) -> u64 {
    let ip = endpoint.address.ip().to_canonical();
    let bits = match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let [high, low] = [bits >> 64, bits & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0));
    Draw::mixed(high, low ^ u64::from(endpoint.address.port()) << 48)
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

#[cfg(test)]
mod tests;
