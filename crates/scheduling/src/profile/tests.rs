use std::net::SocketAddr;

use super::*;
use crate::{Asked, SATURATED_WAITING, Scraped};
use routing::{Capability, Modality, ModalitySet, Operation};

const NOTHING: Requirement = Requirement::new(Operation::ChatCompletions, ModalitySet::EMPTY, ModalitySet::EMPTY);
const IMAGE: Requirement =
    Requirement::new(Operation::ChatCompletions, ModalitySet::of(&[Modality::Image]), ModalitySet::EMPTY);
const ANYTHING: SchedulingRequest<'_> =
    SchedulingRequest { need: NOTHING, size: Size::of(0), limits: Limits::NONE, subset: None, content: None };

const NEVER: Asked = Asked { prefix: 0, media: 0 };
const ONCE: Asked = Asked { prefix: 1, media: 0 };

/// A prompt of a hundred milliseconds, of which the server has nothing.
const NOTHING_THERE: Work =
    Work { reading: 100.0, encoding: 0.0, saved: 0.0, displacing: 0.0, displacing_media: 0.0, asked: NEVER };
const ALL_THERE: Work =
    Work { reading: 1.0, encoding: 0.0, saved: 99.0, displacing: 0.0, displacing_media: 0.0, asked: ONCE };

const IDLE: Load = queue(0);
const FULL: Load = queue(SATURATED_WAITING);
const WELL: Health = Health { responsive: true, answering: true, doubts: 0, refuses: ModalitySet::EMPTY };

const fn queue(waiting: u32) -> Load {
    Load {
        scraped: Some(Scraped { waiting: Some(waiting), running: Some(0), kv_cache_usage: Some(0.0) }),
        ..Load::NONE
    }
}

/// A server at a port.
struct Server {
    endpoint: Endpoint,
    load: Load,
    health: Health,
    work: Work,
    spared_share: f32,
}

fn server(port: u16, load: Load) -> Server {
    let address = SocketAddr::from(([10, 0, 0, 1], port));
    Server { endpoint: Endpoint::new(address, "".into()), load, health: WELL, work: NOTHING_THERE, spared_share: 0.0 }
}

impl Server {
    fn taking(mut self, capability: Capability) -> Self {
        self.endpoint.capability = Some(capability);
        self
    }

    fn with(self, work: Work) -> Self {
        Self { work, ..self }
    }

    fn of_health(self, responsive: bool, answering: bool) -> Self {
        Self { health: Health { responsive, answering, ..WELL }, ..self }
    }
}

fn candidates(servers: &[Server]) -> impl Iterator<Item = Candidate<'_>> {
    servers.iter().enumerate().map(|(place, Server { endpoint, load, health, work, spared_share })| Candidate {
        has_adapter_place: true,
        spared_share: *spared_share,
        endpoint,
        offer: endpoint.offer(None),
        load: *load,
        health: *health,
        work: *work,
        place,
    })
}

/// Ports in the order of the ranking, or the reason there is none.
fn rank(request: &SchedulingRequest<'_>, servers: &[Server]) -> Result<Vec<u16>, Exhausted> {
    let ranking = Profile::default().run(request, candidates(servers), 4, &mut Draw::new(7))?;
    Ok(ranking.iter().map(|ranked| servers[ranked.place].endpoint.address.port()).collect())
}

/// So many milliseconds of work, of so many requests.
const fn busy(queued: f32, unread: u32) -> Load {
    Load { in_flight: unread, unread, queued, ..IDLE }
}

#[test]
fn the_least_busy_comes_first() {
    let (some, more) = (busy(50.0, 1), busy(400.0, 4));
    assert_eq!(rank(&ANYTHING, &[server(1, more), server(2, some), server(3, IDLE)]), Ok(vec![3, 2, 1]));
    let answering = Load { in_flight: 30, ..IDLE };
    assert_eq!(rank(&ANYTHING, &[server(1, answering), server(2, IDLE)]), Ok(vec![2, 1]));
    let slow = Load { pace: 3.0, ..IDLE };
    assert_eq!(rank(&ANYTHING, &[server(1, slow), server(2, some), server(3, IDLE)]), Ok(vec![3, 2, 1]));
}

