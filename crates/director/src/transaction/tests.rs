#![expect(clippy::float_cmp, reason = "what is compared is exact")]

mod caches;
mod found;
mod names;
mod queue;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use request::OwnedKind;
use routing::{
    Capability, Endpoint, Family, Found, ModalitySet, Model, Operation, Pool, RoutingTable, Target, Uid, UnsafeFeature,
};
use scheduling::{Choice, Explained, Filter, Scraped};

use super::*;
use crate::{Code, Dialect, EndpointState, Head, OtherPaths, Reading, RunningAttempt};

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
        (
            Arc::from(format!("pod-{host}")),
            Endpoint {
                capability: *capability,
                ..Endpoint::new(address(*host), format!("uid-{host}").as_str().into())
            },
        )
    };
    Arc::new(Pool { endpoints: hosts.iter().map(endpoint).collect(), ..Pool::default() })
}

/// Model `chat`: text in pool `text` (hosts 1, 2), text+image in pool `vision` (hosts 11, 12).
fn table() -> RoutingTable {
    let target = |pool: &str, input: &str| Target::new(format!("{pool}-model"), pool, capability(input));
    let model = Model::new(vec![target("text", "text"), target("vision", "text+image")]);
    RoutingTable {
        models: BTreeMap::from([("chat".into(), Arc::new(model))]),
        pools: BTreeMap::from([
            ("text".into(), pool(&[(1, None), (2, None)])),
            ("vision".into(), pool(&[(11, None), (12, None)])),
        ]),
        ..RoutingTable::default()
    }
}

fn head(path: &str) -> RequestHead<'_> {
    RequestHead { path, ..RequestHead::default() }
}

struct World {
    handler: Arc<RequestHandler>,
    now: Instant,
}

impl World {
    fn new(table: RoutingTable) -> Self {
        let world = Self::without_a_table();
        world.handler.director.replace_table(1, Arc::new(table));
        world
    }

    fn without_a_table() -> Self {
        let now = an_instant();
        Self { handler: Arc::new(RequestHandler::new(Arc::new(Director::new(now)), "serving")), now }
    }

    fn ask(&self, body: &str) -> Result<Dispatch, Rejection> {
        self.ask_with(body, None, 0)
    }

    fn ask_with(&self, body: &str, subset: Option<&Subset>, seed: u64) -> Result<Dispatch, Rejection> {
        self.ask_within(body, Bound { subset: subset.cloned(), pool: None }, seed)
    }

    fn ask_within(&self, body: &str, bound: Bound, seed: u64) -> Result<Dispatch, Rejection> {
        match self.step(&head("/v1/chat/completions"), body, bound, seed)? {
            Step::Dispatch(dispatch) => Ok(*dispatch),
            other => panic!("{other:?}"),
        }
    }

    fn step(&self, head: &RequestHead<'_>, body: &str, bound: Bound, seed: u64) -> Result<Step, Rejection> {
        let mut transaction = self.handler.open(head)?;
        transaction.feed(body.as_bytes())?;
        transaction.finish(bound, None, || self.now, Draw::new(seed))
    }

    fn state(&self, host: u8) -> Arc<EndpointState> {
        let snapshot = self.handler.director.snapshot().unwrap();
        Arc::clone(&snapshot.slot_at(address(host)).unwrap().state)
    }

    fn fill(&self, hosts: &[u8]) {
        for host in hosts {
            self.scraped(*host, 50);
        }
    }

    fn scraped(&self, host: u8, waiting: u32) {
        let scraped = Scraped { waiting: Some(waiting), running: Some(waiting), kv_cache_usage: Some(0.0) };
        self.state(host).scraped(&Reading { scraped, ..Reading::default() }, self.now);
    }

    fn in_flight(&self, host: u8) -> u32 {
        self.state(host).load(self.now).in_flight
    }
}

/// Pool and target of the first attempt.
fn placed(dispatch: &Dispatch) -> (&str, Option<&str>) {
    let first = dispatch.plan.first();
    (first.pool(), first.target.as_deref())
}

fn pool_of(dispatch: &Dispatch) -> &str {
    placed(dispatch).0
}

