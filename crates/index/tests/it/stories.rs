//! One story a test.

use index::{Change, Compiled, Event, Index, Listed, ManagedByDefault, Stale};
use serde_json::json;

use crate::world::{
    found, index, key, model, objective, pod, pod_event, pool, pool_of, rewrite, said, service, template,
};

fn addresses(compiled: &Compiled, pool: &str) -> Vec<String> {
    compiled.tables["serving"].pools[pool].endpoints.values().map(|endpoint| endpoint.address.to_string()).collect()
}

#[test]
fn a_ready_pod_times_each_target_port_is_an_endpoint() {
    let pool = pool_of(json!({"metadata": {"name": "p"}, "spec": {
        "selector": {"matchLabels": {"app": "p"}}, "targetPorts": [{"number": 8000}, {"number": 8001}]}}));
    let compiled =
        index([pool, pod_event(&pod("a", "p", "10.0.0.1")), pod_event(&pod("b", "q", "10.0.0.2"))]).compile();
    let endpoints = &compiled.tables["serving"].pools["p"].endpoints;
    let shown: Vec<String> = endpoints.iter().map(|(name, endpoint)| format!("{name} {}", endpoint.address)).collect();
    assert_eq!(shown, ["a-rank-0 10.0.0.1:8000", "a-rank-1 10.0.0.1:8001"]);
}

