//! Who chooses a server: the real director, and those that it is held against.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use director::{
    Bound, Director, EndpointState, Plan, Reading, Rejection, RequestHandler, RunningAttempt, Step, Waiting,
};
use fastrand::Rng;
use media::{Facts, Identity};
use request::{InferenceRequest, MediaItem, PartPath, Piece, Placeholders, Prompt, Resource};
use routing::{
    Capability, Draw, Endpoint, Family, MediaSource, Modality, ModalitySet, Model, Operation, Pool, PoolPolicy,
    Requirement, RoutingTable, Target,
};
use scheduling::Scraped;

use crate::reference::Reference;
use crate::scenario::{Group, Scenario};
use crate::workload::{Job, Micros};

/// Policies, by the names that reports have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyName {
    RoundRobin,
    Random,
    LeastRequests,
    PowerOfTwo,
    /// llm-d's router, by its default profile.
    LlmD,
    /// The same, by the profile of its multimodal guide.
    LlmDMultimodal,
    LMetric,
    Thalamus,
    /// Behind a gateway that does not show it answers, so that it hears of no first byte.
    ThalamusUntold,
    /// The director, that lacks something.
    ThalamusWithout(Part),
}

/// What the director knows or does, that may be taken from it to see what it is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What of a prompt is in whose cache.
    Prefixes,
    /// Which picture is which.
    Media,
    /// Requests that wait in the picker.
    Queue,
    /// What servers say of themselves.
    Metrics,
}

impl PolicyName {
    pub const ALL: [Self; 9] = [
        Self::RoundRobin,
        Self::Random,
        Self::LeastRequests,
        Self::PowerOfTwo,
        Self::LlmD,
        Self::LlmDMultimodal,
        Self::LMetric,
        Self::Thalamus,
        Self::ThalamusUntold,
    ];

    /// The director, and itself without each of its parts.
    pub const PARTS: [Self; 6] = [
        Self::Thalamus,
        Self::ThalamusWithout(Part::Prefixes),
        Self::ThalamusWithout(Part::Media),
        Self::ThalamusWithout(Part::Queue),
        Self::ThalamusWithout(Part::Metrics),
        Self::ThalamusUntold,
    ];

