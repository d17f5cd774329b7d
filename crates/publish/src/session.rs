//! One picker's connection: what it has, what it was sent, and what it said to that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use routing::RoutingTable;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};

use crate::feed::{ConnectedPicker, Feed, Numbered};
use crate::proto::{Contradicted, FromPicker, Nack, Update, from_picker};
use crate::{Publisher, Scope};

/// One picker's connection.
pub(crate) struct Session {
    publisher: Publisher,
    feed: Arc<Feed>,
    id: u64,
    name: String,
    scope: Scope,
    schema: u32,
    updates: mpsc::Sender<Result<Update, Status>>,
    /// What the picker decides by: none before the first ack and after a nack, so that the next update is a snapshot.
    has: Option<Arc<RoutingTable>>,
    /// What was sent and is neither acknowledged nor refused.
    sent: Option<Numbered>,
    /// The newest revision that was offered in some way, so that a refused one is not offered again and again.
    offered: Option<u64>,
    /// How many contradictions came in the second that began then.
    contradictions: (Instant, u32),
}

/// How many contradictions of one picker are heard in a second: each is looked up in all of its table. The others are told again where it is still so.
const CONTRADICTIONS_PER_SECOND: u32 = 64;

impl Session {
    pub(crate) fn new(
        publisher: Publisher,
        name: String,
        scope: Scope,
        schema: u32,
        updates: mpsc::Sender<Result<Update, Status>>,
    ) -> Self {
        let (id, feed) = publisher.listen(&scope, schema, name.clone());
        tracing::info!(picker = name, %scope, schema, "picker connected");
        Self {
            publisher,
            feed,
            id,
            name,
            scope,
            schema,
            updates,
            has: None,
            sent: None,
            offered: None,
            contradictions: (Instant::now(), 0),
        }
    }

    pub(crate) async fn run(mut self, mut from_picker: Streaming<FromPicker>) {
        let mut newest = self.feed.subscribe();
        newest.mark_changed();
        loop {
            tokio::select! {
                changed = newest.changed(), if self.sent.is_none() => {
                    let newest = newest.borrow_and_update().clone();
                    if changed.is_err() || self.offer(newest).await.is_err() {
                        return;
                    }
                }
                message = from_picker.next() => match message.and_then(Result::ok).and_then(|message| message.message) {
                    Some(from_picker::Message::Ack(ack)) => self.acknowledged(ack.revision),
                    Some(from_picker::Message::Nack(nack)) => self.refused(&nack),
                    Some(from_picker::Message::Contradicted(Contradicted { address }))
                        if self.publisher.hears_contradictions() =>
                    {
                        self.contradicted(&address);
                    }
                    // What is out of order, or nobody wanted to know.
                    Some(from_picker::Message::Hello(_) | from_picker::Message::Contradicted(_)) | None => return,
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
        let is_kept = self.has.is_some() || self.scope.pool.is_none();
        let Some(mut update) = self.feed.step(self.has.as_ref(), &newest, is_kept) else {
            self.acked(newest.revision);
            return Ok(());
        };
        update.hears_contradictions = self.publisher.hears_contradictions();
        self.sent = Some(newest);
        let now = Instant::now();
        // Nobody is woken: that an answer is owed matters only once it has been for long.
        self.feed.update(self.id, |picker| picker.owing_since = Some(now));
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

    /// Passed on where it is of an endpoint that this picker was told of.
    fn contradicted(&mut self, address: &str) {
        let now = Instant::now();
        if now.duration_since(self.contradictions.0) >= Duration::from_secs(1) {
            self.contradictions = (now, 0);
        }
        self.contradictions.1 += 1;
        if self.contradictions.1 > CONTRADICTIONS_PER_SECOND {
            return;
        }
        let Ok(address) = address.parse::<SocketAddr>() else { return };
        let mut pools = self.has.iter().flat_map(|table| table.pools.values());
        if pools.any(|pool| pool.endpoints.values().any(|endpoint| endpoint.address == address)) {
            self.publisher.contradicted(address);
        }
    }

    fn update_picker(&self, change: impl FnOnce(&mut ConnectedPicker)) {
        if self.feed.update(self.id, change) {
            self.publisher.note_standing();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        tracing::info!(picker = self.name, scope = %self.scope, "picker disconnected");
        self.publisher.leave(&self.scope, self.schema, self.id);
    }
}
