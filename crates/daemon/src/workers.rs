//! Threads that serve connections, each by itself: what happens on a connection happens on one thread, with what it needs to reach model
//! servers, so that nothing it waits for has to wake another thread (docs/adr/0024).

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use futures::future::try_join_all;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::connections::{Given, Port};

/// The threads. They end when this is dropped.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<Handle>,
    _until_dropped: Vec<oneshot::Sender<()>>,
}

/// As many as anybody needs who does not say so: each has connections to model servers of its own.
const MOST: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// A connection that counts among those of a thread until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

/// The way to one thread's share of a port.
#[derive(Debug)]
struct Way {
    give: mpsc::UnboundedSender<Given>,
    connections: Arc<AtomicUsize>,
}

// === impl Workers ===

impl Workers {
    /// As many threads as `count` says, or as the machine, or the limit of the container, has cores: up to eight.
    pub fn start(count: Option<NonZeroUsize>) -> io::Result<Self> {
        let cores = || thread::available_parallelism().map_or(NonZeroUsize::MIN, |cores| cores.min(MOST));
        let count = count.unwrap_or_else(cores);
        let (mut threads, mut until_dropped) = (Vec::new(), Vec::new());
        for number in 0..count.get() {
            let (sender, dropped) = oneshot::channel();
            let (tell, told) = std::sync::mpsc::channel();
            // A runtime must not be dropped where another one runs: it stays on its thread from the beginning.
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        let _ = tell.send(Ok(runtime.handle().clone()));
                        // An error says that the sender is gone.
                        let _: Result<(), _> = runtime.block_on(dropped);
                    }
                    Err(error) => _ = tell.send(Err(error)),
                }
            })?;
            threads.push(told.recv().map_err(io::Error::other)??);
            until_dropped.push(sender);
        }
        Ok(Self { threads, _until_dropped: until_dropped })
    }

    /// Serves a port until all of the threads are done with it. `serve` makes what runs on a thread, of its share of the connections: a
    /// connection goes to whoever has the fewest.
    pub async fn serve<S, E>(&self, port: Port, serve: impl Fn(Port) -> S) -> Result<(), E>
    where
        S: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        let (mut ways, mut served) = (Vec::new(), Vec::new());
        for thread in &self.threads {
            let (give, given) = mpsc::unbounded_channel();
            ways.push(Way { give, connections: Arc::default() });
            served.push(AbortOnDropHandle::new(thread.spawn(serve(Port::share(given)))));
        }
        let served = try_join_all(served.into_iter().map(async |served| match served.await {
            Ok(ended) => ended,
            Err(gone) => {
                let ended = |gone| Box::new(format!("a thread that serves connections has ended: {gone}")) as _;
                std::panic::resume_unwind(gone.try_into_panic().unwrap_or_else(ended))
            }
        }));
        tokio::pin!(served);
        tokio::select! {
            ended = &mut served => ended.map(drop),
            () = share_out(port, &ways) => served.await.map(drop),
        }
    }
}

/// Gives each connection of a port to the thread that has the fewest, until one takes no more.
async fn share_out(mut port: Port, ways: &[Way]) {
    let Some(any) = ways.first() else { return };
    loop {
        let (stream, peer, place) = tokio::select! {
            accepted = port.accept() => accepted,
            () = any.give.closed() => return,
        };
        let takes = ways.iter().filter(|way| !way.give.is_closed());
        let Some(way) = takes.min_by_key(|way| way.connections.load(Ordering::Relaxed)) else { return };
        let counted = Counted::new(&way.connections);
        // One that cannot be given away is gone.
        if let Ok(given) = Given::new(stream, peer, place, counted) {
            let _ = way.give.send(given);
        }
    }
}

// === impl Counted ===

impl Counted {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::thread::ThreadId;

    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::connections::ConnectionLimit;

    #[tokio::test]
    async fn each_connection_stays_with_the_thread_that_had_the_fewest() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, limit) = (listener.local_addr().unwrap(), ConnectionLimit::new(100));
        let workers = Workers::start(NonZeroUsize::new(3)).unwrap();
        let (sender, mut taken) = mpsc::unbounded_channel::<(ThreadId, TcpStream, _)>();
        let stop = CancellationToken::new();
        let serve = |mut share: Port| {
            let (sender, stop) = (sender.clone(), stop.clone());
            async move {
                while let Some((stream, _, place)) = stop.run_until_cancelled(share.accept()).await {
                    let (thread, sender) = (thread::current().id(), sender.clone());
                    tokio::spawn(async move {
                        assert_eq!(thread::current().id(), thread);
                        sender.send((thread, stream, place)).unwrap();
                    });
                }
                Ok::<_, Infallible>(())
            }
        };
        let mut serve = Box::pin(workers.serve(Port::new(listener, limit.clone()), serve));
        let mut clients = Vec::new();
        let mut next = async |clients: &mut Vec<TcpStream>| {
            clients.push(TcpStream::connect(address).await.unwrap());
            tokio::select! {
                _ = &mut serve => unreachable!("nobody has stopped it"),
                taken = taken.recv() => taken.unwrap(),
            }
        };
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(next(&mut clients).await);
        }
        let of = |held: &[(ThreadId, TcpStream, _)], thread| held.iter().filter(|(at, ..)| *at == thread).count();
        assert!(held.iter().all(|(thread, ..)| of(&held, *thread) == 2), "{held:?}");
        let (freed, ..) = held.remove(1);
        let (thread, ..) = next(&mut clients).await;
        assert_eq!(thread, freed, "it has one less than the others");
        stop.cancel();
        let Ok(()) = serve.await;
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
        drop(held);
        assert_eq!(limit.open(), 0);
    }

    #[tokio::test]
    async fn a_failure_on_one_thread_ends_the_port() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let workers = Workers::start(NonZeroUsize::new(2)).unwrap();
        let number = AtomicUsize::new(0);
        let serve = |share: Port| {
            let fails = number.fetch_add(1, Ordering::Relaxed) == 1;
            async move {
                let _share = share;
                if fails { Err("broken") } else { std::future::pending().await }
            }
        };
        let ended = workers.serve(Port::new(listener, ConnectionLimit::new(1)), serve).await;
        assert_eq!(ended, Err("broken"));
    }
}
