//! One model server: a queue, an encoder with its cache, prompts read in chunks beside answers that are being written, a KV cache.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;

use scheduling::Scraped;

use crate::cache::{MediaCache, PrefixCache};
use crate::rates::Rates;
use crate::workload::{Job, Micros};

/// What a server is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server {
    pub(crate) rates: Rates,
    /// Everything takes so many times as long.
    pub(crate) slowness: f64,
    pub(crate) kv_tokens: u64,
    pub(crate) media_tokens: u64,
}

/// A server at work.
#[derive(Debug)]
pub(crate) struct Engine {
    server: Server,
    waiting: VecDeque<(usize, Rc<Job>)>,
    reading: VecDeque<Reading>,
    /// Answers by the number of the step that ends them.
    writing: BinaryHeap<Reverse<(u64, usize)>>,
    /// Those that hold some of the KV cache.
    jobs: HashMap<usize, Rc<Job>>,
    /// Steps that wrote a token of each answer.
    written: u64,
    step: Option<Step>,
    /// Of the step at hand; one that was cut short leaves an end that means nothing.
    generation: u64,
    kv: PrefixCache,
    media: MediaCache,
    pub(crate) saved: Saved,
}

/// What its caches spared it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Saved {
    pub(crate) tokens: u64,
    pub(crate) of_tokens: u64,
    pub(crate) items: u64,
    pub(crate) of_items: u64,
}

/// A prompt that is being read.
#[derive(Debug)]
struct Reading {
    number: usize,
    job: Rc<Job>,
    tokens: u64,
    /// Milliseconds that its media take before that.
    encode: f64,
}

/// What is being done, in one go.
#[derive(Debug, Clone, Copy)]
struct Step {
    began: Micros,
    /// How often, each as long.
    times: u64,
    each: f64,
    /// Tokens of prompts that it reads.
    reads: u64,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// The first token of an answer.
    First(usize),
    /// The last.
    Last(usize),
}

/// When a step ends, if it is not cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepEnd {
    pub(crate) at: Micros,
    pub(crate) generation: u64,
}

/// vLLM's own limits (`max_num_batched_tokens` and `max_num_seqs` of its server on an H100).
const TOKENS_OF_A_STEP: u64 = 8192;
const MOST_RUNNING: usize = 256;

impl Saved {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            of_tokens: self.of_tokens + other.of_tokens,
            items: self.items + other.items,
            of_items: self.of_items + other.of_items,
        }
    }
}

impl Engine {
    pub(crate) fn new(server: Server) -> Self {
        Self {
            server,
            waiting: VecDeque::new(),
            reading: VecDeque::new(),
            writing: BinaryHeap::new(),
            jobs: HashMap::new(),
            written: 0,
            step: None,
            generation: 0,
            kv: PrefixCache::new(server.kv_tokens),
            media: MediaCache::new(server.media_tokens),
            saved: Saved::default(),
        }
    }

    /// What its metrics say, and how many tokens its KV cache holds.
    pub(crate) fn metrics(&self) -> (Scraped, u64) {
        let count = |count: usize| u32::try_from(count).ok();
        let scraped = Scraped {
            waiting: count(self.waiting.len()),
            running: count(self.reading.len() + self.writing.len()),
            kv_cache_usage: Some(self.kv.usage().min(1.0)),
        };
        (scraped, self.server.kv_tokens)
    }

    /// Takes a request; says when the step at hand ends now, if that changes.
    pub(crate) fn take(&mut self, number: usize, job: Rc<Job>, now: Micros) -> Option<StepEnd> {
        self.waiting.push_back((number, job));
        match &mut self.step {
            None => self.begin(now),
            // A run of nothing but writing ends with the token at hand.
            Some(step) if step.times > 1 => {
                let done = ((now - step.began) as f64 / (step.each * 1000.0)) as u64;
                step.times = step.times.min(done + 1);
                self.generation += 1;
                Some(self.end_of_step())
            }
            Some(_) => None,
        }
    }

    fn end_of_step(&self) -> StepEnd {
        let at = self.step.map_or(0, |step| step.began + micros(step.each * step.times as f64));
        StepEnd { at, generation: self.generation }
    }

