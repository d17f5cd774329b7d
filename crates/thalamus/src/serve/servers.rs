//! Model servers by their addresses: found out, shown, served, and watched.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use probe::{Failure, Pace, Probed, Prober, Server};
use routing::{AppProtocol, Found, RoutingTable};
use tokio::sync::mpsc::{self, Sender};
use tokio::task::AbortHandle;

use super::{Ports, Serving, objects};
use crate::fleet::{self, Alias, Member};
use crate::local::LocalController;
use crate::matrix::{self, Asked};
use crate::screen::{Screen, line};

/// How long the first look waits for servers that are slow to say what they are; they join when they have.
const FIRST_LOOK: Duration = Duration::from_millis(1500);

/// How often names are looked up: a name may stand for servers that come and go.
const NAMES: Duration = Duration::from_secs(5);

const PACE: Pace = Pace { glance: Duration::from_secs(1), whole: Duration::from_secs(30) };

/// What became known of one address.
type News = (Way, Told);

/// A server as somebody named it, and one of the addresses that the name leads to.
type Way = (String, SocketAddr);

enum Told {
    Said {
        label: String,
        said: Result<Probed, Failure>,
    },
    /// Its name does not lead there any more.
    Gone,
}

/// A server that has been asked: what it said last, and what it was when it last answered.
struct Known {
    label: String,
    last: Result<Probed, Failure>,
    found: Option<Arc<Found>>,
}

/// All of them.
#[derive(Default)]
struct Fleet(BTreeMap<Way, Known>);

pub(super) async fn run(
    servers: Vec<Server>,
    aliases: Vec<Alias>,
    save: Option<PathBuf>,
    prober: &Prober,
    namespace: Option<&str>,
    ports: Ports,
) -> Result<()> {
    if let Some(folder) = &save {
        objects::check(folder)?;
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = aliases.iter().find(|alias| !names.insert(&alias.name)) {
        bail!("--as {}: it is given twice; list its models as --as {0}=MODEL,MODEL", twice.name);
    }
    let screen = Screen::of_stdout();
    let (tell, mut news) = mpsc::channel(64);
    let servers: HashSet<Server> = servers.into_iter().collect();
    for server in &servers {
        tokio::spawn(follow(server.clone(), prober.clone(), tell.clone()));
    }
    drop(tell);
    let servers: BTreeSet<String> = servers.iter().map(ToString::to_string).collect();
    let mut fleet = Fleet::default();
    let first_look = async {
        while !fleet.has_asked(servers.len())
            && let Some(some) = news.recv().await
        {
            fleet.learn(some);
        }
    };
    _ = tokio::time::timeout(FIRST_LOOK, first_look).await;
    fleet.show(screen, &servers);

    let namespace = namespace.unwrap_or("default");
    let mut controller = LocalController::new();
    let mut table = fleet::table(&fleet.members(), &aliases, &RoutingTable::default());
    for Alias { name, .. } in &aliases {
        if !table.models.contains_key(name) {
            tracing::warn!("--as {name}: no server has any of its models yet");
        } else if fleet.members().iter().any(|member| member.found.models.contains_key(name)) {
            tracing::warn!("--as {name}: a server has a model of that name, which cannot be reached by it now");
        }
    }
    if let Some(folder) = &save {
        let written = objects::save(folder, namespace, &table, &fleet.unanswered(&servers))?;
        screen.title(&format!("Saved to {}", folder.display()));
        for step in written {
            line(&format!("  {step}"));
        }
    }
    let mut contradictions = controller.contradictions();
    controller.publish(namespace, table.clone());
    let Serving { address, admin, mut task } =
        ports.serve(&controller, namespace, &format!("{} servers", servers.len())).await?;
    screen.title(&format!("Serving at http://{address}/v1, until Ctrl-C"));
    line(&format!("  a page to look at: http://{admin}/"));
    loop {
        tokio::select! {
            ended = &mut task => return ended.context("the server failed")?,
            Some(address) = contradictions.recv() => prober.doubt(address),
            Some(some) = news.recv() => {
                fleet.learn(some);
                // What came meanwhile is one change with it.
                while let Ok(some) = news.try_recv() {
                    fleet.learn(some);
                }
                let now = fleet::table(&fleet.members(), &aliases, &table);
                if now != table {
                    table = now;
                    fleet.show(screen, &servers);
                    controller.publish(namespace, table.clone());
                }
            }
        }
    }
}

/// Watches whatever a name leads to.
async fn follow(server: Server, prober: Prober, tell: Sender<News>) {
    let mut watchers: BTreeMap<SocketAddr, AbortHandle> = BTreeMap::new();
    let mut is_known = true;
    loop {
        // A name that cannot be looked up for a while leads where it led.
        let now = match addresses(&server).await {
            Ok(now) => {
                is_known = true;
                now
            }
            Err(error) => {
                // Once, and not every few seconds.
                if std::mem::take(&mut is_known) {
                    tracing::warn!(%server, "the name cannot be looked up: {error}");
                }
                watchers.keys().copied().collect()
            }
        };
        let gone: Vec<SocketAddr> = watchers.keys().filter(|address| !now.contains(address)).copied().collect();
        for address in gone {
            if let Some(watcher) = watchers.remove(&address) {
                watcher.abort();
            }
            if tell.send(((server.to_string(), address), Told::Gone)).await.is_err() {
                return;
            }
        }
        let is_one = now.len() == 1;
        for address in now {
            let label = if is_one { server.to_string() } else { format!("{server} ({})", address.ip()) };
            let way = (server.to_string(), address);
            let watcher = || tokio::spawn(watch(label, way, prober.clone(), tell.clone())).abort_handle();
            watchers.entry(address).or_insert_with(watcher);
        }
        tokio::time::sleep(NAMES).await;
    }
}

async fn watch(label: String, way: Way, prober: Prober, tell: Sender<News>) {
    let server = Server::at(way.1, AppProtocol::Http);
    // An error is that nobody listens any more.
    _ = prober.watch(&server, PACE, &tell, |said| (way.clone(), Told::Said { label: label.clone(), said })).await;
}

/// Where a name leads: all addresses of the family that the first is of, since most servers have one of each.
async fn addresses(server: &Server) -> std::io::Result<BTreeSet<SocketAddr>> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((server.host(), server.port())).await?.collect();
    let v4 = found.iter().any(SocketAddr::is_ipv4);
    Ok(found.into_iter().filter(|address| address.is_ipv4() == v4).collect())
}

