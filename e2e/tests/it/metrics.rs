//! What dashboards, alerts and autoscalers read is there, under the names that they read it by.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::{Client, Options, PodSpec, Port, Process, World, eventually, root};
use serde_json::{Value, json};

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

/// By a real Prometheus, which scrapes a picker and a controller as its operator would, and reads the alerts as they are shipped.
pub(crate) async fn every_panel_and_alert_reads_what_a_prometheus_has(shared: &Shared) -> Result<()> {
    let Some(program) = e2e::prometheus() else {
        eprintln!("metrics: no real Prometheus here: `cargo xtask test` takes it from Debian's packages");
        return Ok(());
    };
    let mut world = shared.world().await?;
    world.apply_pool("mixed")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: mixed}, modalities: {input: [Text, Image]}}")?;
    world.kubelet.run(PodSpec::new("eyes-0", "mixed", &["m=text,image"])).await?;
    until_answered(&world, &chat("m", &image()), "200 eyes-0").await?;

    let monitors = std::fs::read_to_string(root().join("manifests/monitoring/podmonitors.yaml"))?;
    ensure!(
        monitors.matches("honorLabels: true").count() == monitors.matches("kind: PodMonitor").count(),
        "{monitors}"
    );
    let folder = shared.folder().join("prometheus");
    std::fs::create_dir_all(&folder)?;
    let target = |admin: &Client, pod: &str| {
        // As the Prometheus operator has it: its `endpoint` is the port.
        let labels = json!({"namespace": world.namespace, "pod": pod, "endpoint": "admin"});
        json!({"targets": [admin.address().to_string()], "labels": labels})
    };
    let config = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [root().join("charts/thalamus/monitoring/alerts.yaml")],
        "scrape_configs": [{"job_name": "thalamus", "honor_labels": true, "static_configs":
            [target(&world.picker_admin, "picker-0"), target(&world.controller_admin, "controller-0")]}],
    });
    let config_file = folder.join("prometheus.yaml");
    std::fs::write(&config_file, config.to_string())?;
    let port = Port::hold()?;
    let args = [
        format!("--config.file={}", config_file.display()),
        format!("--storage.tsdb.path={}", folder.join("data").display()),
        format!("--web.listen-address={port}"),
    ];
    let process = Process::start(&folder, "prometheus", &program, &args, &[])?;
    let prometheus = Client::new(port.address());
    eventually("Prometheus is ready", async || {
        let ready = prometheus.get("/-/ready").await.with_context(|| process.tail())?;
        ensure!(ready.status == 200, "{}", ready.text());
        Ok(())
    })
    .await?;

    let mut asked = expressions()?;
    let streamed =
        json!({"model": "m", "max_tokens": 4, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let began = asked.len();
    eventually("every expression has a series", async || {
        // Something of each kind between two scrapes, so that rates are there.
        for body in [chat("m", &text()), chat("m", &image()), chat("nobodys", &text())] {
            world.http.chat(&body).await?;
        }
        world.http.post("/v1/messages", streamed.to_string()).await?;
        let mut missing = Vec::new();
        for (whose, expression) in std::mem::take(&mut asked) {
            if !has_series(&prometheus, &expression).await.with_context(|| format!("{whose}: {expression}"))? {
                missing.push((whose, expression));
            }
        }
        asked = missing;
        ensure!(asked.is_empty(), "{} of {began} have none: {asked:#?}", asked.len());
        Ok(())
    })
    .await?;

    let healthy =
        format!(r#"thalamus_picker_endpoint_healthy{{namespace="{}",endpoint="eyes-0-rank-0"}}"#, world.namespace);
    ensure!(has_series(&prometheus, &healthy).await?, "the endpoint's name is lost");
    // Those that look for what is missing were pending before the first scrape; clients' own mistakes, of which there are many here, call nobody.
    eventually("no alert is due", async || {
        let rules = prometheus.get("/api/v1/rules").await?.json();
        let rules = rules["data"]["groups"][0]["rules"].as_array().context("no rules were read")?;
        for rule in rules {
            ensure!(rule["health"] == "ok" && rule["state"] == "inactive", "{rule}");
        }
        Ok(())
    })
    .await
}

/// Of every panel and alert: whose it is, and what it reads. What is shown only when something went wrong is left out.
fn expressions() -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root().join("manifests/monitoring/dashboards"))? {
        let path = entry?.path();
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            let is_of_faults = panel["description"].as_str().is_some_and(|said| said.starts_with("Only when"));
            for target in panel["targets"].as_array().into_iter().flatten().filter(|_| !is_of_faults) {
                let expression = target["expr"].as_str().context("a target without an expression")?;
                let expression = ["$namespace", "$pool", "$pod", "$model_name"]
                    .into_iter()
                    .fold(expression.replace("$__rate_interval", "10s"), |all, variable| all.replace(variable, ".*"));
                all.push((format!("{}: {}", dashboard["title"], panel["title"]), expression));
            }
        }
    }
    ensure!(all.len() > 30, "{} expressions of panels", all.len());
    let alerts = std::fs::read_to_string(root().join("manifests/monitoring/alerts.yaml"))?;
    let alerts: Value = serde_saphyr::from_str(&alerts)?;
    for rule in alerts["spec"]["groups"][0]["rules"].as_array().context("no alerts")? {
        let name = rule["alert"].as_str().context("an alert without a name")?;
        let expression = rule["expr"].as_str().context("an alert without an expression")?;
        // What is looked at has a series; that it is bad has none, as long as all is well.
        let (looked_at, _) =
            expression.rsplit_once([' ']).and_then(|(rest, _)| rest.rsplit_once(' ')).context("no bound")?;
        let looked_at = looked_at.strip_prefix("absent(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(looked_at);
        if !["ThalamusContradicted", "ThalamusScrapesFail"].contains(&name) {
            all.push((name.to_owned(), looked_at.to_owned()));
        }
    }
    Ok(all)
}

async fn has_series(prometheus: &Client, expression: &str) -> Result<bool> {
    let query: String = expression.bytes().fold(String::new(), |all, byte| format!("{all}%{byte:02X}"));
    let answer = prometheus.get(&format!("/api/v1/query?query={query}")).await?.json();
    ensure!(answer["status"] == "success", "{answer}");
    let result = answer["data"]["result"].as_array().context("no result")?;
    Ok(result.iter().any(|series| series["value"][1].as_str().is_some_and(|value| value != "NaN")))
}
