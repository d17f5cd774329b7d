//! What the edges share: one director, one set of limits, and someone who is told what was decided.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use request::{InferenceRequest, Limits, RequestHead, Resource};
use routing::Draw;

use crate::{Bound, Budget, Decision, Director, Intake, JobFinder, Jobs, Maker, Rejection, Reply};

/// Is told of every decision and every rejection: a log line, a counter, or a test's memory.
pub trait Witness: Send + Sync + std::fmt::Debug {
    fn decided(&self, request: &InferenceRequest, decision: &Decision, took: Duration);
    fn rejected(&self, rejection: &Rejection);

    /// A gateway sent a request to an endpoint that was not among the choices.
    fn served_elsewhere(&self, decision: &Decision, address: SocketAddr);
}

/// A director as edges see it.
#[derive(Debug, Clone)]
pub struct Front {
    pub director: Arc<Director>,
    pub limits: Limits,
    pub budget: Budget,
    pub jobs: Arc<Jobs>,
    /// Who asks around for jobs that are not known; none leaves them unknown.
    pub job_finder: Option<Arc<dyn JobFinder>>,
    /// Whose models these are, in lists of models: the namespace.
    pub owner: Arc<str>,
    /// The pool that paths go to which nothing is known of; none refuses them.
    pub other_paths: Option<Arc<str>>,
    pub witness: Arc<dyn Witness>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It goes to an endpoint.
    Forward(Decision),
    /// The picker answers it itself.
    Answer(Reply),
}

impl Front {
    /// Opens the intake of a request.
    pub fn intake(&self, head: &RequestHead<'_>) -> Result<Intake, Rejection> {
        Intake::new(head, self.limits, &self.budget)
    }

    /// Finds out who made the job that a request is about, if it is about one whose maker is not known. To be awaited before the
    /// request is responded to; everything else waits for nothing.
    pub async fn find_job(&self, resource: &Resource, authorization: Option<&str>) {
        let (Resource::Job(id), Some(finder)) = (resource, &self.job_finder) else { return };
        if self.jobs.maker(id).is_some() {
            return;
        }
        let among = self.director.makers();
        if among.len() > 1
            && let Some(maker) = finder.find(id, authorization, among).await
        {
            self.jobs.remember(id.clone(), maker);
        }
    }

    /// Decides or answers, and tells the witness. `clock` is read before and after.
    pub fn respond(
        &self,
        request: &InferenceRequest,
        bound: Bound<'_>,
        clock: impl Fn() -> Instant,
        draw: Draw,
    ) -> Result<Outcome, Rejection> {
        let now = clock();
        match self.outcome(request, bound, now, draw) {
            Ok(outcome) => {
                if let Outcome::Forward(decision) = &outcome {
                    self.witness.decided(request, decision, clock().saturating_duration_since(now));
                }
                Ok(outcome)
            }
            Err(rejection) => Err(self.reject(rejection)),
        }
    }

    fn outcome(
        &self,
        request: &InferenceRequest,
        bound: Bound<'_>,
        now: Instant,
        draw: Draw,
    ) -> Result<Outcome, Rejection> {
        let director = &self.director;
        let (_, table) = director.table().ok_or(Rejection::NotSynced)?;
        let decision = match &request.resource {
            Resource::Operation(_) => director.direct(request, bound, now, draw)?,
            // Where nobody declared a model, the pool's own servers know which they have.
            Resource::Models { .. } | Resource::Model { .. } if table.models.is_empty() => {
                director.direct(request, bound, now, draw)?
            }
            Resource::Models { all } => return Ok(Outcome::Answer(Reply::models(&table, *all, &self.owner))),
            Resource::Model { id, all } => {
                if !table.models.contains_key(&**id) {
                    return Err(Rejection::NoRoute {
                        no_route: table.unknown_model(id),
                        part: None,
                        asks_by_field: false,
                    });
                }
                let reply = Reply::model(&table, id, *all, &self.owner);
                return reply.map(Outcome::Answer).ok_or_else(|| Rejection::NotServedNow { model: id.clone() });
            }
            Resource::Job(id) => director.direct_job(id, self.jobs.maker(id).as_ref(), request, bound)?,
            Resource::Unknown => match &self.other_paths {
                Some(pool) => director.direct_as_is(pool, request, bound, now, draw)?,
                None => return Err(Rejection::UnknownPath),
            },
            Resource::Administrative => return Err(Rejection::UnknownPath),
        };
        Ok(Outcome::Forward(decision))
    }

    /// A model server said that it made a job.
    pub fn job_made(&self, id: String, maker: Maker) {
        self.jobs.remember(id, maker);
    }

    /// The gateway says who served a request: it counts there from now on, and nowhere if that is no endpoint of ours. Answers whose
    /// that is.
    pub fn served(&self, decision: &mut Decision, address: SocketAddr) -> Option<Maker> {
        if !decision.endpoints.iter().any(|choice| choice.address == address) {
            self.witness.served_elsewhere(decision, address);
        }
        self.director.served(decision, address)
    }

    /// Tells the witness of a rejection that an edge found by itself.
    pub fn reject(&self, rejection: impl Into<Rejection>) -> Rejection {
        let rejection = rejection.into();
        self.witness.rejected(&rejection);
        rejection
    }
}
