//! The controller's end: holds the newest tables, one for each scope that somebody asks for, and knows how its pickers stand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::Stream;
use routing::{Parts, PoolName, RoutingTable};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::feed::{Audience, Feed, Whole};
use crate::proto::routing_tables_server::{RoutingTables, RoutingTablesServer};
use crate::proto::{FromPicker, Update, from_picker};
use crate::session::Session;
use crate::{Authorizer, Delta, MAX_MESSAGE_BYTES, Scope, wire};

/// How long a stranger may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a session lasts at most, before the picker has to show its token again: one that was taken away reads no longer than this.
const SESSION: Duration = Duration::from_hours(1);

/// For how long it is remembered that a picker went away.
const LEFT: Duration = Duration::from_mins(1);

/// Longest name of a picker, in bytes, as of a pod.
const MAX_NAME_BYTES: usize = 253;

/// What a picker understands that says nothing of it: those before this was asked knew as much.
const SCHEMA_UNSAID: u32 = 2;

/// Publishes tables to whoever subscribes. Cheap to clone; all clones are one publisher.
#[derive(Debug, Clone)]
pub struct Publisher {
    known: Arc<Mutex<Known>>,
    /// Moves when somebody connects, leaves, or answers.
    standing: Arc<watch::Sender<()>>,
    last_session: Arc<AtomicU64>,
    /// Who hears of endpoints that contradict the table.
    contradictions: Arc<OnceLock<mpsc::Sender<SocketAddr>>>,
}

#[derive(Debug)]
struct Known {
    last_revision: u64,
    /// None before the first tables: a picker is told nothing rather than that there is nothing.
    tables: Option<BTreeMap<String, Whole>>,
    /// By namespace and audience: for as long as somebody listens.
    feeds: BTreeMap<String, BTreeMap<Audience, Arc<Feed>>>,
    /// When the last picker of a scope went away.
    left: BTreeMap<Scope, Instant>,
}

/// How often it is said at most that a picker was rejected.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// The gRPC service, for as long as this controller is the one that speaks.
#[derive(Debug)]
pub struct Sessions {
    publisher: Publisher,
    authorizer: Arc<dyn Authorizer>,
    until: CancellationToken,
    /// When it was last said that a picker was rejected: strangers come as often as they like.
    said: Mutex<Option<Instant>>,
}

/// How the pickers of some scope stand with the newest table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    pub connected: usize,
    /// How many decide by the newest table.
    pub current: usize,
    /// Why those that refused it did, or what was left out of it for those that are too old.
    pub refusals: Vec<String>,
    /// Since when the slowest owes an answer to what it was sent; none while nobody owes one.
    pub owing_since: Option<Instant>,
    /// When one last went away. Remembered for a minute.
    pub left_at: Option<Instant>,
}

/// What changed in a namespace, as far as it decides whose table changed.
struct Changed {
    pools: BTreeSet<PoolName>,
    /// Models are in everybody's table: of those that live elsewhere each is told where.
    models: bool,
}

/// Milliseconds since 1970, to count revisions up from: one that is started again goes on above its former self.
pub fn revision_of_the_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

// === impl Publisher ===

impl Publisher {
    /// Revisions count up from `first_revision`. Taken from the clock by callers, so that a restarted controller goes on above
    /// its former self and a person reading logs sees which table is newer.
    pub fn new(first_revision: u64) -> Self {
        let known =
            Known { last_revision: first_revision, tables: None, feeds: BTreeMap::new(), left: BTreeMap::new() };
        Self {
            known: Arc::new(Mutex::new(known)),
            standing: Arc::default(),
            last_session: Arc::default(),
            contradictions: Arc::default(),
        }
    }

    /// Counts on from `first_revision`, and gives every table a new number: a controller that takes over stands above the one before.
    /// Pickers that are connected have the same table already, and hear the number with its next change.
    pub fn renumber(&self, first_revision: u64) {
        let mut known = self.lock();
        known.last_revision = known.last_revision.max(first_revision);
        let Known { last_revision, tables, feeds, .. } = &mut *known;
        for (namespace, table) in tables.iter_mut().flatten() {
            *last_revision += 1;
            table.revision = *last_revision;
            for feed in feeds.get(namespace).into_iter().flat_map(BTreeMap::values) {
                feed.renumber(*last_revision);
            }
        }
    }

