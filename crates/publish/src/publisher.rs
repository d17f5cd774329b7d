//! The controller's end: holds the newest tables, and a session for each picker that asks for one.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::Stream;
use routing::RoutingTable;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::proto::routing_tables_server::{RoutingTables, RoutingTablesServer};
use crate::proto::{FromPicker, Hello, Nack, Update, from_picker};
use crate::{Delta, MAX_MESSAGE_BYTES, Scope, wire};

/// Publishes tables to whoever subscribes. Cheap to clone; all clones are one publisher.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// None before the first table: a picker is told nothing rather than that there is nothing.
    tables: Arc<watch::Sender<Option<BTreeMap<String, Numbered>>>>,
    pickers: Arc<watch::Sender<BTreeMap<u64, Picker>>>,
    last_revision: Arc<AtomicU64>,
    last_session: Arc<AtomicU64>,
    closed: CancellationToken,
}

/// How the pickers of some scope stand with the newest table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    pub connected: usize,
    /// How many decide by the newest table.
    pub current: usize,
    /// Why those that refused it did.
    pub refusals: Vec<String>,
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
}

// === impl Publisher ===

impl Publisher {
    /// Revisions count up from `first_revision`. Taken from the clock by callers, so that a restarted controller goes on above
    /// its former self and a person reading logs sees which table is newer.
    pub fn new(first_revision: u64) -> Self {
        Self {
            tables: Arc::new(watch::Sender::new(None)),
            pickers: Arc::new(watch::Sender::new(BTreeMap::new())),
            last_revision: Arc::new(AtomicU64::new(first_revision)),
            last_session: Arc::new(AtomicU64::new(0)),
            closed: CancellationToken::new(),
        }
    }

    /// Makes these the newest tables, by namespace. A table that is equal to the one before keeps its revision and wakes nobody.
    pub fn publish(&self, tables: BTreeMap<String, RoutingTable>) {
        self.tables.send_if_modified(|newest| {
            let first = newest.is_none();
            let before = newest.get_or_insert_default();
            let mut changed = first;
            // A namespace that is no more stays as an empty table: its pickers must hear of it.
            let emptied: Vec<String> =
                before.keys().filter(|namespace| !tables.contains_key(*namespace)).cloned().collect();
            for (namespace, table) in
                tables.into_iter().chain(emptied.into_iter().map(|gone| (gone, RoutingTable::default())))
            {
                if before.get(&namespace).is_some_and(|known| *known.table == table) {
                    continue;
                }
                let revision = self.last_revision.fetch_add(1, Ordering::Relaxed) + 1;
                before.insert(namespace, Numbered { revision, table: Arc::new(table) });
                changed = true;
            }
            changed
        });
    }

    /// How the pickers stand that serve `namespace` and whose pool, if they serve one alone, is among those `matters` holds for.
    pub fn standing(&self, namespace: &str, matters: impl Fn(&str) -> bool) -> Standing {
        let newest = self.tables.borrow().as_ref().map(|tables| newest_of(tables, namespace).revision);
        let mut standing = Standing::default();
        for picker in self.pickers.borrow().values() {
            if picker.scope.namespace != namespace || picker.scope.pool.as_deref().is_some_and(|pool| !matters(pool)) {
                continue;
            }
            standing.connected += 1;
            match &picker.refused {
                Some((revision, why)) if newest.is_some_and(|newest| *revision >= newest) => {
                    standing.refusals.push(format!("{}: {why}", picker.name));
                }
                _ => standing.current += usize::from(newest.is_some() && picker.acked >= newest),
            }
        }
        standing
    }

    /// Ends every session, so that a server can stop.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Resolves at the next change of who is connected and what they acknowledged.
    pub fn standing_changes(&self) -> watch::Receiver<impl Send + Sync + use<>> {
        self.pickers.subscribe()
    }

    /// The gRPC service.
    pub fn service(&self) -> RoutingTablesServer<Self> {
        RoutingTablesServer::new(self.clone())
            .max_decoding_message_size(1 << 20)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl RoutingTables for Publisher {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<FromPicker>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut from_picker = request.into_inner();
        let first = from_picker.message().await?.and_then(|first| first.message);
        let Some(from_picker::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        if hello.namespace.is_empty() {
            return Err(Status::invalid_argument("the hello names no namespace"));
        }
        // One slot: with one update unacknowledged at most there is never a second to hold.
        let (updates, to_picker) = mpsc::channel(1);
        let session = Session::new(self.clone(), hello, updates);
        tokio::spawn(session.run(from_picker));
        Ok(Response::new(Box::pin(ReceiverStream::new(to_picker))))
    }
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
    fn new(publisher: Publisher, hello: Hello, updates: mpsc::Sender<Result<Update, Status>>) -> Self {
        let id = publisher.last_session.fetch_add(1, Ordering::Relaxed);
        let scope = Scope { namespace: hello.namespace, pool: Some(hello.pool).filter(|pool| !pool.is_empty()) };
        tracing::info!(picker = hello.picker, %scope, "picker connected");
        let picker = Picker { name: hello.picker, scope: scope.clone(), acked: None, refused: None };
        publisher.pickers.send_modify(|pickers| {
            pickers.insert(id, picker);
        });
        Self { publisher, id, scope, updates, has: None, sent: None, offered: None }
    }

    async fn run(mut self, mut from_picker: Streaming<FromPicker>) {
        let mut tables = self.publisher.tables.subscribe();
        tables.mark_changed();
        loop {
            tokio::select! {
                () = self.publisher.closed.cancelled() => return,
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
        let delta = Delta::between(self.has.as_deref().unwrap_or(&RoutingTable::default()), &table);
        if self.has.is_some() && delta.is_empty() {
            self.acked(newest.revision);
            return Ok(());
        }
        let update = wire::encode(newest.revision, self.has.is_none(), &delta);
        self.sent = Some(Numbered { revision: newest.revision, table });
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
            picker.refused = None;
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
        self.update_picker(|picker| picker.refused = Some((nack.revision, why)));
    }

    fn update_picker(&self, change: impl FnOnce(&mut Picker)) {
        self.publisher.pickers.send_if_modified(|pickers| {
            let Some(picker) = pickers.get_mut(&self.id) else { return false };
            let before = picker.clone();
            change(picker);
            *picker != before
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.publisher.pickers.send_modify(|pickers| {
            if let Some(picker) = pickers.remove(&self.id) {
                tracing::info!(picker = picker.name, scope = %self.scope, "picker disconnected");
            }
        });
    }
}
