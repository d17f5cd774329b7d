use routing::{ModalitySet, Operation};

use super::*;

fn lane(pools: &str, input: ModalitySet) -> Lane {
    Lane {
        pools: pools.split(' ').map(Into::into).collect(),
        need: Requirement::new(Operation::ChatCompletions, input, ModalitySet::TEXT),
        subset: None,
    }
}

fn text(pools: &str) -> Lane {
    lane(pools, ModalitySet::TEXT)
}

fn films(pools: &str) -> Lane {
    lane(pools, ModalitySet::TEXT.with(Modality::Video))
}

fn called<T: Clone>(queue: &mut FairQueue<T>, pool: &str) -> Vec<T> {
    std::iter::from_fn(|| queue.call(&[pool.into()], &[])).map(|(_, item)| item).collect()
}

#[test]
fn priorities_come_first_and_flows_take_turns_by_work() {
    let mut queue = FairQueue::default();
    for number in 0..6 {
        queue.enter(text("a"), 0, 1, 10, format!("one {number}"));
    }
    for number in 0..3 {
        queue.enter(text("a"), 0, 2, 30, format!("two {number}"));
    }
    queue.enter(text("a"), 7, 3, 1000, "now".to_owned());
    let order = called(&mut queue, "a");
    assert_eq!(order[0], "now");
    // Three of one flow are as much work as one of the other.
    assert_eq!(order[1..], ["one 0", "two 0", "one 1", "one 2", "one 3", "two 1", "one 4", "one 5", "two 2"]);
    assert!(queue.is_empty() && queue.flows.is_empty());
}

#[test]
fn a_flow_that_was_away_has_saved_up_nothing() {
    let mut queue = FairQueue::default();
    for number in 0..100 {
        queue.enter(text("a"), 0, 1, 10, number);
    }
    (0..90).for_each(|_| drop(queue.call(&["a".into()], &[])));
    for number in 1000..1010 {
        queue.enter(text("a"), 0, 2, 10, number);
    }
    let order = called(&mut queue, "a");
    assert_eq!(order[..6], [90, 1000, 91, 1001, 92, 1002]);
}

#[test]
fn films_do_not_starve_texts_of_the_same_flow() {
    let mut queue = FairQueue::default();
    for _ in 0..50 {
        queue.enter(films("a"), 0, 1, 1000, "film");
    }
    for _ in 0..50 {
        queue.enter(text("a"), 0, 1, 20, "text");
    }
    let order = called(&mut queue, "a");
    assert!(order[..53].iter().filter(|item| **item == "text").count() == 50, "{order:?}");
    assert_eq!((queue.len_of(Modality::Video), queue.len()), (0, 0));
}

#[test]
fn who_waits_for_other_pools_is_not_called() {
    let mut queue = FairQueue::default();
    let place = queue.enter(films("b"), 0, 1, 1, "film");
    queue.enter(text("a b"), 0, 1, 1, "text");
    assert!(
        queue.is_before(&["a".into()], 0) && !queue.is_before(&["a".into()], 1) && !queue.is_before(&["c".into()], 0)
    );
    assert_eq!(queue.call(&["a".into()], &[]).map(|(_, item)| item), Some("text"));
    assert_eq!(queue.call(&["b".into()], &[Arc::clone(&place.lane)]), None, "that lane was tried");
    assert_eq!(queue.call(&["b".into()], &[]), Some((place.clone(), "film")));
    queue.enter_again(&place, "film");
    assert_eq!(queue.leave(&place), Some("film"));
    assert_eq!(queue.leave(&place), None);
}

#[test]
fn the_last_of_the_least_important_makes_way() {
    let mut queue = FairQueue::default();
    queue.enter(text("a"), 0, 1, 1, "first");
    queue.enter(text("a"), 0, 1, 1, "last");
    queue.enter(text("a"), 5, 1, 1, "important");
    assert_eq!(queue.call_off_below(0), None);
    assert_eq!(queue.call_off_below(5), Some("last"));
    assert_eq!(queue.len(), 2);
}

#[test]
fn a_million_flows_leave_nothing_behind() {
    let mut queue = FairQueue::default();
    queue.enter(text("a"), 0, 0, 1_000_000, 0);
    for flow in 1..1_000_000 {
        queue.enter(text("a"), 0, flow, 1, flow);
        queue.call(&["a".into()], &[]);
        assert!(queue.flows.len() < 1000);
    }
}
