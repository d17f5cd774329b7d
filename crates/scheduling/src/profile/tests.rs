use std::net::SocketAddr;

use super::*;
use crate::{SATURATED_WAITING, Scraped};
use routing::{Capability, Modality, ModalitySet, Operation};

const NOTHING: Requirement = Requirement::new(Operation::ChatCompletions, ModalitySet::EMPTY, ModalitySet::EMPTY);
const IMAGE: Requirement =
    Requirement::new(Operation::ChatCompletions, ModalitySet::of(&[Modality::Image]), ModalitySet::EMPTY);
const ANYTHING: SchedulingRequest<'_> = SchedulingRequest { need: NOTHING, subset: None };

const IDLE: Load = queue(0);
const FULL: Load = queue(SATURATED_WAITING);
const WELL: Health = Health { responsive: true, answering: true };

const fn queue(waiting: u32) -> Load {
    Load {
        in_flight: 0,
        in_flight_then: 0,
        scraped: Some(Scraped { waiting: Some(waiting), running: Some(0), kv_cache_usage: Some(0.0) }),
    }
}

/// A server at a port.
struct Server {
    endpoint: Endpoint,
    load: Load,
    health: Health,
}

fn server(port: u16, load: Load) -> Server {
    let address = SocketAddr::from(([10, 0, 0, 1], port));
    Server { endpoint: Endpoint { address, uid: "".into(), capability: None }, load, health: WELL }
}

impl Server {
    fn taking(mut self, capability: Capability) -> Self {
        self.endpoint.capability = Some(capability);
        self
    }

    fn of_health(self, responsive: bool, answering: bool) -> Self {
        Self { health: Health { responsive, answering }, ..self }
    }
}

fn candidates(servers: &[Server]) -> impl Iterator<Item = Candidate<'_>> {
    servers.iter().enumerate().map(|(place, Server { endpoint, load, health })| Candidate {
        endpoint,
        load: *load,
        health: *health,
        place,
    })
}

/// Ports in the order of the ranking, or the reason there is none.
fn rank(request: &SchedulingRequest<'_>, servers: &[Server]) -> Result<Vec<u16>, Exhausted> {
    let ranking = Profile::default().run(request, candidates(servers), 4, &mut Draw::new(7))?;
    Ok(ranking.iter().map(|ranked| servers[ranked.place].endpoint.address.port()).collect())
}

#[test]
fn the_least_busy_comes_first() {
    let busy = Load { in_flight: 3, ..IDLE };
    let queued = Load {
        scraped: Some(Scraped { waiting: Some(2), running: Some(4), kv_cache_usage: Some(0.0) }),
        ..Load::default()
    };
    assert_eq!(rank(&ANYTHING, &[server(1, queued), server(2, busy), server(3, IDLE)]), Ok(vec![3, 1, 2]));
    // Of those that nobody knows, what was sent there says who is busy.
    let (unknown, sent) = (Load::default(), Load { in_flight: 1, ..Load::default() });
    assert_eq!(rank(&ANYTHING, &[server(1, sent), server(2, unknown)]), Ok(vec![2, 1]));
}

#[test]
fn what_metrics_count_of_ours_is_not_counted_twice_or_when_it_is_over() {
    let counted = |in_flight, in_flight_then| Load {
        in_flight,
        in_flight_then,
        scraped: Some(Scraped { waiting: Some(1), running: Some(4), kv_cache_usage: None }),
    };
    assert_eq!([counted(5, 5), counted(0, 5), counted(9, 5), counted(3, 2)].map(|load| load.of_others()), [0, 0, 0, 3]);
}

/// Old news must not send everything to one place: of two drawn by chance the better one is taken.
#[test]
fn requests_of_others_decide_between_two_and_nobody_gets_everything() {
    let servers = [server(1, queue(4)), server(2, queue(3)), server(3, queue(0)), server(4, queue(1))];
    let mut firsts = [0; 4];
    for seed in 0..4000 {
        let ranking = Profile::default().run(&ANYTHING, candidates(&servers), 4, &mut Draw::new(seed)).unwrap();
        firsts[ranking.best().place] += 1;
    }
    // A sixth of all pairs each that one is in and wins.
    let shares = firsts.map(|first| f64::from(first) / 4000.0);
    for (share, expected) in shares.into_iter().zip([0.0, 1.0 / 6.0, 3.0 / 6.0, 2.0 / 6.0]) {
        assert!((share - expected).abs() < 0.04, "{shares:?}");
    }
}

#[test]
fn an_endpoint_that_cannot_take_it_is_never_ranked() {
    let request = SchedulingRequest { need: IMAGE, subset: None };
    let text = || server(1, IDLE).taking(Capability::TEXT);
    assert_eq!(rank(&request, &[text(), server(2, IDLE)]), Ok(vec![2]));
    assert_eq!(rank(&request, &[text()]), Err(Exhausted::Filtered(Filter::Capability)));
    assert_eq!(rank(&request, &[]), Err(Exhausted::NoEndpoints));
}

#[test]
fn the_reason_is_the_filter_that_the_best_of_them_reached() {
    let subset = Subset::parse(["10.0.0.1:9"]);
    let request = SchedulingRequest { need: IMAGE, subset: Some(&subset) };
    let servers = [server(2, IDLE), server(1, IDLE).taking(Capability::TEXT)];
    assert_eq!(rank(&request, &servers), Err(Exhausted::Filtered(Filter::Subset)));
}

#[test]
fn a_subset_is_obeyed() {
    let subset = Subset::parse(["10.0.0.1:2"]);
    let request = SchedulingRequest { need: NOTHING, subset: Some(&subset) };
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
fn the_full_come_after_those_with_room_then_those_that_fail_then_the_silent() {
    let servers = [
        server(1, IDLE).of_health(false, true),
        server(2, IDLE).of_health(true, false),
        server(3, FULL),
        server(4, Load { in_flight: 100, ..IDLE }),
    ];
    assert_eq!(rank(&ANYTHING, &servers), Ok(vec![4, 3, 2, 1]));
    let ranking = Profile::default().run(&ANYTHING, candidates(&servers), 4, &mut Draw::new(7)).unwrap();
    let lacks: Vec<_> = ranking.iter().map(|ranked| ranked.lacks).collect();
    assert_eq!(lacks, [None, Some(Filter::Room), Some(Filter::Answering), Some(Filter::Responsive)]);
    assert_eq!(ranking.equals, 1);
}

#[test]
fn no_more_are_ranked_than_are_wanted_and_they_are_the_best() {
    let servers: Vec<Server> =
        (0..50).map(|port| server(port, Load { in_flight: u32::from(50 - port) % 5, ..IDLE })).collect();
    let ranking = Profile::default().run(&ANYTHING, candidates(&servers), 3, &mut Draw::new(1)).unwrap();
    assert!(ranking.iter().all(|ranked| servers[ranked.place].load == IDLE), "{ranking:?}");
    assert_eq!((ranking.iter().count(), ranking.equals), (3, 50));
}
