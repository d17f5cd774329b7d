//! What endpoints were found to be, and how much of it a request may bring.

use routing::{Found, FoundModel, Known, Limits, Modality};

use super::*;

/// Endpoints by their hosts, and what each was found to be; none for one that did not answer.
type Servers<'a> = &'a [(u8, Option<&'a Arc<Found>>)];

/// A server of one model that takes these, within limits.
fn server(model: &str, takes: &str, limits: Limits) -> Arc<Found> {
    let operations = Some([Operation::ChatCompletions].into_iter().collect());
    let found = FoundModel { input: Known::exactly(super::set(takes)), operations, limits, ..FoundModel::default() };
    Arc::new(Found { models: BTreeMap::from([(model.into(), found)]), ..Found::default() })
}

fn pool_found(servers: Servers<'_>) -> Arc<Pool> {
    let mut pool = Pool::default();
    for (host, found) in servers {
        let endpoint = Endpoint { found: found.cloned(), ..Endpoint::new(address(*host), Uid::NONE) };
        pool.endpoints.insert(format!("pod-{host}").into(), endpoint);
    }
    Arc::new(pool)
}

/// A pool that nobody declares a model of.
fn undeclared(servers: Servers<'_>) -> World {
    let pools = BTreeMap::from([("p".into(), pool_found(servers))]);
    World::new(RoutingTable { pools, ..RoutingTable::default() })
}

/// Model `chat` in two tiers, the first of which is tighter, each with its servers.
fn declared(text: Target, vision: Target, servers: [Servers<'_>; 2]) -> World {
    let pools = BTreeMap::from([("text".into(), pool_found(servers[0])), ("vision".into(), pool_found(servers[1]))]);
    let models = BTreeMap::from([("chat".into(), Arc::new(Model::new(vec![text, vision])))]);
    World::new(RoutingTable { models, pools, ..RoutingTable::default() })
}

fn chat(images: usize, letters: usize) -> String {
    let image = r#",{"type":"image_url","image_url":{"url":"https://a.example.com/x"}}"#.repeat(images);
    let text = "x".repeat(letters);
    format!(r#"{{"model":"chat","messages":[{{"role":"user","content":[{{"type":"text","text":"{text}"}}{image}]}}]}}"#)
}

fn refusal(asked: Result<Dispatch, Rejection>) -> (crate::Code, String) {
    let rejection = asked.expect_err("it is refused");
    (rejection.code(), rejection.to_string())
}

#[test]
fn a_picture_goes_where_one_was_found_to_be_taken_and_to_whoever_did_not_say() {
    let (blind, sighted) = (server("chat", "text", Limits::NONE), server("chat", "text+image", Limits::NONE));
    let world = undeclared(&[(1, Some(&blind)), (2, Some(&sighted)), (3, None)]);
    // Each picture has a home of its own.
    let picture = |number: u64| IMAGE.replace("com/x", &format!("com/{number}"));
    let went: std::collections::BTreeSet<_> =
        (0..40).map(|number| address_of(&world.ask_with(&picture(number), None, number).unwrap())).collect();
    assert_eq!(went, [address(2), address(3)].into());
    let world = undeclared(&[(1, Some(&blind))]);
    let (code, message) = refusal(world.ask(IMAGE));
    assert_eq!((code.as_str(), &*message), ("unsupported_modality", "model \"chat\" takes text, not image"));
}

#[test]
fn a_model_that_some_servers_list_goes_to_those_and_one_that_none_lists_to_any() {
    let (base, adapter) = (server("base", "text", Limits::NONE), server("chat", "text", Limits::NONE));
    let world = undeclared(&[(1, Some(&base)), (2, Some(&adapter)), (3, Some(&base))]);
    let all = |model: &str| -> std::collections::BTreeSet<_> {
        let body = TEXT.replace("chat", model);
        (0..40).map(|seed| address_of(&world.ask_with(&body, None, seed).unwrap())).collect()
    };
    assert_eq!(all("chat"), [address(2)].into());
    assert_eq!(all("loaded-when-asked").len(), 3);
}

#[test]
fn more_items_than_a_target_takes_go_to_one_that_takes_them_and_what_all_refuse_is_refused_with_numbers() {
    let limited = |items| Limits::NONE.with_items(Modality::Image, items);
    let (few, many) = (server("few", "text+image", limited(2)), server("many", "text+image+audio", limited(4)));
    let target = |pool: &str, name: &str, input: &str| Target::new(name, pool, capability(input));
    let world = declared(
        target("text", "few", "text+image"),
        target("vision", "many", "text+image+audio"),
        [&[(1, Some(&few))], &[(11, Some(&many))]],
    );
    let pool_for = |images| world.ask(&chat(images, 1)).map(|dispatch| pool_of(&dispatch).to_owned());
    assert_eq!(pool_for(2).unwrap(), "text");
    assert_eq!(pool_for(3).unwrap(), "vision");
    assert_eq!(pool_for(4).unwrap(), "vision");
    let (code, message) = refusal(world.ask(&chat(5, 1)));
    assert_eq!(code.as_str(), "too_many_media_items");
    assert_eq!(message, "model \"chat\" takes at most 4 image items in a request, and this one has 5");
    let at = world.ask(&chat(5, 1)).unwrap_err().param();
    assert_eq!(at.as_deref(), Some("messages[0].content[5]"), "the first that is too much");
}

#[test]
fn a_prompt_that_seems_too_long_for_a_target_goes_to_a_longer_one_and_near_a_limit_the_engine_decides() {
    let declared_limits = |tokens| Limits::NONE.with_context(tokens);
    let target = |pool: &str, input: &str, limits| Target { limits, ..Target::new("m", pool, capability(input)) };
    let world = declared(
        target("text", "text", declared_limits(1000)),
        target("vision", "text+image", declared_limits(4000)),
        [&[(1, None)], &[(11, None)]],
    );
    let pool_for = |letters| world.ask(&chat(0, letters)).map(|dispatch| pool_of(&dispatch).to_owned());
    // Four letters a token.
    assert_eq!(pool_for(3_000).unwrap(), "text");
    assert_eq!(pool_for(6_000).unwrap(), "vision");
    // Too long for both by the estimate, which may be wrong: whoever is nearest to it decides.
    let near = world.ask(&chat(0, 20_000)).unwrap();
    assert_eq!((pool_of(&near), near.plan.why.lacks), ("vision", Some(Filter::Context)));
    let (code, message) = refusal(world.ask(&chat(0, 70_000)));
    assert_eq!(code.as_str(), "context_length_exceeded");
    assert!(
        message
            .starts_with("model \"chat\" has a context length of 4000 tokens, and the prompt is estimated to have 17"),
        "{message}"
    );
}

#[test]
fn what_was_found_is_listed_where_nobody_declares_models() {
    let found = server("tiny", "text+image", Limits::NONE.with_context(4096));
    let world = undeclared(&[(1, Some(&found)), (2, None)]);
    let snapshot = world.handler.director.snapshot().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&snapshot.list(false, "serving")).unwrap();
    assert_eq!(list["data"][0]["id"], "tiny");
    assert_eq!(list["data"][0]["context_length"], 4096);
    assert_eq!(list["data"][0]["architecture"]["input_modalities"], serde_json::json!(["text", "image"]));
}

/// Each of several prompts in one request has the limits to itself, and speech is cut into pieces.
#[test]
fn limits_are_of_one_prompt() {
    let limits = Limits::NONE.with_context(10).with_items(Modality::Image, 1);
    let target = |pool: &str, input: &str| Target { limits, ..Target::new("m", pool, capability(input)) };
    let world = declared(target("text", "text"), target("vision", "text+image"), [&[(1, None)], &[(11, None)]]);
    let ask = |path: &str, body: &str| world.step(&head(path), body, Bound::default(), 0);
    let (long, images) = (chat(0, 1000), chat(2, 1));
    let refused = |path: &str, body: &str| ask(path, body).map_err(|rejection| rejection.code().as_str()).err();
    assert_eq!(refused("/v1/chat/completions", &long), Some("context_length_exceeded"));
    assert_eq!(refused("/v1/chat/completions", &images), Some("too_many_media_items"));
    assert_eq!(refused("/v1/chat/completions/batch", &long), None);
    assert_eq!(refused("/v1/chat/completions/batch", &images), None);
    let many = format!(r#"{{"model":"chat","prompt":["{}"]}}"#, "x".repeat(1000));
    assert_eq!(refused("/v1/completions", &many), None);
}

/// What waits for a model that one endpoint lists keeps nobody from the others.
#[test]
fn a_model_that_waits_for_its_one_server_holds_nobody_up() {
    let (base, both) = (server("base", "text", Limits::NONE), {
        let mut both = (*server("base", "text", Limits::NONE)).clone();
        both.models.insert("lora".into(), both.models["base"].clone());
        Arc::new(both)
    });
    let mut world = undeclared(&[(1, Some(&both)), (2, Some(&base))]);
    Arc::get_mut(&mut world.handler).unwrap().queue = crate::QueueLimits::default();
    let ask = |model: &str, subset: Option<&Subset>| world.ask_with(&TEXT.replace("chat", model), subset, 0);
    let first = Subset::parse(["10.0.0.1:8000"]);
    let running: Vec<_> = (0..5).map(|_| ask("lora", Some(&first)).unwrap()).collect();
    world.fill(&[1]);
    let body = TEXT.replace("chat", "lora");
    let waiting = world.step(&head("/v1/chat/completions"), &body, Bound::default(), 0).unwrap();
    // The idle endpoint calls it, and it has no use for that.
    let Step::Wait(waiting) = waiting else { panic!("{waiting:?}") };
    let waiting = waiting.go_on(|| world.now).unwrap();
    assert!(matches!(waiting, Step::Wait(_)), "{waiting:?}");
    assert_eq!(address_of(&ask("base", None).unwrap()), address(2));
    drop((running, waiting));
}

/// An engine batches requests of so many adapters; those of another wait however much else is free.
#[test]
fn an_adapter_goes_where_it_is_worked_with_or_may_be_and_its_base_goes_anywhere() {
    let operations = Some([Operation::ChatCompletions].into_iter().collect());
    let base = FoundModel { input: Known::exactly(super::set("text")), operations, ..FoundModel::default() };
    let adapter = FoundModel { parent: Some("chat".into()), ..base.clone() };
    let named = ["chat", "legal", "poetry", "recipes"];
    let models = named.map(|name| (name.into(), if name == "chat" { base.clone() } else { adapter.clone() }));
    let found = Arc::new(Found { models: models.into(), ..Found::default() });
    let world = undeclared(&[(1, Some(&found)), (2, Some(&found))]);
    let read = |host: u8, running: &[&str]| {
        let named = running.iter().map(|name| (*name).to_owned()).collect();
        let adapters = crate::AdaptersRead { most: 1, named };
        let scraped = Scraped { running: Some(1), ..Scraped::default() };
        world.state(host).scraped(&Reading { adapters: Some(adapters), scraped, ..Reading::default() }, world.now);
    };
    read(1, &["legal"]);
    read(2, &["poetry"]);
    let all = |model: &str| -> std::collections::BTreeSet<_> {
        let body = TEXT.replace("chat", model);
        (0..40).map(|seed| address_of(&world.ask_with(&body, None, seed).unwrap())).collect()
    };
    assert_eq!((all("legal"), all("poetry")), ([address(1)].into(), [address(2)].into()));
    assert_eq!(all("chat").len(), 2);
    let waits = world.ask(&TEXT.replace("chat", "recipes")).unwrap();
    assert_eq!(waits.plan.why.lacks, Some(Filter::Adapter));
    drop(waits);
    // One is done with. What goes there at once takes the place, before any metrics say so.
    read(2, &[]);
    let recipes = world.ask(&TEXT.replace("chat", "recipes")).unwrap();
    assert_eq!((address_of(&recipes), recipes.plan.why.lacks), (address(2), None));
    assert_eq!(world.ask(&TEXT.replace("chat", "poetry")).unwrap().plan.why.lacks, Some(Filter::Adapter));
    drop(recipes);
    assert_eq!(all("poetry"), [address(2)].into());
}
