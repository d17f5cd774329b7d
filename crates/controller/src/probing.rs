//! Asks the model servers of every pool what they are, and tells the event loop. Every replica does, so that a hand-over changes no table.
//!
//! ```text
//!  Compiled ──endpoints──► a watch for each server ──news──► Event::Found ──► index
//! ```

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use index::{Compiled, Event, ObjectKey, ServerKey};
use probe::{Failure, Pace, Probed, Prober, Server};
use routing::AppProtocol;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::lease::Term;

/// A pod that starts anew is not ready for a while, so its server is asked at once when it is back: glances are for models that are loaded into a
/// server that runs.
const PACE: Pace = Pace { glance: Duration::from_secs(10), whole: Duration::from_mins(5) };

/// How long the first tables wait for answers. Without them pickers would believe what is declared until the answers are in, and pickers that were
/// told better by the controller before would unlearn it.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// Asks, as long as it is run.
pub(crate) struct Probing {
    pub(crate) prober: Prober,
    /// Whose endpoints are asked.
    pub(crate) compiled: watch::Receiver<Option<Arc<Compiled>>>,
    pub(crate) events: mpsc::Sender<Event>,
    /// True once every server of the first tables has answered, or long enough was waited for it.
    pub(crate) has_looked: watch::Sender<bool>,
    /// Servers that refused what they were found to take.
    pub(crate) contradictions: mpsc::Receiver<SocketAddr>,
    pub(crate) terms: watch::Receiver<Term>,
}

/// A server, and the way to it.
type Way = (ServerKey, SocketAddr, AppProtocol);

/// Ends a watch when it is dropped.
struct Watcher(AbortHandle);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether this replica leads. A term is told again whenever it is renewed.
#[derive(Debug, Default)]
struct Leads(bool);

impl Leads {
    /// Notes a term; says whether it is the first of this replica since another led, or nobody.
    fn takes_over(&mut self, term: Term) -> bool {
        let led = std::mem::replace(&mut self.0, term.is_some());
        self.0 && !led
    }
}

impl Probing {
    /// Runs until the event loop is gone.
    pub(crate) async fn run(mut self) {
        let (tell, mut told) = mpsc::channel::<(ServerKey, Result<Probed, Failure>)>(64);
        let mut watchers: HashMap<Way, Watcher> = HashMap::new();
        // Servers that the first look waits for, and how long.
        let mut first: Option<(HashSet<ServerKey>, Instant)> = None;
        let mut leads = Leads::default();
        loop {
            let look_ends = first.as_ref().map(|(_, until)| *until);
            tokio::select! {
                changed = self.compiled.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let Some(compiled) = self.compiled.borrow_and_update().clone() else { continue };
                    let ways = ways(&compiled);
                    watchers.retain(|way, _| ways.contains(way));
                    if let Some((waited_for, _)) = &mut first {
                        // One that is gone answers no more.
                        waited_for.retain(|server| ways.iter().any(|(known, ..)| known == server));
                    }
                    if !*self.has_looked.borrow() && first.is_none() {
                        let servers = ways.iter().map(|(server, ..)| server.clone()).collect();
                        first = Some((servers, Instant::now() + FIRST_LOOK));
                    }
                    for way in ways {
                        let watcher = |way: &Way| Watcher(tokio::spawn(watch(way.clone(), self.prober.clone(), tell.clone())).abort_handle());
                        watchers.entry(way).or_insert_with_key(watcher);
                    }
                }
                Some(address) = self.contradictions.recv() => self.prober.doubt(address),
                Ok(()) = self.terms.changed() => {
                    // Pickers told the leader before this one what they doubt.
                    if leads.takes_over(*self.terms.borrow_and_update()) {
                        self.prober.doubt_all();
                    }
                }
                Some((server, said)) = told.recv() => {
                    if let Some((waited_for, _)) = &mut first {
                        waited_for.remove(&server);
                    }
                    if !self.note(server, said).await {
                        return;
                    }
                }
                () = tokio::time::sleep_until(look_ends.unwrap_or_else(Instant::now)), if look_ends.is_some() => {
                    first = Some((HashSet::new(), Instant::now()));
                }
            }
            if first.as_ref().is_some_and(|(waited_for, _)| waited_for.is_empty()) {
                first = None;
                self.has_looked.send_replace(true);
            }
        }
    }

    /// Passes on what was found. What could not be asked is what it was: a server that does not answer may serve all the same.
    async fn note(&self, server: ServerKey, said: Result<Probed, Failure>) -> bool {
        let (pod, port) = (&server.pod, server.port);
        match said {
            Ok(Probed { found, doubts, .. }) => {
                tracing::info!(%pod, port, is = found.what(), models = found.models.len(), "model server asked");
                for doubt in doubts {
                    tracing::debug!(%pod, port, "not found out: {doubt}");
                }
                self.events.send(Event::Found(server, Arc::new(found))).await.is_ok()
            }
            Err(failure) => {
                tracing::debug!(%pod, port, "the model server {failure}");
                true
            }
        }
    }
}

