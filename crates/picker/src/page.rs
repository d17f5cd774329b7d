//! The picker's own page: what is served, how busy it is, what was decided, and where a request would go. It only reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use director::{Code, Director, KnownEndpoint};
use publish::{Scope, Subscription};
use routing::{Capability, Endpoint, Modality, Offers, Pool, PoolName, RoutingTable, Target};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::{debug, view};

/// What the page is made from.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) scope: Scope,
    pub(crate) director: Arc<Director>,
    pub(crate) subscription: watch::Receiver<Subscription>,
    pub(crate) metrics: Metrics,
}

/// No other host is asked for anything, and nobody else shows it in a frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// No more endpoints of a target than anybody looks at, nor of all.
const MOST_ROWS: usize = 50;
const MOST_ENDPOINTS: usize = 500;

/// What can go in, in the order of the columns.
const INPUTS: [Modality; 4] = [Modality::Text, Modality::Image, Modality::Audio, Modality::Video];

/// The routes, for the admin port.
pub(crate) fn routes(page: Page) -> Router {
    Router::new().route("/", get(index)).route("/debug/fleet", get(fleet)).with_state(page)
}

async fn index() -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, include_str!("page/index.html"))
}

async fn fleet(State(page): State<Page>) -> Json<Value> {
    let Page { scope, director, subscription, metrics } = page;
    let (now, table) = (Instant::now(), director.table());
    let revision = table.as_ref().map(|(revision, _)| *revision);
    let models = table.as_ref().map(|(_, table)| models(table)).unwrap_or_default();
    let found = |pool: &str, name: &str| {
        let endpoint = table.as_ref()?.1.pools.get(pool)?.endpoints.get(name)?;
        endpoint.found.as_ref().map(|found| found.what())
    };
    let endpoint = |known: &KnownEndpoint| {
        let mut row = debug::load_of(known, now);
        row["is"] = found(&known.state.id().pool, &known.state.id().name).into();
        row["health"] = view::health(&known.state, now).into();
        row
    };
    let endpoints: Vec<Value> = director.endpoints().iter().take(MOST_ENDPOINTS).map(endpoint).collect();
    let refusals = Code::ALL.iter().filter_map(|code| {
        let count = Some(metrics.rejections_of(*code)).filter(|count| *count > 0)?;
        Some(
            json!({"code": code.as_str(), "count": count, "status": code.status().as_u16(), "meaning": code.meaning()}),
        )
    });
    let age = subscription.borrow().age(tokio::time::Instant::now()).as_secs();
    Json(json!({
        "scope": scope.to_string(), "revision": revision, "heardSecondsAgo": age, "inFlight": director.in_flight(),
        "waiting": director.waiting(), "models": models, "endpoints": endpoints,
        "decisions": metrics.recent().look(), "refusals": refusals.collect::<Vec<_>>(),
    }))
}

/// Each model with the endpoints that it may go to: declared ones, and where there are none, those that servers list.
fn models(table: &RoutingTable) -> Vec<Value> {
    let listed: Listed<'_> = table.pools.iter().map(|(name, pool)| (name, listed(pool))).collect();
    let mut all: Vec<Value> = table
        .models
        .iter()
        .map(|(name, model)| {
            let rows = model.targets.iter().flat_map(|target| rows(table, &listed, target, Some(&target.name)));
            json!({"name": &**name, "endpoints": rows.collect::<Vec<_>>()})
        })
        .collect();
    if table.models.is_empty() {
        let names = listed.iter().flat_map(|(pool, names)| names.iter().map(|name| (*name, (*pool).clone())));
        all.extend(names.map(|(name, pool)| {
            let target = Target::new(name, pool, Capability::ANY);
            json!({"name": name, "endpoints": rows(table, &listed, &target, None).collect::<Vec<_>>()})
        }));
    }
    all
}

/// The names that servers of a pool list.
type Listed<'t> = BTreeMap<&'t PoolName, BTreeSet<&'t str>>;

fn listed(pool: &Pool) -> BTreeSet<&str> {
    let found = pool.endpoints.values().filter_map(|endpoint| endpoint.found.as_ref());
    found.flat_map(|found| found.models.keys().map(|name| &**name)).collect()
}

fn rows<'t>(
    table: &'t RoutingTable,
    listed: &Listed<'_>,
    target: &'t Target,
    name: Option<&'t str>,
) -> impl Iterator<Item = Value> + use<'t> {
    let pool = table.pools.get(&target.pool);
    let endpoints = pool.into_iter().flat_map(|pool| &pool.endpoints);
    let is_listed = listed.get(&target.pool).is_some_and(|names| names.contains(&*target.name));
    let endpoints = endpoints.take(MOST_ROWS);
    endpoints.filter_map(move |(endpoint_name, endpoint)| {
        let offer = Offers::of_model(is_listed.then_some(&*target.name)).at(endpoint)?;
        let capability = target.capability.intersection(offer.capability);
        let takes =
            INPUTS.map(|modality| (modality.as_str().to_owned(), takes(target, endpoint, capability, modality)));
        Some(json!({
            "target": name, "pool": &*target.pool, "endpoint": &**endpoint_name,
            "takes": takes.into_iter().collect::<Map<_, _>>(), "gives": capability.output.to_string(),
            "context": target.limits.intersection(offer.limits).context(),
        }))
    })
}

/// `yes` where the server says so, or its owner does and it says nothing of that; `unknown` where neither does.
fn takes(target: &Target, endpoint: &Endpoint, capability: Capability, modality: Modality) -> Value {
    if !capability.input.contains(modality) {
        return "no".into();
    }
    let model = endpoint.found.as_ref().and_then(|found| found.model(&target.name));
    let is_found = model.and_then(|model| model.input.has(modality)) == Some(true);
    let is_declared = target.capability != Capability::ANY;
    if is_found || is_declared { "yes".into() } else { "unknown".into() }
}
