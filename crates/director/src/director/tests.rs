use std::collections::BTreeMap;
use std::time::Duration;

use request::{Limits, RequestHead};
use routing::{MediaPolicy, ModalitySet, Model, Pool, Target};
use scheduling::Load;

use super::*;
use crate::{Budget, Code, Dialect, Intake};

fn set(words: &str) -> ModalitySet {
    ModalitySet::parse_list(&words.replace('+', ",")).unwrap()
}

fn capability(input: &str) -> Capability {
    Capability::new(set(input), ModalitySet::TEXT)
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 8000))
}

fn pool(hosts: &[(u8, Option<Capability>)]) -> Arc<Pool> {
    let endpoint = |(host, capability): &(u8, Option<Capability>)| {
        (Arc::from(format!("pod-{host}")), Endpoint { address: address(*host), capability: *capability })
    };
    Arc::new(Pool { endpoints: hosts.iter().map(endpoint).collect(), ..Pool::default() })
}

/// Model `chat`: text in pool `text` (hosts 1, 2), text+image in pool `vision` (hosts 11, 12).
fn table() -> RoutingTable {
    let target = |pool: &str, input: &str| Target {
        name: format!("{pool}-model").into(),
        pool: pool.into(),
        capability: capability(input),
        family: None,
        weight: 1,
    };
    let model = Model {
        criticality: Criticality::Standard,
        created: 0,
        targets: vec![target("text", "text"), target("vision", "text+image")],
        media: MediaPolicy::default(),
    };
    RoutingTable {
        models: BTreeMap::from([("chat".into(), Arc::new(model))]),
        pools: BTreeMap::from([
            ("text".into(), pool(&[(1, None), (2, None)])),
            ("vision".into(), pool(&[(11, None), (12, None)])),
        ]),
        elsewhere: BTreeMap::new(),
    }
}

fn read(body: &str) -> Result<InferenceRequest, Rejection> {
    let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
    let mut intake = Intake::new(&head, Limits::default(), &Budget::new(Budget::DEFAULT_BYTES))?;
    intake.feed(body.to_owned().into())?;
    Ok(intake.finish()?.0)
}

struct World {
    director: Director,
    now: Instant,
}

impl World {
    fn new(table: RoutingTable) -> Self {
        let now = an_instant();
        let director = Director::new(now);
        director.replace_table(1, Arc::new(table));
        Self { director, now }
    }

    fn ask(&self, body: &str) -> Result<Decision, Rejection> {
        self.ask_with(body, None, 0)
    }

    fn ask_with(&self, body: &str, subset: Option<&Subset>, seed: u64) -> Result<Decision, Rejection> {
        self.ask_within(body, Bound { subset, pool: None }, seed)
    }

    fn ask_within(&self, body: &str, bound: Bound<'_>, seed: u64) -> Result<Decision, Rejection> {
        let request = read(body)?;
        self.director.direct(&request, bound, self.now, Draw::new(seed))
    }

    fn fill(&self, hosts: &[u8]) {
        for host in hosts {
            self.scraped(*host, Load { waiting: 50, ..Load::default() });
        }
    }

    fn scraped(&self, host: u8, load: Load) {
        self.director.board().scraped(address(host), &load, self.now);
    }
}

#[expect(clippy::disallowed_methods, reason = "tests are an edge: some instant must come from somewhere")]
fn an_instant() -> Instant {
    Instant::now()
}

const TEXT: &str = r#"{"model":"chat","messages":[{"role":"user","content":"hi"}]}"#;
const IMAGE: &str = r#"{"model":"chat","messages":[{"role":"user","content":["what?",{"type":"image_url","image_url":{"url":"https://a.example.com/x"}}]}]}"#;
const AUDIO: &str =
    r#"{"model":"chat","messages":[{"content":"hear"},{"content":["what?",{"input_audio":{"data":"AAAA"}}]}]}"#;

