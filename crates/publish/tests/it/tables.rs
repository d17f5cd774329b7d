//! Tables for tests: arbitrary ones, and small ones by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use routing::{
    AppProtocol, Capability, Criticality, Endpoint, Family, Format, Found, FoundModel, HostPattern, Known, Limits,
    MediaPolicy, MediaRule, MediaSource, Modality, ModalitySet, Model, Operation, OperationSet, Pool, PoolPolicy,
    Rewrite, RoutingTable, Target, UnsafeFeature,
};

fn name<N: From<String> + std::fmt::Debug>() -> impl Strategy<Value = N> {
    (0..4_u8).prop_map(|i| format!("n{i}").into())
}

fn set() -> impl Strategy<Value = ModalitySet> {
    proptest::collection::vec(0..5_usize, 0..4).prop_map(|picks| picks.into_iter().map(|i| Modality::ALL[i]).collect())
}

fn capability() -> impl Strategy<Value = Capability> {
    let operations = proptest::collection::vec(0..Operation::ALL.len(), 0..4);
    (set(), set(), proptest::option::of(operations)).prop_map(|(input, output, operations)| Capability {
        input,
        output,
        operations: operations.map_or(OperationSet::ALL, |all| all.into_iter().map(|i| Operation::ALL[i]).collect()),
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let items = proptest::collection::vec((0..5_usize, 0..9_u32), 0..3);
    (proptest::option::of(1..9_u32), items).prop_map(|(context, items)| {
        let limits = context.map_or(Limits::NONE, |tokens| Limits::NONE.with_context(tokens));
        items.into_iter().fold(limits, |limits, (modality, items)| limits.with_items(Modality::ALL[modality], items))
    })
}

fn known() -> impl Strategy<Value = Known> {
    let told = proptest::collection::vec((0..5_usize, any::<bool>()), 0..4);
    told.prop_map(|told| told.into_iter().fold(Known::NOTHING, |known, (one, is)| known.with(Modality::ALL[one], is)))
}

fn found() -> impl Strategy<Value = Found> {
    let operations = capability().prop_map(|capability| capability.operations);
    let model = (proptest::option::of(name()), known(), known(), proptest::option::of(operations), limits()).prop_map(
        |(parent, input, output, operations, limits)| FoundModel { parent, input, output, operations, limits },
    );
    let models = proptest::collection::btree_map(name(), model, 0..3);
    let engine = || proptest::option::of("[ab]");
    (engine(), engine(), models, any::<bool>()).prop_map(|(engine, version, models, any_name)| Found {
        engine,
        version,
        models,
        any_name,
    })
}

fn policy() -> impl Strategy<Value = PoolPolicy> {
    let rewrite = (name(), 1..5_u32).prop_map(|(name, weight)| Rewrite { name, weight });
    let some = proptest::collection::vec(rewrite, 1..3).boxed();
    let rewrites = proptest::collection::btree_map(name(), some.clone(), 0..2);
    let priorities = proptest::collection::btree_map(name(), -2..3_i32, 0..2);
    (priorities, rewrites, proptest::option::of(some)).prop_map(|(priorities, rewrites, any)| PoolPolicy {
        priorities,
        rewrites,
        rewrite_any: any.unwrap_or_default(),
    })
}

fn pool() -> impl Strategy<Value = Pool> {
    let found = proptest::option::of(found());
    let endpoint = (0..3_u8, any::<bool>(), "[ab]?", proptest::option::of(capability()), found).prop_map(
        |(host, six, uid, capability, found)| Endpoint {
            found: found.map(Arc::new),
            uid: uid.as_str().into(),
            address: if six {
                SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)], 8000))
            } else {
                SocketAddr::from(([10, 0, 0, host], 8000))
            },
            capability,
        },
    );
    let app_protocol = prop_oneof![Just(AppProtocol::Http), Just(AppProtocol::H2c)];
    (app_protocol, policy(), proptest::collection::btree_map(name(), endpoint, 0..4))
        .prop_map(|(app_protocol, policy, endpoints)| Pool { app_protocol, policy, endpoints })
}

fn model() -> impl Strategy<Value = Model> {
    let target = (name(), name(), capability(), 0..30_usize, limits(), 1..9_u32).prop_map(
        |(name, pool, capability, family, limits, weight)| Target {
            name,
            pool,
            capability,
            family: Family::ALL.get(family).copied(),
            limits,
            weight,
        },
    );
    let criticality =
        prop_oneof![Just(Criticality::Critical), Just(Criticality::Standard), Just(Criticality::Sheddable)];
    let rule = (proptest::option::of(0..9_u32), proptest::option::of(0..9_u64), any::<bool>()).prop_map(
        |(max_items, max_item_bytes, inline)| {
            let sources = if inline { vec![MediaSource::Inline] } else { vec![] };
            MediaRule {
                max_items,
                max_item_bytes,
                max_pixels: max_item_bytes,
                min_side: max_items,
                max_seconds: max_items,
                formats: if inline { vec![Format::Png, Format::Mp4] } else { vec![] },
                sources,
                allowed_hosts: vec![HostPattern::new("*.example.com")],
                immutable_hosts: vec![HostPattern::new("*.s3.example.com")],
                https_only: inline,
            }
        },
    );
    (criticality, proptest::collection::vec(target, 1..3), proptest::option::of(rule)).prop_map(
        |(criticality, targets, rule)| Model {
            criticality,
            created: 7,
            first_byte_timeout: rule.as_ref().map(|_| Duration::from_secs(9)),
            targets,
            media: MediaPolicy {
                allowed: rule.iter().filter(|rule| rule.https_only).map(|_| UnsafeFeature::FileUrls).collect(),
                writes_uuids: rule.as_ref().is_some_and(|rule| rule.max_items.is_some()),
                rules: rule.map(|rule| (Modality::Image, rule)).into_iter().collect(),
            },
        },
    )
}

pub(crate) fn table() -> impl Strategy<Value = RoutingTable> {
    let models = proptest::collection::btree_map(name(), model().prop_map(Arc::new), 0..4);
    let pools = proptest::collection::btree_map(name(), pool().prop_map(Arc::new), 0..4);
    let elsewhere = proptest::collection::btree_map(name(), proptest::collection::vec(name(), 1..3), 0..3);
    (models, pools, elsewhere, 0..3_u64).prop_map(|(models, pools, elsewhere, hash_key)| RoutingTable {
        models,
        pools,
        pools_of_models: Arc::new(elsewhere),
        hash_key,
    })
}

/// A table with one pool of these endpoints, by last octet.
pub(crate) fn one_pool(pool: &str, hosts: &[u8]) -> RoutingTable {
    let endpoint = |host: &u8| {
        let address = SocketAddr::from(([10, 0, 0, *host], 8000));
        (Arc::from(format!("pod-{host}")), Endpoint::new(address, "".into()))
    };
    let facts = Pool { endpoints: hosts.iter().map(endpoint).collect(), ..Pool::default() };
    RoutingTable { pools: [(pool.into(), Arc::new(facts))].into(), ..RoutingTable::default() }
}
