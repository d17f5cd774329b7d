//! A dispatched request's way through its attempts to an answer.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use director::{Attempt, Dialect, Dispatch, MAX_REFUSAL, Plan, Rejection, RunningAttempt};
use http::Response;
use http::request::Parts;
use http_body::Frame;
use http_body_util::{BodyExt as _, Either};
use hyper::body::Incoming;
use routing::Unfit;
use tokio::time::Instant as Deadline;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::body::{Answer, ResponseBody};
use crate::forwarding;
use crate::upload::{Original, Upload};
use crate::upstream::{Failure, Upstream};

/// How long the head of an answer is held for the first byte after it. A server that breaks off in between is common, and a client that
/// has the head takes what follows for its answer. An engine that streams says its head at once and its first token when it has one: that
/// is not waited for.
const HELD_FOR: Duration = Duration::from_millis(50);

/// How long a refusal is waited for that may be another endpoint's to answer: engines send theirs with its head.
const REFUSAL_FOR: Duration = Duration::from_secs(1);

/// How a request goes, whichever attempt it is at.
#[derive(Debug)]
pub(crate) struct Going {
    pub(crate) dialect: Dialect,
    /// Where the model has none of its own.
    pub(crate) first_byte_timeout: Option<Duration>,
    /// Held to the end of the answer.
    pub(crate) under_way: TaskTrackerToken,
}

/// Sends the request to one endpoint after the other, as far as that can harm nobody: see the table in `docs/retries.md`.
pub(crate) async fn forward(
    upstream: &Upstream,
    parts: &Parts,
    body: Original,
    Dispatch { plan, mut attempt }: Dispatch,
    going: Going,
) -> Result<Response<ResponseBody>, Rejection> {
    let first_byte_timeout = plan.first_byte_timeout.or(going.first_byte_timeout);
    let mut next_upload = None;
    let mut again = false;
    let mut tried = 1;
    loop {
        let Attempt { address, app_protocol, splices, .. } = attempt.of(&plan);
        let (address, protocol) = (*address, *app_protocol);
        let Some(upload) = next_upload.take().or_else(|| body.upload(splices)) else {
            // It went out to the endpoint before this one, and nothing to this one.
            attempt.unseen();
            return Err(plan.failed(Rejection::BrokenOff));
        };
        let request = match forwarding::to_model_server(parts, &plan, &attempt, upload) {
            Ok(request) => request,
            Err(rejection) => return Err(plan.failed(rejection)),
        };
        let limit = first_byte_timeout.map(|limit| (limit, Deadline::now() + limit));
        let sent = within(limit, upstream.send(protocol, request)).await;
        let now = Instant::now();
        let failure = match sent {
            Ok(Ok(response)) => {
                attempt.head(response.status(), now);
                let (head, mut answer) = response.into_parts();
                let may_go_on = attempt.may_be_unfit() && plan.has_more_after(&attempt) && body.is_kept();
                let begun = if may_go_on { Begun::read(&mut answer, limit).await } else { Begun::Not };
                let now = Instant::now();
                let Some(Refused { unfit, next, upload }) = begun.refused(&attempt, &plan, &body, now) else {
                    return hold(head, (answer, begun), attempt, plan, limit, going).await;
                };
                tracing::debug!(endpoint = %address, "endpoint does not take what the request holds; trying another");
                attempt.first_byte(|| now);
                attempt.refused(unfit, now);
                attempt.ended(now);
                (attempt, next_upload, tried, again) = (next, Some(upload), tried + 1, false);
                continue;
            }
            Ok(Err(failure)) => failure,
            Err(TimedOut { waited }) => {
                attempt.timed_out(now);
                return Err(plan.failed(Rejection::TimedOut { waited }));
            }
        };
        let (next, rejection) = match failure {
            Failure::Unseen(error) if !again => {
                tracing::debug!(endpoint = %address, %error, "a pooled connection was closed; sending the request again");
                again = true;
                attempt = plan.again(attempt, now);
                continue;
            }
            Failure::Unreachable(error) => {
                tracing::warn!(endpoint = %address, %error, "endpoint unreachable");
                (after(attempt, &plan, now, |attempt| attempt.unreachable(now)), Rejection::Unreachable { tried })
            }
            Failure::Cut(error) => {
                tracing::warn!(endpoint = %address, %error, "endpoint closed the connection while the request was being sent");
                (after(attempt, &plan, now, |attempt| attempt.broke_off(now)), Rejection::BrokenOff)
            }
            Failure::Unseen(error) => {
                tracing::warn!(endpoint = %address, %error, "endpoint takes no request");
                (after(attempt, &plan, now, RunningAttempt::unseen), Rejection::BrokenOff)
            }
            // It may have got the request, and a generation is not to be paid for twice.
            Failure::BrokeOff(error) => {
                tracing::warn!(endpoint = %address, %error, "endpoint closed the connection before it answered");
                attempt.broke_off(now);
                (None, Rejection::BrokenOff)
            }
        };
        let Some(next) = next else { return Err(plan.failed(rejection)) };
        (attempt, tried, again) = (next, tried + 1, false);
    }
}