    /// Whether it is the director that decides.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Thalamus | Self::ThalamusUntold | Self::ThalamusWithout(_))
    }

    /// How often its pickers read metrics: what they know is half as old on average. llm-d's default, and ours.
    pub(crate) const fn scrapes_every(self) -> Duration {
        match self {
            Self::LlmD | Self::LlmDMultimodal | Self::LMetric => Duration::from_millis(50),
            _ => Duration::from_millis(500),
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round robin",
            Self::Random => "random",
            Self::LeastRequests => "least requests",
            Self::PowerOfTwo => "power of two",
            Self::LlmD => "llm-d",
            Self::LlmDMultimodal => "llm-d multimodal",
            Self::LMetric => "lmetric",
            Self::Thalamus => "thalamus",
            Self::ThalamusUntold => "thalamus, untold",
            Self::ThalamusWithout(Part::Prefixes) => "without prefixes",
            Self::ThalamusWithout(Part::Media) => "without media",
            Self::ThalamusWithout(Part::Queue) => "without queue",
            Self::ThalamusWithout(Part::Metrics) => "without metrics",
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    Server(usize),
    /// It waits in the picker.
    Later,
    /// No server will do, or it waited for too long.
    Nowhere,
}

impl From<Option<usize>> for Choice {
    fn from(server: Option<usize>) -> Self {
        server.map_or(Self::Nowhere, Self::Server)
    }
}

/// One picker.
pub(crate) trait Policy {
    /// Where a request goes first.
    fn choose(&mut self, number: usize, job: &Job, now: Micros) -> Choice;
    /// Where those go that waited and do so no more.
    fn go_on(&mut self, _: Micros) -> Vec<(usize, Choice)> {
        Vec::new()
    }
    /// The server that was chosen takes no connections; another one, if there is any.
    fn refused(&mut self, number: usize, server: usize, job: &Job, now: Micros) -> Option<usize>;
    /// A server is there from now on that was not.
    fn joins(&mut self, server: usize);
    fn first_byte(&mut self, number: usize, now: Micros);
    /// The request has ended there, well or not.
    fn ended(&mut self, number: usize, server: usize, well: bool, now: Micros);
    /// What a server's metrics said, and how many tokens its KV cache holds; none where it did not answer.
    fn scraped(&mut self, server: usize, metrics: Option<(Scraped, u64)>, now: Micros);
}

pub(crate) fn policy(name: PolicyName, scenario: &Scenario, seed: u64) -> Box<dyn Policy> {
    match name {
        PolicyName::Thalamus | PolicyName::ThalamusUntold | PolicyName::ThalamusWithout(_) => {
            Box::new(Thalamus::new(name, scenario, seed))
        }
        PolicyName::LlmD | PolicyName::LlmDMultimodal | PolicyName::LMetric => {
            Box::new(Reference::new(name, scenario, seed))
        }
        name => Box::new(Simple::new(name, scenario, seed)),
    }
}

/// What requests need.
pub(crate) fn needs(job: &Job) -> ModalitySet {
    if job.media.is_empty() { ModalitySet::TEXT } else { ModalitySet::TEXT.with(Modality::Image) }
}

// === The simple ones ===

/// Knows who takes what, and its own requests.
struct Simple {
    name: PolicyName,
    takes: Vec<ModalitySet>,
    is_there: Vec<bool>,
    in_flight: Vec<u32>,
    turn: usize,
    rng: Rng,
    /// Of a request that was refused, those that were tried.
    tried: BTreeMap<usize, Vec<usize>>,
}

impl Simple {
    fn new(name: PolicyName, scenario: &Scenario, seed: u64) -> Self {
        let groups = scenario.servers.iter();
        let takes: Vec<ModalitySet> =
            groups.flat_map(|group| std::iter::repeat_n(group.takes().unwrap_or_default(), group.count)).collect();
        let (in_flight, is_there) = (vec![0; takes.len()], scenario.there_at_first());
        Self { name, takes, is_there, in_flight, turn: 0, rng: Rng::with_seed(seed), tried: BTreeMap::new() }
    }

    fn pick(&mut self, job: &Job, except: &[usize]) -> Option<usize> {
        let able: Vec<usize> = (0..self.takes.len())
            .filter(|server| self.is_there[*server] && self.takes[*server].is_superset(needs(job)))
            .filter(|server| !except.contains(server))
            .collect();
        let any = |rng: &mut Rng| able.get(rng.usize(..able.len().max(1))).copied();
        let server = match self.name {
            PolicyName::Random => any(&mut self.rng)?,
            PolicyName::LeastRequests => {
                let least = able.iter().map(|server| self.in_flight[*server]).min()?;
                let equals: Vec<usize> =
                    able.iter().copied().filter(|server| self.in_flight[*server] == least).collect();
                equals[self.rng.usize(..equals.len())]
            }
            PolicyName::PowerOfTwo => {
                let (one, other) = (any(&mut self.rng)?, any(&mut self.rng)?);
                if self.in_flight[one] <= self.in_flight[other] { one } else { other }
            }
            _ => {
                self.turn += 1;
                *able.get(self.turn % able.len().max(1))?
            }
        };
        self.in_flight[server] += 1;
        Some(server)
    }
}

impl Policy for Simple {
    fn choose(&mut self, _: usize, job: &Job, _: Micros) -> Choice {
        self.pick(job, &[]).into()
    }

    fn refused(&mut self, number: usize, server: usize, job: &Job, _: Micros) -> Option<usize> {
        self.in_flight[server] -= 1;
        let mut tried = self.tried.remove(&number).unwrap_or_default();
        tried.push(server);
        let next = self.pick(job, &tried);
        self.tried.insert(number, tried);
        next
    }

    fn joins(&mut self, server: usize) {
        self.is_there[server] = true;
    }

    fn first_byte(&mut self, _: usize, _: Micros) {}

    fn ended(&mut self, number: usize, server: usize, _: bool, _: Micros) {
        self.in_flight[server] -= 1;
        self.tried.remove(&number);
    }

    fn scraped(&mut self, _: usize, _: Option<(Scraped, u64)>, _: Micros) {}
}

// === The real one ===

/// The director itself, with a table of the fleet, asked as its edges ask it.
struct Thalamus {
    handler: Arc<RequestHandler>,
    groups: Vec<Group>,
    priorities: BTreeSet<i32>,
    is_there: Vec<bool>,
    tells_first_bytes: bool,
    lacks: Option<Part>,
    /// By server.
    states: BTreeMap<usize, Arc<EndpointState>>,
    epoch: Instant,
    draws: Rng,
    running: BTreeMap<usize, (Plan, RunningAttempt)>,
    waiting: BTreeMap<usize, Waiting>,
    called: Arc<Mutex<Vec<usize>>>,
    /// When it is looked next for those that have waited for too long.
    next_look: Micros,
}

/// Says that a request that waits was called.
struct Bell {
    number: usize,
    called: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.called.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

/// How often it is looked for those that have waited for too long.
const LOOK: Micros = 100_000;

fn address(server: usize) -> SocketAddr {
    let [.., high, low] = u32::try_from(server).unwrap_or(u32::MAX).to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 8000))
}

