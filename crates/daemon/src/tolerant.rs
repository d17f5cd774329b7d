//! A connection on which HTTP/2 clients may call the server what they like, and which says when one of their streams is refused.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use h2_authority::{Mender, Refusal, Refusals};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::rarely::Rarely;

/// A connection, with `:authority` mended as it is read.
#[derive(Debug)]
pub struct Tolerant<T> {
    inner: T,
    peer: SocketAddr,
    mender: Mender,
    refusals: Refusals,
    /// Bytes that were read and may not go on yet, but for the first `ready` of them.
    held: Vec<u8>,
    ready: usize,
    /// How many must be held for more to go on.
    wanted: usize,
}

/// How much is read at once while something is held.
const PIECE: usize = 4096;

impl<T> Tolerant<T> {
    pub fn new(inner: T, peer: SocketAddr) -> Self {
        let (mender, refusals) = (Mender::default(), Refusals::default());
        Self { inner, peer, mender, refusals, held: Vec::new(), ready: 0, wanted: 0 }
    }

    fn sent(&mut self, bytes: &[u8]) {
        // One of each: a scanner's connections must not hide a gateway's streams.
        static STREAMS: Rarely = Rarely::new();
        static CONNECTIONS: Rarely = Rarely::new();
        let (what, rarely) = match self.refusals.look(bytes) {
            None => return,
            Some(Refusal::Stream) => {
                ("a stream was reset (PROTOCOL_ERROR): its headers are not valid HTTP/2".to_owned(), &STREAMS)
            }
            Some(Refusal::Connection(code)) => (format!("a connection was closed (HTTP/2 error {code})"), &CONNECTIONS),
        };
        if rarely.is_due(Instant::now()) {
            tracing::warn!(peer = %self.peer, "{what}; --log h2=debug shows why; logged at most once a minute");
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tolerant<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ready > 0 {
                let part = this.ready.min(buffer.remaining());
                buffer.put_slice(&this.held[..part]);
                this.held.drain(..part);
                this.ready -= part;
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let before = buffer.filled().len();
                ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
                let read = &mut buffer.filled_mut()[before..];
                if read.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let passed = this.mender.pass(read);
                this.held.extend_from_slice(&read[passed.bytes..]);
                this.wanted = passed.wanted;
                buffer.set_filled(before + passed.bytes);
                if passed.bytes > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut piece = [0; PIECE];
                let mut piece = ReadBuf::new(&mut piece);
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
                this.held.extend_from_slice(piece.filled());
                if piece.filled().is_empty() {
                    // The client is gone in the middle of a frame: the server is to see as much of it.
                    this.ready = this.held.len();
                } else if this.held.len() >= this.wanted {
                    let passed = this.mender.pass(&mut this.held);
                    (this.ready, this.wanted) = (passed.bytes, passed.wanted);
                }
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tolerant<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes))?;
        this.sent(&bytes[..sent]);
        Poll::Ready(Ok(sent))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, slices))?;
        let mut left = sent;
        for slice in slices {
            let part = left.min(slice.len());
            this.sent(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<T> Connected for Tolerant<T> {
    /// Whose it is; each of its requests carries this among its extensions.
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.peer
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A connection's preface, a block in two frames with this value on both sides of the cut, and the head of a frame that never comes.
    fn bytes(value: [u8; 5]) -> Vec<u8> {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let headers = [b"\0\0\x05\x01\0\0\0\0\x01\x83\x41\x05", &value[..2]].concat();
        let continuation = [b"\0\0\x03\x09\x04\0\0\0\x01", &value[2..]].concat();
        [&preface[..], &headers, &continuation, b"\0\0\x08\0\0"].concat()
    }

    #[tokio::test]
    async fn what_is_read_is_mended_however_it_arrives_and_the_end_is_the_end() {
        let (sent, expected) = (bytes(*b"a||bc"), bytes(*b"xxxxx"));
        for piece in 1..sent.len() {
            let (mut client, server) = tokio::io::duplex(piece);
            let mut server = Tolerant::new(server, ([127, 0, 0, 1], 1).into());
            let sent = sent.clone();
            let sending = tokio::spawn(async move { client.write_all(&sent).await });
            let mut read = Vec::new();
            server.read_to_end(&mut read).await.unwrap();
            sending.await.unwrap().unwrap();
            assert_eq!(read, expected, "in pieces of {piece}");
        }
    }
}
