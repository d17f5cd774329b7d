//! Looks at each head of HTTP/1 before hyper does, and refuses what other readers would read otherwise (RFC 9112, sections 2.2, 5 and
//! 11.2): two lengths, a bare line feed, a folded header, a control character. hyper forgives some of these, and a proxy in front of us
//! may forgive others: between the two a request can be smuggled.

mod framing;

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use director::{Dialect, Front, Rejection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use framing::{Fault, Framing, Step};

/// Longest head that is taken; nginx and Envoy take 60 KiB or less.
pub(crate) const MAX_HEAD: usize = 64 << 10;

/// A connection that hyper is given only sound heads of.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    stream: S,
    framing: Framing,
    /// Looked at and sound, to be read.
    sound: BytesMut,
    /// The beginning of a head that is not complete.
    held: BytesMut,
    refusal: Refusal,
    /// Since a head began to come.
    deadline: Option<Pin<Box<Sleep>>>,
    head_timeout: Duration,
    front: Front,
}

#[derive(Debug)]
enum Refusal {
    None,
    /// To be written once everything before it is.
    Pending(Bytes),
    Written,
}

impl<S> Guarded<S> {
    pub(crate) fn new(stream: S, front: Front, head_timeout: Duration) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            sound: BytesMut::new(),
            held: BytesMut::new(),
            refusal: Refusal::None,
            deadline: None,
            head_timeout,
            front,
        }
    }

    /// Takes what is held as far as it is sound.
    fn look(&mut self) {
        while !self.held.is_empty() && matches!(self.refusal, Refusal::None) {
            match self.framing.step(&self.held) {
                Ok(Step::More) => return,
                Ok(Step::Sound(length)) => {
                    self.sound.unsplit(self.held.split_to(length));
                    self.deadline = None;
                }
                Err(fault) => self.refuse(fault),
            }
        }
    }

    fn refuse(&mut self, fault: Fault) {
        let rejection = match fault {
            Fault::TooLarge => Rejection::HeadTooLarge { limit: MAX_HEAD },
            Fault::Ambiguous(what) => Rejection::AmbiguousHead(what),
        };
        let reply = self.front.reject(rejection).reply(Dialect::OpenAi);
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            reply.status,
            reply.body.len()
        );
        self.refusal = Refusal::Pending([head.as_bytes(), &reply.body].concat().into());
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
            // To hyper the client has said all; so it closes, and the refusal is written then.
            if !matches!(this.refusal, Refusal::None) {
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            if this.framing.is_raw() {
                return Pin::new(&mut this.stream).poll_read(cx, buffer);
            }
            if let Some(deadline) = &mut this.deadline
                && deadline.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let came = &buffer.filled()[before..];
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            // Bytes of a body stay where they were read; nearly all are.
            if this.held.is_empty()
                && let Some(length) = this.framing.whole_body(came.len())
            {
                debug_assert_eq!(length, came.len(), "all of it is body");
                return Poll::Ready(Ok(()));
            }
            this.held.extend_from_slice(came);
            buffer.set_filled(before);
            this.look();
            if !this.held.is_empty() && this.framing.in_head() {
                let timeout = this.head_timeout;
                this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while let Refusal::Pending(rest) = &mut this.refusal {
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, rest))?;
            rest.advance(written);
            if rest.is_empty() || written == 0 {
                this.refusal = Refusal::Written;
            }
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