    /// The step of this generation has ended: what came of it, and when the next one ends.
    pub(crate) fn end(&mut self, end: StepEnd) -> (Vec<Done>, Option<StepEnd>) {
        if end.generation != self.generation {
            return (Vec::new(), None);
        }
        let Some(step) = self.step.take() else { return (Vec::new(), None) };
        let mut done = Vec::new();
        if !self.writing.is_empty() {
            self.written += step.times;
        }
        while let Some(Reverse((last, number))) = self.writing.peek().copied()
            && last <= self.written
        {
            self.writing.pop();
            self.leave(number);
            done.push(Done::Last(number));
        }
        let mut read = step.reads;
        while let Some(reading) = self.reading.front_mut() {
            let some = read.min(reading.tokens);
            reading.tokens -= some;
            read -= some;
            if reading.tokens > 0 {
                break;
            }
            let Some(Reading { number, job, .. }) = self.reading.pop_front() else { break };
            done.push(Done::First(number));
            if job.answer <= 1 {
                self.leave(number);
                done.push(Done::Last(number));
            } else {
                self.writing.push(Reverse((self.written + u64::from(job.answer) - 1, number)));
            }
        }
        (done, self.begin(end.at))
    }

    fn leave(&mut self, number: usize) {
        if let Some(job) = self.jobs.remove(&number) {
            self.kv.leave(&job.chain, job.answer);
        }
    }

    /// Everything that it had is lost.
    pub(crate) fn die(&mut self) -> Vec<usize> {
        let lost = self.waiting.drain(..).map(|(number, _)| number).chain(self.reading.drain(..).map(|one| one.number));
        let mut lost: Vec<usize> = lost.collect();
        lost.extend(self.writing.drain().map(|Reverse((_, number))| number));
        *self = Self { generation: self.generation + 1, saved: self.saved, ..Self::new(self.server) };
        lost
    }

    fn begin(&mut self, now: Micros) -> Option<StepEnd> {
        self.admit();
        let Server { rates, slowness, .. } = self.server;
        let writing = self.writing.len();
        let mut room = TOKENS_OF_A_STEP.saturating_sub(writing as u64);
        let (mut reads, mut encode) = (0, 0.0);
        for reading in &mut self.reading {
            let some = room.min(reading.tokens);
            if some == 0 {
                break;
            }
            encode += std::mem::take(&mut reading.encode);
            reads += some;
            room -= some;
        }
        let (times, each) = match (reads, self.writing.peek()) {
            (0, None) => return None,
            (0, Some(Reverse((last, _)))) => (last - self.written, rates.decode(writing)),
            (_, next) => {
                let alone = if next.is_some() { rates.decode(writing) } else { rates.step() };
                (1, alone + rates.prefill(reads) + encode)
            }
        };
        self.step = Some(Step { began: now, times, each: each * slowness, reads });
        self.generation += 1;
        Some(self.end_of_step())
    }

    /// Takes from the queue what there is room for, in its order.
    fn admit(&mut self) {
        while let Some((number, job)) = self.waiting.front()
            && self.reading.len() + self.writing.len() < MOST_RUNNING
            && let Some(known) = self.kv.enter(&job.chain, job.answer)
        {
            let (number, job) = (*number, Rc::clone(job));
            self.waiting.pop_front();
            // What a cached prefix covers is not encoded either.
            let mut encode = 0.0;
            for item in &job.media {
                self.saved.of_items += 1;
                if item.ends_at <= known || self.media.enter(item.id, item.tokens) {
                    self.saved.items += 1;
                } else {
                    encode += self.server.rates.encode(item.megapixels);
                }
            }
            let all: u64 = job.chain.iter().map(|link| u64::from(link.tokens)).sum();
            self.saved.of_tokens += all;
            // One is always read: its logits begin the answer.
            let tokens = (all - known).max(1);
            self.saved.tokens += all - tokens;
            self.jobs.insert(number, Rc::clone(&job));
            self.reading.push_back(Reading { number, job, tokens, encode });
        }
    }
}

fn micros(milliseconds: f64) -> Micros {
    (milliseconds * 1000.0).round() as Micros
}
