//! Laws of routing, over tables and draws nobody thought of.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use routing::{
    Capability, Criticality, Draw, MediaPolicy, Modality, ModalitySet, Model, Operation, Requirement, RoutingTable,
    Target,
};

fn modalities() -> impl Strategy<Value = ModalitySet> {
    proptest::collection::vec(0..5_usize, 0..5).prop_map(|picks| picks.into_iter().map(|i| Modality::ALL[i]).collect())
}

fn targets() -> impl Strategy<Value = Vec<Target>> {
    let target = (modalities(), modalities(), 1..1_000_000_u32).prop_map(|(input, output, weight)| Target {
        name: "m".into(),
        pool: "p".into(),
        capability: Capability::new(input, output),
        family: None,
        weight,
    });
    proptest::collection::vec(target, 1..8).prop_map(|mut targets| {
        for (i, target) in targets.iter_mut().enumerate() {
            target.pool = format!("p{i}").into();
        }
        targets
    })
}

fn table(targets: Vec<Target>) -> RoutingTable {
    let model = Model { criticality: Criticality::default(), created: 0, targets, media: MediaPolicy::default() };
    RoutingTable {
        models: BTreeMap::from([(Arc::from("m"), Arc::new(model))]),
        pools: BTreeMap::new(),
        elsewhere: BTreeMap::new(),
    }
}

fn first_pool(targets: Vec<Target>, need: Requirement, seed: u64) -> Option<String> {
    let table = table(targets);
    let route = table.route(Some("m"), need).ok()?;
    Some(route.tiers()[0].order(&mut Draw::new(seed))[0].pool().to_string())
}

proptest! {
    #[test]
    fn every_target_of_every_tier_covers_the_request_and_tiers_get_looser(
        targets in targets(), input in modalities(), output in modalities(), seed: u64,
    ) {
        let need = Requirement::new(Operation::ChatCompletions, input, output);
        let table = table(targets.clone());
        let covering = targets.iter().filter(|t| t.capability.covers(need)).count();
        match table.route(Some("m"), need) {
            Ok(route) => {
                let mut draw = Draw::new(seed);
                let order: Vec<_> = route.tiers().iter().flat_map(|tier| tier.order(&mut draw)).collect();
                prop_assert_eq!(order.len(), covering);
                let spare: Vec<u32> = order.iter().map(|t| t.capability().fit(need).expect("covers").spare()).collect();
                prop_assert!(spare.is_sorted());
            }
            Err(_) => prop_assert_eq!(covering, 0),
        }
    }

    #[test]
    fn removing_a_looser_target_changes_nothing(targets in targets(), input in modalities(), output in modalities(), seed: u64) {
        let need = Requirement::new(Operation::ChatCompletions, input, output);
        let Some(chosen) = first_pool(targets.clone(), need, seed) else { return Ok(()) };
        let best = targets.iter().filter_map(|t| t.capability.fit(need)).max();
        for i in 0..targets.len() {
            if targets[i].capability.fit(need) != best {
                let mut fewer = targets.clone();
                fewer.remove(i);
                prop_assert_eq!(first_pool(fewer, need, seed), Some(chosen.clone()));
            }
        }
    }
}

#[test]
fn draws_hit_targets_in_proportion_to_their_weights() {
    let text = |pool: &str, weight| Target {
        name: "m".into(),
        pool: pool.into(),
        capability: Capability::TEXT,
        family: None,
        weight,
    };
    let table = table(vec![text("stable", 90), text("canary", 10)]);
    let need = Requirement::new(Operation::ChatCompletions, ModalitySet::TEXT, ModalitySet::TEXT);
    let route = table.route(Some("m"), need).expect("covered");
    let canary =
        (0..10_000).filter(|seed| &**route.tiers()[0].order(&mut Draw::new(*seed))[0].pool() == "canary").count();
    // Four standard deviations of a binomial with n = 10,000 and p = 0.1 are 120.
    assert!((880..=1120).contains(&canary), "{canary} of 10,000 draws hit a weight of 10 %");
}
