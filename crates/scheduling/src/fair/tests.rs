use routing::{ModalitySet, Operation};

use super::*;

fn lane(pools: &str, input: ModalitySet) -> Arc<Lane> {
    Arc::new(Lane {
        pools: pools.split(' ').map(Into::into).collect(),
        models: Vec::new(),
        size: None,
        need: Requirement::new(Operation::ChatCompletions, input, ModalitySet::TEXT),
        subset: None,
    })
}

fn text(pools: &str) -> Arc<Lane> {
    lane(pools, ModalitySet::TEXT)
}

fn films(pools: &str) -> Arc<Lane> {
    lane(pools, ModalitySet::TEXT.with(Modality::Video))
}

fn asks(lane: Arc<Lane>, priority: i32, flow: u64, work: u64) -> Asks {
    Asks { lane, priority, flow, work }
}

fn pool(name: &str) -> PoolName {
    name.into()
}

fn called<T>(queue: &mut FairQueue<T>, name: &str) -> Vec<T> {
    std::iter::from_fn(|| queue.call(&pool(name), &[])).map(|(_, item)| item).collect()
}

#[test]
fn priorities_come_first_and_flows_take_turns_by_work() {
    let mut queue = FairQueue::default();
    for number in 0..6 {
        queue.enter(asks(text("a"), 0, 1, 10), format!("one {number}"));
    }
    for number in 0..3 {
        queue.enter(asks(text("a"), 0, 2, 30), format!("two {number}"));
    }
    queue.enter(asks(text("a"), 7, 3, 1000), "now".to_owned());
    let order = called(&mut queue, "a");
    assert_eq!(order[0], "now");
    // Three of one flow are as much work as one of the other.
    assert_eq!(order[1..], ["one 0", "two 0", "one 1", "one 2", "one 3", "two 1", "one 4", "one 5", "two 2"]);
    assert!(queue.is_empty() && queue.work(&[pool("a")]) == 0);
}

#[test]
fn a_flow_that_was_away_has_saved_up_nothing_and_one_that_never_waits_owes_what_it_had() {
    let mut queue = FairQueue::default();
    for number in 0..100 {
        queue.enter(asks(text("a"), 0, 1, 10), number);
    }
    (0..90).for_each(|_| drop(queue.call(&pool("a"), &[])));
    for number in 1000..1010 {
        queue.enter(asks(text("a"), 0, 2, 10), number);
    }
    assert_eq!(called(&mut queue, "a")[..6], [1000, 90, 1001, 91, 1002, 92]);
    // One whose requests come one by one, each as much as ten of the other.
    queue.clear();
    for _ in 0..100 {
        queue.enter(asks(text("a"), 0, 1, 10), 1);
    }
    let (mut heavy, mut waits) = (0, false);
    for _ in 0..60 {
        if !waits {
            queue.enter(asks(text("a"), 0, 2, 100), 2);
            waits = true;
        }
        if let Some((_, 2)) = queue.call(&pool("a"), &[]) {
            (heavy, waits) = (heavy + 1, false);
        }
    }
    assert!((4..=7).contains(&heavy), "{heavy} of 60 are half of the work");
}

#[test]
fn who_asks_for_more_than_its_share_and_leaves_most_of_it_is_served_its_share() {
    let mut queue = FairQueue::default();
    let mut served = [0; 2];
    let mut places: Vec<(u64, Place)> = Vec::new();
    for second in 0..600_u64 {
        for (flow, count) in [(0, 10), (1, 2)] {
            for _ in 0..count {
                places.push((second, queue.enter(asks(text("a"), 0, flow, 10), flow)));
            }
        }
        if let Some((_, flow)) = queue.call(&pool("a"), &[]) {
            served[usize::try_from(flow).unwrap()] += 1;
        }
        // Patience is at an end after half a minute.
        places.retain(|(came, place)| {
            let stays = *came + 30 > second;
            if !stays {
                queue.leave(place);
            }
            stays
        });
    }
    assert!(served.iter().all(|served| (290..=310).contains(served)), "{served:?}");
}

#[test]
fn films_do_not_starve_texts_of_the_same_flow() {
    let mut queue = FairQueue::default();
    for _ in 0..50 {
        queue.enter(asks(films("a"), 0, 1, 1000), "film");
    }
    for _ in 0..50 {
        queue.enter(asks(text("a b"), 0, 1, 20), "text");
    }
    let order = called(&mut queue, "a");
    assert!(order[..53].iter().filter(|item| **item == "text").count() == 50, "{order:?}");
    assert_eq!((queue.len_of(Modality::Video), queue.len()), (0, 0));
}

