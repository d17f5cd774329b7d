//! The picker's end: keeps the last good table, whatever happens to the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use routing::RoutingTable;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::proto::routing_tables_client::RoutingTablesClient;
use crate::proto::{Ack, Contradicted, FromPicker, Hello, Nack, Update, from_picker};
use crate::{MAX_MESSAGE_BYTES, Scope, wire};

/// Subscribes to one scope's tables.
#[derive(Debug)]
pub struct Subscriber {
    /// Who we are, for people.
    pub picker: String,
    pub scope: Scope,
    /// Endpoints that refused what the table says that they take. Told where somebody wants to know; until then they wait.
    pub contradicted: mpsc::Receiver<SocketAddr>,
    /// The table of the process before this one, where it left one: what it found of servers stands until a controller says something of them.
    pub memory: Option<Arc<RoutingTable>>,
}

/// What is known at an instant.
#[derive(Debug, Clone, Default)]
pub struct Subscription {
    /// The last good table; none before the first.
    pub received: Option<Received>,
    /// When the stream was lost, or an update refused; none while what was received is what the controller last said.
    pub lost_at: Option<Instant>,
    /// How old the table was then: nothing, but for one that came from a disk.
    pub age_when_lost: Duration,
}

/// How a controller is reached, for one session.
#[derive(Debug, Clone)]
pub struct Access {
    /// Connects by itself when it is used ([`tonic::transport::Endpoint::connect_lazy`]).
    pub channel: Channel,
    /// Shown as a bearer token.
    pub token: Option<String>,
    /// Another controller has not been asked yet in this round. It is asked soon; to wait longer is for when none takes us.
    pub others: bool,
}

/// A table and its revision.
#[derive(Debug, Clone)]
pub struct Received {
    pub revision: u64,
    pub table: Arc<RoutingTable>,
}

/// How long a controller may take to begin a session: longer than the API server may take to review a token.
const OPENING: Duration = Duration::from_secs(15);

/// How long to wait before the next try: doubling from 100 ms to 5 s, each between half of it and all.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

// === impl Subscription ===

impl Subscription {
    /// How old the table may be: nothing while it is what the controller last said, else the time since it was.
    pub fn age(&self, now: Instant) -> Duration {
        self.lost_at.map_or(Duration::ZERO, |lost_at| self.age_when_lost + now.saturating_duration_since(lost_at))
    }
}

// === impl Subscriber ===

impl Subscriber {
    /// Subscribes, and subscribes again whenever the stream ends. Runs until nobody looks at `subscription` any more.
    ///
    /// `access` is asked before each session, since keys and tokens change and controllers come and go; it may say why there is none. It is
    /// told whether the one before ended the session in good order, after a table: that controller is the first to ask again.
    pub async fn run(
        mut self,
        mut access: impl FnMut(bool) -> Result<Access, String>,
        subscription: watch::Sender<Subscription>,
    ) {
        let mut backoff = Backoff::default();
        let mut again = false;
        loop {
            let access = access(again);
            let others = access.as_ref().is_ok_and(|access| access.others);
            let session = async {
                match access {
                    Ok(access) => self.session(access, &subscription, &mut backoff).await,
                    Err(why) => Err(Status::failed_precondition(why)),
                }
            };
            let ended = tokio::select! {
                ended = session => ended,
                () = subscription.closed() => return,
            };
            subscription.send_if_modified(lost);
            again = ended.is_ok();
            let jitter = fastrand::f64();
            let wait = if others { Backoff::default().next(jitter) } else { backoff.next(jitter) };
            tracing::warn!(
                scope = %self.scope,
                reason = ended.err().map_or_else(|| "the controller ended the stream".to_owned(), |status| why(&status)),
                retry_in_ms = wait.as_millis(),
                "no tables from the controller"
            );
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = subscription.closed() => return,
            }
        }
    }

    /// One connection, from hello to its end. Says why it ended, unless the controller ended it in good order.
    async fn session(
        &mut self,
        access: Access,
        subscription: &watch::Sender<Subscription>,
        backoff: &mut Backoff,
    ) -> Result<(), Status> {
        let mut client = RoutingTablesClient::new(access.channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        // Hello, and then one answer to each update: the controller sends none before that.
        let (answers, to_controller) = mpsc::channel(2);
        let hello = Hello {
            picker: self.picker.clone(),
            namespace: self.scope.namespace.clone(),
            pool: self.scope.pool.clone().unwrap_or_default(),
            schema: wire::SCHEMA,
        };
        let hello = FromPicker { message: Some(from_picker::Message::Hello(hello)) };
        if answers.send(hello).await.is_err() {
            return Err(Status::internal("the stream closed before it began"));
        }
        let mut request = Request::new(ReceiverStream::new(to_controller));
        if let Some(token) = &access.token {
            let Ok(bearer) = format!("Bearer {token}").parse() else {
                return Err(Status::failed_precondition("the token contains characters that a header must not"));
            };
            request.metadata_mut().insert("authorization", bearer);
        }
        // A controller that is frozen takes connections and says nothing more.
        let opened = tokio::time::timeout(OPENING, client.subscribe(request)).await;
        let mut updates =
            opened.map_err(|_| Status::deadline_exceeded("the controller does not answer"))??.into_inner();
        let mut has: Option<Arc<RoutingTable>> = None;
        let mut are_heard = false;
        loop {
            let update = tokio::select! {
                update = updates.message() => update?,
                Some(address) = self.contradicted.recv(), if are_heard => {
                    let contradicted = Contradicted { address: address.to_string() };
                    let message = Some(from_picker::Message::Contradicted(contradicted));
                    if answers.send(FromPicker { message }).await.is_err() {
                        return Err(Status::unavailable("the controller went away"));
                    }
                    continue;
                }
            };
            let Some(update) = update else {
                return match has {
                    Some(_) => Ok(()),
                    None => Err(Status::unavailable("the controller ended the stream before it sent a table")),
                };
            };
            let revision = update.revision;
            are_heard = update.hears_contradictions;
            let answer = match take(update, has.as_deref()) {
                Ok(mut table) => {
                    // A controller that asks servers, and was started anew, has not heard of all of them yet.
                    let before = subscription.borrow().received.as_ref().map(|received| Arc::clone(&received.table));
                    if let Some(before) = before.or_else(|| self.memory.clone()).filter(|_| are_heard) {
                        let endpoints = table.remember(&before);
                        if endpoints > 0 {
                            tracing::info!(
                                endpoints,
                                "the controller has not heard of all model servers yet; keeping what was found of them"
                            );
                        }
                    }
                    self.memory = None;
                    let table = Arc::new(table);
                    has = Some(Arc::clone(&table));
                    *backoff = Backoff::default();
                    let received = Some(Received { revision, table });
                    subscription.send_replace(Subscription { received, ..Subscription::default() });
                    from_picker::Message::Ack(Ack { revision })
                }
                Err(reasons) => {
                    tracing::error!(
                        revision,
                        reason = reasons.join("; "),
                        "update refused; keeping the previous table"
                    );
                    has = None;
                    subscription.send_if_modified(lost);
                    from_picker::Message::Nack(Nack { revision, reasons })
                }
            };
            if answers.send(FromPicker { message: Some(answer) }).await.is_err() {
                return Err(Status::unavailable("the controller went away"));
            }
        }
    }
}

