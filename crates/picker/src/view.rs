//! `/debug/table`: what a picker decides by, for a person.

use std::collections::HashMap;
use std::time::Instant;

use daemon::Table;
use director::{Director, EndpointState, KnownEndpoint};
use publish::{Scope, Subscription};
use routing::{Model, PoolName, RoutingTable};
use scheduling::{Health, Load};

pub(crate) fn table(scope: &Scope, director: &Director, subscription: &Subscription) -> Table {
    let mut view = Table::default();
    let Some((revision, table)) = director.table() else {
        view.row([format!("{scope}: no routing table yet")]);
        return view;
    };
    let age = subscription.age(tokio::time::Instant::now()).as_secs();
    let heard = if age == 0 {
        "the controller is connected".to_owned()
    } else {
        format!("the controller was last heard {age} s ago")
    };
    view.row([format!("{scope}: revision {revision}, {heard}")]);
    view.row([""]);
    models(&table, &mut view);
    view.row([""]);
    pools(&table, director, &mut view);
    view
}

fn models(table: &RoutingTable, view: &mut Table) {
    view.row(["MODEL", "CRITICALITY", "TARGET", "POOL", "TAKES", "GIVES", "FOR", "WEIGHT"]);
    for (name, model) in &table.models {
        let Model { criticality, targets, .. } = &**model;
        for target in targets {
            view.row([
                name.to_string(),
                criticality.as_str().to_owned(),
                target.name.to_string(),
                target.pool.to_string(),
                target.capability.input.to_string(),
                target.capability.output.to_string(),
                target.capability.operations.to_string(),
                target.weight.to_string(),
            ]);
        }
    }
}

fn pools(table: &RoutingTable, director: &Director, view: &mut Table) {
    view.row([
        "POOL",
        "ENDPOINT",
        "ADDRESS",
        "TAKES",
        "IN FLIGHT",
        "QUEUED MS",
        "CACHED",
        "RUNNING",
        "WAITING",
        "KV CACHE",
        "HEALTH",
    ]);
    let now = Instant::now();
    let mut endpoints: HashMap<PoolName, Vec<KnownEndpoint>> = HashMap::new();
    for endpoint in director.endpoints() {
        endpoints.entry(endpoint.state.id().pool.clone()).or_default().push(endpoint);
    }
    for (pool, facts) in &table.pools {
        if facts.endpoints.is_empty() {
            view.row([pool.to_string(), "(none ready)".to_owned()]);
        }
        for KnownEndpoint { state, address, .. } in endpoints.get(pool).into_iter().flatten() {
            let Load { in_flight, queued, untold, scraped, .. } = state.load(now);
            let scraped = scraped.unwrap_or_default();
            let known = |count: Option<u32>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
            let name = &state.id().name;
            let own = facts.endpoints.get(name).and_then(|endpoint| endpoint.capability);
            view.row([
                pool.to_string(),
                name.to_string(),
                address.to_string(),
                own.map_or_else(|| "same as pool".to_owned(), |own| own.input.to_string()),
                in_flight.to_string(),
                format!("{:.0}", queued + untold),
                state.cached_tokens().to_string(),
                known(scraped.running),
                known(scraped.waiting),
                scraped.kv_cache_usage.map_or_else(|| "?".to_owned(), |usage| format!("{:.0} %", usage * 100.0)),
                health(state, now),
            ]);
        }
    }
}

pub(crate) fn health(state: &EndpointState, now: Instant) -> String {
    match (state.silent_for(now), state.health(now)) {
        (Some(silent), _) => format!("silent for {} s", silent.as_secs()),
        (None, Health { responsive: false, .. }) => "stuck: has requests, makes no progress".to_owned(),
        (None, Health { answering: false, .. }) => "failing".to_owned(),
        (None, _) => "ok".to_owned(),
    }
}
