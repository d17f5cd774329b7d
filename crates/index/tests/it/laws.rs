//! Whatever the order of events, the same cluster state compiles to the same result.

use index::{Change, Event, Index};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{key, model, pod, pod_event, pool};

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
}
