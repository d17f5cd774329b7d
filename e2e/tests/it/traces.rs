//! What an OpenTelemetry collector is told of requests, and what it is not.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use e2e::{Answer, Client, Collector, Options, PodSpec, Span, World, eventually};
use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::Shared;
use crate::routing::{chat, image, text, until_answered};

/// Of a client that follows its requests itself.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

const SECRET: &str = "nobody but the model server reads this";

/// A world whose picker tells a collector over this protocol.
async fn followed(shared: &Shared, env: &[(&'static str, &str)]) -> Result<World> {
    let mut picker_env: Vec<(&str, String)> = env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    picker_env.push(("OTEL_BSP_SCHEDULE_DELAY", "50".into()));
    let mut world = shared.world_with(Options { picker_env, ..Options::default() }).await?;
    world.apply_pool("mixed")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: mixed}, modalities: {input: [Text, Image]}}")?;
    world.kubelet.run(PodSpec::new("eyes-0", "mixed", &["m=text,image"])).await?;
    until_answered(&world, &chat("m", &image()), "200 eyes-0").await?;
    Ok(world)
}

pub(crate) async fn a_collector_is_told_where_the_time_of_each_request_went(shared: &Shared) -> Result<()> {
    let folder = shared.folder().join("collector");
    std::fs::create_dir_all(&folder)?;
    let collector = Collector::start(&folder).await?;
    let endpoint = format!("http://{}", collector.grpc);
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_RESOURCE_ATTRIBUTES", "deployment=test")];
    let world = followed(shared, &env).await?;

    // Over the picker's own port and through Envoy, of a client that follows them itself.
    let picture = json!([{"type": "text", "text": SECRET}, {"type": "image_url", "image_url":
        {"url": "data:image/png;base64,aGFyZGx5IGEgcGljdHVyZQ=="}}]);
    for client in [&world.http, &world.gateway] {
        let answer = with_parent(client, &chat("m", &picture), &format!("00-{TRACE}-{PARENT}-01")).await?;
        let seen = seen(&answer)?;
        let [request, orchestration, decision, attempt] = told(&collector, &seen).await?;
        ensure!((request.trace.as_str(), request.parent.as_str()) == (TRACE, PARENT), "{request:?}");
        ensure!(request.kind == 2 && attempt.kind == 3, "{request:?}\n{attempt:?}");
        ensure!(orchestration.parent == request.id && attempt.parent == request.id, "{orchestration:?}\n{attempt:?}");
        ensure!(decision.parent == orchestration.id, "{decision:?}");
        ensure!(seen == format!("00-{TRACE}-{}-01", attempt.id), "the endpoint got {seen}: {attempt:?}");
        for part in [&orchestration, &decision, &attempt] {
            ensure!(
                request.start <= part.start && part.start <= part.end && part.end <= request.end,
                "{part:?}\n{request:?}"
            );
        }
        for (span, name, is) in [
            (&request, "service.name", "thalamus-picker"),
            (&request, "service.version", env!("CARGO_PKG_VERSION")),
            (&request, "deployment", "test"),
            (&request, "http.request.method", "POST"),
            (&request, "gen_ai.operation.name", "chat"),
            (&request, "gen_ai.request.model", "m"),
            (&request, "mm.modality", "image"),
            (&request, "mm.hash_count", "1"),
            (&request, "http.response.status_code", "200"),
            (&request, "thalamus.endpoint", "eyes-0-rank-0"),
            (&decision, "thalamus.tier", "1"),
            (&attempt, "thalamus.endpoint", "eyes-0-rank-0"),
            (&attempt, "thalamus.ending", "complete"),
            (&attempt, "thalamus.attempt", "1"),
            (&attempt, "gen_ai.operation.name", "chat"),
            (&attempt, "http.response.status_code", "200"),
        ] {
            let said = span.attributes.get(name).map(String::as_str);
            ensure!(said == Some(is), "{name} is {said:?}, not {is:?}: {span:?}");
        }
        // Envoy sends the heads of answers alone.
        let tokens = request.attributes.get("gen_ai.usage.input_tokens").map(String::as_str);
        let is_read = client.address() == world.http.address();
        ensure!(tokens == is_read.then_some("8"), "{tokens:?}: {request:?}");
        ensure!(attempt.events.is_empty() != is_read, "{attempt:?}");
        ensure!(![request, orchestration, decision, attempt].iter().any(|span| span.is_error), "nothing failed");
    }

    // Where Envoy follows requests, ours is a part of its.
    let (tracing, cluster) = envoy_tells(&collector);
    let changes = [("stat_prefix: clients", &*tracing), ("\n  clusters:\n", &*cluster)];
    let (_envoy, gateway) = world.another_gateway("tracing", &changes).await?;
    let answer = eventually("that Envoy answers", async || {
        let answer = gateway.chat(&chat("m", &text())).await?;
        ensure!(answer.status == 200, "{}", answer.shown());
        Ok(answer)
    })
    .await?;
    let trace = seen(&answer)?.split('-').nth(1).context("no trace")?.to_owned();
    eventually("its spans and ours are one trace", async || {
        let spans: Vec<Span> = collector.spans().into_iter().filter(|span| span.trace == trace).collect();
        let request =
            spans.iter().find(|span| span.name == "gateway.request").with_context(|| format!("{spans:#?}"))?;
        let parent = spans.iter().find(|span| span.id == request.parent).with_context(|| format!("{spans:#?}"))?;
        ensure!(parent.attributes["service.name"] == "envoy", "{parent:?}");
        Ok(())
    })
    .await?;

    ensure!(!collector.text().contains(SECRET) && !collector.text().contains("aGFyZGx5"), "a prompt was told");
    Ok(())
}

