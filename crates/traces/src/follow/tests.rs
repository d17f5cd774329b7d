use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The spans of a request that says this of its trace and is refused, and what it would tell others.
fn told(sampler: Sampler, parent: TraceParent<'_>) -> Vec<SpanData> {
    let spans = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(spans.clone()).build();
    let following = Following(provider.tracer("test"));
    following.follow("BREW", parent, Instant::now()).refused(&Rejection::UnknownPath);
    spans.get_finished_spans().unwrap()
}

fn by_parent() -> Sampler {
    Sampler::ParentBased(Box::new(Sampler::AlwaysOn))
}

#[test]
fn a_request_belongs_to_the_trace_that_it_names_and_else_begins_one() {
    let of = |parents: &[&str]| {
        let told = told(by_parent(), TraceParent::of(parents.iter().copied(), ["k=v"]));
        assert_eq!((told.len(), &*told[0].name), (1, "gateway.request"), "{parents:?}");
        told.into_iter().next().unwrap()
    };
    let named = of(&[PARENT]);
    assert_eq!(named.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!((named.parent_span_id.to_string().as_str(), named.parent_span_is_remote), ("b7ad6b7169203331", true));
    assert_eq!(named.span_context.trace_state().header(), "k=v");
    let said: Vec<String> = named.attributes.iter().map(|one| format!("{}={}", one.key, one.value)).collect();
    assert_eq!(said, ["http.request.method=_OTHER", "http.response.status_code=404", "error.type=unknown_path"]);
    assert_eq!(named.status, Status::Unset, "it is the client's mistake");
    for none in [
        &[][..],
        &["00-nonsense"],
        &["", ""],
        &[PARENT, PARENT],
        &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
    ] {
        let begun = of(none);
        assert_ne!(begun.span_context.trace_id(), named.span_context.trace_id(), "{none:?}");
        assert_eq!(begun.parent_span_id.to_string(), "0000000000000000", "{none:?}");
    }
}

#[test]
fn who_is_not_to_be_told_of_is_not() {
    let unsampled = PARENT.replace("-01", "-00");
    assert!(told(by_parent(), TraceParent::of([&*unsampled], [])).is_empty());
    assert!(told(Sampler::AlwaysOff, TraceParent::default()).is_empty());
}

#[test]
fn the_time_of_an_instant_is_told_before_and_after_the_request_began() {
    let clock = Clock {
        instant: Instant::now() + Duration::from_secs(9),
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
    };
    let second = Duration::from_secs(1);
    assert_eq!(clock.time(clock.instant + second), clock.time + second);
    assert_eq!(clock.time(clock.instant.checked_sub(second).unwrap()), clock.time - second);
}
