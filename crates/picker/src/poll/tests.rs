use std::collections::BTreeMap;

use prometheus_client::registry::Registry;
use routing::{Endpoint, Pool, RoutingTable};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A server that answers everything with the same metrics.
struct Server {
    address: SocketAddr,
    asked: watch::Receiver<usize>,
}

impl Server {
    async fn start(text: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asking, asked) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let asking = asking.clone();
                tokio::spawn(async move {
                    let mut head = [0; 1024];
                    while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                        asking.send_modify(|asked| *asked += 1);
                        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    /// Waits until it was asked so often again: whoever asks again has noted what was answered before.
    async fn asked_again(&mut self, times: usize) {
        let before = *self.asked.borrow();
        let asked = self.asked.wait_for(|asked| *asked >= before + times);
        tokio::time::timeout(Duration::from_secs(30), asked).await.expect("it is not asked").unwrap();
    }
}

/// A table with these endpoints.
fn table(addresses: &[SocketAddr]) -> Arc<RoutingTable> {
    let endpoint =
        |(place, address): (usize, &SocketAddr)| (format!("pod-{place}").into(), Endpoint::new(*address, "u".into()));
    let endpoints = addresses.iter().enumerate().map(endpoint).collect();
    let pool = Arc::new(Pool { endpoints, ..Pool::default() });
    Arc::new(RoutingTable { pools: BTreeMap::from([("p".into(), pool)]), ..RoutingTable::default() })
}

struct World {
    director: Arc<Director>,
    tables: watch::Sender<u64>,
}

impl World {
    fn polling(addresses: &[SocketAddr], interval: Duration) -> Self {
        let director = Arc::new(Director::new(Instant::now()));
        director.replace_table(0, table(addresses));
        let (tables, changes) = watch::channel(0);
        tokio::spawn(run(Arc::clone(&director), changes, interval, Metrics::register(&mut Registry::default(), false)));
        Self { director, tables }
    }

    fn replace(&self, addresses: &[SocketAddr]) {
        let revision = *self.tables.borrow() + 1;
        self.director.replace_table(revision, table(addresses));
        self.tables.send_replace(revision);
    }

    fn waiting_at(&self, address: SocketAddr) -> Option<u32> {
        let known = self.director.endpoints().into_iter().find(|endpoint| endpoint.address == address)?;
        known.state.load(Instant::now()).scraped?.waiting
    }
}

#[tokio::test]
async fn two_thousand_that_never_answer_delay_nobodys_numbers() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut live = Server::start("vllm:num_requests_waiting 3\n").await;
    let mut addresses = vec![mute.local_addr().unwrap(); 2000];
    addresses.push(live.address);
    let world = World::polling(&addresses, Duration::from_millis(50));
    // In turns of 256 at once that each wait for a second, this would take four minutes.
    live.asked_again(30).await;
    assert_eq!(world.waiting_at(live.address), Some(3));
}

#[tokio::test]
async fn pollers_come_and_go_with_the_table() {
    let mut one = Server::start("sglang:num_queue_reqs 1\n").await;
    let mut two = Server::start("llamacpp:requests_deferred 2\n").await;
    let world = World::polling(&[one.address], Duration::from_millis(10));
    one.asked_again(2).await;
    assert_eq!((world.waiting_at(one.address), world.waiting_at(two.address)), (Some(1), None));
    world.replace(&[one.address, two.address]);
    two.asked_again(2).await;
    assert_eq!((world.waiting_at(one.address), world.waiting_at(two.address)), (Some(1), Some(2)));
    // They change places: each is polled where it is now, under the other's name.
    world.replace(&[two.address, one.address]);
    one.asked_again(3).await;
    two.asked_again(3).await;
    assert_eq!((world.waiting_at(one.address), world.waiting_at(two.address)), (Some(1), Some(2)));
    world.replace(&[one.address]);
    one.asked_again(2).await;
    assert_eq!(world.waiting_at(two.address), None);
}

#[tokio::test]
async fn a_server_that_says_nothing_of_load_lives_and_is_not_idle() {
    let mut strange = Server::start("process_cpu_seconds_total 7\n").await;
    let world = World::polling(&[strange.address], Duration::from_millis(10));
    let state = Arc::clone(&world.director.endpoints()[0].state);
    state.silent(Instant::now());
    strange.asked_again(2).await;
    assert_eq!((state.silent_for(Instant::now()), state.load(Instant::now()).scraped), (None, None));
}