pub(crate) async fn what_fails_is_told_with_its_cause_and_without_a_collector_all_goes_on(
    shared: &Shared,
) -> Result<()> {
    let folder = shared.folder().join("collector-of-failures");
    std::fs::create_dir_all(&folder)?;
    let mut collector = Collector::start(&folder).await?;
    let endpoint = format!("http://{}", collector.grpc);
    let mut world = followed(shared, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)]).await?;

    // What is refused says why by its code.
    let refused =
        with_parent(&world.http, &chat("nobodys", &text()), &format!("00-{TRACE}-00000000000000aa-01")).await?;
    ensure!(refused.status == 404, "{}", refused.shown());
    eventually("it is told of", async || {
        let spans = collector.spans();
        let request = spans.iter().find(|span| span.parent == "00000000000000aa").context("not told of yet")?;
        ensure!(request.attributes["error.type"] == "model_not_found" && !request.is_error, "{request:?}");
        ensure!(request.attributes["gen_ai.request.model"] == "nobodys", "{request:?}");
        Ok(())
    })
    .await?;
    // Where the only server is gone, the attempt says so, and the request what its client was told.
    world.kubelet.crash("eyes-0");
    let failed = with_parent(&world.http, &chat("m", &text()), &format!("00-{TRACE}-00000000000000ab-01")).await?;
    ensure!(failed.json()["error"]["code"] == "endpoint_unreachable", "{}", failed.shown());
    eventually("it is told of", async || {
        let spans = collector.spans();
        let request = spans.iter().find(|span| span.parent == "00000000000000ab").context("not told of yet")?;
        let status = failed.status.to_string();
        ensure!(request.is_error && request.attributes["error.type"] == "endpoint_unreachable", "{request:?}");
        ensure!(request.attributes["http.response.status_code"] == status, "{request:?}");
        let attempt =
            spans.iter().find(|span| span.parent == request.id && span.kind == 3).context("no attempt yet")?;
        ensure!(attempt.is_error && attempt.attributes["error.type"] == "unreachable", "{attempt:?}");
        Ok(())
    })
    .await?;
    // A client that leaves before anything is decided.
    let unfinished = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntraceparent: 00-{TRACE}-00000000000000ac-01\r\n\
         content-type: application/json\r\ncontent-length: 999\r\n\r\n{{"
    );
    let mut connection = TcpStream::connect(world.http.address()).await?;
    connection.write_all(unfinished.as_bytes()).await?;
    drop(connection);
    eventually("it is told of as well", async || {
        let spans = collector.spans();
        let request = spans.iter().find(|span| span.parent == "00000000000000ac").context("not told of yet")?;
        let said = ["error.type", "thalamus.ending"].map(|name| request.attributes.get(name).map(String::as_str));
        ensure!(said == [Some("invalid_body"), None] || said == [None, Some("abandoned")], "{request:?}");
        Ok(())
    })
    .await?;
    let text_of_all = collector.text();
    let keys = said_twice(&text_of_all);
    ensure!(keys.is_empty(), "said twice of one span: {keys:?}");
    ensure!(!text_of_all.contains("what?"), "a prompt was told");

    // Without a collector everything goes on.
    collector.process.kill();
    eventually("the log says that traces are lost", async || {
        let answer = world.http.get("/v1/models").await?;
        ensure!(answer.status == 200, "{}", answer.shown());
        ensure!(world.picker.log().contains("traces do not reach the collector"), "not yet");
        Ok(())
    })
    .await
}