#[test]
fn one_that_has_it_comes_first_until_its_queue_is_longer_than_everybody_would_wait_elsewhere() {
    let knows = |load| server(1, load).with(ALL_THERE);
    assert_eq!(rank(&ANYTHING, &[knows(IDLE), server(2, IDLE)]), Ok(vec![1, 2]));
    assert_eq!(rank(&ANYTHING, &[knows(busy(60.0, 1)), server(2, IDLE)]), Ok(vec![1, 2]));
    assert_eq!(rank(&ANYTHING, &[knows(busy(150.0, 2)), server(2, IDLE)]), Ok(vec![2, 1]));
    // Where others wait as well, it would keep them all from their first byte.
    assert_eq!(rank(&ANYTHING, &[knows(busy(150.0, 2)), server(2, busy(10.0, 1))]), Ok(vec![1, 2]));
}

#[test]
fn what_nobody_has_goes_where_everybody_sends_it() {
    let servers: Vec<Server> = (0..8).map(|port| server(port, IDLE)).collect();
    let first = |content, seed, servers: &[Server]| {
        let request = SchedulingRequest { content: Some(content), ..ANYTHING };
        Profile::default().run(&request, candidates(servers), 1, &mut Draw::new(seed)).unwrap().best().place
    };
    let mut homes = [0; 8];
    for content in 0..4000 {
        let home = first(content, 1, &servers);
        assert_eq!(home, first(content, 2, &servers), "whoever asks");
        homes[home] += 1;
    }
    assert!(homes.iter().all(|contents| (400..600).contains(contents)), "{homes:?}");
    // One that is busy is no home, and what somebody has goes there.
    let home = first(7, 1, &servers);
    let mut now = servers;
    now[home].load = busy(30.0, 1);
    assert_ne!(first(7, 1, &now), home);
    let other = (home + 1) % 8;
    now[home].load = IDLE;
    now[other].work = ALL_THERE;
    assert_eq!(first(7, 1, &now), other);
}

#[test]
fn among_several_pickers_a_home_may_be_busier_but_not_slower() {
    let request = SchedulingRequest { content: Some(7), ..ANYTHING };
    let first = |profile: &Profile, servers: &[Server]| {
        profile.run(&request, candidates(servers), 1, &mut Draw::new(1)).unwrap().best().place
    };
    let by_cost = Profile::default();
    let fleet = |others_share| -> Vec<Server> {
        let load = Load { others_share, ..IDLE };
        (0..4).map(|port| Server { spared_share: 0.5, ..server(port, load) }).collect()
    };
    let home = first(&by_cost, &fleet(0.0));
    let with = |load: Load, others_share| {
        let mut servers = fleet(others_share);
        servers[home].load = Load { others_share, ..load };
        servers
    };
    let busier = busy(120.0, 1);
    assert_eq!(first(&by_cost, &with(busier, 0.9)), home);
    assert_ne!(first(&by_cost, &with(busier, 0.0)), home, "it is alone");
    assert_ne!(first(&by_cost, &with(busy(900.0, 3), 0.9)), home, "there are bounds");
    assert_ne!(first(&by_cost, &with(Load { pace: 3.0, ..IDLE }, 0.9)), home, "it is slow");
    let mut unique = with(busier, 0.9);
    for server in &mut unique {
        server.spared_share = 0.0;
    }
    assert_ne!(first(&by_cost, &unique), home, "nothing comes again");
    // Whoever wants another order gets it.
    let prefers = Preference::Scores(vec![(Scorer::LeastActive, 1.0)]);
    assert_ne!(first(&Profile { prefers, ..Profile::default() }, &with(busier, 0.9)), home);
}

/// Of a thousand requests, how many go to a server that does not know what the cheapest knows.
fn copies(servers: &[Server], profile: &Profile, limit: usize) -> usize {
    let first = |seed| profile.run(&ANYTHING, candidates(servers), limit, &mut Draw::new(seed)).unwrap();
    (0..1000).map(first).filter(|ranking| ranking.choice == Choice::Copy).count()
}

