//! Asks model servers which of them made a job, or a response.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::Clients;
use director::{KnownEndpoint, OwnerFinder, Search};
use futures::StreamExt as _;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use http_body_util::Full;
use request::Owned;
use routing::client_of;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How many are asked for one of them, and how many at once.
const MAX_ASKED: usize = 64;
const AT_ONCE: usize = 16;

/// How many searches there are at once, and how many of one caller, by what it authorizes by: whoever asks for names that nobody made
/// keeps model servers busy with that and no more, and waits for themselves. A search that cannot begin in time is given up.
const SEARCHES: usize = 16;
const SEARCHES_OF_ONE: usize = 4;

/// How many of one client, by its address, whatever it authorizes by.
const SEARCHES_OF_CLIENT: usize = 8;
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);
const SEARCH_TIMEOUT: Duration = Duration::from_secs(4);

/// For how long a name that nobody knew is not asked for again, and how many such are remembered.
const MISSED_FOR: Duration = Duration::from_secs(2);
const MAX_MISSED: usize = 1024;

/// Asks around over HTTP.
#[derive(Debug)]
pub(crate) struct AskAround {
    clients: Clients,
    searches: Semaphore,
    of_callers: Turns<Caller>,
    of_clients: Turns<IpAddr>,
    /// By what was looked for, and for whom: a server may tell one what it does not tell another.
    missed: Mutex<HashMap<(Caller, Owned), Instant>>,
    hasher: RandomState,
}

/// What a caller authorizes by, hashed.
type Caller = u64;

/// The searches of each who has any.
#[derive(Debug)]
struct Turns<W> {
    at_once: usize,
    of: Mutex<HashMap<W, Arc<Semaphore>>>,
}

impl AskAround {
    pub(crate) fn new() -> Self {
        Self {
            clients: Clients::new(TIMEOUT),
            searches: Semaphore::new(SEARCHES),
            of_callers: Turns::new(SEARCHES_OF_ONE),
            of_clients: Turns::new(SEARCHES_OF_CLIENT),
            missed: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    fn was_missed(&self, what: &(Caller, Owned)) -> bool {
        let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        missed.get(what).is_some_and(|at| at.elapsed() < MISSED_FOR)
    }

    fn remember_miss(&self, what: (Caller, Owned)) {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if missed.len() >= MAX_MISSED {
            missed.clear();
        }
        missed.insert(what, Instant::now());
    }

    /// Whether it knows it; none where it did not say in time.
    async fn knows(&self, endpoint: &KnownEndpoint, what: &Owned, authorization: Option<&str>) -> Option<bool> {
        let address = endpoint.address;
        let mut request = Request::get(format!("http://{address}{}/{}", what.kind.folder(), what.id));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::default()).ok()?;
        let client = self.clients.speaking(endpoint.app_protocol);
        let answer = tokio::time::timeout(TIMEOUT, client.request(request)).await.ok()?;
        match answer.map(|response| response.status()) {
            Ok(status) if status.is_success() => Some(true),
            // Engines say of what they do not know that it is not there, or that they give no such names; who cannot be reached knows
            // nothing any more.
            Ok(
                StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::GONE
                | StatusCode::BAD_REQUEST
                | StatusCode::UNPROCESSABLE_ENTITY,
            )
            | Err(_) => Some(false),
            Ok(_) => None,
        }
    }
}

impl<W: Eq + Hash> Turns<W> {
    fn new(at_once: usize) -> Self {
        Self { at_once, of: Mutex::default() }
    }

    async fn take(&self, who: W) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
            // Who has no search is forgotten.
            all.retain(|_, turn| turn.available_permits() < self.at_once || Arc::strong_count(turn) > 1);
            Arc::clone(all.entry(who).or_insert_with(|| Arc::new(Semaphore::new(self.at_once))))
        };
        turn.acquire_owned().await.ok()
    }
}

impl OwnerFinder for AskAround {
    fn find<'f>(
        &'f self,
        what: &'f Owned,
        authorization: Option<&'f str>,
        client: Option<IpAddr>,
        among: &'f [KnownEndpoint],
    ) -> Pin<Box<dyn Future<Output = Search> + Send + 'f>> {
        Box::pin(async move {
            // Any other name would have to be encoded, and no server makes such.
            let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            let caller = self.hasher.hash_one(authorization);
            let asked_for = (caller, what.clone());
            if !what.id.bytes().all(sound) || self.was_missed(&asked_for) {
                return Search::Nobody;
            }
            let begin = async {
                let of_client = match client {
                    Some(client) => self.of_clients.take(client_of(client)).await,
                    None => None,
                };
                (of_client, self.of_callers.take(caller).await, self.searches.acquire().await)
            };
            let Ok(_search) = tokio::time::timeout(WAIT_TIMEOUT, begin).await else { return Search::Unfinished };
            let all = among.len() <= MAX_ASKED;
            let among = among[..among.len().min(MAX_ASKED)].to_vec();
            let asked = among
                .into_iter()
                .map(|endpoint| async move { (self.knows(&endpoint, what, authorization).await, endpoint) });
            let mut answers = std::pin::pin!(futures::stream::iter(asked).buffer_unordered(AT_ONCE));
            let search = async {
                let mut outcome = if all { Search::Nobody } else { Search::Unfinished };
                while let Some((knows, endpoint)) = answers.next().await {
                    match knows {
                        Some(true) => return Search::Found(endpoint.state.id().clone()),
                        Some(false) => {}
                        None => outcome = Search::Unfinished,
                    }
                }
                outcome
            };
            let outcome = tokio::time::timeout(SEARCH_TIMEOUT, search).await.unwrap_or(Search::Unfinished);
            if outcome == Search::Nobody {
                self.remember_miss(asked_for);
            }
            outcome
        })
    }
}
