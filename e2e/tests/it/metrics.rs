//! What dashboards, alerts and autoscalers read is there, under the names that they read it by.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::{Client, Options, PodSpec, World, eventually};
use serde_json::json;

use crate::Shared;
use crate::routing::{chat, image, text, until_answered};

pub(crate) async fn requests_tokens_and_pools_are_shown_under_the_names_that_others_read(
    shared: &Shared,
) -> Result<()> {
    let options = Options { picker_args: vec!["--legacy-metrics".into()], ..Options::default() };
    let mut world = shared.world_with(options).await?;
    world.apply_pool("mixed")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: mixed}, modalities: {input: [Text, Image]}}")?;
    // Its server has not heard of it.
    world.apply_model("absent", "{modelName: absent, poolRef: {name: mixed}}")?;
    world.kubelet.run(PodSpec::new("eyes-0", "mixed", &["m=text,image"])).await?;
    until_answered(&world, &chat("m", &image()), "200 eyes-0").await?;
    let before = eventually("nothing is under way", async || {
        let shown = shown(&world).await?;
        ensure!(shown.of("llm_d_epp_request_running", "") < 0.5, "{}", shown.0);
        Ok(shown)
    })
    .await?;

    // Two over HTTP, of which one is streamed and says what it took in its first event and its last, and one through Envoy.
    ensure!(world.http.chat(&chat("m", &text())).await?.status == 200);
    let streamed =
        json!({"model": "m", "max_tokens": 4, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    ensure!(world.http.post("/v1/messages", streamed.to_string()).await?.status == 200);
    ensure!(world.gateway.chat(&chat("m", &text())).await?.status == 200);
    // One that is refused, and one that its server refuses.
    ensure!(world.http.chat(&chat("nobodys", &text())).await?.status == 404);
    let absent = world.http.chat(&chat("absent", &text())).await?;
    ensure!(absent.status == 404 && absent.text().contains("does not exist"), "{}", absent.shown());

    eventually("all of it is counted", async || {
        let after = shown(&world).await?;
        let more = |name: &str, labels: &str| after.of(name, labels) - before.of(name, labels);
        let of = r#"model_name="m",target_model_name="m""#;
        for (name, labels, is) in [
            ("llm_d_epp_request_total", of, 3.0),
            ("inference_objective_request_total", of, 3.0),
            ("llm_d_epp_request_total", r#"model_name="other""#, 1.0),
            ("llm_d_epp_request_error_total", r#"error_code="model_not_found""#, 1.0),
            ("llm_d_epp_request_error_total", r#"error_code="model_server_4xx""#, 1.0),
            ("llm_d_epp_request_ttft_seconds_count", r#"streaming="true""#, 1.0),
            ("llm_d_epp_request_duration_seconds_count", of, 3.0),
            // The simulator says 8 and 4; through Envoy, heads alone come.
            ("llm_d_epp_request_input_tokens_sum", of, 16.0),
            ("llm_d_epp_request_output_tokens_sum", of, 8.0),
            ("thalamus_picker_tokens_total", r#"is="output""#, 8.0),
            ("llm_d_epp_request_streaming_tpot_seconds_count", of, 1.0),
        ] {
            let counted = more(name, labels);
            ensure!((counted - is).abs() < 0.01, "{name}{{{labels}}}: {counted}, not {is}\n{}", after.0);
        }
        for (name, labels, is) in [
            ("llm_d_epp_request_running", of, 0.0),
            ("llm_d_epp_ready_endpoints", r#"name="mixed""#, 1.0),
            ("inference_pool_ready_pods", r#"name="mixed""#, 1.0),
            ("llm_d_epp_average_queue_size", r#"name="mixed""#, 0.0),
            ("llm_d_epp_flow_control_pool_saturation", r#"inference_pool="mixed""#, 0.0),
            ("thalamus_picker_endpoint_healthy", r#"endpoint="eyes-0-rank-0""#, 1.0),
        ] {
            ensure!(after.has(name, labels), "no {name}\n{}", after.0);
            let shown = after.of(name, labels);
            ensure!((shown - is).abs() < 0.01, "{name}: {shown}, not {is}");
        }
        Ok(())
    })
    .await?;

    // Whatever clients make up.
    for number in 0..50 {
        world.http.chat(&chat(&format!("made-up-{number}"), &text())).await?;
    }
    let after = shown(&world).await?;
    ensure!(!after.0.contains("made-up"), "a client's word is a label\n{}", after.0);

    // What is gone is not shown as it was last.
    world.kubelet.delete("eyes-0").await?;
    eventually("the endpoint is gone", async || {
        let after = shown(&world).await?;
        ensure!(!after.0.contains("eyes-0"), "{}", after.0);
        let saturation = after.of("llm_d_epp_flow_control_pool_saturation", r#"inference_pool="mixed""#);
        ensure!((saturation - 1.0).abs() < 0.01, "an empty pool is full: {saturation}");
        Ok(())
    })
    .await
}

/// What a picker shows.
struct Shown(String);

impl Shown {
    fn lines<'s>(&'s self, name: &'s str, labels: &'s str) -> impl Iterator<Item = &'s str> {
        let is = move |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') && rest.contains(labels))
        };
        self.0.lines().filter(is)
    }

    fn has(&self, name: &str, labels: &str) -> bool {
        self.lines(name, labels).next().is_some()
    }

    /// The sum of its series that have these labels.
    fn of(&self, name: &str, labels: &str) -> f64 {
        self.lines(name, labels).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

async fn shown(world: &World) -> Result<Shown> {
    metrics(&world.picker_admin).await
}

async fn metrics(admin: &Client) -> Result<Shown> {
    let shown = admin.get("/metrics").await?.text();
    let names: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let distinct: BTreeSet<&&str> = names.iter().collect();
    ensure!(distinct.len() == names.len(), "a metric is there twice: {names:?}");
    Ok(Shown(shown))
}