fn server_at(address: SocketAddr) -> Option<usize> {
    let SocketAddr::V4(address) = address else { return None };
    let [.., high, low] = address.ip().octets();
    Some(usize::from(high) << 8 | usize::from(low))
}

impl Thalamus {
    fn new(name: PolicyName, scenario: &Scenario, seed: u64) -> Self {
        let lacks = if let PolicyName::ThalamusWithout(part) = name { Some(part) } else { None };
        let epoch = Instant::now();
        let director = Arc::new(Director::new(epoch));
        let mut handler = RequestHandler::new(director, "simulation");
        if lacks == Some(Part::Queue) {
            handler.queue.requests = 0;
        }
        let handler = Arc::new(handler);
        let (is_there, draws) = (scenario.there_at_first(), Rng::with_seed(seed));
        let groups = scenario.servers.clone();
        let mut new = Self {
            handler,
            groups,
            priorities: scenario.requests.iter().map(|kind| kind.priority).collect(),
            is_there,
            tells_first_bytes: name != PolicyName::ThalamusUntold,
            lacks,
            states: BTreeMap::new(),
            epoch,
            draws,
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            called: Arc::default(),
            next_look: 0,
        };
        new.publish();
        new
    }

    /// Puts a table of those that are there before the director.
    fn publish(&mut self) {
        let mut pools: BTreeMap<&str, (Pool, ModalitySet)> = BTreeMap::new();
        let mut number = 0;
        for group in &self.groups {
            let (pool, takes) = pools.entry(&group.name).or_default();
            *takes = group.takes().unwrap_or_default();
            for _ in 0..group.count {
                if self.is_there[number] {
                    let endpoint = Endpoint::new(address(number), "".into());
                    pool.endpoints.insert(format!("{number:04}").into(), endpoint);
                }
                number += 1;
            }
        }
        let target = |(name, (_, takes)): (&&str, &(Pool, ModalitySet))| {
            let capability = Capability::new(*takes, ModalitySet::TEXT);
            Target { family: Some(Family::Qwen3Vl), ..Target::new("m", *name, capability) }
        };
        let priorities = self.priorities.iter().map(|priority| (priority.to_string().into(), *priority)).collect();
        let policy = PoolPolicy { priorities, ..PoolPolicy::default() };
        for (pool, _) in pools.values_mut() {
            pool.policy = policy.clone();
        }
        let mut table = RoutingTable::default();
        table.models.insert("m".into(), Arc::new(Model::new(pools.iter().map(target).collect())));
        table.pools = pools.into_iter().map(|(name, (pool, _))| (name.into(), Arc::new(pool))).collect();
        let director = &self.handler.director;
        director.replace_table(1, Arc::new(table));
        let known = director.endpoints().into_iter();
        self.states = known.filter_map(|known| Some((server_at(known.address)?, known.state))).collect();
    }

    fn at(&self, now: Micros) -> Instant {
        self.epoch + Duration::from_micros(now)
    }

    fn follow(&mut self, number: usize, step: Result<Step, Rejection>) -> Choice {
        match step {
            Ok(Step::Dispatch(mut dispatch)) => {
                if !self.tells_first_bytes {
                    dispatch.attempt.first_byte_untold();
                }
                let server = server_at(dispatch.plan.first().address);
                self.running.insert(number, (dispatch.plan, dispatch.attempt));
                server.into()
            }
            Ok(Step::Wait(waiting)) => {
                let bell = Arc::new(Bell { number, called: Arc::clone(&self.called) });
                if waiting.poll_turn(&mut Context::from_waker(&Waker::from(Arc::clone(&bell)))).is_ready() {
                    bell.wake();
                }
                self.waiting.insert(number, *waiting);
                Choice::Later
            }
            Ok(Step::Answer(_) | Step::FindOwner(_)) | Err(_) => Choice::Nowhere,
        }
    }
}

