//! Whose token it is: the API server says, and a picker reads what belongs to its service account.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use publish::{Authorizer, Scope};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{Code, Status};

/// What pickers' tokens must be made for: one that is good for the API server is never shown here.
pub(crate) const AUDIENCE: &str = "thalamus-controller";

/// How many tokens are reviewed at once.
const REVIEWS: usize = 8;

/// How many may wait for one. Strangers that are more than that are told to come back.
const WAITING: usize = 64;

/// A token that was refused is refused again for this long without asking. Of so many it is remembered.
const REFUSED: Duration = Duration::from_secs(10);
const MANY: usize = 1024;

/// For how long a token that was good is known: kubelets renew theirs before an hour has passed. Of so many it is remembered.
const TOKEN_LASTS: Duration = Duration::from_hours(1);
const MANY_PICKERS: usize = 16_384;

/// How long a review may take, with the wait for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest token that is looked at, in bytes; service account tokens have about 1 KB.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Admits service accounts to their own namespace, and those of managed pickers to their own pool.
#[derive(Debug, Clone)]
pub(crate) struct ServiceAccounts {
    reviews: Api<TokenReview>,
    /// Strangers' tokens cost the API server a call each, so few are under way at a time …
    strangers: Arc<Lane>,
    /// … and those that were good before do not wait behind them.
    known: Arc<Lane>,
    refused: Arc<Mutex<Refused>>,
    admitted: Arc<Mutex<Admitted>>,
    /// The pool of each managed picker's service account, by namespace and name.
    managed: Arc<Mutex<BTreeMap<(String, String), String>>>,
}

impl ServiceAccounts {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            reviews: Api::all(client),
            strangers: Arc::default(),
            known: Arc::default(),
            refused: Arc::default(),
            admitted: Arc::default(),
            managed: Arc::default(),
        }
    }

    /// These service accounts, and no others, are bound to one pool each.
    pub(crate) fn bind(&self, managed: BTreeMap<(String, String), String>) {
        *self.managed.lock().unwrap_or_else(PoisonError::into_inner) = managed;
    }

    fn pool_of(&self, account: &(String, String)) -> Option<String> {
        self.managed.lock().unwrap_or_else(PoisonError::into_inner).get(account).cloned()
    }

    fn admitted(&self) -> MutexGuard<'_, Admitted> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn review(&self, token: &str) -> Result<(String, String), Status> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Status::unauthenticated(format!("the token is longer than {MAX_TOKEN_BYTES} bytes")));
        }
        let lane = if self.admitted().is_known(token, Instant::now()) { &self.known } else { &self.strangers };
        let _place = lane
            .places
            .try_acquire()
            .map_err(|_| Status::unavailable("too many tokens are being reviewed; try again later"))?;
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        };
        let answer = async {
            let _turn = lane.turns.acquire().await.context("the controller is stopping")?;
            self.reviews.create(&PostParams::default(), &review).await.context("it refused")
        };
        let reviewed = tokio::time::timeout(PATIENCE, answer).await.context("it does not answer").flatten();
        let reviewed = reviewed.map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "the API server cannot review a picker's token");
            Status::unavailable("the API server cannot review the token now")
        })?;
        let status = reviewed.status.unwrap_or_default();
        let for_us = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
        if !(status.authenticated == Some(true) && for_us) {
            let why = status.error.unwrap_or_else(|| format!("it is not valid for audience {AUDIENCE}"));
            return Err(Status::unauthenticated(format!("token rejected: {why}")));
        }
        let name = status.user.and_then(|user| user.username).unwrap_or_default();
        let account = name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        account
            .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
            .ok_or_else(|| Status::permission_denied(format!("{name} is not a service account")))
    }
}

#[tonic::async_trait]
impl Authorizer for ServiceAccounts {
    async fn admit(&self, token: Option<&str>, scope: &Scope) -> Result<(), Status> {
        let Some(token) = token else {
            return Err(Status::unauthenticated(format!(
                "no token presented: start the picker with --token-file, a service account token for audience {AUDIENCE}"
            )));
        };
        let refused = || self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = refused().known(token, Instant::now()) {
            return Err(status);
        }
        let account = self.review(token).await.inspect_err(|status| {
            if status.code() == Code::Unauthenticated {
                refused().note(token, status, Instant::now());
            }
        })?;
        self.admitted().note(token, Instant::now());
        permits(&account, self.pool_of(&account).as_deref(), scope).map_err(Status::permission_denied)
    }
}

