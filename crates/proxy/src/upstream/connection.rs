//! A connection to a model server that remembers how it went, and that still reads when nothing can be written any more: a server that
//! answers 413 and closes, while the body is on its way, is heard.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::Connected;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// The connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    course: Arc<Course>,
    /// What happens to what is written once the server hears nothing any more.
    unheard: Unheard,
    deaf: bool,
    /// After the end of what the server says: whether a reset follows.
    ending: Option<Pin<Box<Sleep>>>,
}

/// What happens to what is written to a server that hears nothing any more, and whose answer is still to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unheard {
    /// It waits. A connection of HTTP/1.1 that has not sent all of a request takes no other one.
    Waits,
    /// It is thrown away. HTTP/2 reads nothing as long as it cannot write.
    Dropped,
}

/// How a connection goes; shared with whoever wants to know why a request failed.
#[derive(Debug)]
pub(crate) struct Course {
    made_at: Instant,
    going: Mutex<Going>,
}

/// Times, since a connection does not see where a request begins: the rest of one that was answered early, or that a 103 came before, looks
/// like the next.
#[derive(Debug, Default)]
struct Going {
    written_at: Option<Instant>,
    read_at: Option<Instant>,
    write_failed: bool,
    reset: bool,
}

/// What became of a request whose connection ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It did not begin to go out.
    Unbegun,
    /// The connection was kept from an earlier one, and its server closed its end before it read all of this one.
    Unseen,
    /// The connection was kept from an earlier one, and closed: whether with this one in mind nobody can tell.
    Stale,
    /// Not all of it went out.
    Cut,
    /// It went out.
    Sent,
}

/// A reset that comes later than this after what was written last is the end of something that had begun.
const RESET_WITHIN: Duration = Duration::from_secs(1);

/// How long after the end of a connection its reset is waited for: a round trip in a data centre, and to spare. A server's kernel answers
/// with a reset to what comes after its program has closed, or was not read when it did.
const RESET_PATIENCE: Duration = Duration::from_millis(50);

// === impl Course ===

impl Course {
    fn new() -> Self {
        Self { made_at: Instant::now(), going: Mutex::default() }
    }

