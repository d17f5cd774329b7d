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
    /// Nothing can be written any more; what is, is thrown away, until the server's answer was read.
    deaf: bool,
    /// After the end of what the server says: whether a reset follows.
    ending: Option<Pin<Box<Sleep>>>,
}

/// How a connection goes; shared with whoever wants to know why a request failed.
#[derive(Debug, Default)]
pub(crate) struct Course(Mutex<Going>);

#[derive(Debug, Default)]
struct Going {
    /// Requests that began to go out.
    requests: u64,
    /// Bytes came after the last of them began.
    answered: bool,
    written_at: Option<Instant>,
    write_failed: bool,
    reset: bool,
}

/// What became of the last request of a connection that ended without an answer.
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
    pub(crate) fn fate(&self) -> Fate {
        self.with(|going| match going {
            Going { requests: 0, .. } => Fate::Unbegun,
            Going { requests: 2.., answered: false, .. } if going.write_failed || going.reset => Fate::Unseen,
            Going { requests: 2.., .. } => Fate::Stale,
            Going { write_failed: true, .. } => Fate::Cut,
            Going { .. } => Fate::Sent,
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut Going) -> T) -> T {
        // Each look leaves it whole.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wrote(&self) {
        self.with(|going| {
            if going.requests == 0 || going.answered {
                going.requests += 1;
                going.answered = false;
            }
            going.written_at = Some(Instant::now());
        });
    }

    /// Whether nothing of an answer has come yet.
    fn waits(&self) -> bool {
        self.with(|going| going.requests > 0 && !going.answered)
    }

    fn was_reset(&self) {
        self.with(|going| {
            going.reset = going.written_at.is_some_and(|at| at.elapsed() < RESET_WITHIN);
        });
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, course: Arc::default(), deaf: false, ending: None }
    }

    /// What was written; or, where nothing can be any more, all of it, as far as the writer knows.
    fn or_thrown_away(&mut self, written: io::Result<usize>, all: usize) -> io::Result<usize> {
        match written {
            Err(error) if is_reset(&error) => {
                self.deaf = true;
                self.course.with(|going| going.write_failed = true);
                Ok(all)
            }
            written => written,
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
            Ok(()) if buffer.filled().len() > before => self.course.with(|going| going.answered = true),
            Ok(()) if self.course.waits() => ready!(self.poll_end(cx)),
            Err(error) if is_reset(error) => self.course.was_reset(),
            Ok(()) | Err(_) => {}
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.course.wrote();
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.or_thrown_away(written, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = parts.iter().map(|part| part.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(all));
        }
        self.course.wrote();
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts));
        Poll::Ready(self.or_thrown_away(written, all))
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