/// One that knows a prompt that was asked for so often, with so much to do, and one that has nothing to do.
fn knowing_and(queued: f32, asked: Asked, there: Work) -> [Server; 2] {
    [server(1, busy(queued, 1)).with(Work { asked, ..ALL_THERE }), server(2, IDLE).with(there)]
}

#[test]
fn what_is_asked_for_often_is_copied_the_sooner_the_more_it_costs_that_it_is_not() {
    let of = |servers: &[Server]| copies(servers, &Profile::default(), 4);
    let [seldom, often] = [10, 1000].map(|prefix| Asked { prefix, media: 0 });
    let most = of(&knowing_and(40.0, often, NOTHING_THERE));
    // Fifty milliseconds of a hundred, of which a tenth.
    assert!((30..80).contains(&most), "{most}");
    for fewer in [(10.0, often), (40.0, seldom)].map(|(queued, asked)| of(&knowing_and(queued, asked, NOTHING_THERE))) {
        assert!(fewer > 0 && fewer < most / 2, "{fewer} and {most}");
    }
    for asked in [NEVER, ONCE] {
        assert_eq!(of(&knowing_and(40.0, asked, NOTHING_THERE)), 0, "nobody has come back to it");
    }
    let dear = of(&knowing_and(40.0, often, Work { displacing: 1.0, ..NOTHING_THERE }));
    assert!(dear < most * 3 / 4, "what it pushes out is of its price: {dear} and {most}");
    let idle = [server(1, IDLE).with(Work { asked: often, ..ALL_THERE }), server(2, IDLE)];
    assert_eq!(of(&idle), 0, "nothing is paid");
    let busier = server(2, busy(60.0, 1)).with(ALL_THERE);
    assert_eq!(of(&[server(1, busy(40.0, 1)).with(Work { asked: often, ..ALL_THERE }), busier]), 0, "it is there");
    // Of what both have nobody needs a copy, however often that is asked for.
    let picture = Work { reading: 1.0, encoding: 80.0, saved: 99.0, ..NOTHING_THERE };
    let rare = Asked { prefix: 1000, media: 1 };
    assert_eq!(of(&knowing_and(40.0, rare, picture)), 0);
    let in_demand = Asked { prefix: 1, media: 1000 };
    assert!(of(&knowing_and(40.0, in_demand, picture)) > 20);
    let crowded = Work { displacing_media: 2.0, ..picture };
    assert!(of(&knowing_and(40.0, in_demand, crowded)) < of(&knowing_and(40.0, in_demand, picture)));
}

#[test]
fn a_copy_is_tried_first_and_the_cheapest_next_and_no_other_policy_makes_any() {
    let often = Asked { prefix: 1000, media: 0 };
    let mut servers: Vec<Server> = knowing_and(40.0, often, NOTHING_THERE).into();
    servers.push(server(3, busy(500.0, 2)));
    let all = |limit| copies(&servers, &Profile::default(), limit);
    assert!(all(4) > 0 && all(4) == all(1));
    let ranking = |seed| Profile::default().run(&ANYTHING, candidates(&servers), 2, &mut Draw::new(seed)).unwrap();
    let ranking = (0..1000).map(ranking).find(|ranking| ranking.choice == Choice::Copy).unwrap();
    assert_eq!(ranking.iter().map(|ranked| ranked.place).collect::<Vec<_>>(), [1, 0]);
    let prefers = Preference::Scores(vec![(Scorer::Cached, 1.0)]);
    assert_eq!(copies(&servers, &Profile { prefers, ..Profile::default() }, 4), 0);
    servers[1] = server(2, FULL);
    servers[2] = server(3, FULL);
    assert_eq!(copies(&servers, &Profile::default(), 4), 0, "one that is full is no place for it");
}

#[test]
fn an_endpoint_that_cannot_take_it_is_never_ranked() {
    let request =
        SchedulingRequest { need: IMAGE, size: Size::of(0), limits: Limits::NONE, subset: None, content: None };
    let text = || server(1, IDLE).taking(Capability::TEXT);
    assert_eq!(rank(&request, &[text(), server(2, IDLE)]), Ok(vec![2]));
    assert_eq!(rank(&request, &[text()]), Err(Exhausted::Filtered(Filter::Capability)));
    assert_eq!(rank(&request, &[]), Err(Exhausted::NoEndpoints));
}

