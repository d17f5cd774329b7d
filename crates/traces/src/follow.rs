//! The spans of one request.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use director::{
    Attempt, AttemptReport, AttemptTrace, Decision, Rejection, RequestReport, RequestTrace, TRACEPARENT, TRACESTATE,
    Trace, TraceParent, Tracer,
};
use http::{HeaderValue, StatusCode};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
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
    span: Mutex<Span>,
    named: OnceLock<String>,
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
    fn follow(&self, parent: TraceParent<'_>, at: Instant) -> Trace {
        let clock = Clock { instant: at, time: SystemTime::now() };
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Said(parent));
        let span = self.0.span_builder("gateway.request").with_kind(SpanKind::Server).with_start_time(clock.time);
        let span = span.start_with_context(&self.0, &parent);
        Trace::new(Arc::new(Request {
            tracer: self.0.clone(),
            clock,
            context: span.span_context().clone(),
            is_told: span.is_recording(),
            span: Mutex::new(span),
            named: OnceLock::new(),
        }))
    }
}

/// What a request says of its trace, for OpenTelemetry's own reader.
struct Said<'h>(TraceParent<'h>);

impl Extractor for Said<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let Self(TraceParent { parent, state }) = self;
        match key {
            _ if key == TRACEPARENT => *parent,
            _ if key == TRACESTATE => *state,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

// === impl Request ===

impl Request {
    /// A span of a part of it, or of what `within` names.
    fn part(&self, builder: SpanBuilder, within: &SpanContext) -> Span {
        builder.start_with_context(&self.tracer, &Context::new().with_remote_span_context(within.clone()))
    }

    fn say(&self, said: impl FnOnce() -> (Vec<KeyValue>, End)) {
        if self.is_told {
            say(&mut locked(&self.span), said());
        }
    }
}

impl RequestTrace for Request {
    fn read(&self, request: &InferenceRequest) {
        if self.is_told {
            let operation = attributes::operation(request.requires.operation);
            // An attempt at what has no name yet is none at a model.
            let _ = self.named.set(match attributes::model(request) {
                Some(model) => format!("{operation} {model}"),
                None => operation.to_owned(),
            });
            locked(&self.span).set_attributes(attributes::of_request(request));
        }
    }

    fn decided(&self, decision: &Decision<'_>) {
        if !self.is_told {
            return;
        }
        let Decision { since, began, ended, .. } = *decision;
        let part = |name: &'static str, from: Instant, within: &SpanContext| {
            self.part(self.tracer.span_builder(name).with_start_time(self.clock.time(from)), within)
        };
        let said = attributes::of_decision(decision);
        locked(&self.span).set_attributes(said.iter().filter(|one| is_of_the_whole(one)).cloned());
        let mut whole = part("gateway.request_orchestration", since, &self.context);
        if began.saturating_duration_since(since) >= WAITED {
            part("wait_for_room", since, whole.span_context()).end_with_timestamp(self.clock.time(began));
        }
        let mut decided = part("run_scheduler_profile", began, whole.span_context());
        decided.set_attributes(said);
        decided.end_with_timestamp(self.clock.time(ended));
        whole.end_with_timestamp(self.clock.time(ended));
    }

    fn answered(&self, status: StatusCode) {
        self.say(|| attributes::of_answer(status));
    }

    fn refused(&self, rejection: &Rejection) {
        self.say(|| attributes::of_refusal(rejection));
    }

    fn attempt(&self, place: usize, attempt: &Attempt, at: Instant) -> Box<dyn AttemptTrace> {
        let name = self.named.get().cloned().unwrap_or_default();
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Client);
        let mut span = self.part(builder.with_start_time(self.clock.time(at)), &self.context);
        if self.is_told {
            span.set_attributes(attributes::of_attempt(place, attempt));
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
        self.say(|| attributes::of_request_ended(report));
    }
}

/// What people look for among requests, rather than in one.
fn is_of_the_whole(attribute: &KeyValue) -> bool {
    ["thalamus.pool", "thalamus.endpoint", "thalamus.tier"].contains(&attribute.key.as_str())
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
        let mut span = locked(&self.span);
        say(&mut span, attributes::of_attempt_ended(report));
        let at = |after| self.clock.time(self.began + after);
        if let Some(after) = report.to_first_byte {
            span.add_event_with_timestamp("first_byte", at(after), Vec::new());
        }
        if let Some(took) = report.took {
            span.end_with_timestamp(at(took));
        }
    }
}

fn say(span: &mut Span, (said, end): (Vec<KeyValue>, End)) {
    span.set_attributes(said);
    if let End::Error(kind) = end {
        span.set_attribute(KeyValue::new("error.type", kind));
        span.set_status(Status::error(""));
    }
}

fn locked(span: &Mutex<Span>) -> MutexGuard<'_, Span> {
    // Whatever panicked, it is a span still.
    span.lock().unwrap_or_else(PoisonError::into_inner)
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
