//! What hyper is given to read, however the bytes come.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

const LIMIT: Duration = Duration::from_secs(30);
const IN_PLACE_OF_A_REFUSED: &str = "GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

fn guarded() -> (DuplexStream, Guarded<DuplexStream>, Arc<Refused>) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let refused = Arc::new(Refused::default());
    (client, Guarded::new(server, Arc::clone(&refused), LIMIT), refused)
}

/// What is read of these pieces, each sent when the one before was read, and how reading ended.
async fn read(pieces: &[&[u8]]) -> (String, Option<io::ErrorKind>, Arc<Refused>) {
    let (mut client, mut guarded, refused) = guarded();
    for piece in pieces {
        client.write_all(piece).await.unwrap();
    }
    client.shutdown().await.unwrap();
    let mut read = Vec::new();
    let ended = guarded.read_to_end(&mut read).await.err().map(|error| error.kind());
    (String::from_utf8(read).unwrap(), ended, refused)
}

/// Which requests of a connection are refused, of so many.
fn refusals(refused: &Refused, requests: usize) -> Vec<Option<&'static str>> {
    (0..requests).map(|_| refused.next().map(|why| why.code().as_str())).collect()
}

#[tokio::test]
async fn sound_requests_come_through_as_they_are_wherever_they_are_cut() {
    let sent = "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello\
                POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                GET /c HTTP/1.1\r\nhost: x\r\n\r\n";
    for at in 0..=sent.len() {
        let (first, second) = sent.as_bytes().split_at(at);
        let (came, ended, refused) = read(&[first, second]).await;
        assert_eq!((&*came, ended), (sent, None), "cut at {at}");
        assert_eq!(refusals(&refused, 3), [None; 3], "cut at {at}");
    }
}

#[tokio::test]
async fn the_request_that_is_refused_is_the_one_at_fault_and_nothing_after_it_is_read() {
    // The empty line is none of a request's (RFC 9112, section 2.2).
    let sound = "GET /a HTTP/1.1\r\nhost: x\r\n\r\n\r\n";
    let smuggled =
        "POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhelloGET /admin HTTP/1.1\r\n\r\n";
    let sent = format!("{sound}{smuggled}");
    for at in 0..=sent.len() {
        let (first, second) = sent.as_bytes().split_at(at);
        let (came, ended, refused) = read(&[first, second]).await;
        assert_eq!((came, ended), (format!("{sound}{IN_PLACE_OF_A_REFUSED}"), None), "cut at {at}");
        assert_eq!(refusals(&refused, 3), [None, Some("invalid_request"), None], "cut at {at}");
    }
}

#[tokio::test]
async fn a_head_without_an_end_is_refused_at_its_limit() {
    let (came, ended, refused) = read(&[b"GET / HTTP/1.1\r\nx: ", &vec![b'a'; MAX_HEAD], b"\r\n\r\n"]).await;
    assert_eq!((&*came, ended), (IN_PLACE_OF_A_REFUSED, None));
    assert_eq!(refusals(&refused, 1), [Some("request_head_too_large")]);
}

#[tokio::test]
async fn a_hundred_headers_are_read_and_one_more_is_refused_with_a_reason() {
    let head = |headers: usize| format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(headers - 1));
    let (came, _, refused) = read(&[head(100).as_bytes()]).await;
    assert_eq!((came, refusals(&refused, 1)), (head(100), vec![None]));
    let (came, _, refused) = read(&[head(101).as_bytes()]).await;
    assert_eq!((&*came, refusals(&refused, 1)), (IN_PLACE_OF_A_REFUSED, vec![Some("request_head_too_large")]));
}

#[tokio::test]
async fn a_body_whose_frame_is_broken_fails_to_be_read() {
    let head = "POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let (came, ended, refused) = read(&[head.as_bytes(), b"3\r\nabcd\r\n"]).await;
    assert_eq!((came, ended), (format!("{head}3\r\n"), Some(io::ErrorKind::InvalidData)));
    assert_eq!(refusals(&refused, 1), [None], "its head was sound");
}

#[tokio::test(start_paused = true)]
async fn the_first_head_has_a_limit_and_what_follows_is_left_to_hyper() {
    let (mut client, mut waiting, _) = guarded();
    client.write_all(b"GET / HT").await.unwrap();
    let began = tokio::time::Instant::now();
    let error = waiting.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, LIMIT.as_secs()));

    let (mut client, mut waiting, _) = guarded();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 27];
    waiting.read_exact(&mut head).await.unwrap();
    let more = tokio::time::timeout(2 * LIMIT, waiting.read_exact(&mut head)).await;
    assert!(more.is_err(), "a connection that is kept may be silent");
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_an_answer_is_not_waited_for_and_who_takes_a_little_is() {
    let (mut client, server) = tokio::io::duplex(8);
    let mut guarded = Guarded::new(server, Arc::default(), LIMIT);
    guarded.write_all(b"12345678").await.unwrap();
    for _ in 0..3 {
        let waited = tokio::time::timeout(UNREAD_TIMEOUT.mul_f64(0.99), guarded.write_all(b"9")).await;
        assert!(waited.is_err(), "it is still waited for");
        client.read_exact(&mut [0]).await.unwrap();
        guarded.write_all(b"9").await.unwrap();
    }
    let error = guarded.write_all(b"9").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
