//! The spans of one request.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use director::{
    Attempt, AttemptReport, AttemptTrace, Decision, Left, Rejection, RequestReport, RequestTrace, TRACEPARENT,
    TRACESTATE, Trace, TraceParent, Tracer,
};
use http::{HeaderValue, StatusCode};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span};
use request::InferenceRequest;

use crate::attributes::{self, End};

/// A wait below this is none: it is how long a decision takes.
const WAITED: Duration = Duration::from_millis(1);

/// Follows every request; whether it is told of is the sampler's to say.
#[derive(Debug)]
pub(crate) struct Following(pub(crate) SdkTracer);

#[derive(Debug)]
struct Request {
    tracer: SdkTracer,
    clock: Clock,
    /// Of its own span, which its parts are in.
    context: SpanContext,
    is_told: bool,
    attempts: AtomicU64,
    read: OnceLock<Read>,
    so_far: Mutex<SoFar>,
}

/// What is known once it was read.
#[derive(Debug)]
struct Read {
    at: Instant,
    operation: &'static str,
    model: Option<String>,
}

#[derive(Debug)]
struct SoFar {
    span: Span,
    is_decided: bool,
    /// What was said last of how it ended; none of a client that left before that was known.
    end: Option<End>,
}

#[derive(Debug)]
struct OneAttempt {
    clock: Clock,
    context: SpanContext,
    began: Instant,
    is_told: bool,
    span: Mutex<Span>,
}

/// What time it was at an instant.
#[derive(Debug, Clone, Copy)]
struct Clock {
    instant: Instant,
    time: SystemTime,
}

// === impl Following ===

impl Tracer for Following {
    fn follow(&self, method: &str, parent: TraceParent<'_>, at: Instant) -> Trace {
        let clock = Clock { instant: at, time: SystemTime::now() };
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Said(parent));
        let builder = self.0.span_builder("gateway.request").with_kind(SpanKind::Server).with_start_time(clock.time);
        let mut span = builder.start_with_context(&self.0, &parent);
        let is_told = span.is_recording();
        if is_told {
            span.set_attribute(attributes::of_method(method));
        }
        Trace::new(Arc::new(Request {
            tracer: self.0.clone(),
            clock,
            context: span.span_context().clone(),
            is_told,
            attempts: AtomicU64::new(0),
            read: OnceLock::new(),
            so_far: Mutex::new(SoFar { span, is_decided: false, end: None }),
        }))
    }
}

/// What a request says of its trace, for OpenTelemetry's own reader.
struct Said<'h>(TraceParent<'h>);