#[test]
fn the_reason_is_the_filter_that_the_best_of_them_reached() {
    let subset = Subset::parse(["10.0.0.1:9"]);
    let request = SchedulingRequest {
        need: IMAGE,
        size: Size::of(0),
        limits: Limits::NONE,
        subset: Some(&subset),
        content: None,
    };
    let servers = [server(2, IDLE), server(1, IDLE).taking(Capability::TEXT)];
    assert_eq!(rank(&request, &servers), Err(Exhausted::Filtered(Filter::Subset)));
}

#[test]
fn a_subset_is_obeyed() {
    let subset = Subset::parse(["10.0.0.1:2"]);
    let request = SchedulingRequest {
        need: NOTHING,
        size: Size::of(0),
        limits: Limits::NONE,
        subset: Some(&subset),
        content: None,
    };
    assert_eq!(rank(&request, &[server(1, IDLE), server(2, IDLE)]), Ok(vec![2]));
}

#[test]
fn equals_share_the_first_place() {
    let servers = [server(1, IDLE), server(2, IDLE)];
    let first = |seed| {
        let ranking = Profile::default().run(&ANYTHING, candidates(&servers), 4, &mut Draw::new(seed)).unwrap();
        assert_eq!(ranking.equals, 2);
        ranking.best().place
    };
    let ones = (0..1000).filter(|seed| first(*seed) == 0).count();
    assert!((400..600).contains(&ones), "{ones} of 1,000");
}

#[test]
fn no_more_than_half_are_left_alone_unless_they_take_no_connection() {
    let order = |doubts: &[u32]| {
        let of = |(port, doubts): (u16, &u32)| Server {
            health: Health { answering: *doubts == 9, doubts: *doubts, ..WELL },
            ..server(port, IDLE)
        };
        let servers: Vec<Server> = (0..).zip(doubts).map(of).collect();
        let ranking = Profile::default().run(&ANYTHING, candidates(&servers), 10, &mut Draw::new(1)).unwrap();
        let good = ranking.iter().filter(|ranked| ranked.lacks.is_none());
        let mut good: Vec<usize> = good.map(|ranked| ranked.place).collect();
        good.sort_unstable();
        good
    };
    // Nine stands for one that answers.
    assert_eq!(order(&[9, 3, 4, 5]), [0, 1], "the least doubtful is asked again");
    assert_eq!(order(&[9, 0, 0, 0]), [0], "nobody is asked who takes no connection");
    assert_eq!(order(&[9, 9, 3, 4]), [0, 1]);
    assert_eq!(order(&[3, 3, 3, 3]).len(), 2);
    assert_eq!(order(&[9, 3, 3]), [0], "three are few");
}

#[test]
fn the_full_come_after_those_with_room_then_those_that_fail_then_the_silent() {
    let servers = [
        server(1, IDLE).of_health(false, true),
        server(2, IDLE).of_health(true, false),
        server(3, FULL),
        server(4, busy(1e4, 100)),
    ];
    assert_eq!(rank(&ANYTHING, &servers), Ok(vec![4, 3, 2, 1]));
    let ranking = Profile::default().run(&ANYTHING, candidates(&servers), 4, &mut Draw::new(7)).unwrap();
    let lacks: Vec<_> = ranking.iter().map(|ranked| ranked.lacks).collect();
    assert_eq!(lacks, [None, Some(Filter::Room), Some(Filter::Answering), Some(Filter::Responsive)]);
    assert_eq!(ranking.equals, 1);
}

#[test]
fn no_more_are_ranked_than_are_wanted_and_they_are_the_best() {
    let servers: Vec<Server> = (0..50).map(|port| server(port, busy(f32::from((50 - port) % 5) * 50.0, 0))).collect();
    let ranking = Profile::default().run(&ANYTHING, candidates(&servers), 3, &mut Draw::new(1)).unwrap();
    assert!(ranking.iter().all(|ranked| servers[ranked.place].load == IDLE), "{ranking:?}");
    assert_eq!((ranking.iter().count(), ranking.equals), (3, 50));
}
