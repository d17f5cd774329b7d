//! Requests wait while all that could serve them are full, and go in their order.

use std::sync::Mutex;
use std::task::{Context, Poll, Wake, Waker};

use request::RequestHead;

use super::*;
use crate::{QueueLimits, Waiting};

/// Hears that somebody is called.
#[derive(Default)]
struct Bell(Mutex<u32>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() += 1;
    }
}

const TEXT: &str = r#"{"model":"chat","messages":[{"role":"user","content":"hi"}],"stream":true}"#;
const PICTURE: &str = r#"{"model":"chat","messages":[{"role":"user","content":[
    {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],"stream":true}"#;

fn of_flow(fairness: &str) -> RequestHead<'_> {
    RequestHead { fairness: Some(fairness), ..head("/v1/chat/completions") }
}

/// The table with another model, that is the same but for its criticality.
fn table_with(name: &str, criticality: Criticality) -> RoutingTable {
    let mut table = table();
    let model = Model { criticality, ..(*table.models["chat"]).clone() };
    table.models.insert(name.into(), Arc::new(model));
    table
}

impl World {
    fn queued(limits: QueueLimits) -> Self {
        let mut world = Self::new(table());
        Arc::get_mut(&mut world.handler).unwrap().queue = limits;
        world
    }

    fn step_of(&self, head: &RequestHead<'_>, body: &str) -> Result<Step, Rejection> {
        self.step(head, body, Bound::default(), 0)
    }

    fn waits(&self, head: &RequestHead<'_>, body: &str) -> Waiting {
        match self.step_of(head, body).unwrap() {
            Step::Wait(waiting) => *waiting,
            other => panic!("{other:?}"),
        }
    }

    /// Fills these hosts with requests of ours, which do not begin to be answered, and says so in their metrics.
    fn fill_up(&self, hosts: &[u8]) -> Vec<Dispatch> {
        let mut running = Vec::new();
        for host in hosts {
            let subset = Subset::parse([&*format!("10.0.0.{host}:8000")]);
            for _ in 0..5 {
                running.push(self.ask_with(TEXT, Some(&subset), 0).unwrap());
            }
        }
        self.fill(hosts);
        running
    }

    fn goes(&self, waiting: Waiting) -> Dispatch {
        assert!(is_called(&waiting));
        match waiting.go_on(|| self.now).unwrap() {
            Step::Dispatch(dispatch) => *dispatch,
            other => panic!("{other:?}"),
        }
    }

    fn waiting(&self) -> usize {
        self.handler.director.waiting()
    }
}