/// The cause at the end of the chain: tonic's own words for a connection that failed are "transport error".
fn why(status: &Status) -> String {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(status);
    let mut said = status.message().to_owned();
    while let Some(error) = cause {
        said = error.to_string();
        cause = error.source();
    }
    said
}

/// Notes that what was received is not what the controller says any more; says whether that is new.
fn lost(known: &mut Subscription) -> bool {
    let was_current = known.lost_at.is_none();
    known.lost_at.get_or_insert_with(Instant::now);
    was_current
}

/// The table after an update, or a reason for each thing that is wrong with it.
pub(crate) fn take(update: Update, has: Option<&RoutingTable>) -> Result<RoutingTable, Vec<String>> {
    let snapshot = update.snapshot;
    let delta = wire::decode(update).map_err(|bad| bad.iter().take(16).map(ToString::to_string).collect::<Vec<_>>())?;
    let base = match (snapshot, has) {
        (true, _) => &RoutingTable::default(),
        (false, Some(has)) => has,
        (false, None) => return Err(vec!["a delta arrived where a snapshot was expected".into()]),
    };
    delta.apply(base).map_err(|error| vec![error.to_string()])
}

// === impl Backoff ===

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    /// The next wait. `jitter` is drawn from 0 to 1 by the caller, and keeps a fleet of pickers from calling all at once.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures += 1;
        full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_seconds_with_half_of_it_jitter() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(Backoff::default().next(0.0).as_millis(), 50);
    }

    #[test]
    fn a_delta_without_a_base_is_refused() {
        assert_eq!(take(Update::default(), None).unwrap_err(), ["a delta arrived where a snapshot was expected"]);
    }

    #[test]
    fn an_update_is_refused_whole_with_a_reason_for_each_resource() {
        let endpoint = |name: &str, address: &str| crate::proto::Endpoint {
            uid: String::new(),
            key: Some(crate::proto::EndpointKey { pool: "p".into(), name: name.into() }),
            address: address.into(),
            capability: None,
            found: None,
        };
        let pools = vec![crate::proto::Pool { name: "p".into(), ..Default::default() }];
        let endpoints = vec![endpoint("good", "10.0.0.1:80"), endpoint("bad", "nowhere"), endpoint("", "10.0.0.1:80")];
        let update = Update { snapshot: true, pools, endpoints, ..Update::default() };
        let reasons = take(update, None).unwrap_err();
        assert_eq!(reasons, [r#"endpoint "bad" of pool "p": "nowhere" is not an ip:port"#, "endpoint without a name"]);
    }

    #[test]
    fn an_update_for_newer_readers_is_refused() {
        let update = Update { snapshot: true, schema: 99, ..Update::default() };
        assert_eq!(
            take(update, None).unwrap_err(),
            ["the update needs schema 99, and this picker supports up to 2; upgrade the picker"]
        );
    }
}
