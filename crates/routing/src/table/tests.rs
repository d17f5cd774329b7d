use super::*;
use crate::{Draw, FoundModel, Modality, ModalitySet, Operation};

/// `pool=text+image→text` and the like.
fn target(spec: &str) -> Target {
    let (pool, capability) = spec.split_once('=').unwrap();
    let (input, output) = capability.split_once('>').unwrap();
    let set = |words: &str| ModalitySet::parse_list(&words.replace('+', ",")).unwrap();
    Target {
        name: format!("{pool}-model").into(),
        pool: pool.into(),
        capability: Capability::new(set(input), set(output)),
        family: None,
        limits: Limits::NONE,
        weight: 1,
    }
}

fn table(models: &[(&str, &[&str])]) -> RoutingTable {
    let model = |specs: &[&str]| Model::new(specs.iter().map(|spec| target(spec)).collect());
    let models: BTreeMap<ModelName, Arc<Model>> =
        models.iter().map(|(name, specs)| (ModelName::from(*name), Arc::new(model(specs)))).collect();
    let pools = models.values().flat_map(|m| &m.targets).map(|t| (t.pool.clone(), Arc::default())).collect();
    RoutingTable { models, pools, ..RoutingTable::default() }
}

fn need(input: &str, output: &str) -> Requirement {
    let set = |words: &str| ModalitySet::parse_list(&words.replace('+', ",")).unwrap();
    Requirement::new(Operation::ChatCompletions, set(input), set(output))
}

const CHAT: &[&str] = &["text=text>text", "vision=text+image+video>text", "omni=text+image+audio+video>text+audio"];

/// The pools of the tiers, in order: `text | vision | omni`.
#[track_caller]
fn check(models: &[(&str, &[&str])], model: &str, need: Requirement, expected: &str) {
    let table = table(models);
    let route = table.route(Some(model), need);
    let shown = match &route {
        Ok(route) => {
            let tier = |tier: &crate::Tier<'_>| {
                let mut pools: Vec<String> =
                    tier.order(&mut Draw::new(1)).iter().map(|target| target.pool().to_string()).collect();
                pools.sort();
                pools.join(" ")
            };
            route.tiers().iter().map(tier).collect::<Vec<_>>().join(" | ")
        }
        Err(no_route) => no_route.to_string(),
    };
    assert_eq!(shown, expected);
}

#[test]
fn the_tightest_fit_wins() {
    check(&[("chat", CHAT)], "chat", need("text", "text"), "text | vision | omni");
    check(&[("chat", CHAT)], "chat", need("text+image", "text"), "vision | omni");
    check(&[("chat", CHAT)], "chat", need("text+audio", "text"), "omni");
    check(&[("chat", CHAT)], "chat", need("text", "audio"), "omni");
}

#[test]
fn equals_share_a_tier() {
    check(&[("m", &["a=text>text", "b=text>text"])], "m", need("text", "text"), "a b");
    check(&[("m", &["a=text+image>text", "b=text+audio>text"])], "m", need("text", "text"), "a b");
}