    /// Of the request that was handed over at `begun`.
    pub(crate) fn fate(&self, begun: Instant) -> Fate {
        // One that was made for another request since, and given to this one, passes for new: less is sent again.
        let kept = self.made_at < begun;
        self.with(|going| {
            let wrote = going.written_at >= Some(begun);
            let answered = going.read_at >= Some(begun);
            let failed = going.write_failed || going.reset;
            match (kept, wrote) {
                (false, false) => Fate::Unbegun,
                (false, true) if going.write_failed => Fate::Cut,
                (false, true) => Fate::Sent,
                (true, false) => Fate::Unseen,
                (true, true) if failed && !answered => Fate::Unseen,
                (true, true) => Fate::Stale,
            }
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut Going) -> T) -> T {
        // Each look leaves it whole.
        look(&mut self.going.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wrote(&self) {
        self.with(|going| going.written_at = Some(Instant::now()));
    }

    fn read(&self) {
        self.with(|going| going.read_at = Some(Instant::now()));
    }

    /// Whether something was written to which nothing has come yet.
    fn waits(&self) -> bool {
        self.with(|going| going.written_at > going.read_at)
    }

    fn was_reset(&self) {
        self.with(|going| {
            going.reset = going.written_at.is_some_and(|at| at.elapsed() < RESET_WITHIN);
        });
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) fn new(stream: TcpStream, unheard: Unheard) -> Self {
        Self { stream, course: Arc::new(Course::new()), unheard, deaf: false, ending: None }
    }

    /// What was written; or, where nothing can be any more, what its writer is told of `all` of it.
    fn or_unheard(&mut self, written: io::Result<usize>, all: usize) -> Poll<io::Result<usize>> {
        match written {
            Err(error) if is_reset(&error) => {
                self.deaf = true;
                self.course.with(|going| going.write_failed = true);
                self.unheard(all)
            }
            written => Poll::Ready(written),
        }
    }

    /// Nobody is woken to write again: what is read ends the connection.
    fn unheard(&self, all: usize) -> Poll<io::Result<usize>> {
        match self.unheard {
            Unheard::Waits => Poll::Pending,
            Unheard::Dropped => Poll::Ready(Ok(all)),
        }
    }

    /// The server has closed its end before it said a word: looks whether it had read what it was sent.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.ending.get_or_insert_with(|| Box::pin(tokio::time::sleep(RESET_PATIENCE)));
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if let Ok(Some(error)) = self.stream.take_error()
            && is_reset(&error)
        {
            self.course.was_reset();
        }
        Poll::Ready(())
    }
}

fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted | NotConnected)
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_some() {
            ready!(self.poll_end(cx));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        match &read {
            Ok(()) if buffer.filled().len() > before => self.course.read(),
            Ok(()) if self.unheard == Unheard::Waits && self.course.waits() => ready!(self.poll_end(cx)),
            Err(error) if is_reset(error) => self.course.was_reset(),
            Ok(()) | Err(_) => {}
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return self.unheard(bytes.len());
        }
        self.course.wrote();
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.or_unheard(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = parts.iter().map(|part| part.len()).sum();
        if self.deaf {
            return self.unheard(all);
        }
        self.course.wrote();
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts));
        self.or_unheard(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl hyper_util::client::legacy::connect::Connection for Connection {
    fn connected(&self) -> Connected {
        Connected::new().extra(Arc::clone(&self.course))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn connected(unheard: Unheard) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Connection::new(stream, unheard), listener.accept().await.unwrap().0)
    }

    /// Closes with something unread, so that the other end is reset, and waits until it is.
    async fn reset(connection: &mut Connection, server: TcpStream) {
        connection.write_all(b"unread").await.unwrap();
        server.readable().await.unwrap();
        drop(server);
        connection.stream.ready(tokio::io::Interest::ERROR).await.unwrap();
    }

    #[tokio::test]
    async fn the_rest_of_a_request_after_an_interim_answer_is_not_another_one() {
        let begun = Instant::now();
        let (mut connection, mut server) = connected(Unheard::Waits).await;
        assert_eq!(connection.course.fate(begun), Fate::Unbegun);
        connection.write_all(b"half of it").await.unwrap();
        server.write_all(b"interim").await.unwrap();
        connection.read_exact(&mut [0; 7]).await.unwrap();
        server.read_exact(&mut [0; 10]).await.unwrap();
        reset(&mut connection, server).await;
        assert!(connection.read_u8().await.is_err());
        assert_eq!(connection.course.fate(begun), Fate::Sent, "the server may have begun with it");
    }

    #[tokio::test]
    async fn what_goes_out_on_a_kept_connection_that_is_reset_was_not_seen() {
        let (mut connection, mut server) = connected(Unheard::Waits).await;
        connection.write_all(b"one").await.unwrap();
        server.read_exact(&mut [0; 3]).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        connection.read_exact(&mut [0; 6]).await.unwrap();
        let begun = Instant::now();
        assert_eq!(connection.course.fate(begun), Fate::Unseen, "nothing of it went out");
        reset(&mut connection, server).await;
        assert!(connection.read_u8().await.is_err());
        assert_eq!(connection.course.fate(begun), Fate::Unseen);
    }

    #[tokio::test]
    async fn who_hears_nothing_any_more_gets_no_other_request() {
        for (unheard, goes_on) in [(Unheard::Waits, false), (Unheard::Dropped, true)] {
            let begun = Instant::now();
            let (mut connection, mut server) = connected(unheard).await;
            server.write_all(b"early").await.unwrap();
            reset(&mut connection, server).await;
            // The first write after a reset is told of it.
            let mut write = Box::pin(connection.write(b"more"));
            let written = std::future::poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await;
            drop(write);
            assert_eq!(written.is_ready(), goes_on);
            connection.read_exact(&mut [0; 5]).await.unwrap();
            assert_eq!(connection.course.fate(begun), Fate::Cut);
        }
    }
}
