//! Laws of scheduling.

use std::net::SocketAddr;

use proptest::prelude::*;
use routing::{Capability, Draw, Endpoint, Limits, Modality, ModalitySet, Operation, OperationSet, Requirement, Size};
use scheduling::{Asked, Candidate, Cost, Filter, Health, Load, Profile, SchedulingRequest, Scraped, Work};

const EVERY: usize = 100;

#[derive(Debug, Clone)]
struct Server {
    capability: Option<Capability>,
    load: Load,
    health: Health,
    work: Work,
    /// How much others send, and how much comes again.
    others_share: f32,
    spared_share: f32,
}

fn load() -> impl Strategy<Value = Load> {
    let some = |below: u32| proptest::option::of(0..below);
    let scraped = (some(10), some(50), proptest::option::of(0.0..1.0_f32))
        .prop_map(|(waiting, running, kv_cache_usage)| Scraped { waiting, running, kv_cache_usage });
    (0..50_u32, 0..50_u32, 0.0..1e5_f32, 0.0..1e5_f32, 0.0..100_f32, 0.1..100_f32, proptest::option::of(scraped))
        .prop_map(|(in_flight, unread, queued, untold, others_waiting, pace, scraped)| Load {
            in_flight,
            unread,
            queued,
            untold,
            pending: unread,
            arrived: 0,
            others_waiting,
            others_share: 0.0,
            pace,
            scraped,
        })
}

fn work() -> impl Strategy<Value = Work> {
    let displacing = prop_oneof![Just(0.0), 0.0..2.0_f32];
    let asked = (0..100_u32, 0..100_u32).prop_map(|(prefix, media)| Asked { prefix, media });
    (0.0..1e4_f32, 0.0..1e3_f32, 0.0..1e4_f32, displacing.clone(), displacing, asked).prop_map(
        |(reading, encoding, saved, displacing, displacing_media, asked)| Work {
            reading,
            encoding,
            saved,
            displacing,
            displacing_media,
            asked,
        },
    )
}

fn capability() -> impl Strategy<Value = Capability> {
    let set = proptest::sample::subsequence(Modality::ALL.to_vec(), 0..=Modality::ALL.len());
    let operations = proptest::sample::subsequence(Operation::ALL.to_vec(), 0..=Operation::ALL.len());
    (set.clone(), set, operations).prop_map(|(input, output, operations)| Capability {
        input: ModalitySet::of(&input),
        output: ModalitySet::of(&output),
        operations: operations.into_iter().collect::<OperationSet>(),
    })
}

fn server() -> impl Strategy<Value = Server> {
    let health = (any::<bool>(), any::<bool>()).prop_map(|(responsive, answering)| Health {
        responsive,
        answering,
        ..Health::default()
    });
    (proptest::option::of(capability()), load(), health, work(), 0.0..1.0_f32, 0.0..1.0_f32).prop_map(
        |(capability, load, health, work, others_share, spared_share)| Server {
            capability,
            load,
            health,
            work,
            others_share,
            spared_share,
        },
    )
}

fn need() -> impl Strategy<Value = Requirement> {
    let small = proptest::sample::subsequence(Modality::ALL.to_vec(), 0..=1);
    (proptest::sample::select(Operation::ALL.to_vec()), small.clone(), small).prop_map(|(operation, input, output)| {
        Requirement::new(operation, ModalitySet::of(&input), ModalitySet::of(&output))
    })
}

/// Places in the order of the ranking; none where nobody can.
fn rank(servers: &[Server], need: Requirement, limit: usize, seed: u64) -> Vec<usize> {
    let endpoint = |(server, port): (&Server, u16)| {
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        Endpoint { capability: server.capability, ..Endpoint::new(address, "".into()) }
    };
    let endpoints: Vec<Endpoint> = servers.iter().zip(8000..).map(endpoint).collect();
    let candidates = endpoints.iter().zip(servers).enumerate().map(
        |(place, (endpoint, Server { load, health, work, others_share, spared_share, .. }))| Candidate {
            endpoint,
            offer: endpoint.offer(None),
            load: Load { others_share: *others_share, ..*load },
            health: *health,
            work: *work,
            has_adapter_place: true,
            spared_share: *spared_share,
            place,
        },
    );
    // Half of them begin with something that pickers agree on.
    let content = seed.is_multiple_of(2).then_some(seed);
    let request = SchedulingRequest { need, size: Size::of(0), limits: Limits::NONE, subset: None, content };
    let ranking = Profile::default().run(&request, candidates, limit, &mut Draw::new(seed));
    ranking.map_or_else(|_| Vec::new(), |ranking| ranking.iter().map(|ranked| ranked.place).collect())
}

/// How much is wrong with a server: silent, failing, full, in that order.
fn faults(server: &Server) -> (bool, bool, bool) {
    (!server.health.responsive, !server.health.answering, server.load.is_saturated())
}