fn address_of(dispatch: &Dispatch) -> SocketAddr {
    dispatch.plan.first().address
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
fn a_session_without_a_model_is_of_the_only_one_that_takes_sessions() {
    let mut both = table();
    let sessions = |pool: &str| {
        let capability = Capability::ANY.limited_to([Operation::Realtime].into_iter().collect());
        Arc::new(Model::new(vec![Target::new("omni", pool, capability)]))
    };
    both.models.insert("talk".into(), sessions("vision"));
    let world = World::new(both.clone());
    let head = RequestHead { method: "GET", path: "/v1/realtime", ..RequestHead::default() };
    let Ok(Step::Dispatch(dispatch)) = world.step(&head, "", Bound::default(), 0) else { panic!("it has an endpoint") };
    assert_eq!(placed(&dispatch), ("vision", Some("omni")));
    both.models.insert("sing".into(), sessions("text"));
    let world = World::new(both);
    assert_eq!(world.step(&head, "", Bound::default(), 0).unwrap_err().code().as_str(), "model_required");
}

/// A conversation that once quoted one is sent again and again; to a text server it is a word like any other.
#[test]
fn a_placeholder_that_is_quoted_goes_where_it_means_nothing_and_nowhere_else() {
    let world = World::new(table());
    let quoted = r#"{"model":"chat","messages":[{"content":"what is <|image_pad|>?"}]}"#;
    let dispatch = world.ask(quoted).unwrap();
    assert!(dispatch.plan.attempts.iter().all(|attempt| **attempt.pool() == *"text"), "{:?}", dispatch.plan.attempts);
    world.fill(&[1, 2]);
    assert_eq!(pool_of(&world.ask(quoted).unwrap()), "text", "and waits there");
    let with_a_picture = IMAGE.replace("what?", "what is <|image_pad|>?");
    assert_eq!(world.ask(&with_a_picture).unwrap_err().code().as_str(), "unsafe_feature");
}

#[test]
fn text_goes_to_the_text_pool_and_an_image_to_the_vision_pool() {
    let world = World::new(table());
    let decision = world.ask(TEXT).unwrap();
    assert_eq!(placed(&decision), ("text", Some("text-model")));
    assert_eq!(decision.plan.why.to_string(), "text → text fits text → text exactly, tier 1 of 2, cheapest of 2");
    assert_eq!(pool_of(&world.ask(IMAGE).unwrap()), "vision");
}

#[test]
fn text_spills_over_when_its_pool_is_gone_or_full_and_comes_back() {
    let world = World::new(table());
    world.fill(&[1, 2]);
    let spilled = world.ask(TEXT).unwrap();
    assert_eq!((pool_of(&spilled), spilled.plan.why.tier), ("vision", 2));
    world.scraped(1, 0);
    assert_eq!(pool_of(&world.ask(TEXT).unwrap()), "text");

    let mut gone = table();
    gone.pools.insert("text".into(), Arc::default());
    assert_eq!(pool_of(&World::new(gone).ask(TEXT).unwrap()), "vision");
}

#[test]
fn when_everybody_is_full_the_tightest_still_serves_and_the_sheddable_is_shed() {
    let world = World::new(table());
    world.fill(&[1, 2, 11, 12]);
    let decision = world.ask(TEXT).unwrap();
    assert_eq!((pool_of(&decision), decision.plan.why.lacks), ("text", Some(Filter::Room)));
    assert!(decision.plan.why.to_string().ends_with("(all are full)"), "{}", decision.plan.why);

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
        assert_eq!(decision.plan.attempts.iter().map(|attempt| attempt.address).collect::<Vec<_>>(), [address(11)]);
    }
    let mut none = table();
    none.pools.insert("vision".into(), pool(&[(12, Some(capability("text")))]));
    let rejection = World::new(none).ask(IMAGE).unwrap_err();
    assert_eq!(rejection.status(), 503);
    assert_eq!(rejection.to_string(), r#"no ready endpoint for model "chat" in pool vision accepts text and image"#);
}

#[test]
fn requests_under_way_count_until_their_decision_is_dropped() {
    let world = World::new(table());
    let first = world.ask(TEXT).unwrap();
    let second = world.ask(TEXT).unwrap();
    assert_ne!(address_of(&first), address_of(&second));
    assert_eq!(world.handler.director.in_flight(), 2);
    drop((first, second));
    assert_eq!(world.handler.director.in_flight(), 0);
}

#[test]
fn attempts_go_over_endpoints_then_targets_then_tiers() {
    let world = World::new(table());
    let Dispatch { plan, mut attempt } = world.ask(TEXT).unwrap();
    let mut went = Vec::new();
    loop {
        went.push(attempt.of(&plan).pool().to_string());
        assert_eq!(world.handler.director.in_flight(), 1, "it counts where it is, and nowhere else");
        let next = plan.next_after(&attempt, world.now);
        attempt.unreachable(world.now);
        let Some(next) = next else { break };
        attempt = next;
    }
    assert_eq!(went, ["text", "text", "vision", "vision"]);
    let targets: Vec<_> = plan.attempts.iter().map(|attempt| attempt.target.as_deref().unwrap()).collect();
    assert_eq!(targets, ["text-model", "text-model", "vision-model", "vision-model"]);
    let spliced = |number: usize| String::from_utf8_lossy(&plan.attempts[number].splices[0].with).into_owned();
    assert_eq!((spliced(0), spliced(2)), (r#""text-model""#.into(), r#""vision-model""#.into()));
    assert_eq!(plan.alike().count(), 2, "a gateway that has the body sends the same to each");
    assert_eq!(world.handler.director.in_flight(), 0);
}

#[test]
fn an_endpoint_that_cannot_be_reached_comes_last_and_another_tier_before_it() {
    let mut one = table();
    one.pools.insert("text".into(), pool(&[(1, None)]));
    let world = World::new(one);
    let Dispatch { attempt, .. } = world.ask(TEXT).unwrap();
    attempt.unreachable(world.now);
    let dispatch = world.ask(TEXT).unwrap();
    let went: Vec<_> = dispatch.plan.attempts.iter().map(|attempt| attempt.address).collect();
    assert_eq!((went.len(), went[2]), (3, address(1)));
    assert_eq!(dispatch.plan.why.tier, 2);
}

#[test]
fn whoever_fails_fast_draws_no_more_than_its_share() {
    // It answers at once, so that it is always the least active.
    let mut two = table();
    two.pools.remove("vision");
    let mut world = World::new(two);
    let mut slow = Vec::new();
    let mut drawn = 0;
    for seed in 0..60 {
        let Dispatch { mut attempt, plan } = world.ask_with(TEXT, None, seed).unwrap();
        if plan.first().address == address(1) {
            drawn += 1;
            attempt.head(http::StatusCode::SERVICE_UNAVAILABLE, world.now);
            attempt.ended(world.now);
        } else {
            slow.push(attempt);
        }
        world.now += Duration::from_millis(100);
    }
    assert!(drawn <= 8, "{drawn} of 60");
}

#[test]
fn a_request_counts_where_the_gateway_says_it_went() {
    let world = World::new(table());
    let Dispatch { plan, mut attempt } = world.ask(TEXT).unwrap();
    let chosen = plan.first().address;
    let host = |address: SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => unreachable!(),
    };
    world.handler.served(&plan, &mut attempt, chosen);
    assert_eq!((world.in_flight(host(chosen)), world.in_flight(11)), (1, 0));
    world.handler.served(&plan, &mut attempt, address(11));
    assert_eq!((world.in_flight(host(chosen)), world.in_flight(11)), (0, 1));
    world.handler.served(&plan, &mut attempt, ([9, 9, 9, 9], 1).into());
    assert_eq!(world.handler.director.in_flight(), 0, "a stranger's load is not ours to count");
}

#[test]
fn a_subset_is_honoured_and_an_empty_one_refuses() {
    let world = World::new(table());
    let subset = Subset::parse(["10.0.0.2:8000"]);
    assert_eq!(address_of(&world.ask_with(TEXT, Some(&subset), 0).unwrap()), address(2));
    let rejection = world.ask_with(TEXT, Some(&Subset::default()), 0).unwrap_err();
    assert_eq!((rejection.status().as_u16(), rejection.code().retry_after().is_some()), (503, true));
}

#[test]
fn an_old_scrape_is_forgotten() {
    let mut world = World::new(table());
    world.fill(&[1, 2]);
    world.now += Duration::from_secs(6);
    assert_eq!(pool_of(&world.ask(TEXT).unwrap()), "text");
}

#[test]
fn without_a_table_nothing_is_decided() {
    let rejection = World::without_a_table().ask(TEXT).unwrap_err();
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
        World::new(table).ask(&body).unwrap().plan.media_tokens
    };
    // 112 x 84 in units of 28.
    assert_eq!(tokens(Some(Family::Qwen2Vl)), Some(12));
    assert_eq!(tokens(None), None);
    assert_eq!(World::new(table()).ask(TEXT).unwrap().plan.media_tokens, Some(0));
}

/// The table with two endpoints that make videos.
fn with_films(hosts: &[(u8, Option<Capability>)]) -> RoutingTable {
    let mut films = table();
    films.pools.insert("films".into(), pool(hosts));
    let target =
        Target { pool: "films".into(), capability: Capability::ANY, ..films.models["chat"].targets[0].clone() };
    Arc::make_mut(films.models.get_mut("chat").unwrap()).targets.push(target);
    films
}

#[test]
fn a_job_goes_to_its_owner_alone() {
    let world = World::new(with_films(&[(21, None), (22, None)]));
    let video = Owned { kind: OwnedKind::Video, id: "video_1".into() };
    let head = RequestHead { method: "GET", path: "/v1/videos/video_1", ..RequestHead::default() };
    let ask = |world: &World| world.step(&head, "", Bound::default(), 0);
    let dispatched = |step: Step| match step {
        Step::Dispatch(dispatch) => dispatch.plan.attempts.iter().map(|attempt| attempt.address).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let question = |world: &World| match ask(world).unwrap() {
        Step::FindOwner(question) => question,
        other => panic!("{other:?}"),
    };
    // Nobody knows: those that may have made it are asked.
    let asked = question(&world);
    assert_eq!((asked.owned(), asked.among().len()), (&video, 2));
    let unknown = asked.answered(Search::Nobody, || world.now).unwrap_err();
    assert!(unknown.to_string().contains("no model server knows the job"), "{unknown}");
    // One of them says that it did, and is remembered.
    let owner = world.state(22).id().clone();
    let step = question(&world).answered(Search::Found(owner.clone()), || world.now).unwrap();
    assert_eq!(dispatched(step), [address(22)]);
    assert_eq!(dispatched(ask(&world).unwrap()), [address(22)]);
    // A pod that comes back under its name and address is another one, and may have what the first one left on a disk.
    let heir = EndpointId { uid: "another".into(), ..owner };
    world.handler.owners.remember(video.clone(), heir);
    let gone = question(&world).answered(Search::Nobody, || world.now).unwrap_err();
    assert!(gone.to_string().contains("is gone"), "{gone}");
    // Only one endpoint makes videos at all.
    assert_eq!(dispatched(ask(&World::new(with_films(&[(21, None)]))).unwrap()), [address(21)]);
}

#[test]
fn what_follows_a_response_goes_to_whoever_made_that_one_even_where_another_fits_tighter() {
    let world = World::new(table());
    let follow = |model: &str| format!(r#"{{"model":"{model}","input":"and then?","previous_response_id":"resp_1"}}"#);
    let ask = |body: &str| world.step(&head("/v1/responses"), body, Bound::default(), 0);
    assert!(matches!(ask(&follow("chat")), Ok(Step::FindOwner(_))));
    // It is learned from the answer, here one of a server that takes pictures.
    let picture = r#"{"model":"chat","input":[{"role":"user","content":[{"type":"input_image","image_url":"https://a.example.com/x"}]}]}"#;
    let Step::Dispatch(dispatch) = ask(picture).unwrap() else { panic!() };
    let Dispatch { plan, mut attempt } = *dispatch;
    attempt.head(http::StatusCode::OK, world.now);
    attempt.body(br#"{"id":"resp_1","output":[]}"#, || world.now);
    attempt.ended(world.now);
    let Step::Dispatch(next) = ask(&follow("chat")).unwrap() else { panic!() };
    assert_eq!(next.plan.attempts.iter().map(|attempt| attempt.address).collect::<Vec<_>>(), [plan.first().address]);
    assert_eq!(placed(&next), ("vision", Some("vision-model")), "the name is written as ever");
    // A model that the owner's pool does not serve.
    let mut narrow = table();
    Arc::make_mut(narrow.models.get_mut("chat").unwrap()).targets.remove(1);
    world.handler.director.replace_table(2, Arc::new(narrow));
    let rejection = ask(&follow("chat")).unwrap_err();
    assert_eq!((rejection.status().as_u16(), rejection.code()), (404, Code::ResponseNotFound));
    assert!(rejection.to_string().contains("created in pool vision"), "{rejection}");
}

#[test]
fn an_answer_that_is_an_error_teaches_nothing_and_one_that_breaks_off_what_it_said() {
    let world = World::new(table());
    let body = r#"{"model":"chat","input":"hi"}"#;
    let begin = || match world.step(&head("/v1/responses"), body, Bound::default(), 0).unwrap() {
        Step::Dispatch(dispatch) => dispatch.attempt,
        other => panic!("{other:?}"),
    };
    let owned = |id: &str| Owned { kind: OwnedKind::Response, id: id.into() };
    let mut attempt = begin();
    attempt.head(http::StatusCode::BAD_REQUEST, world.now);
    attempt.body(br#"{"id":"resp_1"}"#, || world.now);
    attempt.ended(world.now);
    let mut attempt = begin();
    attempt.head(http::StatusCode::OK, world.now);
    attempt.body(b"event: response.created\ndata: {\"response\":{\"id\":\"resp_2\"}}\n\n", || world.now);
    drop(attempt);
    let owners = &world.handler.owners;
    assert_eq!((owners.owner(&owned("resp_1")).is_some(), owners.owner(&owned("resp_2")).is_some()), (false, true));
}

#[test]
fn a_silent_server_gets_nothing_while_another_lives() {
    let mut world = World::new(table());
    world.state(1).silent(world.now);
    world.now += Duration::from_secs(4);
    world.fill(&[2, 11, 12]);
    for seed in 0..20 {
        assert_eq!(address_of(&world.ask_with(TEXT, None, seed).unwrap()), address(2));
    }
    world.scraped(1, 0);
    assert_eq!(address_of(&world.ask(TEXT).unwrap()), address(1));
}

#[test]
fn a_gateway_that_is_bound_to_a_pool_is_told_where_else_a_request_belongs() {
    let world = World::new(table());
    let direct = |body: &str, pool: &str| world.ask_within(body, Bound { subset: None, pool: Some(pool.into()) }, 0);
    assert_eq!(pool_of(&direct(TEXT, "text").unwrap()), "text");
    let rejection = direct(IMAGE, "text").unwrap_err();
    assert_eq!((rejection.status().as_u16(), rejection.code().as_str()), (404, "model_elsewhere"));
    assert!(rejection.to_string().contains("from pool vision"), "{rejection}");
    // What its pool takes as well it gets there, if less tightly.
    assert_eq!(pool_of(&direct(TEXT, "vision").unwrap()), "vision");
    assert_eq!(pool_of(&direct(IMAGE, "vision").unwrap()), "vision");
    assert_eq!(pool_of(&direct(IMAGE, "of another namespace").unwrap()), "vision", "it binds nobody");
}

#[test]
fn what_names_no_model_is_bound_as_well_and_long_names_are_known_by_what_is_left_of_them() {
    let long = "a-pool-whose-name-is-longer-than-what-a-service-may-be-called";
    let mut pools = table();
    pools.models.clear();
    pools.pools.insert(long.into(), pool(&[(9, None)]));
    let as_is = |to: &str, bound: &str| {
        let mut world = World::new(pools.clone());
        let other = OtherPaths { pool: to.into(), only: Vec::new() };
        world.handler = Arc::new(RequestHandler { other_paths: Some(other), ..(*world.handler).clone() });
        let bound = Bound { subset: None, pool: Some(bound.into()) };
        match world.step(&head("/of/their/own"), "", bound, 0)? {
            Step::Dispatch(dispatch) => Ok(pool_of(&dispatch).to_owned()),
            other => panic!("{other:?}"),
        }
    };
    let elsewhere = |result: Result<String, Rejection>| result.unwrap_err().code();
    assert_eq!(as_is("text", "text"), Ok("text".into()));
    assert_eq!(elsewhere(as_is("text", "vision")), Code::ModelElsewhere);
    assert_eq!(as_is(long, &long[..51]), Ok(long.into()));
    assert_eq!(elsewhere(as_is("text", &long[..51])), Code::ModelElsewhere);
}

#[test]
fn of_paths_that_nobody_knows_those_pass_that_are_listed() {
    let passes = |only: &[&str], path: &str| {
        let mut world = World::new(table());
        let only = only.iter().map(|path| (*path).to_owned()).collect();
        let other = OtherPaths { pool: "text".into(), only };
        world.handler = Arc::new(RequestHandler { other_paths: Some(other), ..(*world.handler).clone() });
        match world.handler.open(&head(path)) {
            Ok(_) => true,
            Err(rejection) => {
                assert_eq!(rejection.code(), Code::UnknownPath);
                false
            }
        }
    };
    assert!(passes(&[], "/of/their/own"));
    assert!(!passes(&[], "/sleep"), "what manages servers never passes");
    assert!(!passes(&["/sleep"], "/sleep"));
    let listed = ["/healthz", "/of/their/*"];
    assert!(passes(&listed, "/of/their/own?x=1") && passes(&listed, "/healthz"));
    for other in ["/healthz/x", "/of/theirs", "/of/thei%72/own", "/x"] {
        assert!(!passes(&listed, other), "{other}");
    }
    assert!(passes(&listed, "/v1/chat/completions"), "what is known needs no list");
}

#[test]
fn an_explanation_begins_nothing_and_tells_of_every_endpoint() {
    let world = World::new(table());
    world.fill(&[1]);
    let mut transaction = world.handler.open(&head("/v1/chat/completions")).unwrap();
    transaction.feed(TEXT.as_bytes()).unwrap();
    let explanation = transaction.explain(world.now, Draw::new(0)).unwrap();
    assert_eq!(explanation.outcome.unwrap().first().address, address(2));
    let verdicts: Vec<_> = explanation.candidates.iter().map(|one| (one.tier, &*one.endpoint, &one.verdict)).collect();
    assert!(matches!(verdicts[0], (1, "pod-1", Explained::Costs { lacks: Some(Filter::Room), .. })), "{verdicts:?}");
    assert_eq!(verdicts.len(), 4);
    assert_eq!(world.handler.director.in_flight(), 0);
}

/// What is told of requests, in order.
#[derive(Debug, Default)]
struct Told(std::sync::Mutex<Vec<&'static str>>);

impl Told {
    fn add(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }
}

impl crate::Observer for Told {
    fn dispatched(&self, _: &InferenceRequest, _: &Plan, _: Duration) {
        self.add("dispatched");
    }

    fn answered(&self, _: &InferenceRequest, _: &Reply) {
        self.add("answered");
    }

    fn rejected(&self, _: &Rejection) {
        self.add("rejected");
    }

    fn failed(&self, _: &Plan, _: &Rejection) {
        self.add("failed");
    }

    fn attempted(&self, report: &crate::AttemptReport<'_>) {
        self.add(report.ending.as_str());
    }
}

#[test]
fn each_request_is_told_of_once_and_each_attempt() {
    let told = Arc::new(Told::default());
    let mut world = World::new(table());
    world.handler = Arc::new(RequestHandler { observer: Arc::clone(&told) as _, ..(*world.handler).clone() });
    let heard = || std::mem::take(&mut *told.0.lock().unwrap());
    let chat = head("/v1/chat/completions");
    for body in ["{", r#"{"model":7}"#, AUDIO] {
        assert!(world.step(&chat, body, Bound::default(), 0).is_err());
        assert_eq!(heard(), ["rejected"], "{body}");
    }
    assert!(world.handler.open(&head("/v1//x")).is_err());
    assert_eq!(heard(), ["rejected"]);
    let models = RequestHead { method: "GET", path: "/v1/models", ..RequestHead::default() };
    world.step(&models, "", Bound::default(), 0).unwrap();
    assert_eq!(heard(), ["answered"]);
    let Dispatch { plan, attempt } = world.ask(TEXT).unwrap();
    let next = plan.next_after(&attempt, world.now).unwrap();
    attempt.unreachable(world.now);
    next.broke_off(world.now);
    drop(plan.failed(Rejection::BrokenOff));
    assert_eq!(heard(), ["dispatched", "unreachable", "broke_off", "failed"]);
    drop(world.ask(TEXT).unwrap());
    assert_eq!(heard(), ["dispatched", "abandoned"]);
}
