//! The order of questions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::Clients;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::asker::Asker;
use crate::doubts::Doubts;
use crate::engines;
use crate::listing::{Entries, Listing, MAX_MODELS};
use crate::{Failure, Probed, Server};

/// How long all questions to one server may take together; what is not answered by then is not known.
const WHOLE: Duration = Duration::from_secs(10);

/// How long its list may take, without which there is nothing to ask of.
const LIST: Duration = Duration::from_secs(2);

pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// How many servers are asked at once: after a start there are all of them to ask.
const AT_ONCE: usize = 32;

/// How many are glanced at: one that is silent has its turn until its time is up, and must not hold up those that answer.
const GLANCES_AT_ONCE: usize = 512;

/// Asks model servers. Clones share connections and turns.
#[derive(Debug, Clone)]
pub struct Prober {
    clients: Clients,
    key: Option<HeaderValue>,
    turns: Arc<Semaphore>,
    glances: Arc<Semaphore>,
    doubts: Doubts,
}

/// What tells that a server may be another than it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sign {
    pub(crate) listed: Option<Entries>,
    pub(crate) connection: Option<SocketAddr>,
}

impl Prober {
    /// With the key that servers ask for, where they do.
    ///
    /// # Errors
    /// When the key cannot stand in a header.
    pub fn new(api_key: Option<&str>) -> Result<Self, InvalidHeaderValue> {
        let key = api_key.map(|key| HeaderValue::try_from(format!("Bearer {key}"))).transpose()?.map(|mut key| {
            key.set_sensitive(true);
            key
        });
        Ok(Self {
            clients: Clients::new(CONNECT),
            key,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            glances: Arc::new(Semaphore::new(GLANCES_AT_ONCE)),
            doubts: Doubts::default(),
        })
    }

    /// What was found of this server is doubtful: whoever watches it asks again.
    pub fn doubt(&self, server: SocketAddr) {
        self.doubts.doubt(server);
    }

    /// What was found of any server may be doubtful.
    pub fn doubt_all(&self) {
        self.doubts.doubt_all();
    }

    pub(crate) fn doubts(&self) -> &Doubts {
        &self.doubts
    }

    /// Everything that can be found out of a server.
    pub async fn probe(&self, server: &Server) -> Result<Probed, Failure> {
        let _turn = self.turns.acquire().await;
        let asker = self.asker(server, WHOLE);
        let listed = Asker { until: Instant::now() + LIST, ..asker };
        let (Some(listing), _) = list(&listed).await? else { return engines::without_list(&asker).await };
        let mut probed = engines::look(&asker, &listing).await;
        if listing.passed_over > 0 {
            let why = "without a name of 1 to 256 bytes, named twice, or more than";
            probed.doubts.push(format!(
                "{} entries of its list of models are passed over: {why} {MAX_MODELS}",
                listing.passed_over
            ));
        }
        Ok(probed)
    }

    /// That a server answers, and what tells when it is another than it was: as little as can be asked. `eye` is whose connection is looked at
    /// as well.
    pub(crate) async fn sign(&self, eye: &Clients, server: &Server) -> Result<Sign, Failure> {
        let _turn = self.glances.acquire().await;
        let asker = Asker { client: eye.speaking(server.protocol), ..self.asker(server, LIST) };
        let (listing, connection) = list(&asker).await?;
        Ok(Sign { listed: listing.map(Listing::entries), connection })
    }

    fn asker<'a>(&'a self, server: &'a Server, limit: Duration) -> Asker<'a> {
        let client = self.clients.speaking(server.protocol);
        Asker { client, server, key: self.key.as_ref(), until: Instant::now() + limit }
    }
}

/// What a server lists, none where it has no such list; and over which connection it said so.
async fn list(asker: &Asker<'_>) -> Result<(Option<Listing>, Option<SocketAddr>), Failure> {
    const PATH: &str = "/v1/models";
    let answer = asker.get(PATH).await?;
    match answer.status.as_u16() {
        404 | 405 => Ok((None, answer.connection)),
        status @ (401 | 403) => Err(Failure::NoKey(status)),
        _ => match Listing::of(&answer) {
            Some(listing) => Ok((Some(listing), answer.connection)),
            None => Err(Failure::NoModelServer { path: PATH, what: answer.in_words() }),
        },
    }
}
