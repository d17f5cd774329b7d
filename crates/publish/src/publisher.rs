//! The controller's end: holds the newest tables, and a session for each picker that asks for one.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use routing::RoutingTable;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::proto::routing_tables_server::{RoutingTables, RoutingTablesServer};
use crate::proto::{FromPicker, Nack, Update, from_picker};
use crate::{Authority, Delta, MAX_MESSAGE_BYTES, Scope, wire};

/// How long a stranger may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a session lasts at most, before the picker has to show its token again: one that was taken away reads no longer than this.
const SESSION: Duration = Duration::from_hours(1);

/// For how long it is remembered that a picker went away.
const LEFT: Duration = Duration::from_mins(1);

/// Longest name of a picker, in bytes, as of a pod.
const MAX_NAME_BYTES: usize = 253;

/// Publishes tables to whoever subscribes. Cheap to clone; all clones are one publisher.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// None before the first table: a picker is told nothing rather than that there is nothing.
    tables: Arc<watch::Sender<Option<BTreeMap<String, Numbered>>>>,
    pickers: Arc<watch::Sender<Pickers>>,
    last_revision: Arc<AtomicU64>,
    last_session: Arc<AtomicU64>,
    last_step: Arc<Mutex<Option<Step>>>,
}

/// What took pickers from one table to the next.
#[derive(Debug)]
struct Step {
    from: Option<Arc<RoutingTable>>,
    revision: u64,
    update: Option<Update>,
}

/// The gRPC service, for as long as this controller is the one that speaks.
#[derive(Debug)]
pub struct Sessions {
    publisher: Publisher,
    authority: Arc<dyn Authority>,
    until: CancellationToken,
}

/// How the pickers of some scope stand with the newest table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    pub connected: usize,
    /// How many decide by the newest table.
    pub current: usize,
    /// Why those that refused it did.
    pub refusals: Vec<String>,
    /// Since when the slowest owes an answer to what it was sent; none while nobody owes one.
    pub owing_since: Option<Instant>,
    /// When one last went away. Remembered for a minute.
    pub left_at: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Numbered {
    revision: u64,
    table: Arc<RoutingTable>,
}

/// A connected picker.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Picker {
    name: String,
    scope: Scope,
    acked: Option<u64>,
    /// What it refused, and why.
    refused: Option<(u64, String)>,
    /// When it was sent what it has not answered yet.
    owing_since: Option<Instant>,
}

