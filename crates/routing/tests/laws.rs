//! Laws of routing, over tables and draws nobody thought of.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use routing::{
    Capability, Draw, Limits, Modality, ModalitySet, Model, Operation, OperationSet, Requirement, RoutingTable, Target,
};

fn modalities() -> impl Strategy<Value = ModalitySet> {
    proptest::collection::vec(0..5_usize, 0..5).prop_map(|picks| picks.into_iter().map(|i| Modality::ALL[i]).collect())
}

/// All of them, as of a target that names none, or those that it names.
fn operations() -> impl Strategy<Value = OperationSet> {
    let named = proptest::sample::subsequence(Operation::ALL[..4].to_vec(), 0..=4);
    proptest::option::of(named).prop_map(|named| named.map_or(OperationSet::ALL, |named| named.into_iter().collect()))
}

fn need() -> impl Strategy<Value = Requirement> {
    (0..4_usize, modalities(), modalities())
        .prop_map(|(operation, input, output)| Requirement::new(Operation::ALL[operation], input, output))
}

/// The targets that may serve it: those that can, and of these those that name the operation, if any does.
fn entitled(targets: &[Target], need: Requirement) -> Vec<&Target> {
    let can = |target: &&Target| {
        let Capability { input, output, operations } = target.capability;
        operations.iter().any(|one| one == need.operation)
            && need.input.iter().all(|one| input.contains(one))
            && need.output.iter().all(|one| output.contains(one))
    };
    let all: Vec<&Target> = targets.iter().filter(can).collect();
    let naming: Vec<&Target> =
        all.iter().copied().filter(|target| target.capability.operations.len() < OperationSet::ALL.len()).collect();
    if naming.is_empty() { all } else { naming }
}

fn targets() -> impl Strategy<Value = Vec<Target>> {
    let target =
        (modalities(), modalities(), operations(), 1..1_000_000_u32).prop_map(|(input, output, operations, weight)| {
            Target {
                name: "m".into(),
                pool: "p".into(),
                capability: Capability { input, output, operations },
                family: None,
                limits: Limits::NONE,
                weight,
            }
        });
    proptest::collection::vec(target, 1..8).prop_map(|mut targets| {
        for (i, target) in targets.iter_mut().enumerate() {
            target.pool = format!("p{i}").into();
        }
        targets
    })
}

fn table(targets: Vec<Target>) -> RoutingTable {
    let model = Model::new(targets);
    RoutingTable {
        models: BTreeMap::from([("m".into(), Arc::new(model))]),
        pools: BTreeMap::new(),
        ..RoutingTable::default()
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
        targets in targets(), need in need(), seed: u64,
    ) {
        let table = table(targets.clone());
        let covering = entitled(&targets, need).len();
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
    fn removing_a_looser_target_changes_nothing(targets in targets(), need in need(), seed: u64) {
        let Some(chosen) = first_pool(targets.clone(), need, seed) else { return Ok(()) };
        let best = entitled(&targets, need).iter().filter_map(|t| t.capability.fit(need)).max();
        for i in 0..targets.len() {
            let is_entitled = entitled(&targets, need).iter().any(|one| one.pool == targets[i].pool);
            if !is_entitled || targets[i].capability.fit(need) != best {
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
        limits: Limits::NONE,
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
