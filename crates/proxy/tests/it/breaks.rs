//! Servers that break off.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tokio::io::AsyncWriteExt as _;

use crate::world::{Server, World, request, reset};

/// How often each is tried: some of these are races.
const TRIES: usize = 20;

#[derive(Debug, Clone, Copy)]
enum Break {
    Fin,
    Reset,
    BadChunk,
}

/// A server that answers each request with `said`, and then breaks.
async fn breaking(said: &'static str, how: Break) -> Server {
    Server::start(move |mut stream, _| async move {
        if request(&mut stream).await.is_some() {
            stream.write_all(said.as_bytes()).await.unwrap();
            match how {
                Break::Fin => {}
                Break::Reset => reset(stream),
                Break::BadChunk => drop(stream.write_all(b"zz\r\nno chunk").await),
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_break_after_the_head_is_an_answer_and_says_so() {
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let sized = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 100\r\n\r\n";
    for (said, how) in [
        (chunked, Break::Fin),
        (chunked, Break::Reset),
        (chunked, Break::BadChunk),
        (sized, Break::Fin),
        (sized, Break::Reset),
    ] {
        let server = breaking(said, how).await;
        let world = World::new(&[server.address]).await;
        for _ in 0..TRIES {
            let answer = world.chat().await;
            assert_eq!((answer.status, &*answer.code()), (StatusCode::BAD_GATEWAY, "endpoint_broke_off"), "{how:?}");
            assert_eq!(world.told(), ["broke_off", "failed: endpoint_broke_off"], "{how:?}");
        }
        assert_eq!(server.connections(), TRIES, "nothing is paid for twice");
    }
}

#[tokio::test]
async fn a_break_in_the_middle_never_looks_like_an_end() {
    let sized = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"choices\":";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\"ch\r\n";
    let in_an_event =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n8\r\ndata: {\"\r\n";
    for said in [sized, chunked, in_an_event] {
        let server = breaking(said, Break::Reset).await;
        let world = World::new(&[server.address]).await;
        for _ in 0..TRIES {
            let answer = world.chat().await;
            let is_ours = answer.code() == "endpoint_broke_off";
            assert!(answer.broke || is_ours, "{said:?}: {answer:?}");
            assert_eq!(world.told(), ["broke_off", "failed: endpoint_broke_off"]);
        }
    }
}

#[tokio::test]
async fn between_two_events_an_event_says_that_it_broke() {
    let said = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                b\r\ndata: {}\n\n\n\r\n";
    let server = breaking(said, Break::Fin).await;
    let world = World::new(&[server.address]).await;
    for _ in 0..TRIES {
        let answer = world.chat().await;
        let last = answer.body.trim_end().rsplit("data: ").next().unwrap();
        assert!(last.starts_with(r#"{"error":{"code":"endpoint_broke_off""#), "{answer:?}");
        assert!(answer.body.ends_with("\n\n") && !answer.body.contains("[DONE]"), "{answer:?}");
        assert_eq!(world.told(), ["broke_off", "failed: endpoint_broke_off"]);
    }
}

#[tokio::test]
async fn answers_without_a_body_are_as_they_are() {
    for (method, said, status) in [
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", StatusCode::NO_CONTENT),
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", StatusCode::OK),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", StatusCode::OK),
        (Method::GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", StatusCode::OK),
        (Method::GET, "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", StatusCode::NOT_FOUND),
    ] {
        let server = Server::answering(said).await;
        let world = World::new(&[server.address]).await;
        let owner = world.handler.director.endpoints()[0].state.id().clone();
        let video = request::Owned { kind: request::OwnedKind::Video, id: "video_1".into() };
        world.handler.owners.remember(video, owner);
        let uri = format!("http://{}/v1/videos/video_1", world.address);
        let asked = Request::builder().method(method).uri(uri).body(Full::<Bytes>::default()).unwrap();
        let answer = world.send(asked).await;
        assert_eq!((answer.status, answer.broke), (status, false), "{said:?}");
        assert_eq!(world.told(), ["complete"], "{said:?}");
    }
}
