//! Looks at each head of HTTP/1 before hyper does, and refuses what other readers would read otherwise (RFC 9112, sections 2.2, 5 and
//! 11.2): two lengths, a bare line feed, a folded header, a control character. hyper forgives some of these, and a proxy in front of us
//! may forgive others: between the two a request can be smuggled.
//!
//! In the place of a head that is refused hyper is given a sound one, and the service answers it with the refusal ([`Refused`]). So the
//! refusal comes after the answers that are due before it, and the connection ends as hyper ends connections.

mod framing;

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use director::{MAX_HEAD, Rejection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use framing::{Fault, Framing, Step};

/// As many as hyper reads; it would refuse one more without a word.
pub(crate) const MAX_HEADERS: usize = 100;

/// How long a client may take nothing of an answer that is ready for it.
const UNREAD_TIMEOUT: Duration = Duration::from_mins(5);

/// A connection that hyper is given only sound heads of.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    stream: S,
    framing: Framing,
    /// Looked at and sound, to be read.
    sound: BytesMut,
    /// The beginning of a head that is not complete.
    held: BytesMut,
    heads: u64,
    refused: Arc<Refused>,
    end: End,
    /// When the first head must have come. For those after it hyper's own patience holds; for the first it would wait for ever, since it
    /// has not been told yet which version of HTTP this is.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Since a write was not taken: until when one must be.
    unread: Option<Pin<Box<Sleep>>>,
}

/// Which request of a connection is refused, and why; shared with the service that answers them.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    refusal: OnceLock<(u64, Rejection)>,
    seen: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// More may come.
    Open,
    /// A head was refused: what comes after it is read and thrown away, so that the client has time to read why.
    Refused,
    /// The frame of a body was broken: reading fails, and the service says so.
    Broken,
}

// === impl Refused ===

impl Refused {
    /// Counts a request, and answers with why it is refused, if it is.
    pub(crate) fn next(&self) -> Option<Rejection> {
        let number = self.seen.fetch_add(1, Ordering::Relaxed);
        self.refusal.get().filter(|(refused, _)| *refused == number).map(|(_, why)| why.clone())
    }
}

// === impl Guarded ===

impl<S> Guarded<S> {
    pub(crate) fn new(stream: S, refused: Arc<Refused>, head_timeout: Duration) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            sound: BytesMut::new(),
            held: BytesMut::new(),
            heads: 0,
            refused,
            end: End::Open,
            deadline: Some(Box::pin(tokio::time::sleep(head_timeout))),
            unread: None,
        }
    }

    /// What came of a write: one that is not taken for long is an error, or a client that reads nothing would hold a model server's answer
    /// for ever.
    fn taken(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.unread = None;
            return written;
        }
        let until = self.unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(UNREAD_TIMEOUT)));
        match until.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Takes what is held as far as it is sound.
    fn look(&mut self) {
        while !self.held.is_empty() && self.end == End::Open {
            let in_head = self.framing.in_head();
            match self.framing.step(&self.held) {
                Ok(Step::More) => return,
                Ok(Step::Sound(length)) => {
                    // An empty line before a head is none.
                    let begins_request = in_head && length > 2;
                    self.heads += u64::from(begins_request);
                    if begins_request {
                        self.deadline = None;
                    }
                    self.sound.unsplit(self.held.split_to(length));
                }
                Err(_) if !in_head => self.end = End::Broken,
                Err(fault) => self.refuse(fault),
            }
        }
    }

    fn refuse(&mut self, fault: Fault) {
        let rejection = match fault {
            Fault::TooLarge => Rejection::HeadTooLarge { limit: MAX_HEAD },
            Fault::TooMany => Rejection::TooManyHeaders { limit: MAX_HEADERS },
            Fault::Ambiguous(what) => Rejection::AmbiguousHead(what),
        };
        // The first refusal is the last thing that happens here.
        let _ = self.refused.refusal.set((self.heads, rejection));
        self.sound.extend_from_slice(b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n");
        self.held.clear();
        (self.end, self.deadline) = (End::Refused, None);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.sound.is_empty() {
                let length = this.sound.len().min(buffer.remaining());
                buffer.put_slice(&this.sound[..length]);
                this.sound.advance(length);
                return Poll::Ready(Ok(()));
            }
            if this.end == End::Broken {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if this.framing.is_raw() {
                return Pin::new(&mut this.stream).poll_read(cx, buffer);
            }
            if let Some(deadline) = &mut this.deadline
                && deadline.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let came = &buffer.filled()[before..];
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if this.end == End::Refused {
                buffer.set_filled(before);
                continue;
            }
            // Bytes of a body stay where they were read; nearly all are.
            if this.held.is_empty() && this.framing.is_all_body(came.len()) {
                return Poll::Ready(Ok(()));
            }
            this.held.extend_from_slice(came);
            buffer.set_filled(before);
            this.look();
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.taken(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.taken(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
