use super::*;

#[test]
fn the_flags_are_well_formed() {
    <Args as clap::CommandFactory>::command().debug_assert();
}

fn parsed(flags: &str) -> Args {
    Args::try_parse_from(format!("thalamus-picker {flags}").split_whitespace())
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_may_be_repeated_adds_up_and_of_anything_else_the_last_counts() {
    let args = parsed("--controller=https://a:1 --controller=https://b:1,https://c:1 --pool=first --pool-name=last");
    assert_eq!((args.controller.len(), args.pool.as_deref()), (3, Some("last")));
}

#[test]
fn how_much_is_remembered_has_a_bound() {
    assert_eq!(parsed("").options().max_cached_blocks, 16_384);
    assert_eq!(parsed("--max-cached-blocks=0").options().max_cached_blocks, 0);
    for wrong in ["1048577", "-1", "many"] {
        let refused = Args::try_parse_from(["thalamus-picker", &format!("--max-cached-blocks={wrong}")]);
        assert!(refused.unwrap_err().to_string().contains("a number from 0 to 1048576 is expected"), "{wrong}");
    }
}

#[test]
fn what_a_chart_for_another_picker_says_is_understood() {
    let args = parsed(
        "--pool-name vision --pool-namespace serving --grpc-port 9102 --grpc-health-port=9103 --zap-encoder json --metrics-port 9190 \
         --secure-serving=false --tracing=false --enable-pprof=false -v 5 --config-file /config/default.yaml --refresh-metrics-interval=50ms",
    );
    assert_eq!(args.scope(), Scope { namespace: "serving".into(), pool: Some("vision".into()) });
    let ports = args.reference.ports([args.ext_proc_listen, args.health_listen, args.admin_listen]);
    assert_eq!(ports.map(|address| address.port()), [9102, 9103, 9190]);
    assert_eq!(args.reference.without_effect(), ["enable-pprof"]);
    assert!(!args.reference.allows_traces() && parsed("--tracing").reference.allows_traces());
    assert_eq!(args.reference.secure_serving, Some(false));
    assert_eq!(args.reference.refresh_metrics_interval, Some(Duration::from_millis(50)));
    let log = args.reference.log(&args.log);
    assert_eq!((&*log.log, log.log_format), ("debug", daemon::LogFormat::Json));
    assert!(!args.names_a_controller());
    for flag in ["--controller=https://c:1", "--controller-ca=/x", "--token-file=/x"] {
        assert!(parsed(flag).names_a_controller(), "{flag}");
    }
    args.reference.check().unwrap();
}

/// Every flag of lwepp 1.6.0 and of llm-d's picker, as their charts write them (`--help` of both).
#[test]
fn no_flag_of_another_picker_is_unknown() {
    for flag in [
        "--pool-group=inference.networking.k8s.io",
        "--health-checking",
        "--health-checking=true",
        "--secure-serving",
        "--kubeconfig=/x",
        "--zap-devel",
        "--zap-devel=true",
        "--zap-encoder=console",
        "--zap-log-level=3",
        "--zap-log-level debug",
        "--zap-stacktrace-level=error",
        "--zap-time-encoding=rfc3339",
        "--endpoint-selector=app=x --endpoint-target-ports=3000,3001",
        "--ha-enable-leader-election",
        "--drain-timeout=30s",
        "--grpc-max-recv-msg-size=10MiB",
        "--grpc-max-send-msg-size 10MiB",
        "--disable-endpoint-subset-filter",
        "--emit-endpoint-scores",
        "--refresh-prometheus-metrics-interval=5s",
        "--metrics-staleness-threshold=2s",
        "--total-queued-requests-metric=x",
        "--total-running-requests-metric=x",
        "--kv-cache-usage-percentage-metric=x",
        "--lora-info-metric=x",
        "--cache-info-metric=x",
        "--tracing",
        "--enable-pprof=false",
        "--cert-path=/x",
        "--enable-cert-reload",
        "--enable-grpc-stream-metrics",
        "--tls-min-version=VersionTLS12",
        "--metrics-endpoint-auth=false",
        "--config-text=x",
        "--allow-experimental-plugins",
        "--v=5",
        "-v=5",
        "--model-server-metrics-port=8000",
        "--model-server-metrics-scheme=http",
        "--model-server-metrics-path=/metrics",
        "--model-server-metrics-https-insecure-skip-verify=true",
        "--enable-multi-engine",
        "--engine-label-key=x",
        "--secure-serving=True --tracing=1 --secure-serving=f",
        "--cert-path= --kubeconfig= --tls-min-version= --tls-cipher-suites= --metrics-cert-dir= --metrics-client-ca-file=",
    ] {
        parsed(flag).reference.check().unwrap_or_else(|error| panic!("{flag}: {error}"));
    }
}

#[test]
fn security_that_cannot_be_had_is_refused_in_words() {
    for (flag, says) in [
        ("--metrics-endpoint-auth", "a NetworkPolicy"),
        ("--metrics-client-ca-file=/x", "does not authenticate anyone"),
        ("--metrics-cert-dir=/x", "does not authenticate anyone"),
        ("--tls-cipher-suites=X", "cannot be chosen"),
        ("--tls-min-version=1.3", "expected VersionTLS12 or VersionTLS13"),
        ("--pool-group=example.com", "only pools of"),
    ] {
        let refused = parsed(flag).reference.check().expect_err(flag).to_string();
        assert!(refused.contains(says), "{flag}: {refused}");
    }
}

#[tokio::test]
async fn without_a_way_to_tables_it_says_what_to_add() {
    let refused = parsed("").run().await.unwrap_err().to_string();
    for part in ["--controller-ca=", "--token-file=", "volume", "thalamus-controller-ca"] {
        assert!(refused.contains(part), "{refused}");
    }
}

/// What people read of the flags.
#[test]
fn the_reference_beside_the_documents_is_of_these_flags() {
    let program = <Args as clap::CommandFactory>::command();
    daemon::testing::holds("reference.md", "thalamus-picker", &daemon::testing::flags_of(program));
}
