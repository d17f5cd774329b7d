//! What endpoints are believed to have, and what waits there.

use super::*;

/// A conversation of twenty kilobytes, as a stream.
fn long(word: &str) -> String {
    format!(
        r#"{{"model":"chat","stream":true,"messages":[{{"role":"user","content":"{}"}}]}}"#,
        word.repeat(20_000 / word.len())
    )
}

#[test]
fn who_read_a_prompt_gets_it_again_and_other_prompts_go_elsewhere() {
    let world = World::new(table());
    let answered = |body: &str, seed| {
        let Dispatch { plan, mut attempt } = world.ask_with(body, None, seed).unwrap();
        attempt.head(StatusCode::OK, world.now);
        attempt.first_byte(|| world.now);
        attempt.ended(world.now);
        plan
    };
    let first = answered(&long("one "), 1);
    assert_eq!(first.why.choice, Choice::Cheapest);
    let home = first.first().address;
    for seed in 0..20 {
        let again = world.ask_with(&long("one "), None, seed).unwrap();
        let work = again.plan.first().work;
        assert!(address_of(&again) == home && work.saved > 9.0 * work.reading, "{work:?}");
    }
    // Even where it works on something: as long as it is done with that before another has read all.
    let busy = world.state(if home == address(1) { 1 } else { 2 });
    busy.backlog.queue(5_000, world.now);
    let swayed = world.ask(&long("one ")).unwrap();
    assert_eq!((swayed.plan.why.choice, address_of(&swayed)), (Choice::Cached, home));
    assert!(swayed.plan.why.to_string().ends_with("cheapest of 2 for what it has in its cache"), "{}", swayed.plan.why);
    busy.backlog.queue(500_000, world.now);
    assert_ne!(address_of(&world.ask(&long("one ")).unwrap()), home);
    assert_ne!(address_of(&world.ask(&long("two ")).unwrap()), home);
}

/// What it has read makes it no better fit, and its model answers otherwise.
#[test]
fn a_wider_tier_that_stepped_in_once_keeps_nothing_for_that() {
    let world = World::new(table());
    world.fill(&[1, 2]);
    let Dispatch { plan, mut attempt } = world.ask(&long("one ")).unwrap();
    attempt.head(StatusCode::OK, world.now);
    attempt.ended(world.now);
    assert_eq!(&**plan.first().pool(), "vision");
    (1..=2).for_each(|host| world.scraped(host, 0));
    assert_eq!(pool_of(&world.ask(&long("one ")).unwrap()), "text");
}