    /// Makes these the newest tables, by namespace. Only those whose own table changed are woken, and each scope's table is made once for
    /// all who listen to it.
    pub fn publish(&self, tables: BTreeMap<String, Arc<RoutingTable>>) {
        let mut known = self.lock();
        let Known { last_revision, tables: before, feeds, .. } = &mut *known;
        let first = before.is_none();
        let mut before = std::mem::take(before).unwrap_or_default();
        let mut newest = BTreeMap::new();
        for (namespace, table) in tables {
            let numbered = match before.remove(&namespace) {
                // The next is made from this one: what they share need not be compared.
                Some(known) if known.table == table => Whole { table, ..known },
                known => {
                    let known = known.unwrap_or_default();
                    let changed = Changed::between(&known.table, &table);
                    *last_revision += 1;
                    let parts = if changed.models { Arc::new(Parts::of(&table)) } else { known.parts };
                    let whole = Whole { revision: *last_revision, table, parts };
                    for (audience, feed) in feeds.get(&namespace).into_iter().flatten() {
                        if first || changed.concerns(audience) {
                            feed.publish(&whole, audience);
                        }
                    }
                    whole
                }
            };
            newest.insert(namespace, numbered);
        }
        // Whoever listens to a namespace that is no more, or is not there yet, hears that nothing is served.
        let empty = |revision| Whole { revision, ..Whole::default() };
        for (namespace, feeds) in feeds.iter().filter(|(namespace, _)| !newest.contains_key(*namespace)) {
            let is_gone = before.contains_key(namespace);
            if is_gone {
                *last_revision += 1;
            }
            for (audience, feed) in feeds.iter().filter(|_| first || is_gone) {
                feed.publish(&empty(if is_gone { *last_revision } else { 0 }), audience);
            }
        }
        known.tables = Some(newest);
    }

