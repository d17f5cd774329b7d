//! What is sent again, and what is not: the table in `docs/retries.md`.

use http::StatusCode;
use routing::AppProtocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{Server, World, head, request, reset};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn refused_connections_move_on_at_once_to_the_next_endpoint_and_the_next_tier() {
    let nowhere = [Server::nowhere().await, Server::nowhere().await];
    let server = Server::start(|mut stream, _| async move {
        while let Some(asked) = request(&mut stream).await {
            let name = if asked.contains(r#""model":"vision-model""#) { OK } else { "HTTP/1.1 500 No\r\n\r\n" };
            stream.write_all(name.as_bytes()).await.unwrap();
        }
    })
    .await;
    let world = World::with(&nowhere, &[server.address], AppProtocol::Http, None).await;
    assert_eq!(world.chat().await.status, StatusCode::OK, "under the name that the next tier knows it by");
    assert_eq!(world.told(), ["unreachable", "unreachable", "complete"]);
    // The board has learned: the dead are not asked first again.
    assert_eq!(world.chat().await.status, StatusCode::OK);
    assert_eq!(world.told(), ["complete"]);
    let nobody = World::new(&nowhere).await;
    let answer = nobody.chat().await;
    assert_eq!((answer.status, &*answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "endpoint_unreachable"));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_kept_connection_that_is_closed_as_a_request_goes_out_is_no_failure() {
    // It answers one request, and closes when the next begins to come: unread, its kernel resets the connection.
    let server = Server::start(|mut stream, _| async move {
        if request(&mut stream).await.is_some() {
            stream.write_all(OK.as_bytes()).await.unwrap();
            stream.readable().await.unwrap();
        }
    })
    .await;
    let world = World::new(&[server.address]).await;
    for turn in 0..20 {
        let answer = world.chat().await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "ok"), "turn {turn}");
        assert_eq!(world.told(), ["complete"], "it is no mark against the server");
    }
}

#[tokio::test]
async fn what_a_server_may_have_begun_is_not_sent_again() {
    // It reads the second request of a connection to its end, and then goes away.
    let server = Server::start(|mut stream, _| async move {
        if request(&mut stream).await.is_some() {
            stream.write_all(OK.as_bytes()).await.unwrap();
            request(&mut stream).await;
        }
    })
    .await;
    let world = World::new(&[server.address]).await;
    assert_eq!(world.chat().await.status, StatusCode::OK);
    let answer = world.chat().await;
    assert_eq!((answer.status, &*answer.code()), (StatusCode::BAD_GATEWAY, "endpoint_broke_off"));
    assert_eq!(server.connections(), 1);
    // And on a new connection.
    let server = Server::start(|mut stream, _| async move { drop(request(&mut stream).await) }).await;
    let world = World::new(&[server.address]).await;
    assert_eq!(world.chat().await.code(), "endpoint_broke_off");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_that_closes_before_the_whole_request_came_passes_it_on() {
    let closing = Server::start(|mut stream, _| async move {
        head(&mut stream).await;
        stream.read_u8().await.unwrap();
        reset(stream);
    })
    .await;
    let good = Server::answering(OK).await;
    let world = World::with(&[closing.address], &[good.address], AppProtocol::Http, None).await;
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}}]}}"#, "a".repeat(12 << 20));
    let answer = world.post(body.into()).await;
    assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "ok"));
    assert_eq!(world.told(), ["broke_off", "complete"]);
}
