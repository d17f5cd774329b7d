//! Servers that accept and say nothing, or not at once.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use routing::{AppProtocol, RoutingTable};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use crate::world::{Server, World, request};

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_where_a_limit_says_so() {
    for (said, by_model) in [("", false), (EVENTS, false), ("", true)] {
        let server = Server::start(move |mut stream, _| async move {
            request(&mut stream).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        let limit = Some(Duration::from_millis(200));
        let world = World::with(&[server.address], &[], AppProtocol::Http, limit.filter(|_| !by_model)).await;
        if by_model {
            let (_, table) = world.handler.director.table().unwrap();
            let mut limited = RoutingTable::clone(&table);
            std::sync::Arc::make_mut(limited.models.get_mut("m").unwrap()).first_byte_timeout = limit;
            world.handler.director.replace_table(2, std::sync::Arc::new(limited));
        }
        let answer = world.chat().await;
        let expected = if said.is_empty() { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::OK };
        assert_eq!(answer.status, expected);
        assert!(answer.body.contains(r#""code":"endpoint_timed_out""#), "{answer:?}");
        assert_eq!(world.told(), ["timed_out", "failed: endpoint_timed_out"]);
        assert_eq!(server.connections(), 1, "it may be working on it");
    }
}

#[tokio::test]
async fn the_head_of_a_stream_does_not_wait_for_its_first_event() {
    let seen = std::sync::Arc::new(Notify::new());
    let may_go_on = std::sync::Arc::clone(&seen);
    let server = Server::start(move |mut stream, _| {
        let may_go_on = std::sync::Arc::clone(&may_go_on);
        async move {
            request(&mut stream).await.unwrap();
            stream.write_all(EVENTS.as_bytes()).await.unwrap();
            // Not before the client has seen the head.
            may_go_on.notified().await;
            stream.write_all(b"b\r\ndata: {}\n\n\n\r\n0\r\n\r\n").await.unwrap();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let world = World::new(&[server.address]).await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let body = http_body_util::Full::<bytes::Bytes>::from(r#"{"model":"m","messages":[]}"#);
    let asked = Request::post(format!("http://{}/v1/chat/completions", world.address))
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), client.request(asked)).await.expect("the head").unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    seen.notify_one();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&*body, b"data: {}\n\n\n");
}
