//! Virtual time: what happens next, and to whom.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use fastrand::Rng;

use crate::engine::{Done, Engine, Saved, Server, StepEnd};
use crate::policy::{Choice, Policy, PolicyName, policy};
use crate::scenario::Scenario;
use crate::workload::{Micros, Talk, Workload};

/// One policy under one load, of one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Milliseconds to the first token, of those that got one, in order.
    pub first_tokens: Vec<f64>,
    /// Requests that were counted; those that failed, and those whose first token came in time.
    pub requests: usize,
    pub failed: usize,
    pub in_time: usize,
    /// The same of those of the highest priority alone.
    pub important: usize,
    pub important_in_time: usize,
    /// How long requests came that were counted.
    pub length: Duration,
    /// Shares of prompts' tokens, and of media, that caches spared the servers.
    pub tokens_saved: f64,
    pub media_saved: f64,
}

/// What may happen, in the order in which things at one instant do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Dies(usize),
    Joins(usize),
    StepEnds(usize, u64),
    Scrape,
    Arrives,
    GoesOn(usize),
}

/// A request under way, or one that may be followed by another.
struct Request {
    talk: Talk,
    arrived: Micros,
    server: usize,
    picker: usize,
    got_first: bool,
}

struct Simulation<'s> {
    scenario: &'s Scenario,
    name: PolicyName,
    events: BinaryHeap<Reverse<(Micros, Event)>>,
    engines: Vec<Engine>,
    alive: Vec<bool>,
    pickers: Vec<Box<dyn Policy>>,
    workload: Workload<'s>,
    requests: HashMap<usize, Request>,
    /// Those that wait in a picker.
    waiting: HashMap<usize, (Talk, Micros)>,
    next: usize,
    rng: Rng,
    outcome: Outcome,
}

/// What a request takes on its way besides a server's steps: network, HTTP, tokens made of text (llm-d's simulator of latencies, and
/// BLIS, have about the same).
const ON_THE_WAY: Duration = Duration::from_millis(15);

/// Simulates one load of a scenario.
pub fn simulate(scenario: &Scenario, rate: f64, name: PolicyName, seed: u64) -> Outcome {
    let mut engines = Vec::new();
    let mut events = BinaryHeap::new();
    for group in &scenario.servers {
        for place in 0..group.count {
            let slowness = group.slow_one.filter(|_| place == 0).unwrap_or(1.0);
            if let Some(dies_at) = group.one_dies_at.filter(|_| place == 0) {
                events.push(Reverse((micros(dies_at), Event::Dies(engines.len()))));
            }
            if let Some(join_at) = group.join_at {
                events.push(Reverse((micros(join_at), Event::Joins(engines.len()))));
            }
            let (rates, kv_tokens, media_tokens) = (group.hardware.rates(), group.kv_tokens, group.media_tokens);
            engines.push(Engine::new(Server { rates, slowness, kv_tokens, media_tokens }));
        }
    }
    let pickers = (0..scenario.pickers).map(|picker| policy(name, scenario, seed.wrapping_mul(31) + picker as u64));
    let simulation = Simulation {
        scenario,
        name,
        events,
        alive: scenario.there_at_first(),
        engines,
        pickers: pickers.collect(),
        workload: Workload::new(scenario, rate, seed),
        requests: HashMap::new(),
        waiting: HashMap::new(),
        next: 0,
        rng: Rng::with_seed(seed),
        outcome: Outcome {
            first_tokens: Vec::new(),
            requests: 0,
            failed: 0,
            in_time: 0,
            important: 0,
            important_in_time: 0,
            length: scenario.length.saturating_sub(scenario.warmup),
            tokens_saved: 0.0,
            media_saved: 0.0,
        },
    };
    simulation.run()
}

fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Simulation<'_> {
    fn run(mut self) -> Outcome {
        let first = self.workload.next_arrival(0);
        self.events.push(Reverse((first, Event::Arrives)));
        self.events.push(Reverse((0, Event::Scrape)));
        let ends = micros(self.scenario.length);
        while let Some(Reverse((now, event))) = self.events.pop() {
            match event {
                Event::Arrives if now < ends => {
                    let talk = self.workload.talk();
                    self.arrive(talk, now);
                    let next = self.workload.next_arrival(now);
                    self.events.push(Reverse((next, Event::Arrives)));
                }
                Event::Arrives => {}
                Event::GoesOn(number) => {
                    if let Some(request) = self.requests.remove(&number).filter(|_| now < ends) {
                        let talk = self.workload.go_on(&request.talk);
                        self.arrive(talk, now);
                    }
                }
                Event::StepEnds(server, generation) => {
                    let (done, next) = self.engines[server].end(StepEnd { at: now, generation });
                    for done in done {
                        self.done(server, done, now);
                    }
                    self.ends_at(server, next);
                }
                Event::Scrape => {
                    self.scrape(now);
                    if now < ends || !self.requests.is_empty() || !self.waiting.is_empty() {
                        self.events.push(Reverse((now + micros(self.name.scrapes_every()), Event::Scrape)));
                    }
                }
                Event::Joins(server) => {
                    self.alive[server] = true;
                    self.pickers.iter_mut().for_each(|policy| policy.joins(server));
                }
                Event::Dies(server) => {
                    self.alive[server] = false;
                    for number in self.engines[server].die() {
                        self.fail(number, now);
                    }
                }
            }
            self.go_on(now);
        }
        let saved = self.engines.iter().fold(Saved::default(), |all, engine| all.and(engine.saved));
        self.outcome.tokens_saved = share(saved.tokens, saved.of_tokens);
        self.outcome.media_saved = share(saved.items, saved.of_items);
        self.outcome.first_tokens.sort_by(f64::total_cmp);
        self.outcome
    }

    fn arrive(&mut self, talk: Talk, now: Micros) {
        let (number, picker) = (self.next, self.rng.usize(..self.pickers.len()));
        self.next += 1;
        let choice = self.pickers[picker].choose(number, &talk.job, now);
        let is_important = usize::from(self.scenario.is_important(talk.kind));
        self.count(now, |outcome| {
            outcome.requests += 1;
            outcome.important += is_important;
        });
        self.place(number, picker, (talk, now), choice, now);
    }

    fn place(
        &mut self,
        number: usize,
        picker: usize,
        (talk, arrived): (Talk, Micros),
        mut choice: Choice,
        now: Micros,
    ) {
        while let Choice::Server(dead) = choice
            && !self.alive[dead]
        {
            choice = self.pickers[picker].refused(number, dead, &talk.job, now).into();
        }
        match choice {
            Choice::Server(server) => {
                let ends = self.engines[server].take(number, std::rc::Rc::clone(&talk.job), now);
                self.requests.insert(number, Request { talk, arrived, server, picker, got_first: false });
                self.ends_at(server, ends);
            }
            Choice::Later => drop(self.waiting.insert(number, (talk, arrived))),
            Choice::Nowhere => self.count(arrived, |outcome| outcome.failed += 1),
        }
    }

    /// Those that waited in a picker may go.
    fn go_on(&mut self, now: Micros) {
        for picker in 0..self.pickers.len() {
            for (number, choice) in self.pickers[picker].go_on(now) {
                if let Some(waited) = self.waiting.remove(&number) {
                    self.place(number, picker, waited, choice, now);
                }
            }
        }
    }

    fn ends_at(&mut self, server: usize, end: Option<StepEnd>) {
        self.events.extend(end.map(|StepEnd { at, generation }| Reverse((at, Event::StepEnds(server, generation)))));
    }

    fn done(&mut self, server: usize, done: Done, now: Micros) {
        match done {
            Done::First(number) => {
                let Some(request) = self.requests.get_mut(&number) else { return };
                request.got_first = true;
                let (arrived, picker, kind) = (request.arrived, request.picker, request.talk.kind);
                let is_important = usize::from(self.scenario.is_important(kind));
                self.pickers[picker].first_byte(number, now);
                let waited = Duration::from_micros(now - arrived) + ON_THE_WAY;
                let in_time = waited <= self.scenario.first_token_within;
                self.count(arrived, |outcome| {
                    outcome.first_tokens.push(waited.as_secs_f64() * 1000.0);
                    outcome.in_time += usize::from(in_time);
                    outcome.important_in_time += usize::from(in_time) * is_important;
                });
            }
            Done::Last(number) => {
                let Some(request) = self.requests.get(&number) else { return };
                self.pickers[request.picker].ended(number, server, true, now);
                let kind = &self.scenario.requests[request.talk.kind];
                if request.talk.turns_left > 0 {
                    self.events.push(Reverse((now + micros(kind.thinks), Event::GoesOn(number))));
                } else {
                    self.requests.remove(&number);
                }
            }
        }
    }

    fn fail(&mut self, number: usize, now: Micros) {
        let Some(Request { talk, arrived, server, picker, got_first }) = self.requests.remove(&number) else { return };
        let is_important = usize::from(self.scenario.is_important(talk.kind));
        self.pickers[picker].ended(number, server, false, now);
        let waited = Duration::from_micros(now - arrived) + ON_THE_WAY;
        let was_in_time = got_first && waited <= self.scenario.first_token_within;
        self.count(arrived, |outcome| {
            outcome.failed += 1;
            outcome.in_time -= usize::from(was_in_time);
            outcome.important_in_time -= usize::from(was_in_time) * is_important;
        });
    }

    /// What is known of those that came before the warm-up is over is not counted.
    fn count(&mut self, arrived: Micros, count: impl FnOnce(&mut Outcome)) {
        if arrived >= micros(self.scenario.warmup) {
            count(&mut self.outcome);
        }
    }

    fn scrape(&mut self, now: Micros) {
        for (server, engine) in self.engines.iter().enumerate() {
            let metrics = self.alive[server].then(|| engine.metrics());
            for policy in &mut self.pickers {
                policy.scraped(server, metrics, now);
            }
        }
    }
}

fn share(some: u64, of: u64) -> f64 {
    some as f64 / of.max(1) as f64
}
