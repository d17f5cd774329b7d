//! Publisher and subscriber over a pipe that can be cut.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use publish::testing::RawPicker;
use publish::{Access, Anyone, Authorizer, Publisher, Received, Scope, Standing, Subscriber, Subscription, Unusable};
use routing::{Capability, Found, MediaPolicy, MediaRule, Modality, Model, RoutingTable, Target};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Endpoint, Server};

use crate::tables::one_pool;

pub(crate) struct Pair {
    pub(crate) publisher: Publisher,
    pub(crate) subscription: watch::Receiver<Subscription>,
    /// Endpoints that refused what the table says.
    contradicted: mpsc::Sender<SocketAddr>,
    /// What joins both ends; without it each sees the other gone.
    wires: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Pair {
    pub(crate) fn start(pool: Option<&str>) -> Self {
        Self::start_with(pool, Arc::new(Anyone), None, None)
    }

    fn start_with(
        pool: Option<&str>,
        authorizer: Arc<dyn Authorizer>,
        token: Option<&str>,
        memory: Option<RoutingTable>,
    ) -> Self {
        let token = token.map(str::to_owned);
        let publisher = Publisher::new(100);
        let wires: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (server_side, wires_made) = (publisher.clone(), Arc::clone(&wires));
        let connector = tower::service_fn(move |_| {
            let (client, mut near) = tokio::io::duplex(64 << 10);
            let (mut far, server) = tokio::io::duplex(64 << 10);
            let incoming = tokio_stream::once(Ok::<_, std::io::Error>(server));
            let service = server_side.service(Arc::clone(&authorizer), CancellationToken::new());
            tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
            let wire = tokio::spawn(async move { drop(tokio::io::copy_bidirectional(&mut near, &mut far).await) });
            wires_made.lock().expect("not poisoned").push(wire);
            async move { Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(client)) }
        });
        let channel = Endpoint::from_static("http://in.memory").connect_with_connector_lazy(connector);
        let scope = Scope { namespace: "serving".into(), pool: pool.map(str::to_owned) };
        let (sender, subscription) = watch::channel(Subscription::default());
        let access = move |_| Ok(Access { channel: channel.clone(), token: token.clone(), others: false });
        let (contradicted, receiver) = mpsc::channel(8);
        let memory = memory.map(Arc::new);
        tokio::spawn(Subscriber { picker: "test".into(), scope, contradicted: receiver, memory }.run(access, sender));
        Self { publisher, subscription, contradicted, wires }
    }