/// Ends an attempt, and begins the one after it.
fn after(
    attempt: RunningAttempt,
    plan: &Plan,
    now: Instant,
    end: impl FnOnce(RunningAttempt),
) -> Option<RunningAttempt> {
    let next = plan.next_after(&attempt, now);
    end(attempt);
    next
}

/// What came of an answer while its head was held.
#[derive(Debug)]
enum Begun {
    /// It was not looked at, or nothing came.
    Not,
    Some(Bytes),
    Whole(Bytes),
    Broke(hyper::Error),
}

/// An answer that is another endpoint's to give.
#[derive(Debug)]
struct Refused {
    unfit: Unfit,
    next: RunningAttempt,
    /// What goes there.
    upload: Upload,
}

impl Begun {
    /// Reads an answer that may be a refusal, as far as one is long.
    async fn read(answer: &mut Incoming, limit: Option<(Duration, Deadline)>) -> Self {
        let until = Deadline::now() + REFUSAL_FOR;
        let until = limit.map_or(until, |(_, limit)| until.min(limit));
        let mut bytes = BytesMut::new();
        while bytes.len() <= MAX_REFUSAL {
            match tokio::time::timeout_at(until, answer.frame()).await {
                Ok(Some(Ok(frame))) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| &**data)),
                Ok(Some(Err(error))) => return Self::Broke(error),
                Ok(None) => return Self::Whole(bytes.freeze()),
                Err(_) => break,
            }
        }
        if bytes.is_empty() { Self::Not } else { Self::Some(bytes.freeze()) }
    }

    /// Where it refuses what another endpoint of the plan may take: what it says, and the attempt at that one.
    fn refused(&self, attempt: &RunningAttempt, plan: &Plan, body: &Original, now: Instant) -> Option<Refused> {
        let Self::Whole(said) = self else { return None };
        let unfit = attempt.unfit(said)?;
        let next = plan.next_that_may_take(unfit, attempt, now)?;
        match body.upload(&next.of(plan).splices) {
            Some(upload) => Some(Refused { unfit, next, upload }),
            // The last of it has gone out meanwhile.
            None => {
                next.unseen();
                None
            }
        }
    }
}

/// Holds the head until the first byte after it, the end of the answer, or for a moment.
async fn hold(
    mut head: http::response::Parts,
    (body, begun): (Incoming, Begun),
    attempt: RunningAttempt,
    plan: Plan,
    limit: Option<(Duration, Deadline)>,
    going: Going,
) -> Result<Response<ResponseBody>, Rejection> {
    forwarding::remove_hop_by_hop(&mut head.headers);
    let mut answer = Answer::new(&head.headers, body, attempt, plan, going);
    let broke = |answer: Answer, error| {
        tracing::warn!(%error, "endpoint closed the connection after the head of its answer");
        Err(answer.broke_off(Rejection::BrokenOff))
    };
    let answer = match begun {
        Begun::Whole(bytes) => answer.whole(bytes),
        Begun::Some(bytes) => answer.begun_with(Some(Frame::data(bytes))),
        Begun::Broke(error) => return broke(answer, error),
        Begun::Not if answer.is_over() => answer.begun_with(None),
        Begun::Not => match tokio::time::timeout(HELD_FOR, answer.frame()).await {
            Ok(Some(Ok(frame))) => answer.begun_with(Some(frame)),
            Ok(None) => answer.begun_with(None),
            Ok(Some(Err(error))) => return broke(answer, error),
            Err(_) => answer.beginning_by(limit),
        },
    };
    Ok(Response::from_parts(head, Either::Left(answer)))
}

/// So long was waited.
struct TimedOut {
    waited: Duration,
}

async fn within<T>(limit: Option<(Duration, Deadline)>, wait: impl Future<Output = T>) -> Result<T, TimedOut> {
    match limit {
        Some((waited, at)) => tokio::time::timeout_at(at, wait).await.map_err(|_| TimedOut { waited }),
        None => Ok(wait.await),
    }
}
