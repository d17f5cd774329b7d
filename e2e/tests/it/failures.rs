//! What happens when a part of it dies?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{PodSpec, Process, binary, eventually};
use http::Method;
use tokio::task::JoinSet;

use crate::Shared;
use crate::routing::{answered, audio, chat, image, text, three_pools, two_text_pods, until_answered};

pub(crate) async fn the_controller_is_killed_and_decisions_go_on(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    world.kill_controller();
    for _ in 0..20 {
        answered(&world, &chat("chat", &image()), "200 vision-0").await?;
    }
    eventually("the age of the table is told", async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        let age = metrics
            .lines()
            .find_map(|line| line.strip_prefix("thalamus_picker_table_age_seconds "))
            .context("no such metric")?;
        ensure!(age.parse::<f64>()? > 0.0, "the table is {age} s old");
        Ok(())
    })
    .await?;
    ensure!(
        world.picker_admin.get("/ready").await?.status == 200,
        "a picker with a table is ready, whoever else is gone"
    );
    // What changes meanwhile is caught up with.
    world.apply_model("late", "{modelName: late, poolRef: {name: text}}")?;
    world.kubelet.delete("vision-0").await?;
    world.start_controller().await?;
    until_answered(&world, &chat("chat", &image()), "200 omni-0").await?;
    until_answered(&world, &chat("late", &text()), "404 ?: The model `late` does not exist. Valid aliases: t.").await
}

pub(crate) async fn a_stuck_model_server_gets_nothing_while_another_lives(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    let body = two_text_pods(&mut world).await?;
    world.kubelet.freeze("text-0")?;
    eventually("the picker finds it silent", async || {
        let table = world.picker_admin.get("/debug/table").await?.text();
        let row = table.lines().find(|line| line.contains("text-0")).context("it is in the table")?;
        // Silent from the first missing answer on, and taken for stuck three seconds later.
        let seconds =
            row.split("silent for ").nth(1).and_then(|rest| rest.split(' ').next()).context(row.to_owned())?;
        ensure!(seconds.parse::<u32>()? >= 3, "{row}");
        Ok(())
    })
    .await?;
    for _ in 0..20 {
        answered(&world, &body, "200 text-1").await?;
    }
    Ok(())
}

pub(crate) async fn the_picker_is_killed_and_restarted_under_load(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for (content, pod) in [(text(), "200 text-0"), (image(), "200 vision-0"), (audio(), "200 omni-0")] {
        let (gateway, stop, answers) = (world.gateway.clone(), Arc::clone(&stop), Arc::clone(&answers));
        clients.push(tokio::spawn(async move {
            let body = chat("chat", &content);
            while !stop.load(Ordering::Relaxed) {
                let answer = gateway.chat(&body).await?;
                // While the picker is away nobody answers; whoever answers is entitled to.
                ensure!(answer.shown() == pod || answer.status >= 500, "{} instead of {pod}", answer.shown());
                answers.fetch_add(usize::from(answer.status == 200), Ordering::Relaxed);
            }
            Ok(())
        }));
    }
    let more_answers = async || {
        let before = answers.load(Ordering::Relaxed);
        eventually("requests succeed", async || {
            ensure!(
                answers.load(Ordering::Relaxed) > before + 30,
                "{} answers",
                answers.load(Ordering::Relaxed) - before
            );
            Ok(())
        })
        .await
    };
    for _ in 0..2 {
        more_answers().await?;
        world.picker.kill();
        world.start_picker().await?;
        world.until_ready().await?;
        more_answers().await?;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.context("a client panicked")??;
    }
    Ok(())
}

pub(crate) async fn a_picker_that_is_told_to_stop_loses_nothing_in_flight(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    let slow = [("content-type", "application/json"), ("x-sim-latency-ms", "2000")];
    let ask = |client: &e2e::Client| {
        let client = client.clone();
        tokio::spawn(async move {
            client.send(Method::POST, "/v1/chat/completions", &slow, chat("chat", &text()).to_string().into()).await
        })
    };
    let requests = [ask(&world.gateway), ask(&world.http)];
    eventually("both requests are under way", async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        ensure!(metrics.contains("thalamus_picker_requests_in_flight 2"), "{metrics}");
        Ok(())
    })
    .await?;
    world.picker.terminate()?;
    eventually("the picker says that it leaves", async || {
        let answer = world.picker_admin.get("/ready").await?;
        ensure!(answer.status == 503, "{}", answer.text());
        Ok(())
    })
    .await?;
    for request in requests {
        let answer = request.await.context("a client panicked")??;
        ensure!(answer.shown() == "200 text-0", "{}", answer.shown());
    }
    let status = world.picker.ended().await?;
    ensure!(status.success(), "{status}: {}", world.picker.tail());
    Ok(())
}

