//! The requests of a scenario, made by chance and always the same of one seed.

use std::rc::Rc;

use fastrand::Rng;
use routing::Draw;

use crate::cache::Link;
use crate::rates::tokens_of;
use crate::scenario::{Burst, Kind, Scenario};

/// Microseconds of virtual time.
pub(crate) type Micros = u64;

/// What a server is to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    /// The prompt, part by part.
    pub(crate) chain: Vec<Link>,
    pub(crate) media: Vec<Picture>,
    /// Tokens of the answer.
    pub(crate) answer: u32,
    pub(crate) priority: i32,
}

/// A picture in a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Picture {
    pub(crate) id: u64,
    pub(crate) tokens: u32,
    pub(crate) megapixels: f64,
    /// Tokens of the prompt up to its end.
    pub(crate) ends_at: u64,
}

/// What numbers are about, that nothing of one kind is taken for something of another.
const WORKLOAD: u64 = 1;
const PREFIX: u64 = 2;
const PICTURE: u64 = 3;
const OWN: u64 = 4;

/// A conversation that may go on.
#[derive(Debug, Clone)]
pub(crate) struct Talk {
    pub(crate) kind: usize,
    pub(crate) turns_left: usize,
    pub(crate) job: Rc<Job>,
}

/// Makes requests.
#[derive(Debug)]
pub(crate) struct Workload<'s> {
    scenario: &'s Scenario,
    rng: Rng,
    rate: f64,
    next: u64,
}

impl<'s> Workload<'s> {
    pub(crate) fn new(scenario: &'s Scenario, rate: f64, seed: u64) -> Self {
        // A part of its own, so that policies, which draw as well, change no request.
        Self { scenario, rng: Rng::with_seed(mixed(&[WORKLOAD, seed])), rate, next: 0 }
    }

    /// When another conversation begins.
    pub(crate) fn next_arrival(&mut self, after: Micros) -> Micros {
        let wait = -(1.0 - self.rng.f64()).ln() / (self.conversations() * self.burst(after));
        after + (wait * 1e6).round() as Micros
    }

    /// How many times as many come then.
    fn burst(&self, at: Micros) -> f64 {
        let in_it = |burst: &Burst| u128::from(at) % burst.every.as_micros().max(1) < burst.length.as_micros();
        self.scenario.burst.filter(in_it).map_or(1.0, |burst| burst.times)
    }

    /// Conversations a second, of which each brings as many requests as it has turns.
    fn conversations(&self) -> f64 {
        let shares: f64 = self.scenario.requests.iter().map(|kind| kind.share).sum();
        let turns: f64 = self.scenario.requests.iter().map(|kind| kind.share / shares * kind.turns as f64).sum();
        self.rate / turns
    }

    pub(crate) fn talk(&mut self) -> Talk {
        let shares: f64 = self.scenario.requests.iter().map(|kind| kind.share).sum();
        let mut drawn = self.rng.f64() * shares;
        let kinds = &self.scenario.requests;
        let chosen = kinds.iter().position(|kind| {
            drawn -= kind.share;
            drawn < 0.0
        });
        let kind = chosen.unwrap_or(kinds.len() - 1);
        let job = self.first(&kinds[kind], kind);
        Talk { kind, turns_left: kinds[kind].turns - 1, job: Rc::new(job) }
    }

    fn first(&mut self, kind: &Kind, number: usize) -> Job {
        let mut job = Job { chain: Vec::new(), media: Vec::new(), answer: kind.answer, priority: kind.priority };
        let (number, group) = (number as u64, self.rng.u64(..kind.groups as u64));
        if kind.prefix > 0 {
            job.add(mixed(&[PREFIX, number, group]), kind.prefix);
        }
        if kind.asks_first {
            self.own(&mut job, kind.text);
        }
        for place in 0..kind.pictures as u64 {
            let which = match kind.of_pictures {
                Some(all) => [self.rng.u64(..all as u64), 0],
                None => [group, place + 1],
            };
            let id = mixed(&[PICTURE, number, which[0], which[1]]);
            let tokens = tokens_of(kind.megapixels);
            job.add(id, tokens);
            job.media.push(Picture { id, tokens, megapixels: kind.megapixels, ends_at: job.tokens() });
        }
        if !kind.asks_first {
            self.own(&mut job, kind.text);
        }
        job
    }

    /// The next turn: all that was said, and something new.
    pub(crate) fn go_on(&mut self, talk: &Talk) -> Talk {
        let kind = &self.scenario.requests[talk.kind];
        let mut job = (*talk.job).clone();
        self.own(&mut job, kind.answer);
        self.own(&mut job, kind.text);
        Talk { kind: talk.kind, turns_left: talk.turns_left - 1, job: Rc::new(job) }
    }

    fn own(&mut self, job: &mut Job, tokens: u32) {
        self.next += 1;
        job.add(mixed(&[OWN, self.next]), tokens);
    }
}

impl Picture {
    /// Width and height of a picture of 16 to 9.
    pub(crate) fn size(&self) -> (u32, u32) {
        let height = (self.megapixels * 1e6 * 9.0 / 16.0).sqrt();
        ((height * 16.0 / 9.0).round() as u32, height.round() as u32)
    }
}

impl Job {
    pub(crate) fn tokens(&self) -> u64 {
        self.chain.iter().map(|link| u64::from(link.tokens)).sum()
    }

    fn add(&mut self, id: u64, tokens: u32) {
        let key = mixed(&[self.chain.last().map_or(0, |link| link.key), id]);
        self.chain.push(Link { key, tokens });
    }
}

/// One number of several, the same for ever.
fn mixed(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |mixed, number| Draw::new(mixed ^ number).next())
}