/// Who is connected, and who was a moment ago.
#[derive(Debug, Default)]
struct Pickers {
    connected: BTreeMap<u64, Picker>,
    left: BTreeMap<Scope, Instant>,
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
        Self {
            tables: Arc::new(watch::Sender::new(None)),
            pickers: Arc::new(watch::Sender::new(Pickers::default())),
            last_revision: Arc::new(AtomicU64::new(first_revision)),
            last_session: Arc::new(AtomicU64::new(0)),
            last_step: Arc::default(),
        }
    }

    /// Counts on from `first_revision`, and gives every table a new number: a controller that takes over stands above the one before.
    /// Pickers that are connected have the same table already, and hear the number with its next change.
    pub fn renumber(&self, first_revision: u64) {
        self.last_revision.fetch_max(first_revision, Ordering::Relaxed);
        self.tables.send_if_modified(|tables| {
            for numbered in tables.iter_mut().flat_map(BTreeMap::values_mut) {
                numbered.revision = self.next_revision();
            }
            tables.is_some()
        });
    }

    /// Makes these the newest tables, by namespace. A table that is equal to the one before keeps its revision and wakes nobody.
    pub fn publish(&self, tables: BTreeMap<String, Arc<RoutingTable>>) {
        self.tables.send_if_modified(|newest| {
            let first = newest.is_none();
            let before = newest.get_or_insert_default();
            let mut changed = first;
            // A namespace that is no more stays as an empty table while a picker is there to hear of it.
            let emptied: Vec<String> =
                before.keys().filter(|namespace| !tables.contains_key(*namespace)).cloned().collect();
            let heard: BTreeSet<String> =
                self.pickers.borrow().connected.values().map(|picker| picker.scope.namespace.clone()).collect();
            before.retain(|namespace, _| tables.contains_key(namespace) || heard.contains(namespace));
            let emptied = emptied.into_iter().filter(|namespace| heard.contains(namespace));
            for (namespace, table) in tables.into_iter().chain(emptied.map(|gone| (gone, Arc::default()))) {
                if let Some(known) = before.get_mut(&namespace)
                    && known.table == table
                {
                    // The next is made from this one: what they share need not be compared.
                    known.table = table;
                    continue;
                }
                let revision = self.next_revision();
                before.insert(namespace, Numbered { revision, table });
                changed = true;
            }
            changed
        });
    }

    /// How the pickers stand that serve `namespace` and whose pool, if they serve one alone, is among those `matters` holds for.
    pub fn standing(&self, namespace: &str, matters: impl Fn(&str) -> bool) -> Standing {
        let newest = self.tables.borrow().as_ref().map(|tables| newest_of(tables, namespace).revision);
        let counts = |scope: &Scope| scope.namespace == namespace && scope.pool.as_deref().is_none_or(&matters);
        let pickers = self.pickers.borrow();
        let left = pickers.left.iter().filter(|(scope, _)| counts(scope));
        let mut standing = Standing { left_at: left.map(|(_, at)| *at).max(), ..Standing::default() };
        for picker in pickers.connected.values().filter(|picker| counts(&picker.scope)) {
            standing.connected += 1;
            standing.owing_since = standing.owing_since.into_iter().chain(picker.owing_since).min();
            match &picker.refused {
                Some((revision, why)) if newest.is_some_and(|newest| *revision >= newest) => {
                    standing.refusals.push(format!("{}: {why}", picker.name));
                }
                _ => standing.current += usize::from(newest.is_some() && picker.acked >= newest),
            }
        }
        standing
    }

    /// Resolves at the next change of who is connected and what they acknowledged.
    pub fn standing_changes(&self) -> watch::Receiver<impl Send + Sync + use<>> {
        self.pickers.subscribe()
    }

    /// The gRPC service, whose sessions end with `until`.
    pub fn service(&self, authority: Arc<dyn Authority>, until: CancellationToken) -> RoutingTablesServer<Sessions> {
        RoutingTablesServer::new(Sessions { publisher: self.clone(), authority, until })
            .max_decoding_message_size(1 << 20)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// [`step`] for a picker of a whole namespace. Of those many are in step, so the last one is kept: to compare large tables is most of
    /// what publishing costs. Never for a picker of one pool, whose table of the same revision is another.
    fn step_of_all(&self, from: Option<&Arc<RoutingTable>>, to: &Numbered) -> Option<Update> {
        let mut last = self.last_step.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |a: &Option<Arc<RoutingTable>>| match (a, from) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        if let Some(step) = last.as_ref().filter(|step| step.revision == to.revision && same(&step.from)) {
            return step.update.clone();
        }
        let update = step(from, to);
        *last = Some(Step { from: from.map(Arc::clone), revision: to.revision, update: update.clone() });
        update
    }

    fn next_revision(&self) -> u64 {
        self.last_revision.fetch_add(1, Ordering::Relaxed) + 1
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
            return Err(Status::deadline_exceeded("no hello came"));
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
        if let Err(status) = self.authority.admit(token.as_deref(), &scope).await {
            tracing::warn!(picker = hello.picker, %scope, reason = status.message(), "picker turned away");
            return Err(status);
        }
        // One slot: with one update unacknowledged at most there is never a second to hold.
        let (updates, to_picker) = mpsc::channel(1);
        let session = Session::new(self.publisher.clone(), hello.picker, scope, updates);
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
    token.map(|token| Some(token.to_owned())).ok_or_else(|| Status::unauthenticated("authorization is no bearer token"))
}

/// What takes a picker from one table to another; none where both say the same.
fn step(from: Option<&Arc<RoutingTable>>, to: &Numbered) -> Option<Update> {
    let delta = Delta::between(from.map_or(&RoutingTable::default(), |from| from), &to.table);
    let nothing = from.is_some() && delta.is_empty();
    (!nothing).then(|| wire::encode(to.revision, from.is_none(), &delta))
}

/// A namespace that never held anything has an empty table, older than any.
fn newest_of(tables: &BTreeMap<String, Numbered>, namespace: &str) -> Numbered {
    tables.get(namespace).cloned().unwrap_or_else(|| Numbered { revision: 0, table: Arc::default() })
}

/// One picker's connection.
struct Session {
    publisher: Publisher,
    id: u64,
    scope: Scope,
    updates: mpsc::Sender<Result<Update, Status>>,
    /// What the picker decides by: none before the first ack and after a nack, so that the next update is a snapshot.
    has: Option<Arc<RoutingTable>>,
    /// What was sent and is neither acknowledged nor refused.
    sent: Option<Numbered>,
    /// The newest revision that was offered in some way, so that a refused one is not offered again and again.
    offered: Option<u64>,
}

impl Session {
    fn new(publisher: Publisher, name: String, scope: Scope, updates: mpsc::Sender<Result<Update, Status>>) -> Self {
        let id = publisher.last_session.fetch_add(1, Ordering::Relaxed);
        tracing::info!(picker = name, %scope, "picker connected");
        let picker = Picker { name, scope: scope.clone(), acked: None, refused: None, owing_since: None };
        publisher.pickers.send_modify(|pickers| _ = pickers.connected.insert(id, picker));
        Self { publisher, id, scope, updates, has: None, sent: None, offered: None }
    }

    async fn run(mut self, mut from_picker: Streaming<FromPicker>) {
        let mut tables = self.publisher.tables.subscribe();
        tables.mark_changed();
        loop {
            tokio::select! {
                changed = tables.changed(), if self.sent.is_none() => {
                    let newest = tables.borrow_and_update().as_ref().map(|tables| newest_of(tables, &self.scope.namespace));
                    if changed.is_err() || self.offer(newest).await.is_err() {
                        return;
                    }
                }
                message = from_picker.next() => match message.and_then(Result::ok).and_then(|message| message.message) {
                    Some(from_picker::Message::Ack(ack)) => self.acknowledged(ack.revision),
                    Some(from_picker::Message::Nack(nack)) => self.refused(&nack),
                    Some(from_picker::Message::Hello(_)) | None => return,
                },
            }
        }
    }

    /// Sends what changed since what the picker has, if anything did. Fails when the picker is gone.
    async fn offer(&mut self, newest: Option<Numbered>) -> Result<(), ()> {
        let Some(newest) = newest else { return Ok(()) };
        if self.offered == Some(newest.revision) {
            return Ok(());
        }
        self.offered = Some(newest.revision);
        let table = match &self.scope.pool {
            Some(pool) => Arc::new(newest.table.scoped(pool)),
            None => newest.table,
        };
        let newest = Numbered { revision: newest.revision, table };
        let update = match self.scope.pool {
            Some(_) => step(self.has.as_ref(), &newest),
            None => self.publisher.step_of_all(self.has.as_ref(), &newest),
        };
        let Some(update) = update else {
            self.acked(newest.revision);
            return Ok(());
        };
        self.sent = Some(newest);
        let now = Instant::now();
        // Nobody is woken: that an answer is owed matters only once it has been for long.
        self.publisher.pickers.send_if_modified(|pickers| {
            if let Some(picker) = pickers.connected.get_mut(&self.id) {
                picker.owing_since = Some(now);
            }
            false
        });
        self.updates.send(Ok(update)).await.map_err(|_| ())
    }

    fn acknowledged(&mut self, revision: u64) {
        let Some(sent) = self.sent.take_if(|sent| sent.revision == revision) else { return };
        self.has = Some(sent.table);
        self.acked(revision);
    }

    fn acked(&self, revision: u64) {
        self.update_picker(|picker| {
            picker.acked = Some(revision);
            (picker.refused, picker.owing_since) = (None, None);
        });
    }

    fn refused(&mut self, nack: &Nack) {
        if self.sent.take_if(|sent| sent.revision == nack.revision).is_none() {
            return;
        }
        self.has = None;
        let mut why = nack.reasons.join("; ");
        if why.len() > 1024 {
            why.truncate(why.floor_char_boundary(1024));
            why.push('…');
        }
        tracing::warn!(scope = %self.scope, revision = nack.revision, reason = why, "picker refused the table");
        self.update_picker(|picker| {
            picker.refused = Some((nack.revision, why));
            picker.owing_since = None;
        });
    }

    fn update_picker(&self, change: impl FnOnce(&mut Picker)) {
        self.publisher.pickers.send_if_modified(|pickers| {
            let Some(picker) = pickers.connected.get_mut(&self.id) else { return false };
            let before = picker.clone();
            change(picker);
            *picker != before
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.publisher.pickers.send_modify(|pickers| {
            let Some(picker) = pickers.connected.remove(&self.id) else { return };
            tracing::info!(picker = picker.name, scope = %self.scope, "picker disconnected");
            let now = Instant::now();
            pickers.left.retain(|_, at| now.saturating_duration_since(*at) < LEFT);
            pickers.left.insert(picker.scope, now);
        });
    }
}
