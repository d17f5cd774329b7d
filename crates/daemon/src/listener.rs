//! Connections to a gRPC port: TLS, plain text, or both on one port, since the first byte of a connection tells.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::Stream;
use rustls::{PeerMisbehaved, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connections::{GREETING_TIMEOUT, Held, Port};
use crate::rarely::Rarely;
use crate::tolerant::Tolerant;

/// The first byte of a TLS record that opens a handshake (RFC 8446, section 5.1). HTTP/2 begins with `P`.
const HANDSHAKE: u8 = 22;

/// The beginning of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: usize = 24;

/// A connection in either form.
#[derive(Debug)]
pub enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a port speaks.
#[derive(Debug, Clone)]
pub enum Speaks {
    Tls(Arc<ServerConfig>),
    Plain,
    /// Some gateways speak only the one, some only the other.
    Both(Arc<ServerConfig>),
}

/// Connections that have said what they are.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<io::Result<Tolerant<Held<Connection>>>>);

impl Incoming {
    /// Accepts on a port until this is dropped.
    pub fn new(mut port: Port, speaks: Speaks) -> Self {
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let (stream, peer, place) = tokio::select! {
                    accepted = port.accept() => accepted,
                    () = sender.closed() => return,
                };
                let (sender, speaks) = (sender.clone(), speaks.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(GREETING_TIMEOUT, greet(stream, speaks)).await {
                        Ok(Ok(connection)) => {
                            let held = Held::new(connection, place, PREFACE);
                            drop(sender.send(Ok(Tolerant::new(held, peer))).await);
                        }
                        Ok(Err(error)) => note_no_greeting(&error, peer),
                        Err(_) => tracing::debug!("connection sent nothing"),
                    }
                });
            }
        });
        Self(receiver)
    }
}

async fn greet(stream: TcpStream, speaks: Speaks) -> io::Result<Connection> {
    let tls = match speaks {
        Speaks::Plain => None,
        Speaks::Tls(tls) => Some(tls),
        Speaks::Both(tls) => {
            let mut first = [0];
            if stream.peek(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (first[0] == HANDSHAKE).then_some(tls)
        }
    };
    Ok(match tls {
        Some(tls) => Connection::Tls(Box::new(TlsAcceptor::from(tls).accept(stream).await?)),
        None => Connection::Plain(stream),
    })
}

/// Strangers may send anything, so most of it is for debugging alone. What a gateway's configuration can mend is told to everyone.
fn note_no_greeting(error: &io::Error, peer: SocketAddr) {
    static SERVER_NAMES: Rarely = Rarely::new();
    if !is_invalid_server_name(error) {
        tracing::debug!(%peer, %error, "connection dropped during its handshake");
    } else if SERVER_NAMES.is_due(Instant::now()) {
        tracing::warn!(
            %peer,
            "a TLS handshake asked for a server name that is not a valid DNS name; Istio does this where its DestinationRule sets no sni: set \
             trafficPolicy.tls.sni of that DestinationRule to the picker's Service, such as picker.serving.svc.cluster.local \
             (docs/gateways.md)"
        );
    }
}

/// Whether rustls refused the server name of a greeting (RFC 6066, section 3, allows DNS names alone).
fn is_invalid_server_name(error: &io::Error) -> bool {
    let refused = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let wrong_name = PeerMisbehaved::ServerNameMustContainOneHostName;
    refused.is_some_and(|refused| *refused == rustls::Error::PeerMisbehaved(wrong_name))
}

impl Stream for Incoming {
    type Item = io::Result<Tolerant<Held<Connection>>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