// === impl Fleet ===

impl Fleet {
    fn learn(&mut self, (way, told): News) {
        match told {
            Told::Gone => {
                if let Some(known) = self.0.remove(&way) {
                    tracing::info!(server = known.label, "its name does not lead there any more");
                }
            }
            Told::Said { label, said } => {
                let before = self.0.remove(&way);
                tell_of(&label, before.as_ref().map(|known| &known.last), &said);
                let found = said.as_ref().ok().map(|probed| Arc::new(probed.found.clone())).or_else(|| before?.found);
                self.0.insert(way, Known { label, last: said, found });
            }
        }
    }

    /// Whether each of so many names led to a server that has said something.
    fn has_asked(&self, servers: usize) -> bool {
        self.0.keys().map(|(name, _)| name).collect::<BTreeSet<_>>().len() >= servers
    }

    /// Those that ever answered. One that is away stays: whoever serves it knows what to do with a server that is silent.
    fn members(&self) -> Vec<Member> {
        let mut seen = BTreeSet::new();
        let member = |((_, address), known): (&Way, &Known)| {
            let found = known.found.clone()?;
            // Two names may lead to one server.
            seen.insert(*address).then(|| Member { label: known.label.clone(), address: *address, found })
        };
        self.0.iter().filter_map(member).collect()
    }

    fn show(&self, screen: Screen, named: &BTreeSet<String>) {
        let asked = self.0.values();
        let asked = asked.map(|Known { label, last, .. }| Asked { server: label.clone(), said: Some(last.as_ref()) });
        let silent = self.silent(named).map(|name| Asked { server: name.clone(), said: None });
        matrix::show(screen, &asked.chain(silent).collect::<Vec<_>>());
    }

    /// What people call those that have never answered.
    fn unanswered(&self, named: &BTreeSet<String>) -> Vec<String> {
        let known = self.0.values().filter(|known| known.found.is_none()).map(|known| known.label.clone());
        known.chain(self.silent(named).cloned()).collect()
    }

    /// Of these names, those that led to nobody who has said anything.
    fn silent<'n>(&self, named: &'n BTreeSet<String>) -> impl Iterator<Item = &'n String> {
        named.iter().filter(|name| !self.0.keys().any(|(known, _)| known == *name))
    }
}

/// A line for whoever reads the log.
fn tell_of(server: &str, before: Option<&Result<Probed, Failure>>, now: &Result<Probed, Failure>) {
    match (before, now) {
        (_, Err(failure)) => tracing::warn!(server, "{failure}"),
        (Some(Err(_)), Ok(probed)) => tracing::info!(server, is = probed.found.what(), "it answers again"),
        (Some(Ok(_)), Ok(probed)) => tracing::info!(server, is = probed.found.what(), "it has changed"),
        (None, Ok(probed)) => tracing::debug!(server, is = probed.found.what(), "found out"),
    }
}
