//! The connections of a port: so many and no more, and none that never says anything.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use routing::client_of;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;

use crate::rarely::Rarely;
use crate::workers::Counted;

/// How many connections a port takes, and how many it turned away. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionLimit {
    places: Arc<Semaphore>,
    limit: usize,
    /// How many of them one client may have; none is for a port where one address stands for many, as a gateway's does.
    share: Option<Share>,
    refused: Arc<AtomicU64>,
}

/// The connections of each client that has any.
#[derive(Debug, Clone)]
struct Share {
    limit: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place among those that a port takes; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    of_client: Option<(IpAddr, Share)>,
    /// Among those of the thread that serves it.
    of_worker: Option<Counted>,
}

/// Where connections come from.
#[derive(Debug)]
pub struct Port(Source);

#[derive(Debug)]
enum Source {
    Listener(Listener),
    /// A worker's share of them.
    Share(mpsc::UnboundedReceiver<Given>),
}

/// A port that takes so many connections.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    limit: ConnectionLimit,
    crowded: Rarely,
    failing: Rarely,
}

/// A connection on its way to the thread that is to serve it.
#[derive(Debug)]
pub(crate) struct Given {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    place: Place,
}

/// How long to wait where the system has no file descriptors left: without a pause the same error would come at once, again and again.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a connection may take to say something.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

// === impl ConnectionLimit ===

impl ConnectionLimit {
    /// For clients and gateways. A gateway has one for each of its threads; a client in front of none has one for each request under way.
    pub const DEFAULT: usize = 16_384;

    pub fn new(limit: usize) -> Self {
        let places = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Self { places, limit, share: None, refused: Arc::default() }
    }

    /// For whoever looks after the process: probes, scrapers, people. No client keeps the others out.
    pub fn for_operators() -> Self {
        Self { share: Some(Share { limit: 64, taken: Arc::default() }), ..Self::new(1024) }
    }

    /// A place for a connection from this address, if there is one.
    fn place(&self, peer: IpAddr) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let of_client = match &self.share {
            Some(share) => {
                let client = client_of(peer);
                Some((client, share.take(client)?))
            }
            None => None,
        };
        Some(Place { _permit: permit, of_client, of_worker: None })
    }

    pub fn open(&self) -> usize {
        self.limit.saturating_sub(self.places.available_permits())
    }

    /// How many were turned away.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Default for ConnectionLimit {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

// === impl Share ===

impl Share {
    fn take(&self, client: IpAddr) -> Option<Self> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = taken.entry(client).or_default();
        (*of_client < self.limit).then(|| *of_client += 1)?;
        Some(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((client, share)) = &self.of_client else { return };
        let mut taken = share.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                taken.remove(client);
            }
        }
    }
}

// === impl Port ===

impl Port {
    pub fn new(socket: TcpListener, limit: ConnectionLimit) -> Self {
        Self(Source::Listener(Listener { socket, limit, crowded: Rarely::new(), failing: Rarely::new() }))
    }

    pub(crate) fn share(given: mpsc::UnboundedReceiver<Given>) -> Self {
        Self(Source::Share(given))
    }

    /// The next connection. Those that find no place are closed, so that none waits for what will not come.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr, Place) {
        match &mut self.0 {
            Source::Listener(listener) => listener.accept().await,
            Source::Share(given) => loop {
                // Once no more are given, whoever serves them is told to stop.
                let Some(Given { stream, peer, place }) = given.recv().await else { std::future::pending().await };
                match TcpStream::from_std(stream) {
                    Ok(stream) => return (stream, peer, place),
                    Err(error) => {
                        static SAID: Rarely = Rarely::new();
                        if SAID.is_due(Instant::now()) {
                            tracing::warn!(%error, "a connection cannot be watched; logged at most once a minute");
                        }
                    }
                }
            },
        }
    }
}

