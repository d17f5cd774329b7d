//! What a server refuses that another takes is sent there: the table in `docs/retries.md`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http::StatusCode;
use routing::AppProtocol;
use tokio::io::AsyncWriteExt as _;

use crate::world::{Server, World, request};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const NOT_MULTIMODAL: &str =
    r#"{"error":{"message":"m is not a multimodal model","type":"BadRequestError","code":400}}"#;
const NO_IMAGES: &str = r#"{"error":{"message":"At most 0 image(s) may be provided in one prompt.","code":400}}"#;

fn picture(bytes: usize) -> String {
    let picture = "A".repeat(bytes);
    format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"hi"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{picture}"}}}}]}}]}}"#
    )
}

/// A server that refuses everything with this status and body.
async fn refusing(status: u16, body: &'static str) -> Server {
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status} No\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    Server::answering(answer.leak()).await
}

async fn with_vision(vision: &[SocketAddr]) -> World {
    World::with(&[], vision, AppProtocol::Http, None).await
}

/// What a picture is answered, until each of the servers has been the first to be asked once.
async fn answers(world: &World, bodies: usize) -> BTreeSet<(u16, String)> {
    let mut answers = BTreeSet::new();
    for size in 0..bodies {
        let answer = world.post(picture(1000 + 4 * size).into()).await;
        answers.insert((answer.status.as_u16(), answer.body));
    }
    answers
}

#[tokio::test]
async fn a_picture_that_one_server_does_not_take_goes_to_another_and_the_next_ones_go_there_at_once() {
    for (status, body) in [
        (400, NOT_MULTIMODAL),
        (400, NO_IMAGES),
        (
            500,
            r#"{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}"#,
        ),
    ] {
        let (blind, sighted) = (refusing(status, body).await, Server::answering(OK).await);
        let world = with_vision(&[blind.address, sighted.address]).await;
        assert_eq!(answers(&world, 40).await, [(200, "ok".to_owned())].into(), "{body}");
        let told = world.told();
        let refusals: Vec<&String> = told.iter().filter(|told| told.starts_with("contradicted")).collect();
        assert_eq!(refusals, ["contradicted: vision/pod-0 image"], "once");
        assert_eq!(told.iter().filter(|told| *told == "complete").count(), 41);
    }
}

#[tokio::test]
async fn where_all_refuse_the_client_gets_a_refusal_of_theirs() {
    let servers = [refusing(400, NO_IMAGES).await, refusing(400, NO_IMAGES).await];
    let world = with_vision(&servers.each_ref().map(|server| server.address)).await;
    assert_eq!(answers(&world, 3).await, [(400, NO_IMAGES.to_owned())].into());
}

#[tokio::test]
async fn a_refusal_of_another_kind_is_the_clients_answer() {
    for (status, body) in [
        (400, r#"{"error":{"message":"Failed to load image: cannot identify image file","code":400}}"#),
        (400, r#"{"error":{"message":"x: At most 0 image(s) may be provided in one prompt.","code":400}}"#),
        (404, NO_IMAGES),
        (422, NO_IMAGES),
        (400, ""),
        (400, "At most 0 image(s) may be provided in one prompt."),
    ] {
        let (refusing, other) = (refusing(status, body).await, Server::answering(OK).await);
        let world = with_vision(&[refusing.address, other.address]).await;
        let answers = answers(&world, 40).await;
        assert_eq!(answers, [(200, "ok".to_owned()), (status, body.to_owned())].into(), "{status} {body}");
        assert!(!world.told().iter().any(|told| told.starts_with("contradicted")), "{status} {body}");
    }
}

/// Text goes to a server that says it is no multimodal model: whatever that means, it is about nothing that the request carries.
#[tokio::test]
async fn a_refusal_of_what_was_not_sent_marks_nothing() {
    let text = refusing(400, NOT_MULTIMODAL).await;
    let world = World::new(&[text.address]).await;
    let answer = world.chat().await;
    assert_eq!((answer.status, &*answer.body), (StatusCode::BAD_REQUEST, NOT_MULTIMODAL));
    assert_eq!(world.told(), ["complete"]);
}

#[tokio::test]
async fn a_prompt_too_long_for_one_server_goes_to_the_next_target_and_contradicts_only_what_is_news() {
    let long = r#"{"error":{"message":"This model's maximum context length is 4096 tokens. However, your prompt contains at least 4097 input tokens","code":400}}"#;
    let (short, other) = (refusing(400, long).await, Server::answering(OK).await);
    let world = World::with(&[short.address], &[other.address], AppProtocol::Http, None).await;
    let answer = world.chat().await;
    assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "ok"));
    assert_eq!(world.told(), ["contradicted: text/pod-0 ", "complete", "complete"]);
    assert_eq!(world.chat().await.status, StatusCode::OK);
    assert_eq!(world.told(), ["complete", "complete"], "the same again is no news");
}

/// Its head says how long it is, or that it comes in pieces; it is longer than a refusal is, or ends before its end.
#[tokio::test]
async fn a_refusal_that_is_long_cut_or_in_pieces_is_passed_on_as_it_is() {
    let other = Server::answering(OK).await;
    let pieces = Server::answering(
        "HTTP/1.1 400 No\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
         1d\r\n{\"message\":\"m is not a multim\r\ne\r\nodal model\",\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
    )
    .await;
    let world = with_vision(&[pieces.address, other.address]).await;
    assert_eq!(answers(&world, 20).await, [(200, "ok".to_owned())].into());

    let body = "x".repeat(100_000);
    let long = refusing(400, body.clone().leak()).await;
    let world = with_vision(&[long.address]).await;
    assert_eq!(answers(&world, 1).await, [(400, body)].into());

    let cut = async || {
        Server::start(|mut stream, _| async move {
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 400 No\r\ncontent-length: 100\r\n\r\n{\"error\"").await.unwrap();
        })
        .await
    };
    let (one, another) = (cut().await, cut().await);
    let world = with_vision(&[one.address, another.address]).await;
    let answer = world.post(picture(1000).into()).await;
    assert_eq!((answer.status, &*answer.code()), (StatusCode::BAD_GATEWAY, "endpoint_broke_off"));
}

/// As long as there is room for it in memory.
#[tokio::test]
async fn a_large_body_is_sent_again_as_well() {
    let (blind, sighted) = (refusing(400, NO_IMAGES).await, Server::answering(OK).await);
    let world = with_vision(&[blind.address, sighted.address]).await;
    for size in 0..8 {
        let answer = world.post(picture((4 << 20) + 4 * size).into()).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "ok"));
    }
    assert_eq!(world.handler.budget.held(), 0);
}

/// A server that says with 500 that it takes no pictures is well, and asked for text as before; one that fails with 500 is not.
#[tokio::test]
async fn a_500_speaks_against_a_server_unless_it_is_a_refusal() {
    let refusal = r#"{"error":{"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","code":500}}"#;
    let failure = r#"{"error":{"message":"out of memory","code":500}}"#;
    for (body, is_well) in [(refusal, true), (failure, false)] {
        let server = refusing(500, body).await;
        let world = with_vision(&[server.address]).await;
        assert_eq!(answers(&world, 4).await, [(500, body.to_owned())].into());
        world.told();
        let endpoints = world.handler.director.endpoints();
        let known = endpoints.iter().find(|known| known.address == server.address).unwrap();
        assert_eq!(known.state.health(std::time::Instant::now()).answering, is_well, "{body}");
    }
}
