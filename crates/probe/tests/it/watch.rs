//! A server that changes, goes and comes back, and what is told of it.

use std::net::SocketAddr;
use std::time::Duration;

use modelserver_sim::{Options, Sim};
use probe::{Failure, Pace, Probed, Prober};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{at, takes};

const QUICK: Pace = Pace { glance: Duration::from_millis(10), whole: Duration::from_mins(10) };

/// A server of this model, which ends when it is told to.
struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    serve: JoinHandle<()>,
}

impl Running {
    /// Its connections as well.
    async fn end(self) {
        self.stop.cancel();
        self.serve.await.unwrap();
    }
}

async fn start(address: SocketAddr, model: &str) -> Running {
    // The one before may hold the port for a moment.
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let address = listener.local_addr().unwrap();
    let options =
        Options { name: "sim".into(), models: vec![model.parse().unwrap()], latency: Duration::ZERO, slots: 1 };
    let stop = CancellationToken::new();
    let serve = Sim::new(options).serve(listener, stop.clone());
    Running { address, stop, serve: tokio::spawn(async move { serve.await.unwrap() }) }
}

/// Nothing shows from outside that it takes pictures no more: no other list, no other process, no connection lost.
#[tokio::test]
async fn what_somebody_doubts_is_asked_again() {
    let server = start(([127, 0, 0, 1], 0).into(), "m=text,image:text:chat completions,tokenize").await;
    let (tell, mut told) = mpsc::channel::<Result<Probed, Failure>>(8);
    let prober = Prober::new(None).unwrap();
    let (watched, own) = (at(server.address), prober.clone());
    let seldom = Pace { glance: Duration::from_mins(10), whole: Duration::from_mins(10) };
    tokio::spawn(async move { own.watch(&watched, seldom, &tell, |said| said).await });
    assert!(takes(&told.recv().await.unwrap().unwrap())[0].starts_with("m: text+image"));
    let models = r#"["m=text:text:chat completions,tokenize"]"#;
    let put = format!(
        "PUT /sim/models HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{models}",
        models.len()
    );
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    connection.write_all(put.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    prober.doubt(server.address);
    let now = told.recv().await.unwrap().unwrap();
    assert!(takes(&now)[0].starts_with("m: text not image"), "{now:?}");
    server.end().await;
}

/// As many as there are behind a NetworkPolicy that lets nobody in.
#[tokio::test]
async fn silent_servers_hold_up_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            held.push(accepted);
        }
    });
    let server = start(([127, 0, 0, 1], 0).into(), "m=text:text:chat completions,tokenize").await;
    let (tell, mut told) = mpsc::channel::<Result<Probed, Failure>>(128);
    let prober = Prober::new(None).unwrap();
    let watch = |address| {
        let (watched, own, tell) = (at(address), prober.clone(), tell.clone());
        tokio::spawn(async move { own.watch(&watched, QUICK, &tell, |said| said).await });
    };
    (0..100).for_each(|_| watch(silent));
    tokio::task::yield_now().await;
    watch(server.address);
    let first = told.recv().await.unwrap();
    assert!(first.is_ok(), "it waits until those are given up: {first:?}");
    server.end().await;
}

#[tokio::test]
async fn what_changes_is_told_and_what_stays_is_not() {
    let server = start(([127, 0, 0, 1], 0).into(), "m=text,image:text:chat completions,tokenize").await;
    let (tell, mut told) = mpsc::channel::<Result<Probed, Failure>>(8);
    let address = server.address;
    let watched = at(address);
    tokio::spawn(async move { Prober::new(None).unwrap().watch(&watched, QUICK, &tell, |said| said).await });
    let first = told.recv().await.unwrap().unwrap();
    assert!(takes(&first)[0].starts_with("m: text+image"), "{first:?}");

    server.end().await;
    let away = told.recv().await.unwrap().unwrap_err();
    assert!(matches!(away, Failure::Unreachable(_) | Failure::BrokeOff { .. }), "{away}");

    let server = start(address, "m=text:text:chat completions,tokenize").await;
    let again = told.recv().await.unwrap().unwrap();
    assert!(takes(&again)[0].starts_with("m: text not image"), "{again:?}");
    server.end().await;
}