async fn watch(
    (key, address, protocol): Way,
    prober: Prober,
    tell: mpsc::Sender<(ServerKey, Result<Probed, Failure>)>,
) {
    let server = Server::at(address, protocol);
    // An error is that nobody listens any more.
    _ = prober.watch(&server, PACE, &tell, |said| (key.clone(), said)).await;
}

/// Every server of every pool, once.
fn ways(compiled: &Compiled) -> HashSet<Way> {
    let mut ways = HashSet::new();
    for (namespace, table) in &compiled.tables {
        for pool in table.pools.values() {
            for (name, endpoint) in &pool.endpoints {
                // The index names endpoints so.
                let Some((pod, _)) = name.rsplit_once("-rank-") else { continue };
                let pod = ObjectKey::new(namespace, pod);
                let server = ServerKey { pod, uid: endpoint.uid, port: endpoint.address.port() };
                ways.insert((server, endpoint.address, pool.app_protocol));
            }
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use routing::{Endpoint, Pool, RoutingTable};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A pool of one pod, which is this one of all that had its name and address.
    fn compiled(uid: &str, address: SocketAddr) -> Arc<Compiled> {
        let endpoint = Endpoint::new(address, uid.into());
        let pool = Pool { endpoints: BTreeMap::from([("pod-rank-0".into(), endpoint)]), ..Pool::default() };
        let pools = BTreeMap::from([("pool".into(), Arc::new(pool))]);
        let table = Arc::new(RoutingTable { pools, ..RoutingTable::default() });
        Arc::new(Compiled { tables: BTreeMap::from([("ns".into(), table)]), ..Compiled::default() })
    }

    /// Reads a question, and answers that this model is served.
    async fn answer(stream: &mut TcpStream, model: &str) -> std::io::Result<()> {
        let mut head = [0; 4096];
        let length = stream.read(&mut head).await?;
        let is_list = head[..length].starts_with(b"GET /v1/models ");
        let (status, body) = if is_list {
            ("200 OK", format!(r#"{{"object":"list","data":[{{"id":"{model}"}}]}}"#))
        } else {
            ("404 Not Found", String::new())
        };
        let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await
    }

    /// In a rollout a pod goes while its server is being asked, and another takes its name and, on the host's network, its address.
    #[tokio::test]
    async fn what_a_pod_that_is_gone_still_says_is_not_believed_of_the_one_in_its_place() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (compile, mut compiled_by) = watch::channel(Some(compiled("old", address)));
        let (events, mut told) = mpsc::channel(8);
        let (_contradicts, contradictions) = mpsc::channel(1);
        let (_term, terms) = watch::channel(None);
        let (has_looked, looked) = watch::channel(false);
        compiled_by.mark_changed();
        let prober = Prober::new(None).unwrap();
        let probing = Probing { prober, compiled: compiled_by, events, has_looked, contradictions, terms };
        tokio::spawn(probing.run());

        // The old one is asked, and takes its time.
        let (mut old, _) = listener.accept().await.unwrap();
        compile.send_replace(Some(compiled("new", address)));
        let (mut new, _) = listener.accept().await.unwrap();
        let _ = answer(&mut old, "of-the-old").await;
        answer(&mut new, "of-the-new").await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = answer(&mut stream, "of-the-new").await;
            }
        });
        let Some(Event::Found(server, found)) = told.recv().await else { panic!("nothing was found") };
        assert_eq!(server.uid, "new".into());
        assert!(found.models.contains_key("of-the-new"), "{found:?}");
        assert!(told.try_recv().is_err());
        assert!(*looked.borrow(), "the first tables do not wait for one that is gone");
    }

    /// A lease is renewed every few seconds, and all servers would be asked each time.
    #[test]
    fn only_who_takes_over_asks_all_anew() {
        let mut leads = Leads::default();
        let now = Some(Instant::now());
        assert_eq!(
            [None, now, now, now, None, None, now, now].map(|term| leads.takes_over(term)),
            [false, true, false, false, false, false, true, false]
        );
    }
}
