//! Clients' own names for media, and the picker's.

use super::*;

#[test]
fn nobody_can_name_what_another_put_into_an_engines_cache() {
    let part = |uuid: &str| format!(r#"{{"type":"image_url","image_url":null,"uuid":"{uuid}"}}"#);
    let body = |model: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":[{},{}]}}],"model":"{model}"}}"#,
            part("mine"),
            part("other")
        )
    };
    let mut two = table();
    let chat = Arc::clone(&two.models["chat"]);
    two.models.insert("again".into(), Arc::clone(&chat));
    let mut sharing = Model::clone(&chat);
    sharing.media.allowed.insert(UnsafeFeature::SharedUuids);
    two.models.insert("sharing".into(), Arc::new(sharing));
    let world = World::new(two);
    let sent = |model: &str, caller: &str| {
        let body = body(model);
        let mut transaction = world.handler.open(&head("/v1/chat/completions")).unwrap();
        transaction.feed(body.as_bytes()).unwrap();
        let caller = crate::caller([caller.as_bytes()]);
        let step = transaction.finish(Bound::default(), caller.as_deref(), || world.now, Draw::new(0)).unwrap();
        let Step::Dispatch(dispatch) = step else { panic!() };
        let sent = request::splice([body.into()], &dispatch.plan.first().splices).concat();
        let sent: serde_json::Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(sent["model"], "vision-model");
        [0, 1].map(|part| sent["messages"][0]["content"][part]["uuid"].as_str().unwrap().to_owned())
    };
    let mine = sent("chat", "Bearer a");
    assert_eq!(mine, sent("chat", "Bearer a"), "the same client finds its own again");
    assert_ne!(mine[0], mine[1]);
    assert!(mine.iter().all(|uuid| uuid.len() == 64 && uuid.bytes().all(|byte| byte.is_ascii_hexdigit())), "{mine:?}");
    for theirs in [sent("chat", "Bearer b"), sent("again", "Bearer a")] {
        assert!(theirs.iter().all(|uuid| !mine.contains(uuid)));
    }
    assert_eq!(sent("sharing", "Bearer a"), ["mine", "other"]);
}

#[test]
fn media_without_a_name_get_one_of_their_content_where_that_is_wanted() {
    let mut naming = Model::clone(&table().models["chat"]);
    naming.media.writes_uuids = true;
    naming.media.allowed.extend([UnsafeFeature::ProcessorArguments, UnsafeFeature::FrameLists]);
    let mut sharing = naming.clone();
    sharing.media.allowed.insert(UnsafeFeature::SharedUuids);
    let mut models = table();
    for (name, model) in [("naming", naming), ("sharing", sharing)] {
        models.models.insert(name.into(), Arc::new(model));
    }
    let engine = |engine: &str| {
        let found = Found { engine: Some(engine.into()), version: Some("0.32.0".into()), ..Found::default() };
        Some(Arc::new(found))
    };
    let mut vision = Pool::clone(&pool(&[(11, None), (12, None)]));
    for (pod, engine) in [("pod-11", engine("vLLM")), ("pod-12", engine("SGLang"))] {
        vision.endpoints.get_mut(pod).unwrap().found = engine;
    }
    models.pools.insert("vision".into(), Arc::new(vision));
    let world = World::new(models);
    world.handler.director.set_hash_key(7);
    // The names of a message's parts at this host.
    let names_at = |host: u8, model: &str, caller: &str, parts: &[&str], more: &str| {
        let parts = parts.iter().map(|part| format!("{{{part}}}")).collect::<Vec<_>>();
        let (count, parts) = (parts.len(), parts.join(","));
        let body = format!(r#"{{"messages":[{{"role":"user","content":[{parts}]}}],"model":"{model}"{more}}}"#);
        let names_behind = |mark: &str| {
            let body = format!("{mark}{body}");
            let mut transaction = world.handler.open(&head("/v1/chat/completions")).unwrap();
            transaction.feed(body.as_bytes()).unwrap();
            let step = transaction.finish(Bound::default(), Some(caller.as_bytes()), || world.now, Draw::new(0));
            let Ok(Step::Dispatch(dispatch)) = step else { panic!() };
            let attempt = dispatch.plan.attempts.iter().find(|attempt| attempt.address == address(host)).unwrap();
            let sent = request::splice([body.into()], &attempt.splices).concat();
            let sent: serde_json::Value = serde_json::from_slice(&sent[mark.len()..]).unwrap();
            let name = |part: usize| sent["messages"][0]["content"][part]["uuid"].as_str().map(str::to_owned);
            (0..count).map(name).collect::<Vec<_>>()
        };
        let names = names_behind("");
        assert_eq!(names, names_behind("\u{feff}"), "behind a byte order mark");
        names
    };
    let names = |model: &str, caller: &str, parts: &[&str], more: &str| names_at(11, model, caller, parts, more);
    let picture = |data: &str| format!(r#""type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}"#);
    let (cat, dog) = (&*picture("AAAA"), &*picture("BBBB"));
    let [Some(of_cat), Some(of_dog)] = &*names("naming", "a", &[cat, dog], "") else { panic!("both are named") };
    assert!(of_cat != of_dog && of_cat.len() == 64);
    assert_eq!(names("naming", "b", &[cat], ""), [Some(of_cat.clone())], "one picture has one name, whoever sends it");
    assert_eq!(names_at(12, "naming", "a", &[cat], ""), [None], "another engine takes none");
    assert_eq!(names("chat", "a", &[cat], ""), [None]);
    // A client's own beside it. Where names are shared, nobody knows ours all the same.
    let own = format!(r#"{dog},"uuid":"own""#);
    let both = names("naming", "a", &[cat, &own], "");
    assert!(both[0].as_ref() == Some(of_cat) && both[1].as_ref().is_some_and(|name| name != of_dog && name != "own"));
    assert_eq!(names("sharing", "a", &[cat, &own], ""), [Some(of_cat.clone()), Some("own".into())]);
    world.handler.director.set_hash_key(8);
    assert_ne!(names("naming", "a", &[cat], ""), [Some(of_cat.clone())]);
    // What a URL answers may change; and all have a name, or none.
    let url = r#""type":"image_url","image_url":{"url":"https://example.com/cat.png"}"#;
    assert_eq!(names("naming", "a", &[url, cat], ""), [None, None]);
    let frames = r#""type":"image_url","image_url":{"url":"data:video/jpeg;base64,AAAA"}"#;
    assert_eq!(names("naming", "a", &[frames], ""), [None], "of other frames the engine makes something else");
    let otherwise = r#","mm_processor_kwargs":{"max_pixels":1000}"#;
    assert_eq!(names("naming", "a", &[cat], otherwise), [None], "the engine is to make something else of it");
}