proptest! {
    #[test]
    fn who_covers_the_need_is_ranked_and_nobody_else(servers in proptest::collection::vec(server(), 0..12), need in need(), seed: u64) {
        let mut ranked = rank(&servers, need, EVERY, seed);
        ranked.sort_unstable();
        // Said without the crate's own words: every part of the need is in what the server offers.
        let can = |server: &Server| server.capability.is_none_or(|own| {
            own.operations.iter().any(|one| one == need.operation)
                && need.input.iter().all(|one| own.input.contains(one))
                && need.output.iter().all(|one| own.output.contains(one))
        });
        let expected: Vec<usize> = (0..servers.len()).filter(|place| can(&servers[*place])).collect();
        prop_assert_eq!(ranked, expected);
    }

    #[test]
    fn nobody_stands_before_one_with_fewer_faults(servers in proptest::collection::vec(server(), 0..12), need in need(), seed: u64) {
        let ranked = rank(&servers, need, EVERY, seed);
        let first = |faults: (bool, bool, bool)| if faults.0 { 3 } else if faults.1 { 2 } else { u8::from(faults.2) };
        prop_assert!(ranked.is_sorted_by_key(|place| first(faults(&servers[*place]))));
    }

    #[test]
    fn the_few_are_the_first_of_all(servers in proptest::collection::vec(server(), 0..12), need in need(), limit in 1..6_usize, seed: u64) {
        let all = rank(&servers, need, EVERY, seed);
        let few = rank(&servers, need, limit, seed);
        prop_assert_eq!(&few[..], &all[..all.len().min(limit)]);
    }

    #[test]
    fn worsening_one_load_never_moves_it_forward(
        servers in proptest::collection::vec(server(), 2..12), more in load(), which: prop::sample::Index, need in need(), seed: u64,
    ) {
        let i = which.index(servers.len());
        let place = |servers: &[Server]| {
            rank(servers, need, EVERY, seed).iter().position(|place| *place == i).unwrap_or(usize::MAX)
        };
        let mut worse = servers.clone();
        worse[i].load.in_flight += more.in_flight;
        worse[i].load.unread += more.unread;
        worse[i].load.queued += more.queued;
        worse[i].load.untold += more.untold;
        worse[i].load.others_waiting += more.others_waiting;
        worse[i].load.pace *= more.pace.max(1.0);
        if let (Some(scraped), Some(more)) = (&mut worse[i].load.scraped, more.scraped) {
            scraped.waiting = scraped.waiting.map(|waiting| waiting + more.waiting.unwrap_or(0));
            scraped.running = scraped.running.map(|running| running + more.running.unwrap_or(0));
            scraped.kv_cache_usage = scraped.kv_cache_usage.map(|usage| usage.max(more.kv_cache_usage.unwrap_or(0.0)));
        }
        prop_assert!(place(&worse) >= place(&servers));
        // And the worst there is: it fails, and then it falls silent.
        for health in [Health { answering: false, ..worse[i].health }, Health { responsive: false, answering: false, ..Health::default() }] {
            let before = place(&worse);
            worse[i].health = health;
            prop_assert!(place(&worse) >= before, "{:?}", health);
        }
    }
}

proptest! {
    /// One that has everything is asked, unless its queue is longer than all there would wait for the work elsewhere: the request's own, and
    /// what it would make others ask for again.
    #[test]
    fn affinity_never_costs_more_waiting_than_it_saves(here in load(), there in load(), work in work()) {
        let (has, has_not) = (Work { saved: work.all(), ..Work::default() }, Work { saved: 0.0, ..work });
        let (here, there) = (Load { pace: 1.0, ..here }, Load { pace: 1.0, ..there });
        let prefers = Cost::new(has, &here).total() < Cost::new(has_not, &there).total();
        let waits = |load: &Load| load.queued + load.untold + 30.0 * load.others_waiting;
        let idle = there.unread == 0 && there.untold == 0.0;
        if prefers && idle {
            // Three hundredths for each answer under way there.
            let most = (work.all() + work.displaced()) * (1.0 + f32::from(u16::try_from(there.in_flight).unwrap()) * 0.03);
            prop_assert!(waits(&here) - waits(&there) <= most * 1.001, "{here:?} {there:?}");
        }
    }
}

proptest! {
    /// Others may make a home of a server that is not the cheapest, within bounds. (What copies cost is bounded by how few they are.)
    #[test]
    fn agreeing_on_a_home_has_its_price(servers in proptest::collection::vec(server(), 1..12), seed: u64) {
        let servers: Vec<Server> = servers.into_iter().map(|server| Server { capability: None, health: Health::default(), work: Work { asked: Asked::default(), ..server.work }, ..server }).collect();
        let nothing = Requirement::new(Operation::ChatCompletions, ModalitySet::EMPTY, ModalitySet::EMPTY);
        let first = rank(&servers, nothing, 1, seed & !1)[0];
        let cost = |server: &Server| Cost::new(server.work, &server.load).total();
        let equals = servers.iter().filter(|server| faults(server) == faults(&servers[first]) && server.load.is_full() == servers[first].load.is_full());
        let least = equals.map(cost).fold(f32::INFINITY, f32::min);
        prop_assert!(cost(&servers[first]) <= least * 5.1001, "{} of {}", cost(&servers[first]), least);
    }
}

#[test]
fn required_filters_stand_before_the_others() {
    assert!(Profile::default().filters.is_sorted_by_key(|filter| !filter.is_required()));
    assert_eq!(Filter::Room.to_string(), "room");
}