/// Tokens that are reviewed, and those that wait for it.
#[derive(Debug)]
struct Lane {
    turns: Semaphore,
    places: Semaphore,
}

impl Default for Lane {
    fn default() -> Self {
        Self { turns: Semaphore::new(REVIEWS), places: Semaphore::new(REVIEWS + WAITING) }
    }
}

/// Tokens that were good, by their hashes. Each is reviewed again all the same.
#[derive(Debug, Default)]
struct Admitted {
    hasher: RandomState,
    known: HashMap<u64, Instant>,
}

impl Admitted {
    fn is_known(&self, token: &str, now: Instant) -> bool {
        self.known.get(&self.hasher.hash_one(token)).is_some_and(|until| *until > now)
    }

    fn note(&mut self, token: &str, now: Instant) {
        if self.known.len() >= MANY_PICKERS {
            self.known.retain(|_, until| *until > now);
        }
        if self.known.len() < MANY_PICKERS {
            self.known.insert(self.hasher.hash_one(token), now + TOKEN_LASTS);
        }
    }
}

/// Tokens that were refused a moment ago, by their hashes, which nobody outside can predict.
#[derive(Debug, Default)]
struct Refused {
    hasher: RandomState,
    known: HashMap<u64, (Instant, String)>,
}

impl Refused {
    fn known(&self, token: &str, now: Instant) -> Option<Status> {
        let (until, why) = self.known.get(&self.hasher.hash_one(token))?;
        (*until > now).then(|| Status::unauthenticated(why.clone()))
    }

    fn note(&mut self, token: &str, status: &Status, now: Instant) {
        self.known.retain(|_, (until, _)| *until > now);
        if self.known.len() < MANY {
            self.known.insert(self.hasher.hash_one(token), (now + REFUSED, status.message().to_owned()));
        }
    }
}

/// Whether a service account may read a scope, given the pool that it is bound to, if it is.
fn permits((namespace, name): &(String, String), bound_to: Option<&str>, scope: &Scope) -> Result<(), String> {
    if *namespace != scope.namespace {
        return Err(format!("service account {name} of namespace {namespace} may not read {scope}"));
    }
    match bound_to {
        Some(pool) if scope.pool.as_deref() != Some(pool) => {
            Err(format!("service account {name} may read pool {pool} only, not {scope}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_was_good_is_known_for_an_hour() {
        let (mut admitted, start) = (Admitted::default(), Instant::now());
        admitted.note("a", start);
        assert!(admitted.is_known("a", start + TOKEN_LASTS / 2) && !admitted.is_known("b", start));
        assert!(!admitted.is_known("a", start + TOKEN_LASTS));
        for number in 0..2 * MANY_PICKERS {
            admitted.note(&number.to_string(), start);
        }
        assert_eq!(admitted.known.len(), MANY_PICKERS);
    }

    #[test]
    fn a_refused_token_is_not_asked_about_again_for_a_while() {
        let (mut refused, start) = (Refused::default(), Instant::now());
        refused.note("a", &Status::unauthenticated("not you"), start);
        assert_eq!(
            refused.known("a", start + REFUSED / 2).map(|status| status.message().to_owned()),
            Some("not you".into())
        );
        assert!(refused.known("b", start).is_none() && refused.known("a", start + REFUSED).is_none());
        for number in 0..2 * MANY {
            refused.note(&number.to_string(), &Status::unauthenticated("no"), start);
        }
        assert_eq!(refused.known.len(), MANY);
    }

    #[test]
    fn an_account_reads_its_namespace_and_a_managed_one_its_pool() {
        let account = ("a".to_owned(), "picker".to_owned());
        let scope = |namespace: &str, pool: Option<&str>| Scope {
            namespace: namespace.to_owned(),
            pool: pool.map(str::to_owned),
        };
        assert_eq!(permits(&account, None, &scope("a", None)), Ok(()));
        assert_eq!(permits(&account, None, &scope("a", Some("p"))), Ok(()));
        assert!(permits(&account, None, &scope("b", Some("p"))).is_err());
        assert_eq!(permits(&account, Some("p"), &scope("a", Some("p"))), Ok(()));
        assert!(permits(&account, Some("p"), &scope("a", Some("q"))).is_err());
        let whole = permits(&account, Some("p"), &scope("a", None)).unwrap_err();
        assert_eq!(whole, "service account picker may read pool p only, not namespace a");
    }
}
