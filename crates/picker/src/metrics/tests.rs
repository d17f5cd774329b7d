use super::*;

/// One of each, so that none is left out of what is shown.
fn sampled() -> Registry {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, false);
    let text = || "x".to_owned();
    // Named one by one, so that whoever adds one meets this.
    let Metrics {
        decisions,
        rejections,
        failures,
        answers: _,
        attempts,
        decision_seconds: _,
        request_bytes: _,
        media_items,
        media_tokens: _,
        work_seconds,
        cache_decisions: _,
        in_flight: _,
        waiting: _,
        waited_seconds: _,
        buffered_bytes: _,
        table_revision: _,
        table_age_seconds: _,
        scrapes,
        served_elsewhere: _,
        connections,
        connections_refused,
        contradictions,
        tokens,
        endpoints,
        ecosystem,
        contradicted: _,
        recent: _,
    } = &metrics;
    let pool = || Shown("x".into());
    drop(decisions.get_or_create(&DecisionLabels {
        pool: pool(),
        input: Shown(ModalitySet::TEXT),
        output: Shown(ModalitySet::TEXT),
        tier: 1,
    }));
    let reason = RejectionLabels { reason: Code::UnsupportedModality.as_str() };
    drop((rejections.get_or_create(&reason), failures.get_or_create(&reason)));
    drop(attempts.get_or_create(&AttemptLabels { pool: pool(), ending: "complete", status: 200 }));
    drop(media_items.get_or_create(&MediaLabels { modality: "image", source: "inline" }));
    drop(work_seconds.get_or_create(&WorkLabels { is: "to_do" }));
    drop(scrapes.get_or_create(&ScrapeLabels { outcome: "read" }));
    let port = PortLabels { port: "http" };
    drop((connections.get_or_create(&port), connections_refused.get_or_create(&port)));
    drop(contradictions.get_or_create(&ContradictionLabels { pool: text(), of: text() }));
    drop(tokens.get_or_create(&TokenLabels { pool: pool(), is: "input", modality: "text" }));
    let Endpoints { queued_seconds, cached_tokens, healthy } = endpoints;
    let endpoint = EndpointLabels { pool: "x".into(), endpoint: "x".into() };
    drop((queued_seconds.get_or_create(&endpoint), cached_tokens.get_or_create(&endpoint)));
    drop(healthy.get_or_create(&endpoint));
    ecosystem.sample();
    registry
}

#[test]
fn the_reference_beside_the_documents_is_of_what_is_shown() {
    let mut shown = String::new();
    prometheus_client::encoding::text::encode(&mut shown, &sampled()).unwrap();
    daemon::testing::holds("metrics.md", "Picker", &daemon::testing::table_of(&shown));
}

/// What client after client makes up is one series.
#[test]
fn names_are_bounded() {
    let names = ecosystem::Names::default();
    for number in 0..5000 {
        names.label(Some(&format!("model-{number}")));
    }
    assert_eq!((&*names.label(Some("model-7")), &*names.label(Some("model-4999"))), ("model-7", "other"));
    assert_eq!(&*names.label(None), "other");
}

#[test]
fn tokens_are_counted_by_modality_where_servers_tell_them_apart() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, false);
    let said = r#"{"usage":{"input_tokens":60,"output_tokens":7,"input_tokens_details":{"image_tokens":50,"cached_tokens":20}}}"#;
    metrics.count_tokens(&"p".into(), Usage::of(said.as_bytes()));
    let mut shown = String::new();
    prometheus_client::encoding::text::encode(&mut shown, &registry).unwrap();
    for line in [
        r#"{pool="p",is="input",modality="image"} 50"#,
        r#"{pool="p",is="input",modality="unknown"} 10"#,
        r#"{pool="p",is="output",modality="unknown"} 7"#,
        r#"{pool="p",is="cached",modality="unknown"} 20"#,
    ] {
        assert!(shown.contains(&format!("thalamus_picker_tokens_total{line}\n")), "{line}:\n{shown}");
    }
}