    /// How the pickers stand that serve `namespace`, and those that serve one of these pools alone.
    pub fn standing<'p>(&self, namespace: &str, pools: impl IntoIterator<Item = &'p str>) -> Standing {
        let known = self.lock();
        let mut standing = Standing::default();
        let none = BTreeMap::new();
        let feeds = known.feeds.get(namespace).unwrap_or(&none);
        for pool in std::iter::once(None).chain(pools.into_iter().map(Some)) {
            let scope = Scope { namespace: namespace.to_owned(), pool: pool.map(str::to_owned) };
            standing.left_at = standing.left_at.max(known.left.get(&scope).copied());
            for (_, feed) in feeds.range(Audience::all_of(scope.pool)) {
                feed.add_to(&mut standing);
            }
        }
        standing
    }

    /// The addresses of endpoints that refused what the table says that they take, as pickers tell. Asked for once, before the first table, by whoever
    /// finds out what servers are: pickers tell nobody else. What no longer finds room is dropped; where it is still so, it is told again.
    pub fn contradictions(&self) -> mpsc::Receiver<SocketAddr> {
        let (sender, receiver) = mpsc::channel(256);
        _ = self.contradictions.set(sender);
        receiver
    }

    pub(crate) fn hears_contradictions(&self) -> bool {
        self.contradictions.get().is_some()
    }

    pub(crate) fn contradicted(&self, address: SocketAddr) {
        if let Some(sender) = self.contradictions.get() {
            _ = sender.try_send(address);
        }
    }

    /// Resolves at the next change of who is connected and what they acknowledged.
    pub fn standing_changes(&self) -> watch::Receiver<impl Send + Sync + use<>> {
        self.standing.subscribe()
    }

    /// The gRPC service, whose sessions end with `until`.
    pub fn service(&self, authorizer: Arc<dyn Authorizer>, until: CancellationToken) -> RoutingTablesServer<Sessions> {
        RoutingTablesServer::new(Sessions { publisher: self.clone(), authorizer, until, said: Mutex::default() })
            .max_decoding_message_size(1 << 20)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The feed of a scope, for a picker that understands so much; made for the first who listens.
    pub(crate) fn listen(&self, scope: &Scope, schema: u32, picker: String) -> (u64, Arc<Feed>) {
        let id = self.last_session.fetch_add(1, Ordering::Relaxed);
        let mut known = self.lock();
        let Known { tables, feeds, .. } = &mut *known;
        let audience = Audience { pool: scope.pool.clone(), schema };
        let feed = feeds.entry(scope.namespace.clone()).or_default().entry(audience.clone()).or_insert_with(|| {
            let feed = Feed::default();
            if let Some(tables) = tables {
                // A namespace that never held anything has an empty table, older than any.
                feed.publish(tables.get(&scope.namespace).unwrap_or(&Whole::default()), &audience);
            }
            Arc::new(feed)
        });
        feed.join(id, picker);
        let feed = Arc::clone(feed);
        drop(known);
        self.note_standing();
        (id, feed)
    }

    /// A picker went away.
    pub(crate) fn leave(&self, scope: &Scope, schema: u32, id: u64) {
        let mut known = self.lock();
        let audience = Audience { pool: scope.pool.clone(), schema };
        if let Some(feeds) = known.feeds.get_mut(&scope.namespace) {
            if feeds.get(&audience).is_some_and(|feed| feed.leave(id)) {
                feeds.remove(&audience);
            }
            if feeds.is_empty() {
                known.feeds.remove(&scope.namespace);
            }
        }
        let now = Instant::now();
        known.left.retain(|_, at| now.saturating_duration_since(*at) < LEFT);
        known.left.insert(scope.clone(), now);
        drop(known);
        self.note_standing();
    }

    pub(crate) fn note_standing(&self) {
        self.standing.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing in here panics half way; and what would be wrong is mended by the next tables.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changed {
    fn between(from: &RoutingTable, to: &RoutingTable) -> Self {
        let Delta { pools, endpoints, models, removed_pools, removed_endpoints, removed_models, .. } =
            Delta::between(from, to);
        let of_endpoints = endpoints.into_keys().chain(removed_endpoints).map(|key| key.pool);
        Self {
            pools: pools.into_keys().chain(removed_pools).chain(of_endpoints).collect(),
            models: !models.is_empty() || !removed_models.is_empty(),
        }
    }

    fn concerns(&self, audience: &Audience) -> bool {
        self.models || audience.pool.as_deref().is_none_or(|pool| self.pools.contains(pool))
    }
}

impl Sessions {
    /// Whether it may be said now that a picker was rejected.
    fn may_say(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = said.is_none_or(|said| said.elapsed() >= SAID_EVERY);
        if is_due {
            *said = Some(Instant::now());
        }
        is_due
    }
}

#[tonic::async_trait]
impl RoutingTables for Sessions {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<FromPicker>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let token = bearer_token(request.metadata())?;
        let mut from_picker = request.into_inner();
        let Ok(first) = tokio::time::timeout(HELLO_TIMEOUT, from_picker.message()).await else {
            return Err(Status::deadline_exceeded("no hello arrived in time"));
        };
        let Some(from_picker::Message::Hello(hello)) = first?.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        if hello.namespace.is_empty() {
            return Err(Status::invalid_argument("the hello names no namespace"));
        }
        if [&hello.picker, &hello.namespace, &hello.pool].into_iter().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(Status::invalid_argument(format!("a name in the hello is longer than {MAX_NAME_BYTES} bytes")));
        }
        let scope = Scope { namespace: hello.namespace, pool: Some(hello.pool).filter(|pool| !pool.is_empty()) };
        if let Err(status) = self.authorizer.admit(token.as_deref(), &scope).await {
            if self.may_say() {
                tracing::warn!(
                    picker = hello.picker, %scope, reason = status.message(),
                    "picker rejected; logged at most once a minute"
                );
            }
            return Err(status);
        }
        // One slot: with one update unacknowledged at most there is never a second to hold.
        let (updates, to_picker) = mpsc::channel(1);
        let schema = if hello.schema == 0 { SCHEMA_UNSAID } else { hello.schema.min(wire::SCHEMA) };
        let session = Session::new(self.publisher.clone(), hello.picker, scope, schema, updates);
        let until = self.until.clone();
        tokio::spawn(async move {
            // Not all at once, a fleet that was started at once.
            let lifetime = SESSION.mul_f64(1.0 - fastrand::f64() / 10.0);
            tokio::select! {
                () = session.run(from_picker) => {}
                () = until.cancelled() => {}
                () = tokio::time::sleep(lifetime) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(to_picker))))
    }
}

/// The token of `authorization: Bearer …`, if one is there (RFC 6750, section 2.1).
fn bearer_token(metadata: &MetadataMap) -> Result<Option<String>, Status> {
    let Some(value) = metadata.get("authorization") else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    token
        .map(|token| Some(token.to_owned()))
        .ok_or_else(|| Status::unauthenticated("authorization is not a bearer token"))
}