pub(crate) async fn samplers_and_the_other_protocol_are_those_that_the_environment_names(
    shared: &Shared,
) -> Result<()> {
    let folder = shared.folder().join("collector-http");
    std::fs::create_dir_all(&folder)?;
    let collector = Collector::start(&folder).await?;
    let endpoint = format!("http://{}", collector.http);
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_SERVICE_NAME", "relay"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
    ];
    let mut world = followed(shared, &env).await?;
    let unfollowed = seen(&world.http.chat(&chat("m", &text())).await?)?;
    ensure!(unfollowed.ends_with("-00"), "{unfollowed}");
    let followed = with_parent(&world.http, &chat("m", &text()), &format!("00-{TRACE}-{PARENT}-01")).await?;
    let [request, ..] = told(&collector, &seen(&followed)?).await?;
    ensure!(request.attributes["service.name"] == "relay" && request.parent == PARENT, "{request:?}");
    // The last spans go out before the process ends.
    let last = with_parent(&world.http, &chat("m", &text()), &format!("00-{TRACE}-00000000000000bb-01")).await?;
    ensure!(last.status == 200, "{}", last.shown());
    world.picker.terminate()?;
    ensure!(world.picker.ended().await?.success(), "{}", world.picker.tail());
    let traces: BTreeSet<String> = collector.spans().into_iter().map(|span| span.trace).collect();
    ensure!(traces == BTreeSet::from([TRACE.to_owned()]), "{traces:?}");
    eventually("the last request is told of", async || {
        ensure!(collector.spans().iter().any(|span| span.parent == "00000000000000bb"), "{:#?}", collector.spans());
        Ok(())
    })
    .await
}

async fn with_parent(client: &Client, body: &Value, parent: &str) -> Result<Answer> {
    let headers = [("content-type", "application/json"), ("traceparent", parent)];
    client.send(Method::POST, "/v1/chat/completions", &headers, Bytes::from(body.to_string())).await
}

/// What the simulated server was told of the trace.
fn seen(answer: &Answer) -> Result<String> {
    let seen = answer.json()["sim"]["traceparent"].as_str().map(str::to_owned);
    seen.with_context(|| format!("no traceparent came: {}", answer.shown()))
}

/// The spans of the request whose attempt is the one that an endpoint saw.
async fn told(collector: &Collector, seen: &str) -> Result<[Span; 4]> {
    eventually("its spans have come", async || {
        let spans = collector.spans();
        let named = |name: &str, is: &dyn Fn(&Span) -> bool| {
            let found = spans.iter().find(|span| span.name == name && is(span)).cloned();
            found.with_context(|| format!("no {name} yet: {spans:#?}"))
        };
        let attempt = named("chat m", &|span| seen.contains(&*span.id))?;
        let request = named("gateway.request", &|span| span.id == attempt.parent)?;
        let orchestration = named("gateway.request_orchestration", &|span| span.parent == request.id)?;
        let decision = named("run_scheduler_profile", &|span| span.parent == orchestration.id)?;
        Ok([request, orchestration, decision, attempt])
    })
    .await
}

/// The names that a span has twice, of all that a collector was told.
fn said_twice(told: &str) -> BTreeSet<String> {
    let all = serde_json::Deserializer::from_str(told).into_iter::<Value>().map_while(Result::ok);
    let mut twice = BTreeSet::new();
    let mut look = vec![Value::Array(all.collect())];
    while let Some(value) = look.pop() {
        let listed = value.get("attributes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut seen = BTreeSet::new();
        let keys = listed.iter().map(|attribute| attribute["key"].to_string());
        twice.extend(keys.filter(|key| !seen.insert(key.clone())));
        match value {
            Value::Array(values) => look.extend(values),
            Value::Object(members) => look.extend(members.into_iter().map(|(_, value)| value)),
            _ => {}
        }
    }
    twice
}

/// What makes an Envoy follow its requests, in the words of its configuration.
fn envoy_tells(collector: &Collector) -> (String, String) {
    let tracing = "stat_prefix: clients
          tracing:
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                \"@type\": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                grpc_service: {envoy_grpc: {cluster_name: collector}, timeout: 1s}
                service_name: envoy";
    let (ip, port) = (collector.grpc.address().ip(), collector.grpc.number());
    let cluster = format!(
        "
  clusters:
  - name: collector
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: collector
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]
"
    );
    (tracing.to_owned(), cluster)
}