#[test]
fn what_no_target_takes_is_named_with_what_it_does_take_and_who_could() {
    check(
        &[("chat", &["v=text+image>text"]), ("omni", CHAT)],
        "chat",
        need("text+audio", "text"),
        r#"model "chat" takes text and image, not audio; "omni" could take it"#,
    );
    check(&[("chat", &["v=text>text"])], "chat", need("text", "audio"), r#"model "chat" answers with text, not audio"#);
}

#[test]
fn modalities_to_be_had_only_apart_are_refused_as_such() {
    check(
        &[("m", &["a=text+image>text", "b=text+audio>text"])],
        "m",
        need("text+image+audio", "text"),
        r#"no target of model "m" supports this combination of input and output"#,
    );
}

#[test]
fn an_unknown_model_is_refused_with_near_names() {
    check(
        &[("chat", CHAT), ("chat-v2", CHAT)],
        "chat-v1",
        need("text", "text"),
        r#"the model "chat-v1" does not exist; did you mean "chat-v2", "chat"?"#,
    );
    check(&[("chat", CHAT)], "zzz", need("text", "text"), r#"the model "zzz" does not exist"#);
}

#[test]
fn a_pool_that_no_model_refers_to_is_asked_as_it_is() {
    let alone = RoutingTable { pools: [("llama".into(), Arc::default())].into(), ..RoutingTable::default() };
    let route = alone.route(Some("anything"), need("text+image", "text")).unwrap();
    let target = route.tiers()[0].order(&mut Draw::new(0))[0];
    assert_eq!((&**target.pool(), target.name()), ("llama", None));
    assert!(route.model.is_none());
}

#[test]
fn two_pools_without_models_cannot_be_told_apart_by_name() {
    let pools = [("a".into(), Arc::default()), ("b".into(), Arc::default())].into();
    let table = RoutingTable { pools, ..RoutingTable::default() };
    let said = table.route(Some("m"), need("", "")).unwrap_err().to_string();
    assert!(said.contains("no InferenceModel is declared, so requests cannot be routed to pools a and b"), "{said}");
    assert_eq!(table.route(None, need("", "")).unwrap_err(), NoRoute::NoModelNamed);
    assert_eq!(RoutingTable::default().route(None, need("", "")).unwrap_err(), NoRoute::NothingServed);
}

#[test]
fn a_scope_keeps_its_pool_and_the_models_that_live_there() {
    let table = table(&[("chat", CHAT), ("other", &["elsewhere=text>text"])]);
    let scoped = table.scoped("vision");
    assert_eq!(scoped.pools.keys().map(|k| &**k).collect::<Vec<_>>(), ["vision"]);
    assert_eq!(scoped.models.keys().map(|k| &**k).collect::<Vec<_>>(), ["chat"]);
    assert_eq!(scoped.models["chat"].targets.len(), 3);
    // Of the other it can be said where it is.
    assert_eq!(scoped.route(Some("other"), need("", "")).unwrap_err(), NoRoute::out_of_scope("other", &["elsewhere"]));
}

#[test]
fn an_endpoint_narrows_and_never_widens() {
    let address = "10.0.0.1:8000".parse().unwrap();
    let silent = Endpoint::new(address, "".into());
    let text = Endpoint { capability: Some(Capability::TEXT), ..Endpoint::new(address, "".into()) };
    let image = need("image", "");
    assert!(silent.offer(None).unwrap().capability.covers(image));
    assert!(!text.offer(None).unwrap().capability.covers(image));
}

#[test]
fn a_target_of_other_operations_is_passed_by() {
    let mut table = table(&[("whisper", &["asr=audio>text", "omni=text+audio>text"])]);
    let model = Arc::make_mut(table.models.get_mut("whisper").unwrap());
    model.targets[0].capability.operations = OperationSet::EMPTY.with(Operation::Transcriptions);
    model.targets[1].capability.operations = OperationSet::EMPTY.with(Operation::ChatCompletions);
    let pool = |operation| {
        let need = Requirement::new(operation, ModalitySet::of(&[Modality::Audio]), ModalitySet::TEXT);
        table.route(Some("whisper"), need).map(|route| route.pools()[0].to_string()).map_err(|error| error.to_string())
    };
    assert_eq!(pool(Operation::Transcriptions).unwrap(), "asr");
    assert_eq!(pool(Operation::ChatCompletions).unwrap(), "omni");
    let error = pool(Operation::Embeddings).unwrap_err();
    assert_eq!(error, r#"model "whisper" serves chat completions, transcriptions, not embeddings"#);
}

#[test]
fn what_is_declared_beats_what_is_assumed_and_never_spills_over_to_it() {
    let mut table =
        table(&[("m", &["chat=text+audio>text", "asr=text+audio>text", "omni=text+image+audio>text+audio"])]);
    let targets = &mut Arc::make_mut(table.models.get_mut("m").unwrap()).targets;
    targets[1].capability.operations = OperationSet::EMPTY.with(Operation::Transcriptions);
    let pools = |operation, input: &str| {
        let need = Requirement::new(operation, ModalitySet::parse_list(input).unwrap(), ModalitySet::TEXT);
        let route = table.route(Some("m"), need).unwrap();
        route.pools().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(pools(Operation::Transcriptions, "audio"), ["asr"]);
    // Where nobody who could take it names it, the others are assumed to.
    assert_eq!(pools(Operation::ChatCompletions, "audio"), ["chat", "omni"]);
    assert_eq!(pools(Operation::Transcriptions, "image"), ["omni"]);
}

#[test]
fn what_was_found_of_a_pod_stays_while_nothing_is_said_of_it_and_of_another_nothing_is_believed() {
    let found = |engine: &str| Some(Arc::new(Found { engine: Some(engine.into()), ..Found::default() }));
    let endpoint = |uid: &str, host: u8, found| Endpoint {
        found,
        ..Endpoint::new(SocketAddr::from(([10, 0, 0, host], 8000)), uid.into())
    };
    let table = |endpoints: Vec<(&str, Endpoint)>| {
        let endpoints = endpoints.into_iter().map(|(name, endpoint)| (name.into(), endpoint)).collect();
        let pool = Pool { endpoints, ..Pool::default() };
        RoutingTable { pools: [("p".into(), Arc::new(pool))].into(), ..RoutingTable::default() }
    };
    let before = table(vec![
        ("same", endpoint("a", 1, found("old"))),
        ("asked", endpoint("b", 2, found("old"))),
        ("anew", endpoint("c", 3, found("old"))),
        ("moved", endpoint("d", 4, found("old"))),
        ("no-pod", endpoint("", 5, found("old"))),
        ("gone", endpoint("e", 6, found("old"))),
    ]);
    let mut now = table(vec![
        ("same", endpoint("a", 1, None)),
        ("asked", endpoint("b", 2, found("new"))),
        ("anew", endpoint("c2", 3, None)),
        ("moved", endpoint("d", 44, None)),
        ("no-pod", endpoint("", 5, None)),
        ("new", endpoint("f", 7, None)),
    ]);
    assert_eq!(now.remember(&before), 1);
    let known: Vec<(&str, Option<&str>)> = now.pools["p"]
        .endpoints
        .iter()
        .map(|(name, endpoint)| (&**name, endpoint.found.as_ref().and_then(|found| found.engine.as_deref())))
        .collect();
    assert_eq!(
        known,
        [
            ("anew", None),
            ("asked", Some("new")),
            ("moved", None),
            ("new", None),
            ("no-pod", None),
            ("same", Some("old"))
        ]
    );
}

/// Whoever refused something of late is believed to refuse it until this changes.
#[test]
fn what_an_endpoint_takes_is_the_same_until_its_inputs_change() {
    let endpoint = |input: Known, context: u32| {
        let model = FoundModel { input, limits: Limits::NONE.with_context(context), ..FoundModel::default() };
        let found = Found { models: [("m".into(), model)].into(), ..Found::default() };
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        Endpoint { found: Some(Arc::new(found)), ..Endpoint::new(address, Uid::NONE) }
    };
    let sees = endpoint(Known::NOTHING.with(Modality::Image, true), 8);
    assert!(sees.takes_the_same_as(&endpoint(Known::NOTHING.with(Modality::Image, true), 9)), "a limit is no input");
    assert!(!sees.takes_the_same_as(&endpoint(Known::NOTHING.with(Modality::Image, false), 8)));
    assert!(!sees.takes_the_same_as(&Endpoint { found: None, ..sees.clone() }));
    assert!(!sees.takes_the_same_as(&Endpoint { capability: Some(Capability::TEXT), ..sees.clone() }));
}