#[test]
fn one_that_waits_elsewhere_moves_no_turn_here() {
    let mut queue = FairQueue::default();
    for _ in 0..100 {
        queue.enter(asks(text("a"), 0, 1, 1000), "here");
    }
    queue.enter(asks(films("b"), 0, 1, 1), "elsewhere");
    (0..50).for_each(|_| drop(queue.call(&pool("a"), &[])));
    for _ in 0..100 {
        queue.enter(asks(text("a b"), 0, 1, 1000), "both");
    }
    let order: Vec<&str> = (0..20).filter_map(|_| queue.call(&pool("a"), &[])).map(|(_, item)| item).collect();
    assert_eq!(order.iter().filter(|item| **item == "here").count(), 10, "{order:?}");
}

#[test]
fn who_waits_for_other_pools_is_not_called() {
    let mut queue = FairQueue::default();
    let mut place = queue.enter(asks(films("b"), 0, 1, 1), "film");
    queue.enter(asks(text("a b"), 0, 1, 1), "text");
    let is_before = |name, priority| queue.is_before(&pool(name), priority, |_| true);
    assert!(!queue.is_before(&pool("b"), 0, |lane| lane.pools.len() == 3));
    assert!(is_before("a", 0) && !is_before("a", 1) && !is_before("c", 0));
    assert_eq!(queue.call(&pool("a"), &[]).map(|(_, item)| item), Some("text"));
    assert_eq!(queue.call(&pool("b"), &[Arc::clone(&place.asks.lane)]), None, "that lane was tried");
    assert_eq!(queue.call(&pool("b"), &[]), Some((place.clone(), "film")));
    let moved = asks(films("c"), 0, 1, 1);
    queue.enter_again(&mut place, Some(&pool("b")), moved, "film");
    assert_eq!(queue.call(&pool("b"), &[]), None, "it waits for another one now");
    assert_eq!(queue.leave(&place), Some("film"));
    assert_eq!(queue.leave(&place), None);
}

#[test]
fn one_that_could_not_go_is_the_next_again() {
    let mut queue = FairQueue::default();
    for (flow, item) in [(1, "first"), (2, "second"), (1, "third")] {
        queue.enter(asks(text("a"), 0, flow, 10), item);
    }
    let (mut place, item) = queue.call(&pool("a"), &[]).unwrap();
    let again = place.asks.clone();
    queue.enter_again(&mut place, Some(&pool("a")), again, item);
    assert_eq!(called(&mut queue, "a"), ["first", "second", "third"]);
}

#[test]
fn the_last_of_the_least_important_makes_way() {
    let mut queue = FairQueue::default();
    queue.enter(asks(text("a"), 0, 1, 1), "first");
    queue.enter(asks(films("a"), 0, 1, 1), "film");
    queue.enter(asks(text("a"), 0, 1, 1), "last");
    queue.enter(asks(text("a"), 5, 1, 1), "important");
    assert_eq!(queue.call_off_below(0, None), None);
    assert_eq!(queue.call_off_below(5, Some(Modality::Video)), Some("film"));
    assert_eq!(queue.call_off_below(5, Some(Modality::Video)), None);
    assert_eq!(queue.call_off_below(5, None), Some("last"));
    assert_eq!(queue.call_all().into_iter().map(|(_, item)| item).collect::<Vec<_>>(), ["first", "important"]);
    assert!(queue.is_empty());
}

#[test]
fn a_million_flows_leave_nothing_behind() {
    let mut queue = FairQueue::default();
    queue.enter(asks(text("a"), 0, 0, 1_000_000), 0);
    for flow in 1..1_000_000 {
        queue.enter(asks(text("a"), 0, flow, 1), flow);
        queue.call(&pool("a"), &[]);
    }
    let remembered = |waiting: &Waiting<u64>| waiting.classes.values().map(|class| class.flows.len()).sum::<usize>();
    assert!(queue.lanes.values().map(remembered).sum::<usize>() < 200);
    for number in 0..10_000 {
        let place = queue.enter(asks(text(&format!("pool-{number}")), 0, 1, 1), number);
        queue.call(&pool(&format!("pool-{number}")), &[]);
        drop(place);
    }
    assert!(queue.lanes.len() < 200 && queue.called.len() < 200, "{} {}", queue.lanes.len(), queue.called.len());
}
