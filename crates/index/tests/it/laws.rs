//! Whatever the order of events, the same cluster state compiles to the same result, whether at once or bit by bit.

use std::sync::Arc;

use index::{Change, Event, Index, ObjectKey, Stale};
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{found, index, key, model, objective, pod, pod_event, pool, pool_of, rewrite, service, template};

/// The last word on each of a few objects: present in some version, or gone.
fn object() -> impl Strategy<Value = (usize, Option<u8>)> {
    (0..8_usize, proptest::option::of(0..3_u8))
}

fn event(object: usize, version: Option<u8>) -> Event {
    let name = format!("o{}", object % 2);
    match (object / 2, version) {
        (0, Some(_)) => pool(&name),
        (0, None) => Event::Pool(Change::Deleted(key(&name))),
        (1, Some(version)) => model(
            &name,
            i64::from(version),
            json!({"modelName": format!("m{}", version / 2), "poolRef": {"name": "o0"}}),
        ),
        (1, None) => Event::Model(Change::Deleted(key(&name))),
        (_, Some(version)) => pod_event(&pod(&format!("p{object}"), &name, &format!("10.0.{version}.{object}"))),
        (_, None) => Event::Pod(Change::Deleted(key(&format!("p{object}")))),
    }
}

proptest! {
    #[test]
    fn history_does_not_matter(history in proptest::collection::vec(object(), 0..40)) {
        let mut lived = Index::default();
        for (object, version) in &history {
            let _ = lived.observe(event(*object, *version));
        }
        // A relist of what there is tells nothing new, wherever it comes.
        let mut relisted = Index::default();
        let _ = relisted.observe(event(0, Some(0)));
        let _ = relisted.observe(pod_event(&pod("ghost", "o0", "10.9.9.9")));
        let _ = relisted.observe(Event::Pool(Change::Relisted(Vec::new())));
        let _ = relisted.observe(Event::Model(Change::Relisted(Vec::new())));
        let _ = relisted.observe(Event::Pod(Change::Relisted(Vec::new())));
        for (object, version) in &history {
            let _ = relisted.observe(event(*object, *version));
        }
        prop_assert_eq!(lived.compile(), relisted.compile());
        // The end of that history, told once, backwards and with repetitions.
        let mut told = Index::default();
        for number in (0..8).rev() {
            if let Some((_, version)) = history.iter().rev().find(|(object, _)| *object == number) {
                let _ = told.observe(event(number, *version));
                let _ = told.observe(event(number, *version));
            }
        }
        prop_assert_eq!(lived.compile(), told.compile());
    }

    #[test]
    fn compiled_bit_by_bit_is_compiled_at_once(
        history in proptest::collection::vec((0..24_usize, 0..5_u8, any::<bool>(), any::<bool>()), 0..60),
    ) {
        let mut index = Index::default();
        let (mut compiled, mut stale) = (index.compile(), Stale::NOTHING);
        for (object, version, is_elsewhere, is_compiled) in history {
            let event = any_event(object, version);
            stale.merge(index.observe(if is_elsewhere { elsewhere(event) } else { event }));
            if is_compiled {
                compiled = index.compile_again(&compiled, &std::mem::replace(&mut stale, Stale::NOTHING));
                prop_assert_eq!(&compiled, &index.compile());
            }
        }
        prop_assert_eq!(index.compile_again(&compiled, &stale), index.compile());
    }
}

/// The same as a list of all there are.
fn relisted(event: Event) -> Event {
    fn all<T>(change: Change<T>) -> Change<T> {
        match change {
            Change::Applied(object) => Change::Relisted(vec![object]),
            Change::Deleted(_) | Change::Relisted(_) => Change::Relisted(vec![]),
        }
    }
    match event {
        Event::Pool(change) => Event::Pool(all(change)),
        Event::Model(change) => Event::Model(all(change)),
        Event::Pod(change) => Event::Pod(all(change)),
        Event::Service(change) => Event::Service(all(change)),
        Event::Template(change) => Event::Template(all(change)),
        Event::Objective(change) => Event::Objective(all(change)),
        Event::Rewrite(change) => Event::Rewrite(all(change)),
        found @ Event::Found(..) => found,
    }
}

