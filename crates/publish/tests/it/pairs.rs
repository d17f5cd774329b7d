//! Publisher and subscriber over a pipe that can be cut.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use publish::{Publisher, Scope, Standing, Subscriber, Subscription};
use routing::RoutingTable;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::{Endpoint, Server};

use crate::tables::one_pool;

pub(crate) struct Pair {
    pub(crate) publisher: Publisher,
    pub(crate) subscription: watch::Receiver<Subscription>,
    /// What joins both ends; without it each sees the other gone.
    wires: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Pair {
    pub(crate) fn start(pool: Option<&str>) -> Self {
        let publisher = Publisher::new(100);
        let wires: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (server_side, wires_made) = (publisher.clone(), Arc::clone(&wires));
        let connector = tower::service_fn(move |_| {
            let (client, mut near) = tokio::io::duplex(64 << 10);
            let (mut far, server) = tokio::io::duplex(64 << 10);
            let incoming = tokio_stream::once(Ok::<_, std::io::Error>(server));
            tokio::spawn(Server::builder().add_service(server_side.service()).serve_with_incoming(incoming));
            let wire = tokio::spawn(async move { drop(tokio::io::copy_bidirectional(&mut near, &mut far).await) });
            wires_made.lock().expect("not poisoned").push(wire);
            async move { Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(client)) }
        });
        let channel = Endpoint::from_static("http://in.memory").connect_with_connector_lazy(connector);
        let scope = Scope { namespace: "serving".into(), pool: pool.map(str::to_owned) };
        let (sender, subscription) = watch::channel(Subscription::default());
        tokio::spawn(Subscriber { picker: "test".into(), scope }.run(channel, sender));
        Self { publisher, subscription, wires }
    }

    pub(crate) fn publish(&self, table: RoutingTable) {
        self.publisher.publish([("serving".to_owned(), table), ("other".to_owned(), one_pool("secret", &[9]))].into());
    }

    /// Kills every connection as a crash would.
    pub(crate) fn cut(&mut self) {
        for wire in self.wires.lock().expect("not poisoned").drain(..) {
            wire.abort();
        }
    }

    pub(crate) async fn until(&mut self, holds: impl FnMut(&Subscription) -> bool) -> Subscription {
        let wait = self.subscription.wait_for(holds);
        tokio::time::timeout(Duration::from_mins(1), wait).await.expect("in time").expect("running").clone()
    }

    async fn until_standing(&self, expected: Standing) {
        let mut changes = self.publisher.standing_changes();
        let wait = async {
            while self.publisher.standing("serving", |_| true) != expected {
                changes.changed().await.expect("running");
            }
        };
        tokio::time::timeout(Duration::from_mins(1), wait).await.expect("in time");
    }
}

fn hosts(subscription: &Subscription, pool: &str) -> Option<usize> {
    Some(subscription.received.as_ref()?.table.pools.get(pool)?.endpoints.len())
}

#[tokio::test(start_paused = true)]
async fn a_table_arrives_changes_follow_and_both_are_acknowledged() {
    let mut pair = Pair::start(None);
    pair.publish(one_pool("p", &[1, 2]));
    let first = pair.until(|subscription| hosts(subscription, "p") == Some(2)).await;
    pair.until_standing(Standing { connected: 1, current: 1, refusals: vec![] }).await;
    pair.publish(one_pool("p", &[1, 2, 3]));
    let second = pair.until(|subscription| hosts(subscription, "p") == Some(3)).await;
    assert!(second.received.unwrap().revision > first.received.unwrap().revision);
    pair.until_standing(Standing { connected: 1, current: 1, refusals: vec![] }).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_another_namespace_is_sent() {
    let mut pair = Pair::start(None);
    pair.publish(one_pool("p", &[1]));
    let subscription = pair.until(|subscription| subscription.received.is_some()).await;
    assert_eq!(subscription.received.unwrap().table.pools.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_picker_of_one_pool_is_sent_that_pool() {
    let mut pair = Pair::start(Some("b"));
    let mut table = one_pool("a", &[1]);
    table.pools.extend(one_pool("b", &[2, 3]).pools);
    pair.publish(table);
    let subscription = pair.until(|subscription| hosts(subscription, "b") == Some(2)).await;
    assert_eq!(hosts(&subscription, "a"), None);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_table_a_picker_knows_nothing_and_an_empty_one_is_something() {
    let mut pair = Pair::start(None);
    pair.until_standing(Standing { connected: 1, current: 0, refusals: vec![] }).await;
    assert!(pair.subscription.borrow().received.is_none());
    pair.publisher.publish([].into());
    pair.until(|subscription| subscription.received.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_good_table_stays_and_ages_while_the_controller_is_gone() {
    let mut pair = Pair::start(None);
    pair.publish(one_pool("p", &[1]));
    pair.until(|subscription| subscription.received.is_some()).await;
    pair.cut();
    let lost = pair.until(|subscription| subscription.lost_at.is_some()).await;
    assert_eq!(hosts(&lost, "p"), Some(1));
    assert_eq!(lost.age(lost.lost_at.unwrap() + Duration::from_secs(3)), Duration::from_secs(3));
    let back = pair.until(|subscription| subscription.lost_at.is_none()).await;
    assert_eq!((hosts(&back, "p"), back.age(tokio::time::Instant::now())), (Some(1), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_vanishes_becomes_an_empty_table() {
    let mut pair = Pair::start(None);
    pair.publish(one_pool("p", &[1]));
    pair.until(|subscription| hosts(subscription, "p") == Some(1)).await;
    pair.publisher.publish([].into());
    pair.until(|subscription| subscription.received.as_ref().is_some_and(|received| received.table.pools.is_empty()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_update_is_told_not_offered_again_and_followed_by_a_snapshot() {
    let pair = Pair::start(None);
    // A picker of older days, which refuses whatever holds a pool.
    let (server, client) = tokio::io::duplex(64 << 10);
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(server));
    tokio::spawn(Server::builder().add_service(pair.publisher.service()).serve_with_incoming(incoming));
    let mut client = Some(client);
    let connector = tower::service_fn(move |_| {
        let client = client.take();
        async move { client.map(hyper_util::rt::TokioIo::new).ok_or_else(|| std::io::Error::other("once")) }
    });
    let channel = Endpoint::from_static("http://in.memory").connect_with_connector_lazy(connector);
    let mut old = publish::testing::RawPicker::subscribe(channel, "old", "serving").await;

    pair.publish(one_pool("p", &[1]));
    let (revision, snapshot) = old.next().await;
    assert!(snapshot);
    old.refuse(revision, "pool p: too new for me").await;
    let refused = Standing { connected: 2, current: 1, refusals: vec!["old: pool p: too new for me".into()] };
    pair.until_standing(refused).await;

    pair.publish(one_pool("p", &[1, 2]));
    let (next, snapshot) = old.next().await;
    assert!(snapshot && next > revision, "after a refusal comes a snapshot of something newer");
    old.accept(next).await;
    pair.until_standing(Standing { connected: 2, current: 2, refusals: vec![] }).await;
}
