//! The admin port: `/metrics`, `/ready` and `/live` for whoever reaches it; a page and `/debug` for a person on the same machine, or in the same
//! pod, where `kubectl port-forward` ends.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::connections::{GREETING_TIMEOUT, Port, says_something};

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    registry: Arc<Registry>,
    ready: watch::Receiver<bool>,
    not_ready: &'static str,
    refresh: Arc<dyn Fn() + Send + Sync>,
    reading: Arc<Mutex<()>>,
    table: Arc<dyn Fn() -> Table + Send + Sync>,
    more: Router,
    open_debug: bool,
}

/// Text in columns that line up.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

const FOR_PEOPLE: &str =
    "/debug is shown on this machine, or in this pod: use kubectl port-forward; --open-debug shows it to everybody\n";

// === impl Admin ===

impl Admin {
    /// `not_ready` says, for a person, what a process waits for that is not ready yet.
    pub fn new(registry: Registry, ready: watch::Receiver<bool>, not_ready: &'static str) -> Self {
        Self {
            registry: Arc::new(registry),
            ready,
            not_ready,
            refresh: Arc::new(|| {}),
            reading: Arc::default(),
            table: Arc::new(Table::default),
            more: Router::new(),
            open_debug: false,
        }
    }

    /// Runs `refresh` before metrics are read, for values that are looked up rather than counted.
    #[must_use]
    pub fn with_refresh(self, refresh: impl Fn() + Send + Sync + 'static) -> Self {
        Self { refresh: Arc::new(refresh), ..self }
    }

    /// Shows `table` at `/debug/table`.
    #[must_use]
    pub fn with_table(self, table: impl Fn() -> Table + Send + Sync + 'static) -> Self {
        Self { table: Arc::new(table), ..self }
    }

    /// Serves these routes as well, to the same people.
    #[must_use]
    pub fn with_routes(self, more: Router) -> Self {
        Self { more, ..self }
    }

    /// Shows everybody who reaches the port what is for people.
    #[must_use]
    pub fn with_open_debug(self, open_debug: bool) -> Self {
        Self { open_debug, ..self }
    }

    fn for_everybody(&self) -> Router {
        Router::new()
            .route("/live", get(async || "live\n"))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }

    fn for_people(&self) -> Router {
        let table = Router::new().route("/debug/table", get(table)).with_state(self.clone());
        let for_people = table.merge(self.more.clone());
        let for_people =
            if self.open_debug { for_people } else { for_people.layer(middleware::from_fn(only_by_a_near_name)) };
        self.for_everybody().merge(for_people)
    }

    fn for_strangers(&self) -> Router {
        let refused = async || (StatusCode::FORBIDDEN, FOR_PEOPLE);
        self.for_everybody().route("/", any(refused)).route("/debug/{*page}", any(refused))
    }

    /// Serves until `stop` is cancelled.
    pub async fn serve(self, mut port: Port, stop: CancellationToken) {
        let (people, strangers) = (self.for_people(), self.for_strangers());
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(GREETING_TIMEOUT);
        loop {
            let (stream, peer, place) = tokio::select! {
                accepted = port.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let is_near = self.open_debug || is_local(peer.ip());
            let router = if is_near { &people } else { &strangers };
            let (http, service) = (http.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                if says_something(&stream, GREETING_TIMEOUT).await
                    && let Err(error) = http.serve_connection(TokioIo::new(stream), service).await
                {
                    tracing::debug!(%error, "a connection to the admin port ended");
                }
                drop(place);
            });
        }
    }
}

/// Whether somebody in the same pod asks. What a mesh's sidecar takes from elsewhere comes from another address of the loopback network
/// (127.0.0.6 with Istio: `pilot/pkg/networking/core`, `InboundPassthroughBindIpv4`, and ::6).
fn is_local(peer: IpAddr) -> bool {
    matches!(peer.to_canonical(), IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST))
}

/// A page of somebody else's, open in the browser of a person here, may make its own name lead to this machine, and then read what is for that
/// person alone. It cannot make the browser say another name.
async fn only_by_a_near_name(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    // Nobody far away has a name without a dot.
    if address.is_err() && name.contains('.') {
        return (StatusCode::FORBIDDEN, "ask for it as localhost; --open-debug shows it under every name\n")
            .into_response();
    }
    // Nor may that page have the browser ask under our name.
    let origin = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    if origin.is_some_and(|origin| origin.split_once("://").is_none_or(|(_, of)| of != host)) {
        return (StatusCode::FORBIDDEN, "this is not for pages of others\n").into_response();
    }
    next.run(request).await
}

async fn ready(State(admin): State<Admin>) -> Response {
    if *admin.ready.borrow() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", admin.not_ready)).into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    // What is looked up is cleared and filled: whoever reads meanwhile would see half of it.
    let _alone = admin.reading.lock().unwrap_or_else(PoisonError::into_inner);
    (admin.refresh)();
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode metrics: {error}\n")).into_response(),
    }
}

async fn table(State(admin): State<Admin>) -> String {
    (admin.table)().to_string()
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("ready", &*self.ready.borrow()).finish_non_exhaustive()
    }
}

// === impl Table ===

impl Table {
    /// Names come from objects that anybody wrote: a terminal must not be told anything by them.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(|cell| harmless(cell.into())).collect());
    }
}

/// Control characters as they would be written in a program.
fn harmless(cell: String) -> String {
    if !cell.contains(char::is_control) {
        return cell;
    }
    let shown = cell.chars().map(|one| if one.is_control() { one.escape_default().to_string() } else { one.into() });
    shown.collect()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.row(["MODEL", "INPUT"]);
        table.row(["a-long-name", "text → é"]);
        table.row(["b", "x", "more"]);
        assert_eq!(table.to_string(), "MODEL        INPUT\na-long-name  text → é\nb            x         more\n");
    }

    #[test]
    fn a_name_tells_a_terminal_nothing() {
        let mut table = Table::default();
        table.row(["a\u{1b}[31mb\r\nc", "é"]);
        assert_eq!(table.to_string(), "a\\u{1b}[31mb\\r\\nc  é\n");
    }
}
