use std::time::Duration;

use routing::ModalitySet;
use scheduling::Scraped;

use super::*;
use crate::board::Reading;

fn pool(endpoints: &[(u8, &str)]) -> Arc<Pool> {
    let endpoint = |(host, uid): &(u8, &str)| {
        let address = SocketAddr::from(([10, 0, 0, *host], 8000));
        (format!("pod-{host}").into(), Endpoint::new(address, (*uid).into()))
    };
    Arc::new(Pool { endpoints: endpoints.iter().map(endpoint).collect(), ..Pool::default() })
}

fn table(pools: &[(&str, &Arc<Pool>)]) -> Arc<RoutingTable> {
    let pools = pools.iter().map(|(name, pool)| ((*name).into(), Arc::clone(pool))).collect();
    Arc::new(RoutingTable { pools, ..RoutingTable::default() })
}

#[expect(clippy::disallowed_methods, reason = "tests are an edge: some instant must come from somewhere")]
fn an_instant() -> Instant {
    Instant::now()
}

fn state(director: &Director, host: u8) -> Arc<EndpointState> {
    let snapshot = director.snapshot().unwrap();
    Arc::clone(&snapshot.slot_at(SocketAddr::from(([10, 0, 0, host], 8000))).unwrap().state)
}

#[test]
fn what_stays_keeps_its_state_and_a_pool_that_is_the_same_is_not_looked_at() {
    let now = an_instant();
    let director = Director::new(now);
    let (a, b) = (pool(&[(1, "x"), (2, "y")]), pool(&[(9, "z")]));
    director.replace_table(1, table(&[("a", &a), ("b", &b)]));
    let scraped = Scraped { waiting: Some(3), ..Scraped::default() };
    state(&director, 1).scraped(&Reading { scraped, ..Reading::default() }, now);
    let before = director.snapshot().unwrap();
    let changed = pool(&[(1, "x"), (3, "w")]);
    director.replace_table(2, table(&[("a", &changed), ("b", &b)]));
    let after = director.snapshot().unwrap();
    assert!(Arc::ptr_eq(&before.pools["b"], &after.pools["b"]));
    assert_eq!(state(&director, 1).load(now).scraped, Some(scraped));
    assert_eq!(director.endpoints().len(), 3);
}

#[test]
fn a_pod_that_comes_back_under_its_name_and_address_is_another_one() {
    let now = an_instant();
    let director = Director::new(now);
    director.replace_table(1, table(&[("a", &pool(&[(1, "x")]))]));
    state(&director, 1).silent(now);
    director.replace_table(2, table(&[("a", &pool(&[(1, "y")]))]));
    assert!(state(&director, 1).health(now + Duration::from_mins(1)).responsive);
}

#[test]
fn one_that_was_not_ready_for_a_moment_still_has_its_requests() {
    let now = an_instant();
    let director = Director::new(now);
    director.replace_table(1, table(&[("a", &pool(&[(1, "x")]))]));
    let held = state(&director, 1);
    held.begin();
    director.replace_table(2, table(&[("a", &pool(&[]))]));
    assert_eq!(director.in_flight(), 1);
    director.replace_table(3, table(&[("a", &pool(&[(1, "x")]))]));
    assert_eq!(state(&director, 1).load(now).in_flight, 1);
}

#[test]
fn a_list_of_models_is_made_once_for_all_tables_that_offer_the_same() {
    let director = Director::new(an_instant());
    let target = Target::new("m", "a", Capability::new(ModalitySet::TEXT, ModalitySet::TEXT));
    let model = Model::new(vec![target]);
    let mut one = RoutingTable::clone(&table(&[("a", &pool(&[(1, "x")]))]));
    one.models.insert("m".into(), Arc::new(model));
    director.replace_table(1, Arc::new(one.clone()));
    let list = || director.snapshot().unwrap().list(false, "serving");
    let first = list();
    assert_eq!(first.as_ptr(), list().as_ptr());
    assert!(first.starts_with(br#"{"data":[{"architecture""#), "{first:?}");
    one.pools.insert("a".into(), pool(&[(2, "y"), (3, "z")]));
    director.replace_table(2, Arc::new(one.clone()));
    assert_eq!(first.as_ptr(), list().as_ptr(), "other pods, and the same on offer");
    one.pools.insert("a".into(), pool(&[]));
    director.replace_table(2, Arc::new(one));
    assert_eq!(&*list(), br#"{"data":[],"object":"list"}"#);
    director.replace_table(3, table(&[("a", &pool(&[])), ("b", &pool(&[]))]));
    assert!(String::from_utf8_lossy(&list()).contains("no InferenceModel is declared"), "{:?}", list());
}
