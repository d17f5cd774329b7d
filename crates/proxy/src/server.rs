//! The listener: HTTP/1.1 and HTTP/2 in clear text, until told to stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use daemon::{Held, Port, says_something};
use director::MAX_HEAD;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Proxy;
use crate::guard::{Guarded, Refused};

/// How long a client may take over the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What a connection of HTTP/1.1 is read into, at most: a head and as much again.
pub(crate) const READ_BUFFER: usize = 2 * MAX_HEAD;

/// How long the last answers may take to go out, once their requests are done.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves until `stop` is cancelled; then takes no new connection, and returns when the requests under way are done.
pub async fn serve(mut port: Port, proxy: Proxy, stop: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(READ_BUFFER);
    let http2_head = u32::try_from(MAX_HEAD).unwrap_or(u32::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .max_header_list_size(http2_head);
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, peer, place) = tokio::select! {
            accepted = port.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (proxy, refused) = (proxy.clone(), Arc::new(Refused::default()));
        let refusals = Arc::clone(&refused);
        let service = service_fn(move |request| {
            let (proxy, refusal) = (proxy.clone(), refusals.next());
            async move {
                Ok::<_, Infallible>(match refusal {
                    Some(refusal) => proxy.refuse(refusal),
                    None => proxy.handle(request, peer.ip()).await,
                })
            }
        });
        let (builder, watcher, stop) = (builder.clone(), graceful.watcher(), stop.clone());
        tokio::spawn(async move {
            // A connection that says nothing is not waited for: hyper's own patience begins with the first byte.
            let said = tokio::select! {
                said = says_something(&stream, HEAD_TIMEOUT) => said,
                () = stop.cancelled() => false,
            };
            if !said {
                return;
            }
            // A WebSocket takes the stream along, and its place with it.
            let stream = TokioIo::new(Guarded::new(Held::greeted(stream, place), refused, HEAD_TIMEOUT));
            let connection = watcher.watch(builder.serve_connection_with_upgrades(stream, service).into_owned());
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(port);
    // Connections end with the requests on them; those of strangers, who have begun one and do not go on, are not waited for.
    tokio::select! {
        () = graceful.shutdown() => {}
        () = until_idle(&proxy.under_way) => {}
    }
}

/// Waits, once no connection is taken any more, until the requests under way are done and their last answers out.
pub async fn until_idle(under_way: &TaskTracker) {
    under_way.close();
    loop {
        under_way.wait().await;
        tokio::time::sleep(LAST_WORDS).await;
        // One whose head was on its way has begun meanwhile.
        if under_way.is_empty() {
            return;
        }
    }
}
