//! Servers that lie, hang, never end, or are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Redirect};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use probe::{Failure, Prober};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::{at, probe, serve, takes};

fn vllm_list(names: impl IntoIterator<Item = String>) -> Json<Value> {
    let entries = names.into_iter().map(|name| json!({"id": name, "owned_by": "vllm"}));
    Json(json!({"object": "list", "data": entries.collect::<Vec<_>>()}))
}

/// What is said of a server that answers everything so.
async fn said_of(router: Router) -> String {
    probe(&serve(router).await).await.map_or_else(|failure| failure.to_string(), |probed| probed.found.what())
}

#[tokio::test]
async fn what_is_no_model_server_is_said_to_be_none() {
    let html = || std::future::ready(Html("<html>nginx</html>"));
    assert_eq!(
        said_of(Router::new().fallback(html)).await,
        "is not a model server that is known here: it answers /v1/models with status 200 and HTML"
    );
    let redirect = || std::future::ready(Redirect::temporary("http://127.0.0.1:1/"));
    assert!(said_of(Router::new().fallback(redirect)).await.ends_with("with status 307, a redirect"));
    let other = || std::future::ready(Json(json!({"hello": "world"})));
    assert!(said_of(Router::new().fallback(other)).await.ends_with("with status 200 and JSON of another shape"));
    let broken = || {
        std::future::ready((StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"error": {"message": "out of memory"}}))))
    };
    assert!(said_of(Router::new().fallback(broken)).await.ends_with("with status 500: out of memory"));
    assert!(said_of(Router::new()).await.ends_with("with status 404"));
}

#[tokio::test]
async fn a_key_is_asked_for_and_given() {
    let list = |headers: axum::http::HeaderMap| {
        std::future::ready(match headers.get(header::AUTHORIZATION) {
            Some(key) if key == "Bearer sesame" => vllm_list(["m".into()]).into_response(),
            _ => (StatusCode::UNAUTHORIZED, Json(json!({"error": "Unauthorized"}))).into_response(),
        })
    };
    let server = serve(Router::new().route("/v1/models", get(list))).await;
    let without = probe(&server).await.unwrap_err();
    assert_eq!(without.to_string(), "asks for an API key (status 401); give one with --api-key");
    let with = Prober::new(Some("sesame")).unwrap().probe(&server).await.unwrap();
    assert_eq!(with.found.models.len(), 1);
    assert!(Prober::new(Some("a\nb")).is_err());
}

#[tokio::test]
async fn one_that_answers_200_to_everything_is_not_believed() {
    let server = Router::new()
        .route("/v1/models", get(async || vllm_list(["m".into()])))
        .fallback(any(async || Json(json!({"count": 1, "tokens": [1]}))));
    let found = probe(&serve(server).await).await.unwrap();
    assert_eq!(takes(&found), ["m: - not embedding for ?, -"]);
    assert_eq!(found.doubts[0], "whether m takes image: it answers to what cannot be answered");
}

#[tokio::test]
async fn of_ten_thousand_models_as_many_are_taken_as_there_may_be() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let names = || (0..10_000).map(|number| format!("m{number}"));
    let tokenize = move || {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(StatusCode::INTERNAL_SERVER_ERROR)
    };
    let server =
        Router::new().route("/v1/models", get(async move || vllm_list(names()))).route("/tokenize", post(tokenize));
    let found = probe(&serve(server).await).await.unwrap();
    assert_eq!(found.found.models.len(), 256);
    assert!(found.doubts.iter().any(|doubt| doubt.starts_with("9744 entries")), "{:?}", found.doubts);
    assert!(found.doubts.len() < 40);
    assert_eq!(asked.load(Ordering::Relaxed), 24);
}

#[tokio::test]
async fn names_that_are_none_are_passed_over() {
    let names = ["good".to_owned(), String::new(), "x".repeat(300), "a\nb".into(), "good".into()];
    let found =
        probe(&serve(Router::new().route("/v1/models", get(async move || vllm_list(names)))).await).await.unwrap();
    assert_eq!(found.found.models.len(), 1);
    assert!(found.doubts.last().unwrap().starts_with("4 entries"), "{:?}", found.doubts);
}

#[tokio::test]
async fn an_answer_that_never_ends_is_given_up() {
    let endless = || {
        let chunk = Bytes::from(vec![b' '; 1 << 16]);
        let body = Body::from_stream(futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone())));
        std::future::ready(body.into_response())
    };
    let server = serve(Router::new().route("/v1/models", get(endless))).await;
    let failure = probe(&server).await.unwrap_err();
    assert_eq!(failure, Failure::TooMuch { path: "/v1/models", limit: 4 << 20 });
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_holds_nobody_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = at(listener.local_addr().unwrap());
    // It takes connections, as the kernel does for it, and says nothing.
    let failure = probe(&server).await.unwrap_err();
    assert!(matches!(failure, Failure::Slow { path: "/v1/models", .. }), "{failure}");
    drop(listener);
}

#[tokio::test]
async fn one_that_breaks_off_and_one_that_is_not_there_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = at(listener.local_addr().unwrap());
    let breaks_off = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
    });
    let failure = probe(&server).await.unwrap_err();
    assert!(matches!(failure, Failure::BrokeOff { path: "/v1/models", .. }), "{failure}");
    breaks_off.await.unwrap();
    let failure = probe(&server).await.unwrap_err();
    assert_eq!(failure.to_string(), "cannot be reached: connection refused");
}