    pub(crate) fn publish(&self, table: RoutingTable) {
        self.publisher.publish(
            [("serving".to_owned(), Arc::new(table)), ("other".to_owned(), Arc::new(one_pool("secret", &[9])))].into(),
        );
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

    async fn until_standing(&self, connected: usize, current: usize, refusals: &[&str]) {
        let mut changes = self.publisher.standing_changes();
        let stands = || {
            let standing = self.publisher.standing("serving", ["p", "q", "a"]);
            (standing.connected, standing.current) == (connected, current) && standing.refusals == refusals
        };
        let wait = async {
            while !stands() {
                changes.changed().await.expect("running");
            }
        };
        tokio::time::timeout(Duration::from_mins(1), wait).await.expect("in time");
    }
}

fn hosts_of(subscription: &Subscription, pool: &str) -> Option<usize> {
    Some(subscription.received.as_ref()?.table.pools.get(pool)?.endpoints.len())
}

#[tokio::test(start_paused = true)]
async fn a_table_arrives_changes_follow_and_both_are_acknowledged() {
    let mut pair = Pair::start(None);
    pair.publish(one_pool("p", &[1, 2]));
    let first = pair.until(|subscription| hosts_of(subscription, "p") == Some(2)).await;
    pair.until_standing(1, 1, &[]).await;
    pair.publish(one_pool("p", &[1, 2, 3]));
    let second = pair.until(|subscription| hosts_of(subscription, "p") == Some(3)).await;
    assert!(second.received.unwrap().revision > first.received.unwrap().revision);
    pair.until_standing(1, 1, &[]).await;
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
    let subscription = pair.until(|subscription| hosts_of(subscription, "b") == Some(2)).await;
    assert_eq!(hosts_of(&subscription, "a"), None);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_table_a_picker_knows_nothing_and_an_empty_one_is_something() {
    let mut pair = Pair::start(None);
    pair.until_standing(1, 0, &[]).await;
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
    assert_eq!(hosts_of(&lost, "p"), Some(1));
    assert_eq!(lost.age(lost.lost_at.unwrap() + Duration::from_secs(3)), Duration::from_secs(3));
    let back = pair.until(|subscription| subscription.lost_at.is_none()).await;
    assert_eq!((hosts_of(&back, "p"), back.age(Instant::now())), (Some(1), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_vanishes_becomes_an_empty_table() {
    let mut pair = Pair::start(None);
    pair.publish(one_pool("p", &[1]));
    pair.until(|subscription| hosts_of(subscription, "p") == Some(1)).await;
    pair.publisher.publish([].into());
    pair.until(|subscription| subscription.received.as_ref().is_some_and(|received| received.table.pools.is_empty()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_update_is_told_not_offered_again_and_followed_by_a_snapshot() {
    let pair = Pair::start(None);
    // A picker of older days, which refuses whatever holds a pool.
    let mut old = RawPicker::subscribe(pair.publisher.channel(), "old", "serving").await;

    pair.publish(one_pool("p", &[1]));
    let (revision, snapshot) = old.next().await;
    assert!(snapshot);
    old.refuse(revision, "pool p: too new for me").await;
    pair.until_standing(2, 1, &["old: pool p: too new for me"]).await;

    pair.publish(one_pool("p", &[1, 2]));
    let (next, snapshot) = old.next().await;
    assert!(snapshot && next > revision, "after a refusal comes a snapshot of something newer");
    old.accept(next).await;
    pair.until_standing(2, 2, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_owes_an_answer_and_one_that_left_are_known_with_their_times() {
    let pair = Pair::start(None);
    pair.publish(one_pool("p", &[1]));
    pair.until_standing(1, 1, &[]).await;
    let standing = || pair.publisher.standing("serving", ["p", "q", "a"]);
    assert_eq!((standing().owing_since, standing().left_at), (None, None));
    let mut silent = RawPicker::subscribe(pair.publisher.channel(), "silent", "serving").await;
    let (revision, _) = silent.next().await;
    let sent = Instant::now();
    tokio::time::advance(Duration::from_secs(3)).await;
    for hosts in [&[1, 2][..], &[1, 2, 3]] {
        pair.publish(one_pool("p", hosts));
        pair.until_standing(2, 1, &[]).await;
        assert_eq!(standing().owing_since, Some(sent), "newer tables give no new patience");
    }
    silent.accept(revision).await;
    let (next, _) = silent.next().await;
    silent.accept(next).await;
    pair.until_standing(2, 2, &[]).await;
    assert_eq!(standing().owing_since, None);
    drop(silent);
    pair.until_standing(1, 1, &[]).await;
    assert_eq!(standing().left_at, Some(Instant::now()));
}

/// Admits whoever knows the word.
#[derive(Debug)]
struct Password;

#[tonic::async_trait]
impl Authorizer for Password {
    async fn admit(&self, token: Option<&str>, scope: &Scope) -> Result<(), Status> {
        assert_eq!(scope.namespace, "serving");
        if token == Some("sesame") { Ok(()) } else { Err(Status::unauthenticated("not you")) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_picker_that_is_not_admitted_is_told_nothing_and_counts_for_nobody() {
    let mut admitted = Pair::start_with(None, Arc::new(Password), Some("sesame"), None);
    admitted.publish(one_pool("p", &[1]));
    admitted.until(|subscription| hosts_of(subscription, "p") == Some(1)).await;

    let mut turned_away = Pair::start_with(None, Arc::new(Password), Some("semolina"), None);
    turned_away.publish(one_pool("p", &[1]));
    turned_away.until(|subscription| subscription.lost_at.is_some()).await;
    assert!(turned_away.subscription.borrow().received.is_none());
    assert_eq!(turned_away.publisher.standing("serving", ["p", "q", "a"]), Standing::default());
}

#[tokio::test(start_paused = true)]
async fn a_picker_stays_connected_no_longer_than_an_hour_without_showing_its_token_again() {
    let mut pair = Pair::start(None);
    pair.publish(one_pool("p", &[1]));
    pair.until(|subscription| subscription.received.is_some()).await;
    let connected = Instant::now();
    let lost =
        tokio::time::timeout(Duration::from_hours(2), pair.subscription.wait_for(|known| known.lost_at.is_some()));
    drop(lost.await.expect("in time").expect("running"));
    assert!(connected.elapsed() <= Duration::from_mins(61), "{:?}", connected.elapsed());
    pair.until(|subscription| subscription.lost_at.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_takes_over_stands_above_the_one_before() {
    let mut pair = Pair::start(None);
    pair.publish(one_pool("p", &[1]));
    pair.until(|subscription| subscription.received.is_some()).await;
    pair.cut();
    pair.publisher.renumber(5000);
    let again = pair.until(|subscription| subscription.received.as_ref().is_some_and(|got| got.revision > 5000)).await;
    assert_eq!(hosts_of(&again, "p"), Some(1));
    pair.until_standing(1, 1, &[]).await;
}

#[test]
fn a_saved_table_comes_back_for_its_own_scope_alone() {
    let scope = |pool: Option<&str>| Scope { namespace: "serving".into(), pool: pool.map(str::to_owned) };
    let received = Received { revision: 7, table: Arc::new(one_pool("p", &[1, 2])) };
    let bytes = publish::save(&scope(None), &received);
    let restored = publish::restore(&bytes, &scope(None)).unwrap();
    assert_eq!((restored.revision, &restored.table), (7, &received.table));
    let other = publish::restore(&bytes, &scope(Some("p"))).unwrap_err();
    assert_eq!(other.to_string(), "it is for namespace serving, but this picker serves pool p in namespace serving");
    assert_eq!(publish::restore(&bytes[..bytes.len() - 1], &scope(None)).unwrap_err(), Unusable::Garbled);
}

/// Of no endpoints.
fn nothing() -> mpsc::Receiver<SocketAddr> {
    mpsc::channel(1).1
}

#[tokio::test(start_paused = true)]
async fn who_asks_servers_hears_of_endpoints_that_contradict_the_table_and_of_no_others() {
    let pair = Pair::start(Some("a"));
    let mut heard = pair.publisher.contradictions();
    let mut table = one_pool("a", &[1, 2]);
    table.pools.extend(one_pool("b", &[3]).pools);
    let [ours, other_pools] = [("a", 2), ("b", 3)].map(|(pool, host)| {
        let mut endpoints = table.pools[pool].endpoints.values().map(|endpoint| endpoint.address);
        endpoints.find(|address| *address == SocketAddr::from(([10, 0, 0, host], 8000))).expect("is there")
    });
    pair.publish(table);
    pair.until_standing(1, 1, &[]).await;
    for address in [other_pools, SocketAddr::from(([9, 9, 9, 9], 9)), ours] {
        pair.contradicted.send(address).await.expect("somebody listens");
    }
    let first = tokio::time::timeout(Duration::from_mins(1), heard.recv()).await.expect("in time");
    assert_eq!(first, Some(ours), "of its pool alone, and no address that a picker makes up");
}

/// A controller that was started anew knows a server before it has asked it; the deltas after that are on top of what is remembered.
#[tokio::test(start_paused = true)]
async fn what_was_found_outlives_a_controller_that_asks_servers_and_no_other() {
    let with = |found: Option<&str>, hosts: &[u8]| {
        let found = found.map(|engine| Arc::new(Found { engine: Some(engine.into()), ..Found::default() }));
        let mut table = one_pool("p", hosts);
        let pool = Arc::make_mut(table.pools.get_mut("p").expect("is there"));
        let first = pool.endpoints.values_mut().next().expect("one at least");
        (first.uid, first.found) = ("0000000000000001".into(), found);
        table
    };
    let engine = |subscription: &Subscription| {
        let pool = subscription.received.as_ref()?.table.pools.get("p")?;
        pool.endpoints.values().next()?.found.as_ref()?.engine.clone()
    };
    for asks in [true, false] {
        let mut pair = Pair::start(None);
        let _heard = asks.then(|| pair.publisher.contradictions());
        pair.publish(with(Some("first"), &[1]));
        pair.until(|subscription| engine(subscription).as_deref() == Some("first")).await;
        pair.publish(with(None, &[1, 2]));
        let untold = pair.until(|subscription| hosts_of(subscription, "p") == Some(2)).await;
        assert_eq!(engine(&untold).as_deref(), asks.then_some("first"));
        pair.publish(with(None, &[1, 2, 3]));
        let untold = pair.until(|subscription| hosts_of(subscription, "p") == Some(3)).await;
        assert_eq!(engine(&untold).as_deref(), asks.then_some("first"));
        pair.publish(with(Some("second"), &[1, 2, 3]));
        pair.until(|subscription| engine(subscription).as_deref() == Some("second")).await;
    }
}

/// A picker and its controllers were started anew: what the picker left on its disk tells of servers that nobody has asked yet.
#[tokio::test(start_paused = true)]
async fn what_was_found_outlives_the_picker_as_well() {
    let with = |engine: &str, hosts: &[u8]| {
        let mut table = one_pool("p", hosts);
        let pool = Arc::make_mut(table.pools.get_mut("p").expect("is there"));
        for (endpoint, number) in pool.endpoints.values_mut().zip(1..) {
            endpoint.uid = format!("{number:016}").as_str().into();
            let found = || Arc::new(Found { engine: Some(engine.into()), ..Found::default() });
            endpoint.found = (!engine.is_empty()).then(found);
        }
        table
    };
    let mut pair = Pair::start_with(None, Arc::new(Anyone), None, Some(with("before", &[1, 2])));
    let _heard = pair.publisher.contradictions();
    pair.publish(with("", &[1, 2, 3]));
    let got = pair.until(|known| known.received.is_some()).await;
    let table = got.received.expect("was waited for").table;
    let engines = table.pools["p"].endpoints.values().map(|endpoint| endpoint.found.as_ref()?.engine.clone());
    assert_eq!(engines.flatten().collect::<Vec<_>>(), ["before", "before"], "and the third is new");
}

/// Each is looked up in all of the picker's table.
#[tokio::test(start_paused = true)]
async fn a_picker_that_contradicts_without_end_is_heard_so_often_in_a_second() {
    let pair = Pair::start(Some("a"));
    let mut heard = pair.publisher.contradictions();
    pair.publish(one_pool("a", &[1]));
    pair.until_standing(1, 1, &[]).await;
    let address = SocketAddr::from(([10, 0, 0, 1], 8000));
    for _ in 0..300 {
        pair.contradicted.send(address).await.expect("somebody listens");
    }
    // All of them are on their way before the answer to the next table is.
    while pair.contradicted.capacity() < pair.contradicted.max_capacity() {
        tokio::task::yield_now().await;
    }
    pair.publish(one_pool("a", &[1, 2]));
    pair.until_standing(1, 1, &[]).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    pair.contradicted.send(address).await.expect("somebody listens");
    let mut all = 0;
    while tokio::time::timeout(Duration::from_secs(5), heard.recv()).await.is_ok() {
        all += 1;
    }
    assert_eq!(all, 64 + 1);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_asks_servers_contradictions_are_told_to_nobody() {
    let pair = Pair::start(None);
    pair.publish(one_pool("a", &[1]));
    pair.until_standing(1, 1, &[]).await;
    // It would end the session, as an older controller does. What finds no room is dropped, as a picker does it.
    for _ in 0..20 {
        _ = pair.contradicted.try_send(SocketAddr::from(([10, 0, 0, 1], 8000)));
        tokio::task::yield_now().await;
    }
    pair.publish(one_pool("a", &[1, 2]));
    pair.until_standing(1, 1, &[]).await;
    assert_eq!(pair.wires.lock().expect("not poisoned").len(), 1, "the session goes on");
}

#[tokio::test(start_paused = true)]
async fn pickers_of_different_scopes_are_sent_different_tables_of_one_revision() {
    let whole = Pair::start(None);
    // One publisher, and a picker of one pool beside the one of all.
    let channel = whole.publisher.channel();
    let (sender, mut subscription) = watch::channel(Subscription::default());
    let scope = Scope { namespace: "serving".into(), pool: Some("a".into()) };
    let access = move |_| Ok(Access { channel: channel.clone(), token: None, others: false });
    tokio::spawn(
        Subscriber { picker: "one pool".into(), scope, contradicted: nothing(), memory: None }.run(access, sender),
    );
    whole.until_standing(2, 0, &[]).await;
    let mut revisions = Vec::new();
    for hosts in [&[1, 2][..], &[1, 2, 3]] {
        let mut table = one_pool("a", &[1]);
        table.pools.extend(one_pool("b", hosts).pools);
        whole.publish(table);
        whole.until_standing(2, 2, &[]).await;
        let wait = subscription.wait_for(|known| hosts_of(known, "a") == Some(1));
        let known =
            tokio::time::timeout(Duration::from_mins(1), wait).await.expect("in time").expect("running").clone();
        assert_eq!(hosts_of(&known, "b"), None, "it was sent the whole table");
        assert_eq!(hosts_of(&whole.subscription.borrow(), "b"), Some(hosts.len()));
        revisions.push(known.received.unwrap().revision);
    }
    assert_eq!(revisions[0], revisions[1], "what changes in another pool is no news");
}

#[tokio::test(start_paused = true)]
async fn what_a_picker_is_too_old_for_is_left_out_and_told_and_nobody_is_frozen() {
    let pair = Pair::start(None);
    let mut table = one_pool("p", &[1]);
    let model = |max_pixels| {
        let target = Target::new("m", "p", Capability::TEXT);
        let rule = MediaRule { max_pixels, ..MediaRule::default() };
        let media = MediaPolicy { rules: [(Modality::Image, rule)].into(), ..MediaPolicy::default() };
        Arc::new(Model { media, ..Model::new(vec![target]) })
    };
    table.models.insert("newer".into(), model(Some(1000)));
    table.models.insert("plain".into(), model(None));
    pair.publish(table.clone());
    let channel = pair.publisher.channel();
    let mut old = RawPicker::subscribe_with(channel.clone(), "old", "serving", 1).await;
    let (revision, schema, models) = old.next_models().await;
    assert_eq!((schema, models), (1, vec!["plain".to_owned()]));
    old.accept(revision).await;
    let told = r#"old: too old for model "newer", which it does not serve; upgrade it"#;
    pair.until_standing(2, 1, &[told]).await;
    // What it understands goes on to reach it.
    table.models.insert("another".into(), model(None));
    pair.publish(table.clone());
    let (revision, _, models) = old.next_models().await;
    assert_eq!(models, ["another"]);
    old.accept(revision).await;
    // And once nothing is left out, nothing is said.
    table.models.remove("newer");
    pair.publish(table);
    pair.until_standing(2, 2, &[]).await;
    let mut unsaid = RawPicker::subscribe(channel, "of before", "serving").await;
    assert_eq!(unsaid.next_models().await.1, 1, "a table that uses nothing new is for everybody");
}

#[tokio::test(start_paused = true)]
async fn while_another_controller_was_not_asked_nobody_waits_long() {
    let nobody = tower::service_fn(|_| async {
        Err::<hyper_util::rt::TokioIo<tokio::io::DuplexStream>, _>(std::io::Error::other("nobody is there"))
    });
    let channel = Endpoint::from_static("http://in.memory").connect_with_connector_lazy(nobody);
    let (asks, mut asked) = tokio::sync::mpsc::unbounded_channel();
    // Two controllers, asked in turn.
    let mut others = false;
    let access = move |_| {
        others = !others;
        asks.send(Instant::now()).expect("the test looks");
        Ok(Access { channel: channel.clone(), token: None, others })
    };
    let (sender, _subscription) = watch::channel(Subscription::default());
    let scope = Scope { namespace: "serving".into(), pool: None };
    tokio::spawn(
        Subscriber { picker: "test".into(), scope, contradicted: nothing(), memory: None }.run(access, sender),
    );
    let mut last = asked.recv().await.expect("running");
    let mut longest_round = Duration::ZERO;
    for _ in 0..12 {
        for asks_another in [true, false] {
            let next = asked.recv().await.expect("running");
            let waited = next - last;
            last = next;
            if asks_another {
                assert!(waited <= Duration::from_millis(200), "{waited:?} before the other was asked");
            } else {
                longest_round = longest_round.max(waited);
            }
        }
    }
    assert!(
        longest_round >= Duration::from_millis(2500),
        "all were asked again and again after {longest_round:?} at most"
    );
}
