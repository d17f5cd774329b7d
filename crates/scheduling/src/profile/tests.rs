use super::*;
use routing::{Capability, Modality, ModalitySet, Operation};

const NOTHING: Requirement = Requirement::new(Operation::ChatCompletions, ModalitySet::EMPTY, ModalitySet::EMPTY);
const IMAGE: Requirement =
    Requirement::new(Operation::ChatCompletions, ModalitySet::of(&[Modality::Image]), ModalitySet::EMPTY);

fn standard() -> Profile {
    let [standard, ..] = Profile::in_turn();
    standard
}

fn saturated() -> Profile {
    let [_, saturated, _] = Profile::in_turn();
    saturated
}

fn endpoint(port: u16, capability: Option<Capability>) -> (Arc<str>, Endpoint) {
    (format!("pod-{port}").into(), Endpoint { address: SocketAddr::from(([10, 0, 0, 1], port)), capability })
}

/// Ports in the order of the ranking, or the reason there is none.
fn rank(
    profile: &Profile,
    ask: &Ask<'_>,
    endpoints: &[(u16, Option<Capability>, Load)],
) -> Result<Vec<u16>, Exhausted> {
    let named: Vec<_> =
        endpoints.iter().map(|(port, capability, load)| (endpoint(*port, *capability), *load)).collect();
    let candidates = named.iter().map(|((name, endpoint), load)| Candidate { name, endpoint, load: *load, place: 0 });
    let ranking = profile.run(ask, candidates, &mut Draw::new(7))?;
    Ok(ranking.iter().map(|scored| scored.candidate.endpoint.address.port()).collect())
}

const ANYTHING: Ask<'_> = Ask { need: NOTHING, subset: None };

#[test]
fn the_least_busy_comes_first() {
    let busy = Load { in_flight: 3, ..Load::default() };
    let queued = Load { waiting: 2, running: 4, ..Load::default() };
    let order = rank(&standard(), &ANYTHING, &[(1, None, queued), (2, None, busy), (3, None, Load::default())]);
    assert_eq!(order, Ok(vec![3, 2, 1]));
}

#[test]
fn a_full_cache_loses_to_an_empty_one() {
    let full = Load { kv_cache_usage: 0.9, ..Load::default() };
    let order = rank(&standard(), &ANYTHING, &[(1, None, full), (2, None, Load::default())]);
    assert_eq!(order, Ok(vec![2, 1]));
}

#[test]
fn an_endpoint_that_cannot_take_it_is_never_ranked() {
    let ask = Ask { need: IMAGE, subset: None };
    let text = Some(Capability::TEXT);
    assert_eq!(rank(&standard(), &ask, &[(1, text, Load::default()), (2, None, Load::default())]), Ok(vec![2]));
    assert_eq!(rank(&standard(), &ask, &[(1, text, Load::default())]), Err(Exhausted::Filtered("capability")));
}

#[test]
fn the_reason_is_the_filter_that_the_best_of_them_reached() {
    let full = Load { waiting: crate::SATURATED_WAITING, ..Load::default() };
    let ask = Ask { need: IMAGE, subset: None };
    let endpoints = [(1, Some(Capability::TEXT), Load::default()), (2, None, full)];
    assert_eq!(rank(&standard(), &ask, &endpoints), Err(Exhausted::Filtered("saturated")));
    assert_eq!(rank(&saturated(), &ask, &endpoints), Ok(vec![2]));
    assert_eq!(rank(&standard(), &ask, &[]), Err(Exhausted::NoEndpoints));
}

#[test]
fn a_subset_is_read_in_every_spelling_and_obeyed() {
    let subset = Subset::parse(["10.0.0.1:2, [fd00::1]:8000", "10.0.0.9", "nonsense"]);
    assert!(subset.allows("10.0.0.1:2".parse().unwrap()));
    assert!(!subset.allows("10.0.0.1:3".parse().unwrap()));
    assert!(subset.allows("10.0.0.9:1234".parse().unwrap()));
    assert!(subset.allows("[fd00::1]:8000".parse().unwrap()));
    let ask = Ask { need: NOTHING, subset: Some(&subset) };
    assert_eq!(rank(&standard(), &ask, &[(1, None, Load::default()), (2, None, Load::default())]), Ok(vec![2]));
    let nobody = Subset::parse(["nonsense"]);
    let ask = Ask { need: NOTHING, subset: Some(&nobody) };
    assert_eq!(rank(&standard(), &ask, &[(1, None, Load::default())]), Err(Exhausted::Filtered("subset")));
}

#[test]
fn equals_share_the_first_place() {
    let (one, two) = (endpoint(1, None), endpoint(2, None));
    let first = |seed| {
        let candidates =
            [&one, &two].map(|(name, endpoint)| Candidate { name, endpoint, load: Load::default(), place: 0 });
        standard().run(&ANYTHING, candidates, &mut Draw::new(seed)).unwrap().best().candidate.endpoint.address.port()
    };
    let ones = (0..1000).filter(|seed| first(*seed) == 1).count();
    assert!((400..600).contains(&ones), "{ones} of 1,000");
}

#[test]
fn a_silent_server_is_asked_only_when_nobody_else_is_left() {
    let now = some_instant();
    let silent = Load { silent_since: Some(now), ..Load::default() };
    let full = Load { waiting: 50, running: 50, kv_cache_usage: 1.0, ..Load::default() };
    let [with_room, alive, anybody] = Profile::in_turn();
    let endpoints = [(1, None, silent), (2, None, full)];
    assert_eq!(rank(&with_room, &ANYTHING, &endpoints), Err(Exhausted::Filtered("saturated")));
    assert_eq!(rank(&alive, &ANYTHING, &endpoints), Ok(vec![2]));
    assert_eq!(rank(&anybody, &ANYTHING, &endpoints), Ok(vec![2, 1]));
}

#[expect(clippy::disallowed_methods, reason = "some instant must come from somewhere")]
fn some_instant() -> std::time::Instant {
    std::time::Instant::now()
}
