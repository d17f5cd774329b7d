//! `/debug/table`: what a picker decides by, for a person.

use daemon::Table;
use director::Director;
use publish::{Scope, Subscription};
use routing::{Model, RoutingTable};
use scheduling::Load;

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
        format!("the controller was lost {age} s ago")
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
    view.row(["POOL", "ENDPOINT", "ADDRESS", "TAKES", "IN FLIGHT", "RUNNING", "WAITING", "KV CACHE"]);
    for (pool, endpoints) in table.pools.iter().map(|(name, pool)| (name, &pool.endpoints)) {
        if endpoints.is_empty() {
            view.row([pool.to_string(), "(none is ready)".to_owned()]);
        }
        for (name, endpoint) in endpoints {
            let Load { in_flight, waiting, running, kv_cache_usage, scraped_at, silent_since } =
                director.board().load(endpoint.address);
            let scraped = |value: String| match (silent_since, scraped_at) {
                (Some(since), _) => format!("silent for {} s", since.elapsed().as_secs()),
                (None, None) => "?".to_owned(),
                (None, Some(_)) => value,
            };
            view.row([
                pool.to_string(),
                name.to_string(),
                endpoint.address.to_string(),
                endpoint.capability.map_or_else(|| "as its pool".to_owned(), |own| own.input.to_string()),
                in_flight.to_string(),
                scraped(running.to_string()),
                scraped(waiting.to_string()),
                scraped(format!("{:.0} %", kv_cache_usage * 100.0)),
            ]);
        }
    }
}
