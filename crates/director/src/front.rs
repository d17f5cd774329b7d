//! What the edges share: one director, one set of limits, and someone who is told what was decided.

use std::sync::Arc;
use std::time::{Duration, Instant};

use request::{InferenceRequest, Limits};
use routing::Draw;
use scheduling::Subset;

use crate::{Decision, Director, Rejection};

/// Is told of every decision and every rejection: a log line, a counter, or a test's memory.
pub trait Witness: Send + Sync + std::fmt::Debug {
    fn decided(&self, request: &InferenceRequest, decision: &Decision, took: Duration);
    fn rejected(&self, rejection: &Rejection);
}

/// A director as edges see it.
#[derive(Debug, Clone)]
pub struct Front {
    pub director: Arc<Director>,
    pub limits: Limits,
    pub witness: Arc<dyn Witness>,
}

impl Front {
    /// Decides, and tells the witness. `clock` is read before and after.
    pub fn direct(
        &self,
        request: &InferenceRequest,
        subset: Option<&Subset>,
        clock: impl Fn() -> Instant,
        draw: Draw,
    ) -> Result<Decision, Rejection> {
        let now = clock();
        match self.director.direct(request, subset, now, draw) {
            Ok(decision) => {
                self.witness.decided(request, &decision, clock().saturating_duration_since(now));
                Ok(decision)
            }
            Err(rejection) => Err(self.reject(rejection)),
        }
    }

    /// Tells the witness of a rejection that an edge found by itself.
    pub fn reject(&self, rejection: impl Into<Rejection>) -> Rejection {
        let rejection = rejection.into();
        self.witness.rejected(&rejection);
        rejection
    }
}
