//! Who follows single requests, for those who want to see where the time of one went.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderName, HeaderValue, StatusCode};
use request::InferenceRequest;

use crate::{Attempt, AttemptReport, Ending, Plan, Rejection, RequestReport};

/// The header by which a request says which span of which trace it belongs to (W3C Trace Context, section 3.2), and what goes with it.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Follows requests from their head on.
pub trait Tracer: Send + Sync + fmt::Debug {
    /// A request begins.
    fn follow(&self, method: &str, parent: TraceParent<'_>, at: Instant) -> Trace;
}

/// What a request, or the gateway that asks about it, says of the trace that it belongs to; nothing where a header is there twice, or is none as
/// the recommendation has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceParent<'h> {
    parent: Option<&'h str>,
    state: Option<&'h str>,
}

/// No more of what a vendor says beside is kept, since every span keeps it: as much as everybody must pass on (section 3.3.1.5).
const MOST_OF_A_STATE: usize = 512;

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
    fn attempt(&self, attempt: &Attempt, at: Instant) -> Box<dyn AttemptTrace>;

    /// It went to an endpoint, and has ended.
    fn finished(&self, report: &RequestReport<'_>);
}

/// Hears of one attempt.
pub trait AttemptTrace: Send + Sync + fmt::Debug {
    /// What the endpoint is to take for the origin of what it does.
    fn traceparent(&self) -> HeaderValue;

    fn ended(&self, report: &AttemptReport<'_>);

    /// It is over, and nothing is held against anybody: its endpoint never saw it, or the gateway sent it to one that is none of ours.
    fn left(&self, why: Left);
}

/// Why an attempt is none after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Unseen,
    /// With the answer's status, where that came, and how it ended.
    ServedElsewhere(Option<StatusCode>, Ending),
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
        let parent = parents.next().filter(|parent| parents.next().is_none() && is_parent(parent));
        let mut states = states.into_iter();
        let state = parent.and_then(|_| states.next()).filter(|state| {
            // Of a list in several headers the whole would have to be kept.
            state.len() <= MOST_OF_A_STATE && states.next().is_none()
        });
        Self { parent, state }
    }

    /// This, or, where it says nothing, the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self.parent.is_some() { self } else { other }
    }

    pub const fn parent(self) -> Option<&'h str> {
        self.parent
    }

    pub const fn state(self) -> Option<&'h str> {
        self.state
    }
}

/// Version, trace, span and flags, in hexadecimal digits of lower case; a later version may have more after them (section 3.2.2).
fn is_parent(text: &str) -> bool {
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_some = |part: &str| part.bytes().any(|byte| byte != b'0');
    let mut parts = text.trim().splitn(5, '-');
    let mut next = || parts.next().unwrap_or_default();
    let (version, trace, span, flags, more) = (next(), next(), next(), next(), parts.next());
    is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && is_some(trace)
        && is_hex(span, 16)
        && is_some(span)
        && is_hex(flags, 2)
        && (more.is_none() || version != "00")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_no_parent_is_not_believed_and_what_is_long_is_not_kept() {
        let of = |parents: &[&str]| TraceParent::of(parents.iter().copied(), []).parent().is_some();
        assert!(of(&[PARENT]));
        assert!(of(&[&PARENT.replacen("00", "cc", 1)]) && of(&[&format!("cc{}-more", &PARENT[2..])]));
        for wrong in [
            "",
            "0-1-1-1",
            &PARENT[1..],
            &PARENT.to_uppercase(),
            &PARENT.replace("-01", "-+1"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            &PARENT.replace("b7ad6b7169203331", "0000000000000000"),
            &PARENT.replacen("00", "ff", 1),
            &format!("{PARENT}-more"),
            &PARENT.replace('-', ""),
        ] {
            assert!(!of(&[wrong]), "{wrong}");
        }
        assert!(!of(&[]) && !of(&[PARENT, PARENT]));
        let state = |states: &[&str]| TraceParent::of([PARENT], states.iter().copied()).state().map(str::len);
        let (long, longest) = ("x".repeat(MOST_OF_A_STATE + 1), "x".repeat(MOST_OF_A_STATE));
        assert_eq!(
            (state(&[&longest]), state(&[&long]), state(&["a=1", "b=2"]), state(&[])),
            (Some(512), None, None, None)
        );
        assert_eq!(TraceParent::of(["no"], ["a=1"]).state(), None);
    }
}
