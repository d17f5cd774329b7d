#![expect(clippy::float_cmp, reason = "what is compared is exact")]

use super::*;

fn id(name: &str, uid: &str) -> EndpointId {
    EndpointId { pool: "p".into(), name: name.into(), uid: uid.into(), port: 8000 }
}

struct World {
    board: Board,
    state: Arc<EndpointState>,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "tests are an edge: some instant must come from somewhere")]
fn world() -> World {
    let now = Instant::now();
    let board = Board::new(now, 100);
    let state = board.enter(id("a", "1"));
    World { board, state, now }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn reading(running: u32, progress: u64) -> Reading {
    Reading {
        scraped: Scraped { running: Some(running), ..Scraped::default() },
        progress: Some(progress),
        ..Reading::default()
    }
}

#[test]
fn what_was_never_read_or_is_old_is_not_known() {
    let World { state, now, .. } = world();
    assert_eq!(state.load(now).scraped, None);
    let scraped = Scraped { waiting: Some(9), running: None, kv_cache_usage: Some(0.5) };
    state.scraped(&Reading { scraped, ..Reading::default() }, now);
    assert_eq!(state.load(now + STALE_AFTER).scraped, Some(scraped));
    assert_eq!(state.load(now + STALE_AFTER + Duration::from_millis(1)).scraped, None);
    state.scraped(&Reading::default(), now);
    assert_eq!(state.load(now).scraped, None, "an answer that says nothing of load");
}

#[test]
fn a_short_silence_is_none_and_an_answer_ends_a_long_one() {
    let World { state, now, .. } = world();
    state.silent(now);
    state.silent(now + secs(2));
    assert!(state.health(now + secs(2)).responsive);
    assert!(!state.health(now + SILENT_AFTER).responsive);
    assert_eq!(state.silent_for(now + secs(7)), Some(secs(7)));
    state.alive(now);
    assert!(state.health(now + secs(9)).responsive);
}

#[test]
fn an_engine_that_works_and_gets_on_with_nothing_is_stuck_until_it_does() {
    let World { state, now, .. } = world();
    for second in 0..=31 {
        state.scraped(&reading(2, 700), now + secs(second));
    }
    assert!(!state.health(now + secs(31)).responsive);
    state.scraped(&reading(2, 701), now + secs(32));
    assert!(state.health(now + secs(32)).responsive);
    // One without work is idle, however long.
    for second in 0..=100 {
        state.scraped(&reading(0, 701), now + secs(second));
    }
    assert!(state.health(now + secs(100)).responsive);
}

#[test]
fn a_refused_connection_counts_at_once_and_a_bad_answer_when_it_is_the_third() {
    let World { state, now, .. } = world();
    let answering = |after: u64| state.health(now + secs(after)).answering;
    state.judge(Verdict::Failed, now, now);
    state.judge(Verdict::Failed, now, now);
    assert!(answering(0));
    state.judge(Verdict::Answered, now, now);
    state.judge(Verdict::Failed, now, now);
    state.judge(Verdict::Failed, now, now);
    assert!(answering(0), "an answer between them ends the row");
    state.judge(Verdict::Failed, now, now);
    assert!(!answering(0) && answering(1));
    state.judge(Verdict::Answered, now, now);
    state.judge(Verdict::Unreachable, now, now);
    assert!(!answering(0) && answering(1));
}

#[test]
fn who_fails_again_is_left_alone_for_twice_as_long_and_never_for_ever() {
    let World { state, now, .. } = world();
    for expected in [1, 2, 4, 8, 16, 32, 32, 32] {
        state.judge(Verdict::Unreachable, now, now);
        let back = (0..100).find(|second| state.health(now + secs(*second)).answering);
        assert_eq!(back, Some(expected));
    }
}

#[test]
fn who_comes_back_gets_one_request_until_it_has_answered_it() {
    let World { state, now, .. } = world();
    let health = |after: u64| state.health(now + secs(after));
    state.judge(Verdict::Unreachable, now, now);
    assert_eq!((health(1).answering, health(1).doubts), (true, 0), "that it takes no connection is sure");
    state.backlog.queue(1000, now);
    assert!(!health(1).answering && !health(99).answering, "one is on its way");
    state.judge(Verdict::Failed, now + secs(1), now + secs(2));
    state.backlog.unqueue(1000);
    assert_eq!((health(3).answering, health(4).answering, health(4).doubts), (false, true, 4));
    state.backlog.queue(1000, now);
    state.judge(Verdict::Answered, now, now + secs(5));
    assert!(health(5).answering);
}

#[test]
fn what_was_under_way_when_a_server_failed_tells_nothing_new() {
    let World { state, now, .. } = world();
    for after in 1..=10 {
        state.judge(Verdict::Failed, now, now + secs(1) + Duration::from_millis(after));
    }
    assert!(state.health(now + secs(1)).answering, "one failure, whoever felt it");
}

#[test]
fn an_endpoint_that_comes_back_has_its_requests_and_its_heir_has_not() {
    let World { board, state, .. } = world();
    state.begin();
    board.leave([&state]);
    assert_eq!(board.enter(id("a", "2")).in_flight.load(Relaxed), 0);
    assert_eq!(board.enter(id("a", "1")).in_flight.load(Relaxed), 1);
    board.leave([&state]);
    assert_eq!(board.in_flight(), 1);
    state.end();
    drop(state);
    board.leave([]);
    assert!(board.left().is_empty());
    assert_eq!(board.in_flight(), 0);
}

#[test]
fn who_takes_long_is_found_out_by_and_by_and_one_outlier_moves_little() {
    let World { state, now, .. } = world();
    state.backlog.took(1000.0);
    assert!(state.load(now).pace <= 1.1);
    for _ in 0..100 {
        state.backlog.took(3.0);
    }
    assert!((2.8..3.1).contains(&state.load(now).pace), "{}", state.load(now).pace);
    for odd in [0.0, f32::INFINITY, f32::NAN] {
        state.backlog.took(odd);
        assert!((2.0..4.0).contains(&state.load(now).pace), "{odd}");
    }
}

#[test]
fn of_what_a_server_works_on_some_should_be_done() {
    let World { state, now, .. } = world();
    let at = |millis| now + Duration::from_millis(millis);
    let after = |millis| state.load(at(millis)).queued.round();
    (0..3).for_each(|_| _ = state.backlog.queue(100_000, now));
    assert_eq!([after(0), after(60), after(150)], [300.0, 260.0, 200.0]);
    assert_eq!([after(195), after(9000)], [230.0, 300.0], "it is late, and nobody knows by how much");
    state.backlog.read(100_000, at(180));
    assert_eq!([after(180), after(225), after(9000)], [200.0, 170.0, 200.0]);
    let before = state.backlog.queue(100_000, at(225));
    assert_eq!((before, after(225)), (170_000, 270.0), "who comes is told what is left");
    state.backlog.leave(100_000);
    assert_eq!(after(225), 200.0, "it may have been the one that was worked on");
    state.backlog.read(100_000, at(300));
    assert_eq!(after(360), 60.0);
    state.backlog.leave(100_000);
    state.backlog.queue(100_000, at(9000));
    assert_eq!([after(9000), after(9060)], [100.0, 60.0], "it did not work in advance");
    state.backlog.leave(100_000);
    state.backlog.queue(10_000, at(9000));
    assert_eq!(after(9010), 10.0, "of so little nobody can tell");
    state.backlog.leave(10_000);
    // What nobody tells of comes first where it was there first.
    state.backlog.queue_untold(100_000, at(9000));
    state.backlog.queue(100_000, at(9000));
    assert_eq!([after(9150), after(9210)], [100.0, 60.0]);
}

#[test]
fn work_that_nobody_tells_of_is_done_when_it_should_be() {
    let World { state, now, .. } = world();
    state.backlog.queue_untold(100_000, now);
    state.backlog.queue_untold(100_000, now);
    let after = |millis| state.load(now + Duration::from_millis(millis)).untold.round();
    assert_eq!([after(0), after(150), after(299), after(301)], [200.0, 150.0, 1.0, 0.0]);
    state.backlog.queue_untold(100_000, now + secs(9));
    assert_eq!(state.load(now + secs(9)).untold.round(), 150.0, "it does not work in advance");
    for left in [150.0, 150.0, 100.0, 0.0] {
        assert_eq!(state.load(now + secs(9)).untold.round(), left, "and what is over is done");
        if left > 0.0 {
            state.backlog.unqueue_untold(100_000);
        }
    }
    // A thousand small ones a second leave nothing behind that they were not.
    for milli in 0..1000 {
        state.backlog.queue_untold(5_000, now + Duration::from_millis(milli));
        state.backlog.unqueue_untold(5_000);
    }
    assert_eq!(state.load(now + secs(1)).untold, 0.0);
}

#[test]
fn the_queue_of_others_is_believed_slowly_and_ours_is_no_others() {
    let World { state, now, .. } = world();
    let waiting = |waiting| {
        let scraped = Scraped { waiting: Some(waiting), ..Scraped::default() };
        state.scraped(&Reading { scraped, ..Reading::default() }, now);
        state.load(now).others_waiting
    };
    assert!((waiting(10) - 1.0).abs() < 0.01);
    for _ in 0..60 {
        waiting(10);
    }
    assert!(waiting(10) > 9.9);
    (0..10).for_each(|_| _ = state.backlog.queue(1000, now));
    assert!(waiting(10) < 0.01, "and a shorter one at once");
    state.backlog.unqueue(1000);
    assert!(waiting(20) > 0.5 && state.load(now + STALE_AFTER + secs(1)).others_waiting == 0.0);
}

#[test]
fn a_server_that_began_anew_has_nothing_in_its_cache() {
    let content =
        || Content { links: vec![crate::content::Link { key: 1, tokens: 100 }], tokens: 100, ..Content::default() };
    let started = |started| Reading { started: Some(started), ..Reading::default() };
    for (before, after) in [(started(1.0), started(2.0)), (reading(1, 700), reading(1, 3))] {
        let World { state, now, .. } = world();
        state.scraped(&before, now);
        state.enter(&content());
        state.scraped(&before, now);
        assert_eq!(state.cached_tokens(), 100);
        state.scraped(&after, now);
        assert_eq!(state.cached_tokens(), 0);
    }
}

#[test]
fn how_much_others_send_is_on_average_of_late() {
    let World { state, now, .. } = world();
    let says = |running| {
        let scraped = Scraped { waiting: Some(0), running: Some(running), kv_cache_usage: None };
        state.scraped(&Reading { scraped, ..Reading::default() }, now);
        state.load(now).others_share
    };
    state.begin();
    (0..50).for_each(|_| _ = says(1));
    assert!(says(1) == 0.0, "all of it is ours");
    assert!(says(100) < 0.2, "once is not often");
    (0..50).for_each(|_| _ = says(4));
    assert!((says(4) - 0.75).abs() < 0.01);
    assert!((says(0) - 0.75).abs() < 0.01, "nothing there says nothing");
    (0..50).for_each(|_| _ = says(u32::MAX));
    assert!(says(u32::MAX) <= 1.0);
}