#[test]
fn text_goes_to_the_text_pool_and_an_image_to_the_vision_pool() {
    let world = World::new(table());
    let decision = world.ask(TEXT).unwrap();
    assert_eq!((&*decision.pool, decision.target.as_deref()), ("text", Some("text-model")));
    assert_eq!(decision.why.to_string(), "text → text fits text → text exactly, tier 1 of 2, best of 2 by load");
    assert_eq!(&*world.ask(IMAGE).unwrap().pool, "vision");
}

#[test]
fn text_spills_over_when_its_pool_is_gone_or_full_and_comes_back() {
    let world = World::new(table());
    world.fill(&[1, 2]);
    let spilled = world.ask(TEXT).unwrap();
    assert_eq!((&*spilled.pool, spilled.why.tier), ("vision", 2));
    world.scraped(1, Load::default());
    assert_eq!(&*world.ask(TEXT).unwrap().pool, "text");

    let mut gone = table();
    gone.pools.insert("text".into(), Arc::default());
    assert_eq!(&*World::new(gone).ask(TEXT).unwrap().pool, "vision");
}

#[test]
fn when_everybody_is_full_the_tightest_still_serves_and_the_sheddable_is_shed() {
    let world = World::new(table());
    world.fill(&[1, 2, 11, 12]);
    let decision = world.ask(TEXT).unwrap();
    assert_eq!((&*decision.pool, decision.why.pressed), ("text", true));

    let mut sheddable = table();
    Arc::make_mut(sheddable.models.get_mut("chat").unwrap()).criticality = Criticality::Sheddable;
    let world = World::new(sheddable);
    world.fill(&[1, 2, 11, 12]);
    assert_eq!(world.ask(TEXT).unwrap_err().status(), 429);
}