impl Extractor for Said<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            _ if key == TRACEPARENT => self.0.parent(),
            _ if key == TRACESTATE => self.0.state(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

// === impl Request ===

impl Request {
    /// A span of a part of it, within another.
    fn part(&self, builder: SpanBuilder, within: &SpanContext) -> Span {
        builder.start_with_context(&self.tracer, &Context::new().with_remote_span_context(within.clone()))
    }

    fn part_from(&self, name: &'static str, from: Instant, within: &SpanContext) -> Span {
        self.part(self.tracer.span_builder(name).with_start_time(self.clock.time(from)), within)
    }

    /// That it waited, or its owner was looked for, where that took any time.
    fn waited(&self, from: Instant, to: Instant, within: &SpanContext) {
        if to.saturating_duration_since(from) >= WAITED {
            self.part_from("wait_for_room", from, within).end_with_timestamp(self.clock.time(to));
        }
    }

    fn ends(&self, end: impl FnOnce() -> End) {
        if self.is_told {
            locked(&self.so_far).end = Some(end());
        }
    }
}

impl RequestTrace for Request {
    fn read(&self, request: &InferenceRequest) {
        if self.is_told {
            let operation = attributes::operation(request.requires.operation);
            let read = Read { at: Instant::now(), operation, model: attributes::model(request) };
            locked(&self.so_far).span.set_attributes(attributes::of_request(request));
            // It is read once.
            let _ = self.read.set(read);
        }
    }

    fn decided(&self, decision: &Decision<'_>) {
        if !self.is_told {
            return;
        }
        let Decision { plan, since, began, ended } = *decision;
        let mut whole = self.part_from("gateway.request_orchestration", since, &self.context);
        self.waited(since, began, whole.span_context());
        let mut decided = self.part_from("run_scheduler_profile", began, whole.span_context());
        decided.set_attributes(attributes::of_decision(plan));
        decided.end_with_timestamp(self.clock.time(ended));
        whole.end_with_timestamp(self.clock.time(ended));
        locked(&self.so_far).is_decided = true;
    }

    fn answered(&self, status: StatusCode) {
        self.ends(|| attributes::of_answer(status));
    }

    fn refused(&self, rejection: &Rejection) {
        self.ends(|| attributes::of_refusal(rejection));
    }

    fn attempt(&self, attempt: &Attempt, at: Instant) -> Box<dyn AttemptTrace> {
        let number = self.attempts.fetch_add(1, Relaxed) + 1;
        let (operation, name) = match self.read.get() {
            Some(Read { operation, model: Some(model), .. }) => (*operation, format!("{operation} {model}")),
            Some(Read { operation, .. }) => (*operation, (*operation).to_owned()),
            None => ("", String::new()),
        };
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Client);
        let mut span = self.part(builder.with_start_time(self.clock.time(at)), &self.context);
        if self.is_told {
            span.set_attributes(attributes::of_attempt(number, operation, attempt));
        }
        Box::new(OneAttempt {
            clock: self.clock,
            context: span.span_context().clone(),
            began: at,
            is_told: self.is_told,
            span: Mutex::new(span),
        })
    }

    fn finished(&self, report: &RequestReport<'_>) {
        if self.is_told {
            let (said, end) = attributes::of_request_ended(report);
            let so_far = &mut *locked(&self.so_far);
            so_far.span.set_attributes(said);
            // What the client was told stands, where we told it.
            so_far.end.get_or_insert(end);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.is_told {
            return;
        }
        let now = Instant::now();
        let is_decided = locked(&self.so_far).is_decided;
        if let Some(read) = self.read.get().filter(|_| !is_decided) {
            self.waited(read.at, now, &self.context);
        }
        let so_far = self.so_far.get_mut().unwrap_or_else(PoisonError::into_inner);
        let gone = End { ending: Some(attributes::ABANDONED), ..End::default() };
        end(&mut so_far.span, &so_far.end.take().unwrap_or(gone));
        so_far.span.end_with_timestamp(self.clock.time(now));
    }
}

// === impl OneAttempt ===

impl AttemptTrace for OneAttempt {
    fn traceparent(&self) -> HeaderValue {
        let Self { context, .. } = self;
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
        // Hexadecimal digits and hyphens.
        HeaderValue::try_from(format!("00-{trace}-{span}-{flags:02x}")).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    fn ended(&self, report: &AttemptReport<'_>) {
        if !self.is_told {
            return;
        }
        let span = &mut *locked(&self.span);
        let (said, how) = attributes::of_attempt_ended(report);
        span.set_attributes(said);
        end(span, &how);
        let at = |after| self.clock.time(self.began + after);
        if let Some(after) = report.to_first_byte {
            span.add_event_with_timestamp("first_byte", at(after), Vec::new());
        }
        span.end_with_timestamp(report.took.map_or_else(|| self.clock.time(Instant::now()), at));
    }

    fn left(&self, why: Left) {
        if self.is_told {
            let span = &mut *locked(&self.span);
            end(span, &attributes::of_attempt_left(why));
            span.end_with_timestamp(self.clock.time(Instant::now()));
        }
    }
}

/// Says how it ended. Once: a span keeps everything that it is told.
fn end(span: &mut Span, how: &End) {
    span.set_attributes(how.attributes());
    if how.error.as_ref().is_some_and(|(_, is_ours)| *is_ours) {
        span.set_status(Status::error(""));
    }
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever panicked, a span is one still.
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Clock ===

impl Clock {
    fn time(&self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.instant) {
            Some(after) => self.time + after,
            None => self.time - self.instant.saturating_duration_since(at),
        }
    }
}

#[cfg(test)]
mod tests;