/// Connections that say nothing, and one that begins what it never ends, on each port.
/// A gateway whose picker did nothing for a moment, as under a quota of CPU, has sent thousands of small messages when it goes on. To h2, so
/// many on one connection are an attack.
pub(crate) async fn a_herd_that_waited_for_the_picker_is_served(shared: &Shared) -> Result<()> {
    const HERD: usize = 2_000;
    // As many as Envoy has on one connection.
    const FULL: usize = 1_024;
    let mut world = shared.world().await?;
    world.apply_pool("text")?;
    world.apply_model("m", "{modelName: m, poolRef: {name: text}}")?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"])).await?;
    until_answered(&world, &chat("m", &text()), "200 text-0").await?;
    for _ in 0..3 {
        world.picker.signal("STOP")?;
        let mut herd = JoinSet::new();
        for _ in 0..HERD {
            let (gateway, body) = (world.gateway.clone(), chat("m", &text()));
            herd.spawn(async move { Ok::<_, anyhow::Error>(gateway.chat(&body).await?.shown()) });
        }
        eventually("a connection is full", async || {
            let stats = world.envoy_admin.get("/stats?filter=cluster.picker.upstream_rq_active").await?.text();
            let asking = stats.lines().find_map(|line| line.strip_prefix("cluster.picker.upstream_rq_active: "));
            let asking: usize = asking.context("no such figure")?.parse()?;
            ensure!(asking >= FULL, "{stats}");
            Ok(())
        })
        .await?;
        world.picker.signal("CONT")?;
        let mut answers = BTreeMap::<String, usize>::new();
        for answer in herd.join_all().await {
            *answers.entry(answer?).or_default() += 1;
        }
        ensure!(answers.keys().eq(["200 text-0"]), "{answers:?}");
    }
    Ok(())
}

pub(crate) async fn strangers_hold_up_no_end(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    let ports = [world.ext_proc(), world.health(), world.http.address()];
    let mut strangers = Vec::new();
    for port in ports {
        for said in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST /v1/chat/completions HTTP/1.1\r\nhost: a"] {
            let mut stranger = tokio::net::TcpStream::connect(port).await?;
            tokio::io::AsyncWriteExt::write_all(&mut stranger, said.as_bytes()).await?;
            strangers.push(stranger);
        }
    }
    // They were all accepted, since connections made after them are served.
    answered(&world, &chat("chat", &text()), "200 text-0").await?;
    world.picker.terminate()?;
    // Well below the 30 s that a stranger may take over a head, and the 5 min that requests may.
    let ended = tokio::time::timeout(Duration::from_secs(15), world.picker.ended());
    let status = ended.await.with_context(|| format!("it waits for strangers: {}", world.picker.tail()))??;
    ensure!(status.success(), "{status}: {}", world.picker.tail());
    Ok(())
}

/// Dead servers of which nobody has heard yet: the next tier answers, and where there is none, an error in the usual shape.
pub(crate) async fn when_nobody_can_be_reached_both_ways_say_so_alike(shared: &Shared) -> Result<()> {
    let mut world = shared.world_of_all_ways().await?;
    three_pools(&mut world).await?;
    // How each ended is known of every way: a gateway says it by ending its stream.
    answered(&world, &chat("chat", &text()), "200 text-0").await?;
    eventually("all attempts are complete", async || {
        let metrics = world.picker_admin.get("/metrics").await?.text();
        let complete = r#"thalamus_picker_attempts_total{pool="text",ending="complete",status="200"}"#;
        ensure!(metrics.contains(complete) && !metrics.contains(r#"ending="abandoned""#), "{metrics}");
        Ok(())
    })
    .await?;
    world.kubelet.crash("text-0");
    for _ in 0..10 {
        let answer = world.http.chat(&chat("chat", &text())).await?.shown();
        ensure!(answer != "200 text-0" && answer.starts_with("200 "), "{answer}: a living tier was not asked");
    }
    world.kubelet.crash("vision-0");
    world.kubelet.crash("omni-0");
    for client in world.ways() {
        let answer = client.chat(&chat("chat", &image())).await?;
        ensure!(answer.status == 503 && answer.headers.contains_key("retry-after"), "{}", answer.shown());
        ensure!(answer.json()["error"]["code"] == "endpoint_unreachable", "{}", answer.text());
        ensure!(answer.json()["error"]["type"] == "server_error", "{}", answer.text());
    }
    Ok(())
}

pub(crate) async fn a_picker_without_a_table_is_not_ready_and_says_so(shared: &Shared) -> Result<()> {
    let any = ["--ext-proc-listen", "--health-listen", "--http-listen", "--admin-listen"]
        .map(|flag| format!("{flag}=127.0.0.1:0"));
    // Port 9 is nobody's: there is no controller.
    let mut args = vec!["--controller=http://127.0.0.1:9".to_owned(), "--log-format=json".to_owned()];
    args.extend(any);
    let mut picker = Process::start(shared.folder(), "lonely-picker", &binary("thalamus-picker")?, &args, &[])?;
    let said = picker.said("picker started").await?;
    let client = |port: &str| Ok::<_, anyhow::Error>(e2e::Client::new(said[port].as_str().context("said")?.parse()?));
    let (admin, http) = (client("admin")?, client("http")?);
    let ready = admin.get("/ready").await?;
    ensure!(ready.status == 503 && ready.text().contains("no routing table"), "{}", ready.text());
    ensure!(admin.get("/live").await?.status == 200, "it lives all the same");
    let answer = http.chat(&chat("m", &text())).await?;
    ensure!(answer.status == 503 && answer.headers.contains_key("retry-after"), "{}", answer.shown());
    ensure!(answer.json()["error"]["code"] == "not_ready", "{}", answer.text());
    picker.terminate()?;
    let wait = tokio::time::timeout(Duration::from_secs(10), picker.ended());
    ensure!(wait.await.context("it did not end")??.success(), "{}", picker.tail());
    Ok(())
}
