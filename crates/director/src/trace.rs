//! Who follows single requests, for those who want to see where the time of one went.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderName, HeaderValue, StatusCode};
use request::InferenceRequest;

use crate::{Attempt, AttemptReport, Plan, Rejection, RequestReport};

/// The header by which a request says which span of which trace it belongs to (W3C Trace Context, section 3.2), and what goes with it.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Follows requests from their head on.
pub trait Tracer: Send + Sync + fmt::Debug {
    /// A request begins.
    fn follow(&self, parent: TraceParent<'_>, at: Instant) -> Trace;
}

/// What a request, or the gateway that asks about it, says of the trace that it belongs to; nothing where a header is there twice.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceParent<'h> {
    pub parent: Option<&'h str>,
    pub state: Option<&'h str>,
}

/// A request, followed or not. Clones are the same one, which ends with the last of them.
#[derive(Debug, Clone, Default)]
pub struct Trace(Option<Arc<dyn RequestTrace>>);

/// Hears of one request.
pub trait RequestTrace: Send + Sync + fmt::Debug {
    /// It was read.
    fn read(&self, request: &InferenceRequest);

    /// It goes to an endpoint.
    fn decided(&self, decision: &Decision<'_>);

    /// It is answered by the picker.
    fn answered(&self, status: StatusCode);

    /// It is refused, or is answered with an error of ours after all.
    fn refused(&self, rejection: &Rejection);

    /// An attempt begins.
    fn attempt(&self, number: usize, attempt: &Attempt, at: Instant) -> Box<dyn AttemptTrace>;

    /// It went to an endpoint, and has ended.
    fn finished(&self, report: &RequestReport<'_>);
}

/// Hears of one attempt, which ends when this is dropped.
pub trait AttemptTrace: Send + Sync + fmt::Debug {
    /// What the endpoint is to take for the origin of what it does.
    fn traceparent(&self) -> HeaderValue;

    fn ended(&self, report: &AttemptReport<'_>);
}

/// How it was decided where a request goes.
#[derive(Debug)]
pub struct Decision<'p> {
    pub plan: &'p Plan,
    /// When the request had been read.
    pub since: Instant,
    /// When the decision that holds was begun, and when it was made; between `since` and that the request waited, or its owner was looked for.
    pub began: Instant,
    pub ended: Instant,
}

// === impl Trace ===

impl Trace {
    pub fn new(trace: Arc<dyn RequestTrace>) -> Self {
        Self(Some(trace))
    }

    /// The request is refused, or is answered with an error of ours after all.
    pub fn refused(&self, rejection: &Rejection) {
        if let Self(Some(trace)) = self {
            trace.refused(rejection);
        }
    }

    /// Whoever hears of it, if anybody does.
    pub(crate) fn hears(&self) -> Option<&dyn RequestTrace> {
        self.0.as_deref()
    }
}

impl<'h> TraceParent<'h> {
    /// Of the values that these headers have.
    pub fn of(parents: impl IntoIterator<Item = &'h str>, states: impl IntoIterator<Item = &'h str>) -> Self {
        let mut parents = parents.into_iter();
        let parent = parents.next().filter(|_| parents.next().is_none());
        Self { parent, state: parent.and_then(|_| states.into_iter().next()) }
    }
}
