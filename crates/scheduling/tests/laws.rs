//! Laws of scheduling.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use routing::{Draw, Endpoint, ModalitySet, Operation, Requirement};
use scheduling::{Ask, Candidate, Load, Profile, SILENT_AFTER, STALE_AFTER};

fn load() -> impl Strategy<Value = Load> {
    (0..50_u32, 0..10_u32, 0..50_u32, 0.0..1.0_f32).prop_map(|(in_flight, waiting, running, kv_cache_usage)| Load {
        in_flight,
        waiting,
        running,
        kv_cache_usage,
        scraped_at: None,
        silent_since: None,
    })
}

fn rank(profile: &Profile, loads: &[Load], seed: u64) -> Vec<u16> {
    let named: Vec<(Arc<str>, Endpoint)> = (0..loads.len())
        .map(|i| {
            let port = u16::try_from(i).expect("few");
            (format!("pod-{i}").into(), Endpoint { address: SocketAddr::from(([10, 0, 0, 1], port)), capability: None })
        })
        .collect();
    let candidates =
        named.iter().zip(loads).map(|((name, endpoint), load)| Candidate { name, endpoint, load: *load, place: 0 });
    let ask = Ask {
        need: Requirement::new(Operation::ChatCompletions, ModalitySet::EMPTY, ModalitySet::EMPTY),
        subset: None,
    };
    let ranking = profile.run(&ask, candidates, &mut Draw::new(seed));
    ranking.map_or_else(|_| Vec::new(), |ranking| ranking.iter().map(|s| s.candidate.endpoint.address.port()).collect())
}

proptest! {
    #[test]
    fn filters_only_remove(loads in proptest::collection::vec(load(), 0..12), seed: u64) {
        let mut ranked = rank(&Profile::in_turn()[0], &loads, seed);
        ranked.sort_unstable();
        let expected: Vec<u16> =
            (0_u16..).zip(&loads).filter(|(_, load)| !load.is_saturated()).map(|(i, _)| i).collect();
        prop_assert_eq!(ranked, expected);
    }

    #[test]
    fn worsening_one_load_never_moves_it_forward(
        loads in proptest::collection::vec(load(), 2..12), more in load(), which: prop::sample::Index, seed: u64,
    ) {
        for profile in &Profile::in_turn() {
            let place = |loads: &[Load], i: usize| {
                rank(profile, loads, seed).iter().position(|port| usize::from(*port) == i).unwrap_or(usize::MAX)
            };
            let i = which.index(loads.len());
            let before = place(&loads, i);
            let mut worse = loads.clone();
            worse[i].in_flight += more.in_flight;
            worse[i].waiting += more.waiting;
            worse[i].running += more.running;
            worse[i].kv_cache_usage = worse[i].kv_cache_usage.max(more.kv_cache_usage);
            let after = place(&worse, i);
            prop_assert!(after >= before, "{before} → {after}");
            // And the worst there is: it falls silent.
            worse[i] = Load { silent_since: Some(some_instant()), ..worse[i] };
            let silent = place(&worse, i);
            prop_assert!(silent >= after, "{after} → {silent} when silent");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "some instant must come from somewhere")]
fn some_instant() -> Instant {
    Instant::now()
}

#[test]
fn an_old_scrape_is_not_believed_and_a_short_silence_neither() {
    let at = some_instant();
    let load =
        Load { in_flight: 2, waiting: 9, running: 9, kv_cache_usage: 0.9, scraped_at: Some(at), silent_since: None };
    assert_eq!(load.believed_at(at + STALE_AFTER), load);
    let later = load.believed_at(at + STALE_AFTER + Duration::from_millis(1));
    assert_eq!((later.in_flight, later.waiting, later.running), (2, 0, 0));
    let silent = Load { silent_since: Some(at), ..load };
    assert!(!silent.believed_at(at + Duration::from_secs(1)).is_silent());
    assert!(silent.believed_at(at + SILENT_AFTER).is_silent());
    assert!(silent.believed_at(at + STALE_AFTER * 2).is_silent(), "an old scrape does not end a silence");
}