impl Listener {
    async fn accept(&self) -> (TcpStream, SocketAddr, Place) {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => match self.limit.place(peer.ip()) {
                    Some(place) => {
                        // Without it small answers wait for others to fill a packet; a socket that refuses is gone already.
                        let _ = stream.set_nodelay(true);
                        return (stream, peer, place);
                    }
                    None => {
                        self.limit.refused.fetch_add(1, Ordering::Relaxed);
                        if self.crowded.is_due(Instant::now()) {
                            let limit = self.limit.limit;
                            tracing::warn!(%peer, limit, "connections are refused: the port has as many as it takes, of all or of this client; logged at most once a minute");
                        }
                    }
                },
                // Out of file descriptors, or the peer was gone again: neither ends the port.
                Err(error) => {
                    if self.failing.is_due(Instant::now()) {
                        tracing::warn!(%error, "cannot accept connections; logged at most once a minute");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Given {
    /// To a thread that has as many connections as are `counted`.
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr, mut place: Place, counted: Counted) -> io::Result<Self> {
        place.of_worker = Some(counted);
        Ok(Self { stream: stream.into_std()?, peer, place })
    }
}

/// Whether a connection says anything in time.
pub async fn says_something(stream: &TcpStream, within: Duration) -> bool {
    matches!(tokio::time::timeout(within, stream.peek(&mut [0])).await, Ok(Ok(1..)))
}

/// A connection of a port, with its place, that may have to say so many bytes in time.
#[derive(Debug)]
pub struct Held<S> {
    stream: S,
    /// How many bytes of its greeting are to come, and until when.
    greeting: Option<(usize, Pin<Box<Sleep>>)>,
    _place: Place,
}

impl<S> Held<S> {
    pub fn new(stream: S, place: Place, greeting: usize) -> Self {
        let until = Box::pin(tokio::time::sleep(GREETING_TIMEOUT));
        Self { stream, greeting: Some((greeting, until)), _place: place }
    }

    /// One of which nothing more is asked.
    pub fn greeted(stream: S, place: Place) -> Self {
        Self { stream, greeting: None, _place: place }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let came = buffer.filled().len() - before;
        match &mut this.greeting {
            None => {}
            Some((left, _)) if came >= *left => this.greeting = None,
            Some((left, until)) => {
                *left -= came;
                if read.is_pending() && until.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Lets the process open as many files as the system allows it: the usual limit of 1,024 is less than a busy port has connections.
pub fn raise_file_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn port(limit: usize) -> (Port, SocketAddr, ConnectionLimit) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, limit) = (listener.local_addr().unwrap(), ConnectionLimit::new(limit));
        (Port::new(listener, limit.clone()), address, limit)
    }

    #[tokio::test]
    async fn one_too_many_is_closed_and_a_place_that_is_free_is_taken() {
        let (mut port, address, limit) = port(2).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let (first, second) = (port.accept().await, port.accept().await);
        let (mut closed, mut byte) = (clients.pop().unwrap(), [0]);
        // The port looks at the third while it waits for a fourth.
        tokio::select! {
            _ = port.accept() => panic!("there is no place"),
            read = closed.read(&mut byte) => assert!(matches!(read, Ok(0) | Err(_))),
        }
        assert_eq!((limit.open(), limit.refused()), (2, 1));
        drop(first);
        let _fourth = TcpStream::connect(address).await.unwrap();
        let _third = port.accept().await;
        assert_eq!(limit.open(), 2);
        drop(second);
    }

    #[test]
    fn no_client_keeps_the_others_out_of_the_ports_for_operators() {
        let limit = ConnectionLimit::for_operators();
        let (stranger, kubelet) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut held: Vec<_> = std::iter::from_fn(|| limit.place(stranger)).collect();
        assert!(held.len() < limit.limit / 4, "{}", held.len());
        drop(limit.place(kubelet).unwrap());
        let network = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        let mut neighbours: Vec<_> = (0..1024).map_while(|last| limit.place(network(last))).collect();
        assert_eq!(neighbours.len(), held.len(), "a network of IPv6 is one client");
        neighbours.clear();
        held.pop();
        held.push(limit.place(stranger).unwrap());
        drop(held);
        assert!(limit.share.unwrap().taken.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_greeting_is_not_waited_for() {
        let limit = ConnectionLimit::new(1);
        let place = || limit.place(IpAddr::from([127, 0, 0, 1])).unwrap();
        let (mut client, server) = tokio::io::duplex(64);
        let mut held = Held::new(server, place(), 24);
        client.write_all(b"P").await.unwrap();
        let error = held.read_exact(&mut [0; 24]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(held);
        assert_eq!(limit.open(), 0);

        let (mut client, server) = tokio::io::duplex(64);
        let mut held = Held::new(server, place(), 24);
        client.write_all(&[b'P'; 24]).await.unwrap();
        held.read_exact(&mut [0; 24]).await.unwrap();
        let silent = tokio::time::timeout(10 * GREETING_TIMEOUT, held.read(&mut [0])).await;
        assert!(silent.is_err(), "one that has said who it is may be silent");
    }
}