/// The same in another namespace.
fn elsewhere(event: Event) -> Event {
    fn moved<T: ResourceExt>(change: Change<T>) -> Change<T> {
        match change {
            Change::Applied(mut object) => {
                object.meta_mut().namespace = Some("elsewhere".into());
                Change::Applied(object)
            }
            Change::Deleted(key) => Change::Deleted(ObjectKey { namespace: "elsewhere".into(), ..key }),
            relisted @ Change::Relisted(_) => relisted,
        }
    }
    match event {
        Event::Pool(change) => Event::Pool(moved(change)),
        Event::Model(change) => Event::Model(moved(change)),
        Event::Pod(change) => Event::Pod(moved(change)),
        Event::Service(change) => Event::Service(moved(change)),
        other => other,
    }
}

/// Everything that can happen to a pool of a few, to what belongs to it, and to its pods.
fn any_event(object: usize, version: u8) -> Event {
    let name = ["o0", "o1", "o2"][object % 3];
    match (object, version) {
        (0..3, 0) => Event::Pool(Change::Deleted(key(name))),
        (0..3, _) => {
            // Two pools may select the same pods, and one may be managed.
            let app = ["o0", "o1", name, name][usize::from(version) - 1];
            let annotations = if version == 3 { json!({"thalamus.dev/picker": "managed"}) } else { json!({}) };
            pool_of(json!({"metadata": {"name": name, "generation": version, "annotations": annotations}, "spec": {
                "selector": {"matchLabels": {"app": app}}, "targetPorts": [{"number": 8000}, {"number": 8001}],
                "endpointPickerRef": {"name": if version == 4 { "nobody" } else { "picker" }, "port": {"number": 9002}}}}))
        }
        (3..6, 0) => Event::Model(Change::Deleted(key(name))),
        (3..6, _) => {
            let target =
                |number: u8| json!({"name": format!("t{number}"), "poolRef": {"name": format!("o{}", number % 3)}});
            let targets = [target(version), target(version + 1)];
            model(
                name,
                i64::from(version),
                json!({"modelName": format!("m{}", version % 2),
                "targetModels": targets[..=usize::from(version % 2)], "modalities": {"input": ["Text", "Image"]}}),
            )
        }
        (6, 0) => Event::Service(Change::Deleted(key("picker"))),
        (6, _) => service("picker", 9001 + i32::from(version)),
        // Pools, models, Services, pods, templates, objectives, rewrites.
        (7, _) => relisted(any_event(11, version)),
        (22.., _) => found(&format!("p{}", object - 10), &["t1", "t2", "t3"][..usize::from(version % 4)]),
        (16.., _) => relisted(any_event([0, 3, 6, 8, 9, 10][object - 16], version)),
        (8, 0) => Event::Template(Change::Deleted(key("default"))),
        (8, _) => template("default", i32::from(version)),
        (9, 0) => Event::Objective(Change::Deleted(key("urgent"))),
        (9, _) => objective("urgent", "o0", i32::from(version)),
        (10, 0) => Event::Rewrite(Change::Deleted(key("r"))),
        (10, _) => rewrite(
            "r",
            i64::from(version),
            &json!({"poolRef": {"name": "o0"}, "rules": [{"targets": [{"modelRewrite": format!("to{version}")}]}]}),
        ),
        (_, 0) => Event::Pod(Change::Deleted(key(&format!("p{object}")))),
        _ => {
            let mut pod = pod(&format!("p{object}"), name, &format!("10.0.0.{object}"));
            match version {
                1 => pod["status"]["conditions"] = json!([]),
                2 => pod["metadata"]["labels"] = json!({"app": "o1"}),
                3 => {
                    pod["metadata"]["annotations"] =
                        json!({"thalamus.dev/input-modalities": "Text", "thalamus.dev/active-ports": "8001"});
                }
                _ if object.is_multiple_of(2) => pod["status"]["phase"] = json!("Failed"),
                _ => {}
            }
            pod_event(&pod)
        }
    }
}

