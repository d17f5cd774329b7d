//! Servers that answer before they have read the whole request.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing::AppProtocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{Server, World, head};

/// A body of 12 MB: more than two sockets hold between them.
fn large() -> Bytes {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}}]}}"#, "a".repeat(12 << 20)).into()
}

/// How often each is tried: half of them were lost once.
const TRIES: usize = 6;

#[tokio::test]
async fn an_early_answer_is_the_clients_answer() {
    // uvicorn, Node and Go each read another part of it before they close.
    for read in [0, 1, 100_000] {
        for (said, status) in [
            ("HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno", 413),
            ("HTTP/1.1 401 Unauthorized\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 401),
        ] {
            let server = Server::start(move |mut stream, _| async move {
                head(&mut stream).await.unwrap();
                let mut some = vec![0; read];
                stream.read_exact(&mut some).await.unwrap();
                stream.write_all(said.as_bytes()).await.unwrap();
            })
            .await;
            let world = World::new(&[server.address]).await;
            for _ in 0..TRIES {
                let answer = world.post(large()).await;
                assert_eq!((answer.status.as_u16(), &*answer.body), (status, "no"), "after {read} bytes");
                assert_eq!(world.told(), ["complete"]);
            }
        }
    }
}

#[tokio::test]
async fn so_it_is_over_http_2() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // It drops the body unread, for which hyper resets the stream without an error (RFC 9113, section 8.1).
            let answer = service_fn(async |_: Request<Incoming>| {
                let answer = Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE);
                answer.body(Full::new(Bytes::from_static(b"no")))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), answer));
        }
    });
    let world = World::with(&[address], &[], AppProtocol::H2c, None).await;
    for _ in 0..TRIES {
        let answer = world.post(large()).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::PAYLOAD_TOO_LARGE, "no"));
    }
}