#[test]
fn a_pod_that_is_not_ready_terminating_ended_or_without_address_is_none() {
    let mut unready = pod("unready", "p", "10.0.0.1");
    unready["status"]["conditions"][0]["status"] = json!("False");
    let mut terminating = pod("terminating", "p", "10.0.0.2");
    terminating["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut ended = pod("ended", "p", "10.0.0.3");
    ended["status"]["phase"] = json!("Succeeded");
    let mut homeless = pod("homeless", "p", "10.0.0.4");
    homeless["status"].as_object_mut().unwrap().remove("podIP");
    let six = pod("six", "p", "fd00::1");
    let events = [&unready, &terminating, &ended, &homeless, &six].map(pod_event);
    let compiled = index(events.into_iter().chain([pool("p")])).compile();
    assert_eq!(addresses(&compiled, "p"), ["[fd00::1]:8000"]);
    assert_eq!(said(&compiled.pools[&key("p")].verdicts, "EndpointsReady"), "True EndpointsReady: 1/4");
}

#[test]
fn active_ports_narrow_and_nonsense_means_none() {
    let mut one = pod("one", "p", "10.0.0.1");
    one["metadata"]["annotations"] = json!({"inference.networking.k8s.io/active-ports": " 8000, 9999, x"});
    let mut none = pod("none", "p", "10.0.0.2");
    none["metadata"]["annotations"] = json!({"inference.networking.k8s.io/active-ports": ""});
    let compiled = index([pool("p"), pod_event(&one), pod_event(&none)]).compile();
    assert_eq!(addresses(&compiled, "p"), ["10.0.0.1:8000"]);
    let compiled = index([pool("p"), pod_event(&none)]).compile();
    assert_eq!(
        said(&compiled.pools[&key("p")].verdicts, "EndpointsReady"),
        "False NoActivePorts: 0/0: 1 pods, none with an active port: see annotation active-ports"
    );
}

#[test]
fn the_endpoints_message_counts_what_people_ask_first() {
    let vision =
        model("m", 0, json!({"modelName": "m", "poolRef": {"name": "p"}, "modalities": {"input": ["Text", "Image"]}}));
    let mut text = pod("c", "p", "10.0.0.3");
    text["metadata"]["annotations"] = json!({"thalamus.dev/input-modalities": "text"});
    let mut unready = pod("d", "p", "10.0.0.4");
    unready["status"]["conditions"][0]["status"] = json!("False");
    let pods = [pod("a", "p", "10.0.0.1"), pod("b", "p", "10.0.0.2"), text, unready];
    let compiled = index(pods.iter().map(pod_event).chain([vision, pool("p")])).compile();
    assert_eq!(
        said(&compiled.pools[&key("p")].verdicts, "EndpointsReady"),
        "True EndpointsReady: 3/4: 2 text+image, 1 text"
    );
}

#[test]
fn a_misspelt_annotation_narrows_and_is_told() {
    let mut odd = pod("odd", "p", "10.0.0.1");
    odd["metadata"]["annotations"] = json!({"thalamus.dev/input-modalities": "text,imgae"});
    let compiled = index([pool("p"), pod_event(&odd)]).compile();
    let said = said(&compiled.pools[&key("p")].verdicts, "EndpointsReady");
    assert_eq!(said, r#"True EndpointsReady: 1/1: 1 text; pod odd is annotated with the unknown word "imgae""#);
}

#[test]
fn pools_say_what_is_wrong_with_their_picker() {
    let check = |picker: serde_json::Value, services: Vec<Event>, expected: &str| {
        let pool = pool_of(json!({"metadata": {"name": "p"}, "spec": {"selector": {"matchLabels": {"app": "p"}},
            "targetPorts": [{"number": 8000}], "endpointPickerRef": picker}}));
        let compiled = index(services.into_iter().chain([pool])).compile();
        assert_eq!(said(&compiled.pools[&key("p")].verdicts, "ResolvedRefs"), expected);
    };
    let picker = json!({"name": "picker", "port": {"number": 9002}});
    check(picker.clone(), vec![service("picker", 9002)], "True ResolvedRefs: Service picker exists");
    let missing = "False InvalidExtensionRef: there is no Service picker in namespace serving: run a picker there, or annotate the \
        pool with thalamus.dev/picker: managed";
    check(picker.clone(), vec![], missing);
    check(picker, vec![service("picker", 80)], "False InvalidExtensionRef: Service picker has no port 9002; it has 80");
    check(
        json!({"group": "example.com", "kind": "Picker", "name": "x"}),
        vec![],
        r#"False InvalidExtensionRef: endpointPickerRef names a Picker of group "example.com"; a Service of the core group is expected"#,
    );
}

#[test]
fn a_pool_without_a_picker_is_served_and_says_so() {
    let pool = pool_of(
        json!({"metadata": {"name": "p"}, "spec": {"selector": {"matchLabels": {"app": "p"}}, "targetPorts": [{"number": 8000}]}}),
    );
    let compiled = index([pool, pod_event(&pod("a", "p", "10.0.0.1"))]).compile();
    assert!(said(&compiled.pools[&key("p")].verdicts, "Accepted").starts_with("False EndpointPickerRefMissing: "));
    assert_eq!(addresses(&compiled, "p"), ["10.0.0.1:8000"]);
}

#[test]
fn the_oldest_object_serves_a_name_and_the_next_takes_over() {
    let spec = |pool: &str| json!({"modelName": "chat", "poolRef": {"name": pool}});
    let mut index = index([pool("a"), pool("b"), model("young", 2, spec("b")), model("old", 1, spec("a"))]);
    let compiled = index.compile();
    assert_eq!(&*compiled.tables["serving"].models["chat"].targets[0].pool, "a");
    let report = &compiled.models[&key("young")];
    assert_eq!(
        said(&report.verdicts, "Accepted"),
        r#"False ModelNameInUse: modelName "chat" is served by InferenceModel old, which is older or first by name; rename or delete one"#
    );
    assert_eq!(report.summary.ready, "ModelNameInUse");

    let _ = index.observe(Event::Model(Change::Deleted(key("old"))));
    let compiled = index.compile();
    assert_eq!(&*compiled.tables["serving"].models["chat"].targets[0].pool, "b");
    assert!(compiled.models[&key("young")].accepted);
}

#[test]
fn three_objects_of_one_name_and_one_age_have_one_winner() {
    let spec = json!({"modelName": "chat", "poolRef": {"name": "p"}});
    let compiled = index(["c", "a", "b"].map(|name| model(name, 0, spec.clone()))).compile();
    let accepted: Vec<&str> = compiled.models.iter().filter(|(_, r)| r.accepted).map(|(key, _)| &*key.name).collect();
    assert_eq!(accepted, ["a"]);
}

#[test]
fn a_missing_pool_is_named_and_so_is_one_in_another_namespace() {
    let spec = json!({"modelName": "chat", "poolRef": {"name": "p"}});
    let compiled = index([model("m", 0, spec.clone())]).compile();
    let report = &compiled.models[&key("m")];
    assert_eq!(
        said(&report.verdicts, "ResolvedRefs"),
        "False PoolNotFound: there is no InferencePool p in namespace serving; apply it, or correct poolRef"
    );
    assert_eq!((&*report.summary.ready, &*report.summary.input), ("PoolNotFound", "-"));

    let elsewhere = ["other", "yet-another"].map(|namespace| {
        pool_of(
            json!({"metadata": {"name": "p", "namespace": namespace}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "targetPorts": [{"number": 1}]}}),
        )
    });
    let compiled = index([model("m", 0, spec)].into_iter().chain(elsewhere)).compile();
    assert_eq!(
        said(&compiled.models[&key("m")].verdicts, "ResolvedRefs"),
        "False PoolNotFound: there is no InferencePool p in namespace serving; apply it, or correct poolRef",
        "a namespace sees nothing of another"
    );
}

#[test]
fn an_invalid_object_is_reported_left_out_and_takes_no_name() {
    let half = json!({"modelName": "chat", "poolRef": {"name": "p"}, "targetModels": [{"name": "a", "weight": 1}, {"name": "b"}]});
    let good = json!({"modelName": "chat", "poolRef": {"name": "p"}});
    let compiled = index([pool("p"), model("bad", 0, half), model("good", 1, good)]).compile();
    assert_eq!(
        said(&compiled.models[&key("bad")].verdicts, "Accepted"),
        "False Invalid: weight must be set on every target model or on none"
    );
    assert!(compiled.models[&key("good")].accepted);
    let homeless = json!({"modelName": "x", "targetModels": [{"name": "a", "poolRef": {"name": "p"}}, {"name": "b"}]});
    let compiled = index([model("homeless", 0, homeless)]).compile();
    assert!(
        said(&compiled.models[&key("homeless")].verdicts, "Accepted").starts_with("False Invalid: poolRef is required")
    );
}

#[test]
fn operations_and_families_are_the_targets_own_or_the_models_or_guessed() {
    let spec = json!({"modelName": "m", "poolRef": {"name": "p"}, "operations": ["ChatCompletions"], "targetModels": [
        {"name": "qwen2.5-vl-7b"},
        {"name": "w", "operations": ["Transcriptions"], "family": "whisper"},
    ]});
    let compiled = index([pool("p"), model("m", 0, spec)]).compile();
    let targets = &compiled.tables["serving"].models["m"].targets;
    let shown: Vec<String> =
        targets.iter().map(|target| format!("{} {:?}", target.capability, target.family.unwrap())).collect();
    assert_eq!(shown, ["text → text for chat completions Qwen25Vl", "text → text for transcriptions Whisper"]);
    let unknown =
        json!({"modelName": "n", "poolRef": {"name": "p"}, "targetModels": [{"name": "x", "family": "GPT-9"}]});
    let compiled = index([pool("p"), model("n", 0, unknown)]).compile();
    let shown = said(&compiled.models[&key("n")].verdicts, "Accepted");
    assert!(shown.starts_with(r#"False Invalid: unknown model family "GPT-9"; expected one of Qwen2-VL"#), "{shown}");
}

#[test]
fn a_media_policy_arrives_whole_and_an_unknown_format_is_told() {
    let spec = |formats: &str| {
        json!({"modelName": "m", "poolRef": {"name": "p"}, "media": {
            "Image": {"maxPixels": 1_000_000, "minSide": 8, "formats": [formats], "schemes": ["https"], "maxItemBytes": "20Mi"},
            "Audio": {"maxSeconds": 60}, "allow": ["Embeds"], "writeUUIDs": true}})
    };
    let compiled = index([pool("p"), model("m", 0, spec("webp"))]).compile();
    let media = &compiled.tables["serving"].models["m"].media;
    let image = &media.rules[&routing::Modality::Image];
    assert_eq!((image.max_pixels, image.min_side, image.max_item_bytes), (Some(1_000_000), Some(8), Some(20 << 20)));
    assert_eq!((&image.formats[..], image.https_only), (&[routing::Format::WebP][..], true));
    assert_eq!(media.rules[&routing::Modality::Audio].max_seconds, Some(60));
    assert!(media.allowed.contains(&routing::UnsafeFeature::Embeds) && media.writes_uuids);
    let mut negative = spec("PNG");
    negative["media"]["Audio"]["maxSeconds"] = json!(-1);
    let compiled = index([pool("p"), model("m", 0, negative)]).compile();
    let shown = said(&compiled.models[&key("m")].verdicts, "Accepted");
    assert_eq!(shown, "False Invalid: maxSeconds -1 must be at least 1");
    let compiled = index([pool("p"), model("m", 0, spec("JPG"))]).compile();
    let shown = said(&compiled.models[&key("m")].verdicts, "Accepted");
    assert!(shown.starts_with(r#"False Invalid: unknown media format "JPG"; expected one of PNG, JPEG"#), "{shown}");
}

#[test]
fn a_pod_may_say_which_operations_it_serves() {
    let mut asr = pod("asr", "p", "10.0.0.1");
    asr["metadata"]["annotations"] = json!({"thalamus.dev/operations": "transcriptions, Singing"});
    let compiled = index([pool("p"), pod_event(&asr)]).compile();
    let capability = compiled.tables["serving"].pools["p"].endpoints.values().next().unwrap().capability.unwrap();
    assert_eq!(capability.operations.to_string(), "transcriptions");
}

#[test]
fn what_is_on_offer_follows_the_ready_endpoints() {
    let spec = json!({"modelName": "chat", "targetModels": [
        {"name": "t", "poolRef": {"name": "text"}},
        {"name": "o", "poolRef": {"name": "omni"}, "modalities": {"input": ["Text", "Audio"], "output": ["Text", "Audio"]}}]});
    let mut index = index([pool("text"), pool("omni"), model("m", 0, spec), pod_event(&pod("a", "text", "10.0.0.1"))]);
    let summary = |index: &Index| index.compile().models[&key("m")].summary.clone();
    let before = summary(&index);
    assert_eq!((&*before.pools, &*before.input, &*before.output, &*before.ready), ("text,omni", "text", "text", "1/2"));
    let _ = index.observe(pod_event(&pod("b", "omni", "10.0.0.2")));
    let after = summary(&index);
    assert_eq!((&*after.input, &*after.output, &*after.ready), ("text+audio", "text+audio", "2/2"));
}

#[test]
fn a_name_with_quotes_and_newlines_is_only_a_name() {
    let odd = "a\"b\n'c";
    let compiled = index([pool("p"), model("m", 0, json!({"modelName": odd, "poolRef": {"name": "p"}}))]).compile();
    assert_eq!(&*compiled.tables["serving"].models[odd].targets[0].name, odd);
}

#[test]
fn ten_thousand_endpoints_compile() {
    let pods = (0..10_000).map(|i| pod_event(&pod(&format!("pod-{i}"), "p", &format!("10.{}.{}.1", i / 250, i % 250))));
    let compiled = index(pods.chain([pool("p")])).compile();
    assert_eq!(compiled.tables["serving"].pools["p"].endpoints.len(), 10_000);
}

#[test]
fn a_relist_replaces_and_what_is_not_listed_yet_is_known() {
    let mut index = index([pool("gone")]);
    let _ = index.observe(Event::Pool(Change::Relisted(vec![])));
    assert!(index.compile().tables.is_empty());
    let _ = index.observe(Event::Model(Change::Relisted(vec![])));
    let _ = index.observe(Event::Pod(Change::Relisted(vec![])));
    let _ = index.observe(Event::Service(Change::Relisted(vec![])));
    assert_eq!(index.listed(), Listed::TooLittle);
    let _ = index.observe(Event::Template(Change::Relisted(vec![])));
    let _ = index.observe(Event::Objective(Change::Relisted(vec![])));
    assert_eq!(index.listed(), Listed::AllButOthers);
    let _ = index.observe(Event::Rewrite(Change::Relisted(vec![])));
    assert_eq!(index.listed(), Listed::All);
}

fn managed_pool(name: &str, annotations: &serde_json::Value, picker: &serde_json::Value) -> Event {
    pool_of(
        json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"selector": {"matchLabels": {"app": name}},
        "targetPorts": [{"number": 8000}], "endpointPickerRef": picker}}),
    )
}

#[test]
fn a_pool_is_managed_when_it_says_so_or_its_namespace_is_and_it_does_not_say_otherwise() {
    let picker = json!({"name": "picker", "port": {"number": 9002}});
    let managed = |by_default: ManagedByDefault, annotations: serde_json::Value| {
        let mut index = Index::default().managing(by_default);
        let _ = index.observe(managed_pool("p", &annotations, &picker));
        index.compile().pools[&key("p")].managed.is_some()
    };
    let here = || ManagedByDefault::In(vec!["serving".into()]);
    assert!(!managed(ManagedByDefault::None, json!({})));
    assert!(managed(ManagedByDefault::None, json!({"thalamus.dev/picker": "managed"})));
    assert!(managed(here(), json!({})) && managed(ManagedByDefault::All, json!({})));
    assert!(!managed(ManagedByDefault::In(vec!["other".into()]), json!({})));
    assert!(!managed(here(), json!({"thalamus.dev/picker": "unmanaged"})));
    assert!(!managed(here(), json!({"thalamus.dev/picker": "manged"})), "a slip of the pen");
}

#[test]
fn a_managed_pool_that_cannot_be_says_why() {
    let managed = json!({"thalamus.dev/picker": "managed"});
    let check = |annotations: &serde_json::Value, picker: serde_json::Value, expected: &str| {
        let compiled = index([managed_pool("p", annotations, &picker)]).compile();
        assert_eq!(said(&compiled.pools[&key("p")].verdicts, "PickerReady"), expected);
    };
    let picker = json!({"name": "picker", "port": {"number": 9002}});
    check(
        &json!({"thalamus.dev/picker": "yes"}),
        picker.clone(),
        r#"False InvalidAnnotation: annotation thalamus.dev/picker is "yes"; expected managed or unmanaged"#,
    );
    check(
        &managed,
        json!({"name": "Picker.One", "port": {"number": 9002}}),
        r#"False InvalidName: "Picker.One" is not a valid Service name: use 1 to 63 characters a-z, 0-9 and -, starting with a letter and not ending with -"#,
    );
    check(
        &managed,
        json!({"group": "example.com", "kind": "Picker", "name": "x"}),
        "False NoPickerRef: endpointPickerRef of a managed pool must name a Service and a port",
    );
    check(
        &json!({"thalamus.dev/picker": "managed", "thalamus.dev/picker-template": "big"}),
        picker,
        "False TemplateNotFound: there is no PickerTemplate big in namespace serving",
    );
}

#[test]
fn a_pool_uses_the_template_it_names_or_the_one_called_default() {
    let picker = json!({"name": "picker", "port": {"number": 9002}});
    let replicas = |annotations: serde_json::Value, templates: Vec<Event>| {
        let pool = managed_pool("p", &annotations, &picker);
        let compiled = index(templates.into_iter().chain([pool])).compile();
        compiled.pools[&key("p")].managed.as_ref().map(|managed| managed.template.replicas)
    };
    let managed = json!({"thalamus.dev/picker": "managed"});
    assert_eq!(replicas(managed.clone(), vec![]), Some(None));
    assert_eq!(replicas(managed, vec![template("default", 3), template("big", 9)]), Some(Some(3)));
    let named = json!({"thalamus.dev/picker": "managed", "thalamus.dev/picker-template": "big"});
    assert_eq!(replicas(named, vec![template("default", 3), template("big", 9)]), Some(Some(9)));
}

/// What a name becomes in pool `p`, with its weights.
fn rewritten(compiled: &Compiled, model: &str) -> String {
    let rewrites = compiled.tables["serving"].pools["p"].policy.rewrites_of(model);
    rewrites.iter().map(|rewrite| format!("{}:{}", rewrite.name, rewrite.weight)).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_rewrite_for_the_name_wins_then_the_older_object_then_the_first_rule() {
    let rule = |model: Option<&str>, to: &str| match model {
        Some(model) => {
            json!({"matches": [{"model": {"type": "Exact", "value": model}}], "targets": [{"modelRewrite": to}]})
        }
        None => json!({"targets": [{"modelRewrite": to}]}),
    };
    let of = |rules: &[serde_json::Value]| json!({"poolRef": {"name": "p"}, "rules": rules});
    let young = rewrite("a-young", 9, &of(&[rule(Some("m"), "young"), rule(None, "young-any")]));
    let old = rewrite("z-old", 1, &of(&[rule(None, "old-any"), rule(Some("m"), "old"), rule(Some("m"), "old-second")]));
    let twin = rewrite("b-twin", 1, &of(&[rule(Some("m"), "twin")]));
    let elsewhere = rewrite("c", 0, &json!({"poolRef": {"name": "q"}, "rules": [rule(Some("m"), "not-here")]}));
    let events = [pool("p"), young.clone(), old.clone(), elsewhere];
    let compiled = index(events.clone()).compile();
    assert_eq!((&*rewritten(&compiled, "m"), &*rewritten(&compiled, "n")), ("old:1", "old-any:1"));
    // Of one age the first by name, whatever came first.
    let compiled = index(events.into_iter().chain([twin]).rev()).compile();
    assert_eq!(rewritten(&compiled, "m"), "twin:1");
}

#[test]
fn weights_of_rewrites_count_as_upstream_and_a_rule_without_a_target_says_nothing() {
    let to = |targets: serde_json::Value| json!({"poolRef": {"name": "p"}, "rules": [{"targets": targets}]});
    let check = |targets: serde_json::Value, expected: &str| {
        let compiled = index([pool("p"), rewrite("r", 1, &to(targets))]).compile();
        assert_eq!(rewritten(&compiled, "m"), expected);
    };
    check(json!([{"modelRewrite": "a"}, {"modelRewrite": "b"}]), "a:1 b:1");
    check(
        json!([{"modelRewrite": "a", "weight": 9}, {"modelRewrite": "b"}, {"modelRewrite": "c", "weight": 1}]),
        "a:9 c:1",
    );
    check(json!([{"modelRewrite": ""}]), "");
    check(json!([]), "");
}

#[test]
fn objectives_give_priorities_to_their_pool() {
    let compiled = index([pool("p"), pool("q"), objective("batch", "p", -5)]).compile();
    let priorities = |pool: &str| compiled.tables["serving"].pools[pool].policy.priorities.get("batch").copied();
    assert_eq!((priorities("p"), priorities("q")), (Some(-5), None));
}

#[test]
fn what_a_server_was_found_to_be_narrows_what_is_declared_and_is_said() {
    let declared = json!({"modelName": "m", "poolRef": {"name": "p"}, "targetModels": [{"name": "t"}], "modalities": {"input": ["Text", "Image"]}});
    let pods = ["a", "b"].map(|name| pod_event(&pod(name, "p", &format!("10.0.0.{}", name.as_bytes()[0]))));
    let mut index = index(pods.into_iter().chain([pool("p"), model("m", 0, declared)]));
    let said_of = |index: &Index, type_| said(&index.compile().models[&key("m")].verdicts, type_);
    assert!(
        index.compile().models[&key("m")].verdicts.iter().all(|verdict| verdict.type_ != "Verified"),
        "nobody was asked"
    );

    // One answers, and is of text alone.
    assert_ne!(index.observe(found("a", &["t"])), Stale::NOTHING);
    assert_eq!(index.observe(found("a", &["t"])), Stale::NOTHING, "the same again");
    assert_eq!(said_of(&index, "Verified"), "False Contradicted: a-rank-0 (vLLM) does not accept image, as t declares");
    let compiled = index.compile();
    assert_eq!(compiled.models[&key("m")].found.input, [api::Modality::Text]);
    assert_eq!(compiled.models[&key("m")].summary.input, "text+image", "the other may take it");
    assert_eq!(
        said(&compiled.pools[&key("p")].verdicts, "EndpointsReady"),
        "True EndpointsReady: 2/2: 1 text, 1 text+image"
    );
    let _ = index.observe(found("b", &["t"]));
    let compiled = index.compile();
    assert_eq!(compiled.models[&key("m")].summary.input, "text");
    assert_eq!(
        said_of(&index, "Available"),
        "False ModalityLost: image is declared as input, but not offered by any ready endpoint"
    );

    // Nobody lists what is declared: then lists do not decide, and a person is told.
    let _ = index.observe(found("a", &["x"]));
    let _ = index.observe(found("b", &["y"]));
    assert_eq!(
        said_of(&index, "Verified"),
        "False Contradicted: no server of pool p lists the model t; they list x, y"
    );
    assert_eq!(index.compile().models[&key("m")].summary.input, "text+image");

    // What was found of a pod is not believed of the next one of its name.
    let mut next = pod("a", "p", "10.0.0.97");
    next["metadata"]["uid"] = json!("another");
    let _ = index.observe(pod_event(&next));
    assert!(index.compile().tables["serving"].pools["p"].endpoints["a-rank-0"].found.is_none());
    assert_eq!(index.observe(found("a", &["t"])), Stale::NOTHING, "an answer of the pod that is gone");
}

#[test]
fn an_adapter_that_some_pods_have_is_theirs_and_no_contradiction() {
    let declared = json!({"modelName": "lora", "poolRef": {"name": "p"}});
    let pods = ["a", "b"].map(|name| pod_event(&pod(name, "p", &format!("10.0.0.{}", name.as_bytes()[0]))));
    let events = pods.into_iter().chain([
        pool("p"),
        model("m", 0, declared),
        found("a", &["base", "lora"]),
        found("b", &["base"]),
    ]);
    let compiled = index(events).compile();
    assert_eq!(
        said(&compiled.models[&key("m")].verdicts, "Verified"),
        "True Verified: 2 of 2 endpoints answered, and none contradicts what is declared"
    );
}