#[test]
fn a_wider_tier_steps_in_where_a_request_costs_clearly_less_there() {
    let pool_with = |queued: u64| {
        let world = World::new(table());
        (1..=2).for_each(|host| _ = world.state(host).backlog.queue(queued, world.now));
        pool_of(&world.ask(TEXT).unwrap()).to_owned()
    };
    // Beside what waits there a text is twice the work that it is alone: five milliseconds more.
    assert_eq!([0, 3_000, 7_000, 1_000_000].map(pool_with), ["text", "text", "vision", "vision"]);
    // A prompt of a second costs more by a hundredth of that for each answer that is written beside it: less than is worth talking of.
    let world = World::new(table());
    let streamed = r#"{"model":"chat","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
    let _answering: Vec<_> = (0..2)
        .map(|seed| {
            let Dispatch { mut attempt, .. } = world.ask_with(streamed, None, seed).unwrap();
            attempt.head(StatusCode::OK, world.now);
            attempt.first_byte(|| world.now);
            attempt
        })
        .collect();
    assert_eq!([1, 2].map(|host| world.in_flight(host)), [1, 1]);
    let second = format!(r#"{{"model":"chat","messages":[{{"role":"user","content":"{}"}}]}}"#, "word ".repeat(34_000));
    assert_eq!(pool_of(&world.ask(&second).unwrap()), "text");
}

#[test]
fn a_session_stays_where_it_is_as_long_as_that_costs_no_more() {
    let world = World::new(table());
    let ask = |session: &str, seed| {
        let headers = [(":path", &b"/v1/chat/completions"[..]), ("X-Session-ID", session.as_bytes())];
        let head = Head::read(headers.into_iter());
        match world.step(&head.of_request(), TEXT, Bound::default(), seed).unwrap() {
            Step::Dispatch(dispatch) => address_of(&dispatch),
            other => panic!("{other:?}"),
        }
    };
    let homes: Vec<_> = (0..40).map(|session| ask(&session.to_string(), 1)).collect();
    for (session, home) in homes.iter().enumerate() {
        assert_eq!(ask(&session.to_string(), 2), *home, "whatever the draw");
    }
    assert!((10..30).contains(&homes.iter().filter(|home| **home == address(1)).count()), "{homes:?}");
    world.state(if homes[0] == address(1) { 1 } else { 2 }).backlog.queue(5_000, world.now);
    assert_ne!(ask("0", 1), homes[0]);
}

#[test]
fn what_failed_left_nothing_in_a_cache() {
    type End = fn(RunningAttempt, Instant);
    let ends: [(&str, End, bool); 6] = [
        ("answered", |mut attempt, now| (attempt.head(StatusCode::OK, now), attempt.ended(now)).1, true),
        (
            "broken after its head",
            |mut attempt, now| (attempt.head(StatusCode::OK, now), attempt.broke_off(now)).1,
            true,
        ),
        ("refused", |mut attempt, now| (attempt.head(StatusCode::BAD_REQUEST, now), attempt.ended(now)).1, false),
        ("unreachable", RunningAttempt::unreachable, false),
        ("not seen", |attempt, _| attempt.unseen(), false),
        ("abandoned", |attempt, _| drop(attempt), false),
    ];
    for (what, end, stays) in ends {
        for stream in ["true", "false"] {
            let world = World::new(table());
            let Dispatch { plan, attempt } = world.ask(&long("one ").replace("true", stream)).unwrap();
            let state = Arc::clone(&plan.first().state);
            assert!(state.cached_tokens() > 100, "a burst finds it before it is answered");
            end(attempt, world.now);
            // Of an answer in one piece nothing is heard while it is read.
            let stays = stays || (what, stream) == ("abandoned", "false");
            assert_eq!(state.cached_tokens() > 0, stays, "{what}, {stream}");
            let load = state.load(world.now);
            let left = (load.in_flight, load.unread, load.queued, load.untold);
            assert_eq!(left, (0, 0, 0.0, 0.0), "{what}, {stream}: nothing waits");
        }
    }
}

#[test]
fn what_one_request_leaves_is_not_taken_from_another() {
    let world = World::new(table());
    let there = Subset::parse(["10.0.0.1:8000"]);
    let [first, second] = [0, 1].map(|seed| world.ask_with(&long("one "), Some(&there), seed).unwrap());
    let state = Arc::clone(&second.plan.first().state);
    drop(first);
    assert!(state.cached_tokens() > 100, "the second is still being read");
    // A connection that was closed cannot have seen it, and the same goes there once more.
    let again = second.plan.again(second.attempt, world.now);
    assert!(state.cached_tokens() > 100, "which it knows");
    drop(again);
}

#[test]
fn an_error_tells_nothing_of_how_fast_a_server_is() {
    let world = World::new(table());
    for status in [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR] {
        let Dispatch { plan, mut attempt } = world.ask(&long("one ")).unwrap();
        attempt.head(status, world.now);
        attempt.first_byte(|| world.now + Duration::from_millis(1));
        assert_eq!(plan.first().state.load(world.now).pace, 1.0, "{status}");
    }
}

#[test]
fn work_waits_until_its_first_byte_or_until_it_should_be_done_where_nobody_tells() {
    let world = World::new(table());
    let Dispatch { plan, mut attempt } = world.ask(&long("one ")).unwrap();
    let state = Arc::clone(&plan.first().state);
    let load = |after| state.load(world.now + Duration::from_millis(after));
    assert!(load(0).queued > 10.0 && load(60_000).queued > 10.0 && load(0).untold == 0.0);
    assert_eq!(load(60_000).queued, load(0).queued, "it is late");
    attempt.first_byte(|| world.now + Duration::from_millis(10));
    assert_eq!((load(10).queued, load(10).unread, load(10).in_flight), (0.0, 0, 1));
    drop(attempt);
    // An answer in one piece comes when it is done, and behind some gateways nothing is heard of any.
    let whole = long("two ").replace("true", "false");
    for (body, untold) in [(&*whole, false), (&long("three "), true)] {
        let Dispatch { plan, mut attempt } = world.ask(body).unwrap();
        if untold {
            attempt.first_byte_untold();
        }
        let load = |after| plan.first().state.load(world.now + Duration::from_millis(after));
        let pace = load(0).pace;
        assert!(load(0).untold > 10.0 && load(60_000).untold == 0.0 && load(0).queued == 0.0, "{:?}", load(0));
        attempt.first_byte(|| world.now + Duration::from_mins(1));
        assert_eq!(load(0).pace, pace, "and nothing is learned of it");
    }
}

#[test]
fn what_a_token_is_to_a_pool_is_learned_of_its_answers() {
    let world = World::new(table());
    let text = "word ".repeat(800);
    let asks = |more: &str| {
        let part = format!(r#"{{"type":"text","text":"{text}"}}"#);
        let body = format!(r#"{{"model":"chat","messages":[{{"role":"user","content":[{part}{more}]}}]}}"#);
        world.ask(&body).unwrap()
    };
    let tokens = |dispatch: &Dispatch| dispatch.plan.first().estimated_tokens().all;
    // With a word of four letters that says whose turn it is.
    assert_eq!(tokens(&asks("")), 1001);
    let answer = |Dispatch { mut attempt, .. }: Dispatch, usage: &str| {
        attempt.head(StatusCode::OK, world.now);
        attempt.body(format!(r#"{{"usage":{usage}}}"#).as_bytes(), || world.now);
        attempt.ended(world.now);
    };
    for _ in 0..100 {
        answer(asks(""), r#"{"prompt_tokens":4000}"#);
    }
    assert!((3900..=4004).contains(&tokens(&asks(""))), "{}", tokens(&asks("")));
    let picture = r#",{"type":"image_url","image_url":{"url":"https://example.com/b"}}"#;
    assert_eq!(tokens(&asks(picture)), 2001, "it goes to another pool");
    for _ in 0..100 {
        answer(asks(picture), r#"{"prompt_tokens":9}"#);
    }
    assert_eq!(tokens(&asks(picture)), 2001, "what media add is not of the text");
}