#[test]
fn a_pod_that_comes_touches_its_pool_alone_and_one_that_says_the_same_again_nothing() {
    let mut index = index([pool("p"), pool("q"), model("m", 0, json!({"modelName": "m", "poolRef": {"name": "q"}}))]);
    let before = index.compile();
    let came = pod_event(&pod("a", "p", "10.0.0.1"));
    let stale = index.observe(came.clone());
    let after = index.compile_again(&before, &stale);
    assert_eq!(after.tables["serving"].pools["p"].endpoints.len(), 1);
    let tables = (&before.tables["serving"], &after.tables["serving"]);
    assert!(
        Arc::ptr_eq(&tables.0.pools["q"], &tables.1.pools["q"])
            && Arc::ptr_eq(&tables.0.models["m"], &tables.1.models["m"])
    );
    assert!(Arc::ptr_eq(&before.pools[&key("q")], &after.pools[&key("q")]));
    assert!(Arc::ptr_eq(&before.models[&key("m")], &after.models[&key("m")]));
    assert_eq!(index.observe(came.clone()), Stale::NOTHING);
    assert_eq!(index.observe(relisted(came.clone())), Stale::All, "the first list");
    assert_eq!(index.observe(relisted(came)), Stale::NOTHING);
    assert_eq!(index.observe(pod_event(&pod("b", "nobodys", "10.0.0.2"))), Stale::NOTHING);
}

#[test]
fn what_says_the_same_again_makes_nothing_stale_and_what_says_something_else_does() {
    // A write moves the version and the entry of whoever wrote.
    let metadata = |written: u32| {
        json!({"name": "o", "namespace": "serving", "resourceVersion": written.to_string(), "annotations": {},
            "managedFields": [{"manager": "m", "operation": "Update", "time": format!("2026-01-01T00:00:0{written}Z")}]})
    };
    let picker = json!({"name": "picker", "port": {"number": 9002}});
    let pool = |written: u32, port: u16, annotations: Value| {
        let mut metadata = metadata(written);
        metadata["annotations"] = annotations;
        let status = json!({"parents": [{"parentRef": {"name": format!("gateway-{written}")}}]});
        pool_of(json!({"metadata": metadata, "status": status, "spec": {
            "selector": {"matchLabels": {"app": "p"}}, "targetPorts": [{"number": port}], "endpointPickerRef": picker}}))
    };
    let model = |written: u32, pool: &str| {
        let object = json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "InferenceModel", "metadata": metadata(written),
            "spec": {"modelName": "m", "poolRef": {"name": pool}}, "status": {"conditions": [], "summary": {"pools": "o", "input": "-", "output": "-", "ready": written.to_string()}}});
        Event::Model(Change::Applied(serde_json::from_value(object).expect("a model")))
    };
    let mut index = index([
        pool(1, 8000, json!({})),
        model(1, "o"),
        service("picker", 9002),
        template("default", 1),
        objective("urgent", "o", 1),
    ]);
    // The first list is news, whatever it holds: something may wait for it.
    assert_eq!(index.observe(Event::Rewrite(Change::Relisted(vec![]))), Stale::All);
    let same = vec![
        pool(2, 8000, json!({})),
        model(2, "o"),
        service("picker", 9002),
        template("default", 1),
        objective("urgent", "o", 1),
        Event::Rewrite(Change::Relisted(vec![])),
        Event::Model(Change::Deleted(key("nobody"))),
        // No pool of its namespace names it.
        service("somebodys", 80),
        elsewhere(service("picker", 80)),
        Event::Service(Change::Deleted(key("somebodys"))),
    ];
    for event in same {
        assert_eq!(index.observe(event.clone()), Stale::NOTHING, "{event:?}");
    }
    assert_eq!(index.pool(&key("o")).expect("known").metadata.resource_version.as_deref(), Some("2"));
    let other = vec![
        pool(2, 8001, json!({})),
        pool(2, 8001, json!({"thalamus.dev/picker": "managed"})),
        model(2, "elsewhere"),
        service("picker", 9003),
        template("default", 2),
        objective("urgent", "o", 2),
        relisted(service("picker", 9003)),
        relisted(service("picker", 9004)),
        Event::Service(Change::Relisted(vec![])),
        service("picker", 9004),
        Event::Service(Change::Deleted(key("picker"))),
        Event::Model(Change::Deleted(key("o"))),
    ];
    for event in other {
        assert_eq!(index.observe(event.clone()), Stale::All, "{event:?}");
    }
}
