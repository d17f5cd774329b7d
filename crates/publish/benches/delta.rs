//! The change after one pod of many: `cargo bench -p publish`.

use std::net::SocketAddr;
use std::sync::Arc;

use divan::Bencher;
use publish::Delta;
use routing::{Endpoint, Pool, RoutingTable};

fn main() {
    divan::main();
}

/// 100 pools of 100 endpoints.
fn table() -> RoutingTable {
    let endpoint = |p: u8, i: u8| {
        let address = SocketAddr::from(([10, p, i, 1], 8000));
        (Arc::from(format!("pod-{p}-{i}")), Endpoint::new(address, "0f8fad5b-d9cb-469f-a165-70867728950e".into()))
    };
    let pool = |p: u8| {
        let endpoints = (0..100).map(|i| endpoint(p, i)).collect();
        (format!("pool-{p}").into(), Arc::new(Pool { endpoints, ..Pool::default() }))
    };
    RoutingTable { pools: (0..100).map(pool).collect(), ..RoutingTable::default() }
}

#[divan::bench]
fn delta_after_one_pod_of_10_000(bencher: Bencher<'_, '_>) {
    let before = table();
    let mut after = before.clone();
    Arc::make_mut(after.pools.get_mut("pool-50").expect("there")).endpoints.remove("pod-50-50");
    bencher.bench_local(|| Delta::between(&before, &after));
}