#[test]
fn what_nothing_takes_is_refused_with_the_part_at_fault() {
    let rejection = World::new(table()).ask(AUDIO).unwrap_err();
    assert_eq!((rejection.status().as_u16(), rejection.code()), (400, Code::UnsupportedModality));
    assert_eq!(rejection.param().as_deref(), Some("messages[1].content[1]"));
    assert_eq!(rejection.to_string(), r#"model "chat" takes text and image, not audio"#);
    let body: serde_json::Value = serde_json::from_slice(&rejection.reply(Dialect::OpenAi).body).unwrap();
    assert_eq!(body["error"]["type"], "invalid_request_error");
    assert_eq!(body["error"]["code"], "unsupported_modality");
    let body: serde_json::Value = serde_json::from_slice(&rejection.reply(Dialect::Anthropic).body).unwrap();
    assert_eq!((&body["type"], &body["error"]["type"]), (&"error".into(), &"invalid_request_error".into()));
}

#[test]
fn in_a_mixed_pool_only_the_pods_that_take_images_get_them() {
    let mut mixed = table();
    mixed.pools.insert("vision".into(), pool(&[(11, None), (12, Some(capability("text")))]));
    let world = World::new(mixed);
    for seed in 0..40 {
        let decision = world.ask_with(IMAGE, None, seed).unwrap();
        assert_eq!(decision.endpoints.iter().map(|choice| choice.address).collect::<Vec<_>>(), [address(11)]);
    }
    let mut none = table();
    none.pools.insert("vision".into(), pool(&[(12, Some(capability("text")))]));
    let rejection = World::new(none).ask(IMAGE).unwrap_err();
    assert_eq!(rejection.status(), 503);
    assert_eq!(rejection.to_string(), r#"no ready endpoint for model "chat" in pool vision takes text and image now"#);
}

#[test]
fn requests_under_way_count_until_their_decision_is_dropped() {
    let world = World::new(table());
    let first = world.ask(TEXT).unwrap();
    let second = world.ask(TEXT).unwrap();
    assert_ne!(first.endpoints[0].address, second.endpoints[0].address);
    assert_eq!(world.director.board().in_flight(), 2);
    drop((first, second));
    assert_eq!(world.director.board().in_flight(), 0);
}

#[test]
fn a_request_that_moves_to_its_fallback_counts_there() {
    let world = World::new(table());
    let mut decision = world.ask(TEXT).unwrap();
    let [first, fallback] = [0, 1].map(|i| decision.endpoints[i].address);
    decision.move_to(1);
    let in_flight = |address| world.director.board().load(address).in_flight;
    assert_eq!((in_flight(first), in_flight(fallback)), (0, 1));
}

#[test]
fn a_request_counts_where_the_gateway_says_it_went() {
    let world = World::new(table());
    let mut decision = world.ask(TEXT).unwrap();
    let chosen = decision.endpoints[0].address;
    let elsewhere = world.ask(IMAGE).unwrap().endpoints[0].address;
    let in_flight = |address| world.director.board().load(address).in_flight;
    assert_eq!(world.director.served(&mut decision, chosen).unwrap().pool, decision.pool);
    assert_eq!((in_flight(chosen), in_flight(elsewhere)), (1, 0));
    assert_eq!(&*world.director.served(&mut decision, elsewhere).unwrap().pool, "vision");
    assert_eq!((in_flight(chosen), in_flight(elsewhere)), (0, 1));
    assert_eq!(world.director.served(&mut decision, ([9, 9, 9, 9], 1).into()), None);
    assert_eq!(world.director.board().in_flight(), 0, "a stranger's load is not ours to count");
}

#[test]
fn load_survives_a_new_table_and_endpoints_that_left_are_forgotten_when_idle() {
    let world = World::new(table());
    let decision = world.ask(IMAGE).unwrap();
    let there = decision.endpoints[0].address;
    let mut next = table();
    next.pools.insert("vision".into(), Arc::default());
    world.director.replace_table(2, Arc::new(next.clone()));
    assert_eq!(world.director.board().load(there).in_flight, 1);
    drop(decision);
    world.director.replace_table(3, Arc::new(next));
    assert_eq!(world.director.board().in_flight(), 0);
}

#[test]
fn a_subset_is_honoured_and_an_empty_one_refuses() {
    let world = World::new(table());
    let subset = Subset::parse(["10.0.0.2:8000"]);
    assert_eq!(world.ask_with(TEXT, Some(&subset), 0).unwrap().endpoints[0].address, address(2));
    let rejection = world.ask_with(TEXT, Some(&Subset::default()), 0).unwrap_err();
    assert_eq!((rejection.status().as_u16(), rejection.code().retry_after().is_some()), (503, true));
}

#[test]
fn an_old_scrape_is_forgotten() {
    let mut world = World::new(table());
    world.fill(&[1, 2]);
    world.now += Duration::from_secs(6);
    assert_eq!(&*world.ask(TEXT).unwrap().pool, "text");
}

#[test]
fn without_a_table_nothing_is_decided() {
    let world = World { director: Director::new(an_instant()), now: an_instant() };
    let rejection = world.ask(TEXT).unwrap_err();
    assert_eq!((rejection.status().as_u16(), rejection.code()), (503, Code::NotReady));
}

#[test]
fn an_unknown_model_is_404_and_an_absent_one_400() {
    let world = World::new(table());
    let unknown = world.ask(r#"{"model":"chatt","messages":[]}"#).unwrap_err();
    assert_eq!((unknown.status().as_u16(), unknown.param().as_deref()), (404, Some("model")));
    assert_eq!(unknown.to_string(), r#"the model "chatt" does not exist; did you mean "chat"?"#);
    let absent = world.ask(r#"{"messages":[]}"#).unwrap_err();
    assert_eq!((absent.status().as_u16(), absent.code()), (400, Code::ModelRequired));
}

#[test]
fn media_tokens_are_estimated_by_the_family_of_the_target() {
    use base64::Engine as _;
    let picture = base64::prelude::BASE64_STANDARD.encode(include_bytes!("../../../media/testdata/picture.png"));
    let body = format!(
        r#"{{"model":"chat","messages":[{{"content":[{{"image_url":{{"url":"data:;base64,{picture}"}}}}]}}]}}"#
    );
    let tokens = |family| {
        let mut table = table();
        Arc::make_mut(table.models.get_mut("chat").unwrap()).targets[1].family = family;
        World::new(table).ask(&body).unwrap().media_tokens
    };
    // 112 x 84 in units of 28.
    assert_eq!(tokens(Some(Family::Qwen2Vl)), Some(12));
    assert_eq!(tokens(None), None);
    assert_eq!(World::new(table()).ask(TEXT).unwrap().media_tokens, Some(0));
}

#[test]
fn a_job_goes_to_its_maker_alone() {
    let world = World::new(table());
    let head = RequestHead { method: "GET", path: "/v1/videos/video_1", ..RequestHead::default() };
    let intake = Intake::new(&head, Limits::default(), &Budget::new(0)).unwrap();
    let (request, ..) = intake.finish().unwrap();
    let maker = |pool: &str, endpoint: &str| Maker { pool: pool.into(), endpoint: endpoint.into() };
    let direct = |world: &World, maker: Option<Maker>| {
        let decision = world.director.direct_job("video_1", maker.as_ref(), &request, Bound::default());
        decision.map(|decision| decision.endpoints[0].address).map_err(|rejection| rejection.to_string())
    };
    assert_eq!(direct(&world, Some(maker("vision", "pod-12"))), Ok(address(12)));
    let gone = direct(&world, Some(maker("vision", "pod-13"))).unwrap_err();
    assert!(gone.contains("is gone"), "{gone}");
    let unknown = direct(&world, None).unwrap_err();
    assert!(unknown.contains("no model server that was asked knows the job"), "{unknown}");
    // Only one endpoint makes videos at all.
    let mut one = table();
    one.pools.insert("films".into(), pool(&[(21, None)]));
    let target = Target { pool: "films".into(), capability: Capability::ANY, ..one.models["chat"].targets[0].clone() };
    Arc::make_mut(one.models.get_mut("chat").unwrap()).targets.push(target);
    assert_eq!(direct(&World::new(one), None), Ok(address(21)));
}

#[test]
fn a_silent_server_gets_nothing_while_another_lives() {
    let mut world = World::new(table());
    world.director.board().silent(address(1), world.now);
    world.now += Duration::from_secs(4);
    world.fill(&[2, 11, 12]);
    for seed in 0..20 {
        assert_eq!(world.ask_with(TEXT, None, seed).unwrap().endpoints[0].address, address(2));
    }
    world.scraped(1, Load::default());
    assert_eq!(world.ask(TEXT).unwrap().endpoints[0].address, address(1));
}

#[test]
fn a_gateway_that_is_bound_to_a_pool_is_told_where_else_a_request_belongs() {
    let world = World::new(table());
    let direct = |body: &str, pool| world.ask_within(body, Bound { subset: None, pool: Some(pool) }, 0);
    assert_eq!(&*direct(TEXT, "text").unwrap().pool, "text");
    let rejection = direct(IMAGE, "text").unwrap_err();
    assert_eq!((rejection.status().as_u16(), rejection.code().as_str()), (404, "model_elsewhere"));
    assert!(rejection.to_string().contains("in pool vision"), "{rejection}");
    // What its pool takes as well it gets there, if less tightly.
    assert_eq!(&*direct(TEXT, "vision").unwrap().pool, "vision");
    assert_eq!(&*direct(IMAGE, "vision").unwrap().pool, "vision");
    assert_eq!(&*direct(IMAGE, "of another namespace").unwrap().pool, "vision", "it binds nobody");
}

#[test]
fn what_names_no_model_is_bound_as_well_and_long_names_are_known_by_what_is_left_of_them() {
    let long = "a-pool-whose-name-is-longer-than-what-a-service-may-be-called";
    let mut pools = table();
    pools.models.clear();
    pools.pools.insert(long.into(), pool(&[(9, None)]));
    let world = World::new(pools);
    let request = read(TEXT).unwrap();
    let as_is = |to: &str, bound: &str| {
        world.director.direct_as_is(to, &request, Bound { subset: None, pool: Some(bound) }, world.now, Draw::new(0))
    };
    assert_eq!(&*as_is("text", "text").unwrap().pool, "text");
    let rejection = as_is("text", "vision").unwrap_err();
    assert_eq!(rejection.code().as_str(), "model_elsewhere");
    assert_eq!(&*as_is(long, &long[..51]).unwrap().pool, long);
    assert_eq!(as_is("text", &long[..51]).unwrap_err().code().as_str(), "model_elsewhere");
}
