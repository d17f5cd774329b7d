//! The answer of a model server on its way to the client: as it comes, and never as a good end where it broke.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use director::{Dialect, Plan, Rejection, RunningAttempt};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::forward::Going;

/// What a client is sent: a model server's answer, or ours.
pub(crate) type ResponseBody = Either<Answer, Full<Bytes>>;

/// A model server's answer. The request counts as under way until it has passed, or until nobody wants it any more.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Incoming,
    /// Came while the head was held; and whether that was all.
    first: Option<Frame<Bytes>>,
    is_whole: bool,
    /// None once it has ended.
    attempt: Option<RunningAttempt>,
    plan: Plan,
    events: Option<Events>,
    dialect: Dialect,
    /// When the first byte must have come.
    deadline: Option<(Duration, Pin<Box<Sleep>>)>,
    _under_way: TaskTrackerToken,
}

/// Why the answer ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the model server closed the connection")]
    ByServer(#[source] hyper::Error),
    #[error("the model server sent nothing in time")]
    ByUs,
}

/// Where in a stream of events the answer is (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
#[derive(Debug, Default)]
struct Events {
    /// The last bytes that passed, the newest in the lowest place.
    last: u32,
    passed: bool,
}

impl Answer {
    pub(crate) fn new(
        headers: &HeaderMap,
        body: Incoming,
        attempt: RunningAttempt,
        plan: Plan,
        Going { dialect, under_way, .. }: Going,
    ) -> Self {
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let events = kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream").then(Events::default);
        Self {
            body,
            first: None,
            is_whole: false,
            attempt: Some(attempt),
            plan,
            events,
            dialect,
            deadline: None,
            _under_way: under_way,
        }
    }

    /// Goes on with what came while the head was held.
    pub(crate) fn begun_with(mut self, first: Option<Frame<Bytes>>) -> Self {
        if first.is_none() {
            self.end();
        }
        self.first = first;
        self
    }

    /// The same, where all of it came.
    pub(crate) fn whole(mut self, bytes: Bytes) -> Self {
        self.is_whole = true;
        self.begun_with((!bytes.is_empty()).then(|| Frame::data(bytes)))
    }

    /// Goes on without anything.
    pub(crate) fn beginning_by(mut self, limit: Option<(Duration, tokio::time::Instant)>) -> Self {
        self.deadline = limit.map(|(limit, at)| (limit, Box::pin(tokio::time::sleep_until(at))));
        self
    }

    /// The next frame of the model server's, as an edge that still holds the head waits for it.
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        http_body_util::BodyExt::frame(&mut self.body).await
    }

    /// Whether nothing more comes of the model server's.
    pub(crate) fn is_over(&self) -> bool {
        self.is_whole || self.body.is_end_stream()
    }

    /// It broke while its head was held: the client gets an answer of ours instead.
    pub(crate) fn broke_off(mut self, why: Rejection) -> Rejection {
        self.close(why)
    }

    fn close(&mut self, why: Rejection) -> Rejection {
        let now = Instant::now();
        match self.attempt.take() {
            Some(attempt) if matches!(why, Rejection::TimedOut { .. }) => attempt.timed_out(now),
            Some(attempt) => attempt.broke_off(now),
            None => {}
        }
        self.plan.failed(why)
    }

    fn end(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.ended(Instant::now());
        }
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if let Some(data) = frame.data_ref() {
            if let Some(attempt) = &mut self.attempt {
                attempt.body(data, Instant::now);
            }
            if let Some(events) = &mut self.events {
                events.pass(data);
            }
        }
        if self.first.is_none() && self.is_over() {
            self.end();
        }
        frame
    }

    /// Between two events of a stream, one that says what happened; else nothing that could be taken for an answer.
    fn last_words(&mut self, why: Rejection, broken: Broken) -> Result<Frame<Bytes>, Broken> {
        let rejection = self.close(why);
        match self.events.take().filter(Events::is_between) {
            Some(_) => Ok(Frame::data(event(&rejection, self.dialect))),
            None => Err(broken),
        }
    }
}

/// An event that a client of this dialect takes for an error.
fn event(rejection: &Rejection, dialect: Dialect) -> Bytes {
    let body = rejection.reply(dialect).body;
    let name: &[u8] = match dialect {
        Dialect::OpenAi => b"data: ",
        Dialect::Anthropic => b"event: error\ndata: ",
    };
    [name, &body, b"\n\n"].concat().into()
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(self.pass(first))));
        }
        if self.attempt.is_none() {
            // It has ended, or broken: nothing follows.
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending()
            && let Some((limit, deadline)) = &mut self.deadline
        {
            ready!(deadline.as_mut().poll(cx));
            let waited = *limit;
            return Poll::Ready(Some(self.last_words(Rejection::TimedOut { waited }, Broken::ByUs)));
        }
        Poll::Ready(match ready!(polled) {
            Some(Ok(frame)) => {
                self.deadline = None;
                Some(Ok(self.pass(frame)))
            }
            None => {
                self.end();
                None
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "answer ended early");
                Some(self.last_words(Rejection::BrokenOff, Broken::ByServer(error)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && (self.attempt.is_none() || self.is_over())
    }

    fn size_hint(&self) -> SizeHint {
        let rest = if self.is_whole { SizeHint::with_exact(0) } else { self.body.size_hint() };
        match (&self.first, rest.exact()) {
            (None, _) => rest,
            (Some(first), Some(rest)) => {
                SizeHint::with_exact(rest + first.data_ref().map_or(0, |data| data.len() as u64))
            }
            (Some(_), None) => SizeHint::default(),
        }
    }
}

impl Events {
    fn pass(&mut self, data: &[u8]) {
        for byte in &data[data.len().saturating_sub(4)..] {
            self.last = self.last << 8 | u32::from(*byte);
        }
        self.passed |= !data.is_empty();
    }

    /// Whether an event would be taken for one here: at the beginning, or after an empty line.
    fn is_between(&self) -> bool {
        let [.., a, b] = self.last.to_be_bytes();
        !self.passed || [a, b] == *b"\n\n" || [a, b] == *b"\r\r" || self.last.to_be_bytes() == *b"\r\n\r\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_may_stand_after_an_empty_line_and_nowhere_else() {
        for (passed, between) in [
            (&[][..], true),
            (&["data: 1\n\n"], true),
            (&["data: 1\r\n", "\r", "\n"], true),
            (&["data: 1", "\n", "\n"], true),
            (&["data: 1\n"], false),
            (&["data: 1\n\ndata"], false),
        ] {
            let mut events = Events::default();
            for data in passed {
                events.pass(data.as_bytes());
            }
            assert_eq!(events.is_between(), between, "{passed:?}");
        }
    }

    #[test]
    fn an_error_between_events_is_one_in_the_clients_dialect() {
        let shown = |dialect| String::from_utf8(event(&Rejection::BrokenOff, dialect).to_vec()).unwrap();
        let open_ai = shown(Dialect::OpenAi);
        assert!(open_ai.starts_with(r#"data: {"error":{"code":"endpoint_broke_off""#), "{open_ai}");
        assert!(open_ai.ends_with("}\n\n"), "{open_ai}");
        let anthropic = shown(Dialect::Anthropic);
        assert!(
            anthropic.starts_with("event: error\ndata: {") && anthropic.contains(r#""type":"error""#),
            "{anthropic}"
        );
    }
}