/// The request as its reader would leave it.
fn request(job: &Job) -> InferenceRequest {
    let item = |picture: &crate::workload::Picture| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&picture.id.to_le_bytes());
        MediaItem {
            modality: Modality::Image,
            source: MediaSource::Inline,
            bytes: 0,
            media_type: None,
            identity: Some(Identity::Content(hash)),
            uuid: None,
            facts: Facts { size: Some(picture.size()), ..Facts::default() },
            broken: false,
            is_document: false,
            url: None,
            at: PartPath::new(String::new()),
        }
    };
    InferenceRequest {
        resource: Resource::Operation(Operation::ChatCompletions),
        model: Some("m".to_owned()),
        requires: Requirement::new(Operation::ChatCompletions, needs(job), ModalitySet::TEXT),
        media: job.media.iter().map(item).collect(),
        unsafe_features: Vec::new(),
        placeholders: Placeholders::default(),
        names_output: false,
        stream: true,
        follows: None,
        model_span: None,
        bytes: job.tokens() * 4,
        objective: Some(job.priority.to_string()),
        is_batch: false,
        flow: None,
        prompt: prompt(job),
    }
}

/// As the reader would have it, but that its blocks are as long as the parts are.
fn prompt(job: &Job) -> Prompt {
    let (mut tokens, mut pictures) = (0, job.media.iter().zip(0..).peekable());
    let piece = |link: &crate::cache::Link| {
        tokens += u64::from(link.tokens);
        match pictures.next_if(|(picture, _)| picture.ends_at == tokens) {
            Some((_, place)) => Piece::Media(place),
            None => Piece::Text { hash: link.key, bytes: link.tokens * 4 },
        }
    };
    Prompt { pieces: job.chain.iter().map(piece).collect(), ..Prompt::default() }
}

impl Policy for Thalamus {
    fn choose(&mut self, number: usize, job: &Job, now: Micros) -> Choice {
        let (at, draw) = (self.at(now), Draw::new(self.draws.u64(..)));
        let mut request = request(job);
        match self.lacks {
            Some(Part::Prefixes) => request.prompt = Prompt { rest: job.tokens() * 4, ..Prompt::default() },
            Some(Part::Media) => request.media.iter_mut().for_each(|item| item.identity = None),
            Some(Part::Queue | Part::Metrics) | None => {}
        }
        let step = self.handler.decide(request, Bound::default(), None, || at, draw);
        self.follow(number, step)
    }

    fn go_on(&mut self, now: Micros) -> Vec<(usize, Choice)> {
        let (at, mut gone) = (self.at(now), Vec::new());
        loop {
            let called = std::mem::take(&mut *self.called.lock().unwrap_or_else(PoisonError::into_inner));
            if called.is_empty() {
                break;
            }
            for number in called {
                let Some(waiting) = self.waiting.remove(&number) else { continue };
                let choice = self.follow(number, waiting.go_on(|| at));
                gone.extend((choice != Choice::Later).then_some((number, choice)));
            }
        }
        if now >= self.next_look {
            self.next_look = now + LOOK;
            let late = |(number, waiting): (&usize, &Waiting)| (waiting.deadline() <= at).then_some(*number);
            let late: Vec<usize> = self.waiting.iter().filter_map(late).collect();
            for number in late {
                let _ = self.waiting.remove(&number).map(|waiting| waiting.expired(at));
                gone.push((number, Choice::Nowhere));
            }
        }
        gone
    }

    fn refused(&mut self, number: usize, _: usize, _: &Job, now: Micros) -> Option<usize> {
        let at = self.at(now);
        let (plan, attempt) = self.running.remove(&number)?;
        let next = plan.next_after(&attempt, at);
        attempt.unreachable(at);
        let next = next?;
        let server = server_at(next.of(&plan).address);
        self.running.insert(number, (plan, next));
        server
    }

    fn joins(&mut self, server: usize) {
        self.is_there[server] = true;
        self.publish();
    }

    fn first_byte(&mut self, number: usize, now: Micros) {
        let at = self.at(now);
        if let Some((_, attempt)) = self.running.get_mut(&number) {
            attempt.head(http::StatusCode::OK, at);
            attempt.first_byte(|| at);
        }
    }

    fn ended(&mut self, number: usize, _: usize, well: bool, now: Micros) {
        let at = self.at(now);
        match self.running.remove(&number) {
            Some((_, attempt)) if well => attempt.ended(at),
            Some((_, attempt)) => attempt.broke_off(at),
            None => {}
        }
    }

    fn scraped(&mut self, server: usize, metrics: Option<(Scraped, u64)>, now: Micros) {
        let (at, Some(state)) = (self.at(now), self.states.get(&server)) else { return };
        if self.lacks == Some(Part::Metrics) {
            return;
        }
        match metrics {
            // That it gets on with something is all that is looked at.
            Some((scraped, kv_tokens)) => {
                let reading =
                    Reading { scraped, progress: Some(now), kv_tokens: Some(kv_tokens), ..Reading::default() };
                state.scraped(&reading, at);
            }
            None => state.silent(at),
        }
    }
}
