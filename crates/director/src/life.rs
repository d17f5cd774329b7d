//! A request from the decision to the end of its answer: what is told of it once, however many attempts it took.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use routing::{ModalitySet, ModelName, Operation};

use crate::{Code, Ending, EndpointId, Observer, Trace, Usage};

/// What a request is counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The model that is asked for, where the table or a server lists it; none else, since a client's own words are no label.
    pub model: Option<ModelName>,
    /// What the first endpoint was asked for; none where that is the model's own name.
    pub target: Option<ModelName>,
    pub priority: i32,
    pub operation: Operation,
    /// Whether a model is asked for something; else it is a look at what was made before, or nobody knows what.
    pub is_inference: bool,
    pub input: ModalitySet,
    pub is_streamed: bool,
    /// Of its body.
    pub bytes: u64,
}

/// What became of a request.
#[derive(Debug)]
pub struct RequestReport<'a> {
    pub asked: &'a Asked,
    pub outcome: Outcome,
    /// Who had it last; none where its last attempt never began, or was none of ours.
    pub endpoint: Option<&'a EndpointId>,
    /// Of the answer whose head came last.
    pub status: Option<StatusCode>,
    /// From the decision, with the time that it waited before.
    pub to_first_byte: Option<Duration>,
    /// To the end of its answer; none where nobody said when that was.
    pub took: Option<Duration>,
    /// Of the answer's body, as far as it was seen.
    pub bytes: u64,
    pub usage: Usage,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a model server's answer, whatever it says.
    Answered(StatusCode),
    /// With an error of ours.
    Failed(Code),
    /// Its client went away, or nobody told how it ended.
    Abandoned,
}

/// Whoever holds the last part of a request ends it: its plan, or an attempt.
#[derive(Debug)]
pub(crate) struct Life {
    asked: Asked,
    began: Instant,
    observer: Arc<dyn Observer>,
    pub(crate) trace: Trace,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<LastAttempt>,
    failure: Option<Code>,
}

/// What an attempt knows of the answer when it ends.
#[derive(Debug)]
pub(crate) struct LastAttempt {
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) ending: Ending,
    pub(crate) status: Option<StatusCode>,
    pub(crate) first_byte: Option<Instant>,
    pub(crate) ended: Option<Instant>,
    pub(crate) bytes: u64,
    pub(crate) usage: Usage,
}

impl Life {
    pub(crate) fn begin(asked: Asked, began: Instant, observer: Arc<dyn Observer>, trace: Trace) -> Arc<Self> {
        Arc::new(Self { asked, began, observer, trace, told: Mutex::default() })
    }

    pub(crate) const fn is_inference(&self) -> bool {
        self.asked.is_inference
    }

    /// Another may follow.
    pub(crate) fn attempt_ended(&self, attempt: LastAttempt) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).last = Some(attempt);
    }

    pub(crate) fn failed(&self, code: Code) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).failure = Some(code);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let Told { last, failure } = std::mem::take(self.told.get_mut().unwrap_or_else(PoisonError::into_inner));
        let last = last.as_ref();
        let since = |at: Instant| at.saturating_duration_since(self.began);
        let outcome = match (failure, last) {
            (Some(code), _) => Outcome::Failed(code),
            (None, Some(LastAttempt { ending: Ending::Complete, status: Some(status), .. })) => {
                Outcome::Answered(*status)
            }
            (None, Some(LastAttempt { ending: Ending::Unreachable, .. })) => Outcome::Failed(Code::EndpointUnreachable),
            (None, Some(LastAttempt { ending: Ending::BrokeOff, .. })) => Outcome::Failed(Code::EndpointBrokeOff),
            (None, Some(LastAttempt { ending: Ending::TimedOut, .. })) => Outcome::Failed(Code::EndpointTimedOut),
            _ => Outcome::Abandoned,
        };
        let report = RequestReport {
            asked: &self.asked,
            outcome,
            endpoint: last.and_then(|last| last.endpoint.as_ref()),
            status: last.and_then(|last| last.status),
            to_first_byte: last.and_then(|last| last.first_byte).map(since),
            took: last.and_then(|last| last.ended).map(since),
            bytes: last.map_or(0, |last| last.bytes),
            usage: last.map(|last| last.usage).unwrap_or_default(),
        };
        self.observer.finished(&report);
        if let Some(trace) = self.trace.hears() {
            trace.finished(&report);
        }
    }
}

#[cfg(test)]
mod tests {
    use routing::{ModalitySet, Uid};

    use super::*;

    #[derive(Debug, Default)]
    struct Seen(Mutex<Vec<Outcome>>);

    impl Observer for Seen {
        fn finished(&self, report: &RequestReport<'_>) {
            self.0.lock().unwrap().push(report.outcome);
        }
    }

    /// Where somebody else answers, as inside Envoy, nobody says what became of the request: its last attempt does.
    #[expect(clippy::disallowed_methods, reason = "tests are an edge: some instant must come from somewhere")]
    #[test]
    fn a_request_is_told_of_once_as_its_last_attempt_ended() {
        let seen = Arc::new(Seen::default());
        let now = Instant::now();
        let ok = Some(StatusCode::OK);
        for (endings, failure, is) in [
            (&[(Ending::Complete, ok)][..], None, Outcome::Answered(StatusCode::OK)),
            (&[(Ending::Unreachable, None), (Ending::Complete, ok)], None, Outcome::Answered(StatusCode::OK)),
            (&[(Ending::Unreachable, None)], None, Outcome::Failed(Code::EndpointUnreachable)),
            (&[(Ending::BrokeOff, ok)], None, Outcome::Failed(Code::EndpointBrokeOff)),
            (&[(Ending::TimedOut, None)], None, Outcome::Failed(Code::EndpointTimedOut)),
            (&[(Ending::BrokeOff, None)], Some(Code::Overloaded), Outcome::Failed(Code::Overloaded)),
            (&[(Ending::Abandoned, ok)], None, Outcome::Abandoned),
            (&[], None, Outcome::Abandoned),
        ] {
            let asked = Asked {
                model: None,
                target: None,
                priority: 0,
                operation: Operation::ChatCompletions,
                is_inference: true,
                input: ModalitySet::TEXT,
                is_streamed: false,
                bytes: 1,
            };
            let life = Life::begin(asked, now, Arc::clone(&seen) as Arc<dyn Observer>, Trace::default());
            for (ending, status) in endings {
                life.attempt_ended(LastAttempt {
                    endpoint: Some(EndpointId { pool: "p".into(), name: "e".into(), uid: Uid::NONE, port: 1 }),
                    ending: *ending,
                    status: *status,
                    first_byte: None,
                    ended: Some(now),
                    bytes: 0,
                    usage: Usage::default(),
                });
            }
            if let Some(code) = failure {
                life.failed(code);
            }
            drop(life);
            assert_eq!(std::mem::take(&mut *seen.0.lock().unwrap()), [is], "{endings:?}");
        }
    }
}
