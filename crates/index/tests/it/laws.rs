//! Whatever the order of events, the same cluster state compiles to the same result, whether at once or bit by bit.

use std::sync::Arc;

use index::{Change, Event, Index, ObjectKey, Stale};
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::json;

use crate::world::{index, key, model, pod, pod_event, pool, pool_of, service};

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
            lived.observe(event(*object, *version));
        }
        // A relist of what there is tells nothing new, wherever it comes.
        let mut relisted = Index::default();
        relisted.observe(event(0, Some(0)));
        relisted.observe(pod_event(&pod("ghost", "o0", "10.9.9.9")));
        relisted.observe(Event::Pool(Change::Relisted(Vec::new())));
        relisted.observe(Event::Model(Change::Relisted(Vec::new())));
        relisted.observe(Event::Pod(Change::Relisted(Vec::new())));
        for (object, version) in &history {
            relisted.observe(event(*object, *version));
        }
        prop_assert_eq!(lived.compile(), relisted.compile());
        // The end of that history, told once, backwards and with repetitions.
        let mut told = Index::default();
        for number in (0..8).rev() {
            if let Some((_, version)) = history.iter().rev().find(|(object, _)| *object == number) {
                told.observe(event(number, *version));
                told.observe(event(number, *version));
            }
        }
        prop_assert_eq!(lived.compile(), told.compile());
    }

    #[test]
    fn compiled_bit_by_bit_is_compiled_at_once(
        history in proptest::collection::vec((0..16_usize, 0..5_u8, any::<bool>(), any::<bool>()), 0..60),
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

/// Everything that can happen to a pool of a few, to their models and to their pods.
fn any_event(object: usize, version: u8) -> Event {
    let name = ["o0", "o1", "o2"][object % 3];
    match (object, version) {
        (0..3, 0) => Event::Pool(Change::Deleted(key(name))),
        // Two pools may select the same pods.
        (0..3, _) => pool_of(json!({"metadata": {"name": name, "generation": version}, "spec": {
            "selector": {"matchLabels": {"app": (["o0", "o1", name, name][usize::from(version) - 1])}},
            "targetPorts": [{"number": 8000}, {"number": 8001}], "endpointPickerRef": {"name": "picker", "port": {"number": 9002}}}})),
        (3..6, 0) => Event::Model(Change::Deleted(key(name))),
        (3..6, _) => model(
            name,
            i64::from(version),
            json!({"modelName": format!("m{}", version % 2), "poolRef": {"name": format!("o{}", version % 3)},
            "modalities": {"input": ["Text", "Image"]}}),
        ),
        (6, 0) => Event::Service(Change::Deleted(key("picker"))),
        (6, _) => service("picker", 9001 + i32::from(version)),
        (7, _) => Event::Pod(Change::Relisted(vec![])),
        (_, 0) => Event::Pod(Change::Deleted(key(&format!("p{object}")))),
        _ => {
            let mut pod = pod(&format!("p{object}"), name, &format!("10.0.0.{object}"));
            match version {
                1 => pod["status"]["conditions"] = json!([]),
                2 => pod["metadata"]["labels"] = json!({"app": "o1"}),
                3 => pod["metadata"]["annotations"] = json!({"thalamus.dev/input-modalities": "Text"}),
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
    assert_eq!(index.observe(came), Stale::NOTHING);
    assert_eq!(index.observe(pod_event(&pod("b", "nobodys", "10.0.0.2"))), Stale::NOTHING);
}

#[test]
fn a_status_makes_nothing_stale_and_a_spec_does() {
    let picker = json!({"name": "picker", "port": {"number": 9002}});
    let written = |version: &str, port: u16, status: serde_json::Value| {
        pool_of(json!({"metadata": {"name": "p", "resourceVersion": version}, "status": status, "spec": {
            "selector": {"matchLabels": {"app": "p"}}, "targetPorts": [{"number": port}], "endpointPickerRef": picker}}))
    };
    let mut index = index([written("1", 8000, json!({}))]);
    let status = json!({"parents": [{"parentRef": {"name": "gateway"}}]});
    assert_eq!(index.observe(written("2", 8000, status.clone())), Stale::NOTHING);
    assert_eq!(index.pool(&key("p")).expect("known").metadata.resource_version.as_deref(), Some("2"));
    assert_eq!(index.observe(written("3", 8001, status)), Stale::All);
}