fn is_called(waiting: &Waiting) -> bool {
    waiting.poll_turn(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

const ALL: [u8; 4] = [1, 2, 11, 12];

#[test]
fn one_that_finds_all_full_goes_when_a_first_byte_comes() {
    let world = World::queued(QueueLimits::default());
    let mut running = world.fill_up(&ALL);
    let bell = Arc::<Bell>::default();
    let waiting = world.waits(&head("/v1/chat/completions"), TEXT);
    assert_eq!(waiting.poll_turn(&mut Context::from_waker(&Waker::from(Arc::clone(&bell)))), Poll::Pending);
    assert_eq!((world.waiting(), *bell.0.lock().unwrap()), (1, 0));
    let first = running[0].plan.first().address;
    running[0].attempt.first_byte(|| world.now);
    assert_eq!(*bell.0.lock().unwrap(), 1);
    let dispatch = world.goes(waiting);
    assert_eq!((address_of(&dispatch), world.waiting()), (first, 0));
    // Its place is taken again.
    drop(world.waits(&head("/v1/chat/completions"), TEXT));
    assert_eq!(world.waiting(), 0);
}

#[test]
fn those_behind_a_full_picker_of_another_get_in_a_few_at_a_time() {
    let world = World::queued(QueueLimits::default());
    // Nothing there is of ours.
    world.fill(&ALL);
    let steps = (0..40).map(|_| world.step_of(&of_flow("a"), TEXT).unwrap());
    let running: Vec<Step> = steps.take_while(|step| matches!(step, Step::Dispatch(_))).collect();
    assert_eq!(running.len(), 20, "five at each of the four");
}

#[test]
fn the_important_go_first_and_flows_take_turns() {
    let mut table = table();
    let pools = table.pools.values().map(|pool| {
        let mut pool = (**pool).clone();
        pool.policy.priorities = [("urgent".into(), 10)].into();
        Arc::new(pool)
    });
    table.pools = table.pools.keys().cloned().zip(pools).collect();
    let world = World::new(table);
    let mut running = world.fill_up(&ALL);
    let mut waiting = vec![
        ("one", world.waits(&of_flow("one"), TEXT)),
        ("one", world.waits(&of_flow("one"), TEXT)),
        ("one", world.waits(&of_flow("one"), TEXT)),
        ("two", world.waits(&of_flow("two"), TEXT)),
    ];
    let urgent = RequestHead { objective: Some("urgent"), ..of_flow("one") };
    waiting.push(("urgent", world.waits(&urgent, TEXT)));
    let mut order = Vec::new();
    for dispatch in &mut running[..5] {
        dispatch.attempt.first_byte(|| world.now);
        let place = waiting.iter().position(|(_, waiting)| is_called(waiting)).unwrap();
        let (name, called) = waiting.remove(place);
        // It fills the place again.
        std::mem::forget(world.goes(called).attempt);
        order.push(name);
    }
    assert_eq!(order, ["urgent", "one", "two", "one", "one"]);
}

#[test]
fn one_that_is_called_and_gone_passes_the_call_on() {
    let world = World::queued(QueueLimits::default());
    let mut running = world.fill_up(&ALL);
    let (first, second) = (world.waits(&of_flow("a"), TEXT), world.waits(&of_flow("a"), TEXT));
    running[0].attempt.first_byte(|| world.now);
    assert!(is_called(&first) && !is_called(&second));
    drop(first);
    world.goes(second);
}

#[test]
fn one_that_was_called_in_vain_keeps_its_place_and_lets_others_go() {
    let world = World::queued(QueueLimits::default());
    let mut running = world.fill_up(&ALL);
    let (picture, text) = (world.waits(&of_flow("a"), PICTURE), world.waits(&of_flow("b"), TEXT));
    let later = world.waits(&of_flow("a"), PICTURE);
    let mut makes_room_in = |pool: &str| {
        let first = running.iter_mut().position(|dispatch| pool_of(dispatch) == pool).unwrap();
        running.remove(first).attempt.first_byte(|| world.now);
    };
    makes_room_in("vision");
    assert!(is_called(&picture) && !is_called(&text), "it came first");
    // Somebody else takes that room, and there is some where the text alone can go.
    let vision = world.fill_up_again(&[11, 12]);
    makes_room_in("text");
    let Step::Wait(picture) = picture.go_on(|| world.now).unwrap() else { panic!("there is no room for it") };
    world.goes(text);
    assert!(!is_called(&picture) && !is_called(&later));
    drop(vision);
    assert!(is_called(&picture), "it comes before the one that came after it");
}

impl World {
    /// One more each, from somebody who may go anyway.
    fn fill_up_again(&self, hosts: &[u8]) -> Vec<crate::RunningAttempt> {
        let mut running = Vec::new();
        for host in hosts {
            let plan = {
                let subset = Subset::parse([&*format!("10.0.0.{host}:8000")]);
                let lone = Self {
                    handler: Arc::new(RequestHandler {
                        queue: QueueLimits { requests: 0, ..QueueLimits::default() },
                        ..(*self.handler).clone()
                    }),
                    now: self.now,
                };
                lone.ask_with(TEXT, Some(&subset), 0).unwrap()
            };
            running.push(plan.attempt);
        }
        running
    }
}

#[test]
fn the_queue_is_bounded_and_the_important_take_the_places_of_others() {
    let limits = QueueLimits { requests: 4, ..QueueLimits::default() };
    let mut world = World::new(table_with("critical", Criticality::Critical));
    Arc::get_mut(&mut world.handler).unwrap().queue = limits;
    let _running = world.fill_up(&ALL);
    let pictures: Vec<Waiting> = (0..2).map(|_| world.waits(&of_flow("a"), PICTURE)).collect();
    let refused = world.step_of(&of_flow("a"), PICTURE).unwrap_err();
    assert!(matches!(refused, Rejection::QueueFull { waiting: 2, .. }), "half of the places: {refused:?}");
    let mut texts: Vec<Waiting> = (0..2).map(|_| world.waits(&of_flow("b"), TEXT)).collect();
    let refused = world.step_of(&of_flow("b"), TEXT).unwrap_err();
    assert_eq!((refused.code(), world.waiting()), (Code::QueueFull, 4));
    let reply = refused.reply(Dialect::OpenAi);
    assert_eq!((reply.status.as_u16(), reply.dropped), (429, Some("rejected-saturated")));
    assert!(reply.retry_after >= Some(Duration::from_secs(1)));
    let critical = world.waits(&of_flow("b"), &TEXT.replace("chat", "critical"));
    let last = texts.pop().unwrap();
    assert!(is_called(&last), "it came last");
    let evicted = last.go_on(|| world.now).unwrap_err();
    assert_eq!(evicted.reply(Dialect::OpenAi).dropped, Some("evicted-priority"));
    assert_eq!(world.waiting(), 4);
    // Of pictures there are as many as may be: one of them makes way for one that is more important.
    let seen = world.waits(&of_flow("b"), &PICTURE.replace("chat", "critical"));
    assert!(is_called(&pictures[1]) && !is_called(&texts[0]));
    drop((critical, pictures, texts, seen));
    assert_eq!(world.waiting(), 0);
}

#[test]
fn one_that_has_waited_for_too_long_is_told_so() {
    let world = World::queued(QueueLimits { wait: Duration::from_secs(7), ..QueueLimits::default() });
    let _running = world.fill_up(&ALL);
    let waiting = world.waits(&of_flow("a"), TEXT);
    assert_eq!(waiting.deadline(), world.now + Duration::from_secs(7));
    let rejection = waiting.expired(world.now + Duration::from_secs(7));
    assert_eq!(rejection.to_string(), "every endpoint that could serve this was full for 7 seconds");
    assert_eq!(rejection.reply(Dialect::OpenAi).dropped, Some("rejected-ttl-expired"));
    assert_eq!(world.waiting(), 0);
}

#[test]
fn the_sheddable_never_wait_and_nobody_does_where_there_is_no_queue() {
    let world = World::new(table_with("sheddable", Criticality::Sheddable));
    let mut running = world.fill_up(&ALL);
    let waiting = world.waits(&of_flow("a"), TEXT);
    let shed = |world: &World| world.step_of(&of_flow("a"), &TEXT.replace("chat", "sheddable"));
    assert_eq!(shed(&world).unwrap_err().code(), Code::Saturated);
    // There is room for the one that waits, and none for it.
    running[0].attempt.first_byte(|| world.now);
    assert_eq!(shed(&world).unwrap_err().code(), Code::Saturated);
    drop(waiting);
    let world = World::queued(QueueLimits { requests: 0, ..QueueLimits::default() });
    let _running = world.fill_up(&ALL);
    assert!(matches!(world.step_of(&of_flow("a"), TEXT), Ok(Step::Dispatch(_))));
}

#[test]
fn metrics_and_tables_call_those_that_wait() {
    let world = World::queued(QueueLimits::default());
    let _running = world.fill_up(&ALL);
    let waiting: Vec<Waiting> = (0..3).map(|_| world.waits(&of_flow("a"), TEXT)).collect();
    world.scraped(1, 3);
    assert_eq!(waiting.iter().filter(|waiting| is_called(waiting)).count(), 2, "its queue takes five");
    let world = World::queued(QueueLimits::default());
    let _running = world.fill_up(&ALL);
    let waiting = world.waits(&of_flow("a"), TEXT);
    let mut larger = table();
    larger.pools.insert("text".into(), pool(&[(1, None), (2, None), (3, None)]));
    world.handler.director.replace_table(2, Arc::new(larger));
    assert_eq!(address_of(&world.goes(waiting)), address(3));
}

#[test]
fn an_endpoint_that_joins_gets_no_more_than_the_others_have() {
    let world = World::queued(QueueLimits::default());
    let running: Vec<Dispatch> = (0..20).map(|seed| world.ask_with(TEXT, None, seed).unwrap()).collect();
    let mut larger = table();
    larger.pools.insert("text".into(), pool(&[(1, None), (2, None), (3, None)]));
    world.handler.director.replace_table(2, Arc::new(larger));
    let joined: Vec<Dispatch> = (0..16).map(|seed| world.ask_with(TEXT, None, seed).unwrap()).collect();
    let [one, other, third] = [1, 2, 3].map(|host| world.in_flight(host));
    assert!(third <= one.max(other) + 1 && third + 1 >= one.min(other), "{one}, {other}, {third}");
    drop((running, joined));
}

#[test]
fn one_that_is_bound_to_a_pool_waits_for_that_one_alone() {
    let world = World::queued(QueueLimits::default());
    let _running = world.fill_up(&[1, 2]);
    let bound = |pool: &str| Bound { subset: None, pool: Some(pool.into()) };
    let waiting: Vec<Step> = (0..3).map(|_| world.step(&of_flow("a"), TEXT, bound("text"), 0).unwrap()).collect();
    assert!(waiting.iter().all(|step| matches!(step, Step::Wait(_))));
    let other = world.step(&of_flow("a"), TEXT, bound("vision"), 0).unwrap();
    assert!(matches!(other, Step::Dispatch(_)), "there is room in its own");
}

#[test]
fn those_that_wait_for_one_pool_shut_nobody_out_of_another() {
    let world = World::new(table_with("sheddable", Criticality::Sheddable));
    let _running = world.fill_up(&[11, 12]);
    let _picture = world.waits(&of_flow("a"), PICTURE);
    for model in ["chat", "sheddable"] {
        let step = world.step_of(&of_flow("a"), &TEXT.replace("chat", model)).unwrap();
        assert!(matches!(step, Step::Dispatch(_)), "{model}");
    }
}

#[test]
fn where_memory_is_short_small_bodies_wait_all_the_same() {
    let mut world = World::queued(QueueLimits { requests: 100, ..QueueLimits::default() });
    let budget = crate::Budget::new(100_000);
    Arc::get_mut(&mut world.handler).unwrap().budget = budget.clone();
    let _running = world.fill_up(&ALL);
    let _held = budget.take(None, 60_000).unwrap();
    let _small = world.waits(&of_flow("a"), TEXT);
    let large = TEXT.replace("hi", &"hi ".repeat(200));
    let refused = world.step_of(&of_flow("a"), &large).unwrap_err();
    assert_eq!((refused.code(), refused.reply(Dialect::OpenAi).dropped), (Code::QueueFull, Some("rejected-saturated")));
}

#[test]
fn metrics_call_to_a_server_that_others_fill() {
    let world = World::queued(QueueLimits::default());
    let mut running = world.fill_up(&ALL);
    let waiting: Vec<Waiting> = (0..3).map(|_| world.waits(&of_flow("a"), TEXT)).collect();
    // Nobody hears of it, as when they are just deciding.
    let (one, other) = (running.remove(0), running.remove(0));
    let called = |count: usize| assert_eq!(waiting.iter().filter(|waiting| is_called(waiting)).count(), count);
    drop(one);
    called(1);
    drop(other);
    called(2);
    world.scraped(1, 50);
    called(3);
}

#[test]
fn room_that_comes_while_one_decides_is_not_lost() {
    let world = World::queued(QueueLimits::default());
    let mut running = world.fill_up(&ALL);
    let waiting = world.waits(&of_flow("a"), TEXT);
    running[0].attempt.first_byte(|| world.now);
    assert!(is_called(&waiting));
    // Somebody else takes it first, and what comes then finds nobody that waits.
    let _taken = world.fill_up_again(&[1]);
    running[1].attempt.first_byte(|| world.now);
    let _taken_too = world.fill_up_again(&[1]);
    let Step::Wait(waiting) = waiting.go_on(|| world.now).unwrap() else { panic!("there is no room") };
    assert!(is_called(&waiting), "it looks once more");
    let Step::Wait(waiting) = waiting.go_on(|| world.now).unwrap() else { panic!("there is no room") };
    assert!(!is_called(&waiting), "and not for ever");
}

#[test]
fn a_table_that_leads_elsewhere_moves_those_that_wait() {
    let world = World::queued(QueueLimits::default());
    let _running = world.fill_up(&ALL);
    let waiting: Vec<Waiting> = (0..2).map(|_| world.waits(&of_flow("a"), TEXT)).collect();
    let mut moved = table();
    let target = Target::new("new-model", "new", capability("text"));
    moved.models.insert("chat".into(), Arc::new(Model::new(vec![target])));
    moved.pools.insert("new".into(), pool(&[(3, None)]));
    world.handler.director.replace_table(2, Arc::new(moved));
    for waiting in waiting {
        assert_eq!(address_of(&world.goes(waiting)), address(3));
    }
}

#[test]
fn an_explanation_says_that_a_request_would_wait_and_the_same_draw_chooses_the_same() {
    let world = World::queued(QueueLimits::default());
    let explained = |body: &str, draw: u64| {
        let mut transaction = world.handler.open(&head("/v1/chat/completions")).unwrap();
        transaction.feed(body.as_bytes()).unwrap();
        let explanation = transaction.explain(world.now, Draw::new(draw)).unwrap();
        (explanation.outcome.unwrap().first().address, explanation.waits)
    };
    let chosen: Vec<_> = (0..20).map(|draw| explained(TEXT, draw)).collect();
    assert!(chosen.iter().any(|other| *other != chosen[0]), "there are two equals");
    assert_eq!(chosen, (0..20).map(|draw| explained(TEXT, draw)).collect::<Vec<_>>());
    let _running = world.fill_up(&ALL);
    assert!(explained(TEXT, 0).1);
    assert_eq!(world.waiting(), 0, "nobody waits for it");
}

#[test]
fn a_look_at_metrics_that_failed_is_no_room() {
    let world = World::queued(QueueLimits::default());
    let _running = world.fill_up(&ALL);
    let waiting = world.waits(&of_flow("a"), TEXT);
    for host in ALL {
        world.state(host).silent(world.now);
    }
    assert!(!is_called(&waiting));
}

#[test]
fn those_that_could_not_use_an_endpoint_are_not_before_one_that_can() {
    let mut table = table();
    table.pools.insert("vision".into(), pool(&[(11, None), (12, Some(capability("text")))]));
    let target = |capability: &str| Target::new("m", "vision", super::capability(capability));
    let mut model = Model::new(vec![target("text+image")]);
    model.criticality = Criticality::Sheddable;
    table.models.insert("sheddable".into(), Arc::new(model));
    let world = World::new(table);
    let _running = world.fill_up(&[11]);
    let _picture = world.waits(&of_flow("a"), PICTURE);
    let text = world.step_of(&of_flow("a"), &TEXT.replace("chat", "sheddable")).unwrap();
    let Step::Dispatch(text) = text else { panic!("{text:?}") };
    assert_eq!(address_of(&text), address(12));
}

#[test]
fn where_a_policy_lets_requests_go_to_full_endpoints_they_do_not_wait() {
    let world = World::queued(QueueLimits::default());
    let _running = world.fill_up(&ALL);
    let _waiting = world.waits(&of_flow("a"), TEXT);
    let profile = scheduling::Profile { filters: vec![Filter::Capability, Filter::Subset], ..Default::default() };
    world.handler.director.replace_profiles(scheduling::Profiles { rules: Vec::new(), rest: profile });
    assert!(matches!(world.step_of(&of_flow("a"), TEXT), Ok(Step::Dispatch(_))));
}
