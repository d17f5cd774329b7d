//! What does `kubectl` show?

use anyhow::{Result, ensure};
use e2e::{PodSpec, World, eventually};
use serde_json::Value;

use crate::Shared;
use crate::routing::three_pools;

/// The columns of the row that begins so, without its age.
fn row(shown: &str, first: &str) -> Option<Vec<String>> {
    let line = shown.lines().find(|line| line.split_whitespace().next() == Some(first))?;
    let mut cells: Vec<String> =
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
    cells.pop();
    Some(cells)
}

pub(crate) async fn until_row(world: &World, kind: &str, name: &str, expected: &[&str]) -> Result<()> {
    eventually(&format!("kubectl get {kind} shows {expected:?}"), async || {
        let shown = world.kubectl(&["get", kind, "-o", "wide"])?;
        ensure!(row(&shown, name).is_some_and(|cells| cells == expected), "{shown}");
        Ok(())
    })
    .await
}

pub(crate) async fn until_condition(world: &World, kind: &str, name: &str, expected: &str) -> Result<()> {
    let path = if kind == "inferencepool" { ".status.parents[*].conditions[*]" } else { ".status.conditions[*]" };
    let format = format!("jsonpath={{range {path}}}{{.type}}={{.status}} {{.reason}}: {{.message}}{{\"\\n\"}}{{end}}");
    eventually(&format!("{kind} {name} says {expected}"), async || {
        let shown = world.kubectl(&["get", kind, name, "-o", &format])?;
        ensure!(shown.lines().any(|line| line == expected), "{shown}");
        Ok(())
    })
    .await
}

/// The three pools, and everything said of them that is to be said.
async fn settled_pools(world: &mut World) -> Result<()> {
    three_pools(world).await?;
    for (pool, takes) in [("text", "text"), ("vision", "text+image"), ("omni", "text+image+audio")] {
        let ready = format!("EndpointsReady=True EndpointsReady: 1/1: 1 {takes}, verified");
        until_condition(world, "inferencepool", pool, &ready).await?;
        let programmed = "Programmed=True Programmed: 1 of 1 pickers use it";
        until_condition(world, "inferencepool", pool, programmed).await?;
    }
    until_row(
        world,
        "inferencemodel",
        "chat",
        &["chat", "chat", "text,vision,omni", "text+image+audio", "text+audio", "Standard", "3/3", "True"],
    )
    .await
}

pub(crate) async fn get_shows_the_truth_at_a_glance(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    until_row(
        &world,
        "inferencepool",
        "vision",
        &["vision", "thalamus-picker", "False", "True", "1/1: 1 text+image, verified"],
    )
    .await?;
    until_row(
        &world,
        "inferencemodel",
        "chat",
        &["chat", "chat", "text,vision,omni", "text+image+audio", "text+audio", "Standard", "3/3", "True"],
    )
    .await?;
    world.kubelet.set_ready("omni-0", false).await?;
    until_row(
        &world,
        "inferencepool",
        "omni",
        &["omni", "thalamus-picker", "False", "True", "0/1: no pod is ready: kubectl get pods -l pool=omni"],
    )
    .await?;
    until_row(
        &world,
        "inferencemodel",
        "chat",
        &["chat", "chat", "text,vision,omni", "text+image", "text", "Standard", "2/3", "True"],
    )
    .await?;
    until_condition(
        &world,
        "inferencemodel",
        "chat",
        "Available=False ModalityLost: audio is declared as input, but not offered by any ready endpoint; audio is declared as output, \
         but not offered by any ready endpoint",
    )
    .await?;
    let lost =
        world.kubectl(&["get", "inferencemodel", "chat", "-o", "jsonpath={.status.declared.input} {.status.lost}"])?;
    ensure!(lost == r#"["Text","Image","Audio"] {"input":["Audio"],"output":["Audio"]}"#, "{lost}");
    let missing = format!(
        "ResolvedRefs=False InvalidExtensionRef: there is no Service thalamus-picker in namespace {}: run a picker there, or annotate the \
         pool with thalamus.dev/picker: managed",
        world.namespace
    );
    until_condition(&world, "inferencepool", "omni", &missing).await?;
    world.picker.kill();
    until_condition(
        &world,
        "inferencemodel",
        "chat",
        "Programmed=False NoPicker: no picker is connected; start one for this namespace or pool",
    )
    .await?;
    world.start_picker().await?;
    until_condition(&world, "inferencemodel", "chat", "Programmed=True Programmed: 1 of 1 pickers use it").await
}

pub(crate) async fn a_status_that_somebody_overwrote_is_written_again(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    // At once after it appeared, which is when it is easiest to believe that it is still under way.
    for name in ["one", "two", "three", "four"] {
        world.apply_pool(name)?;
        let ours =
            format!("jsonpath={{.status.parents[?(@.controllerName==\"{}\")].parentRef.name}}", api::CONTROLLER_NAME);
        let written = async |expected: &str| {
            eventually(&format!("our entry is {expected:?}"), async || {
                let shown = world.kubectl(&["get", "inferencepool", name, "-o", &ours])?;
                ensure!(shown == expected, "it is {shown:?}");
                Ok(())
            })
            .await
        };
        written("thalamus-picker").await?;
        world.kubectl(&[
            "patch",
            "inferencepool",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"parents":[]}}"#,
        ])?;
        written("thalamus-picker").await?;
    }
    // An object that came, went and came again is another one.
    for _ in 0..4 {
        world.apply_model("again", "{modelName: again, poolRef: {name: one}}")?;
        world.kubectl(&["delete", "inferencemodel", "again"])?;
    }
    world.apply_model("again", "{modelName: again, poolRef: {name: one}}")?;
    until_row(&world, "inferencemodel", "again", &["again", "again", "one", "-", "-", "Standard", "0/1"]).await?;
    // And what is not on offer any more goes from the lists, too.
    let modalities = async |world: &World, expected: &str| {
        eventually(&format!("status.modalities is {expected:?}"), async || {
            let shown = world.kubectl(&["get", "inferencemodel", "again", "-o", "jsonpath={.status.modalities}"])?;
            ensure!(shown == expected, "it is {shown:?}");
            Ok(())
        })
        .await
    };
    world.kubelet.run(PodSpec::new("pod", "one", &["again=text"])).await?;
    modalities(&world, r#"{"input":["Text"],"output":["Text"]}"#).await?;
    world.kubelet.set_ready("pod", false).await?;
    modalities(&world, "{}").await
}

pub(crate) async fn conflicts_and_missing_pools_are_told(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    world.apply_model("first", "{modelName: chat, poolRef: {name: nowhere}}")?;
    until_condition(
        &world,
        "inferencemodel",
        "first",
        &format!("ResolvedRefs=False PoolNotFound: there is no InferencePool nowhere in namespace {}; apply it, or correct poolRef", world.namespace),
    )
    .await?;
    world.apply_model("second", "{modelName: chat, poolRef: {name: nowhere}}")?;
    // Two objects of one second are told apart by name, so whichever was first, the other says so.
    until_condition(
        &world,
        "inferencemodel",
        "second",
        r#"Accepted=False ModelNameInUse: modelName "chat" is served by InferenceModel first, which is older or first by name; rename or delete one"#,
    )
    .await?;
    until_row(
        &world,
        "inferencemodel",
        "second",
        &["second", "chat", "nowhere", "-", "-", "Standard", "ModelNameInUse"],
    )
    .await?;
    world.kubectl(&["delete", "inferencemodel", "first"])?;
    until_condition(
        &world,
        "inferencemodel",
        "second",
        r#"Accepted=True Accepted: this object routes requests for "chat""#,
    )
    .await
}

pub(crate) async fn entries_of_others_are_never_touched(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    world.apply_pool("text")?;
    until_condition(
        &world,
        "inferencepool",
        "text",
        "EndpointsReady=False NoPods: 0/0: no pod has the labels pool=text",
    )
    .await?;
    let parents = |world: &World| -> Result<Vec<Value>> {
        let pool: Value = serde_json::from_str(&world.kubectl(&["get", "inferencepool", "text", "-o", "json"])?)?;
        Ok(pool["status"]["parents"].as_array().cloned().unwrap_or_default())
    };
    let theirs = r#"{"parentRef":{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"edge","namespace":"gateways"},"controllerName":"example.com/gateway","conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"ours","lastTransitionTime":"2026-01-01T00:00:00Z"}]}"#;
    let ours = parents(&world)?;
    let patch = format!(r#"{{"status":{{"parents":[{theirs},{}]}}}}"#, ours[0]);
    world.kubectl(&["patch", "inferencepool", "text", "--subresource=status", "--type=merge", "-p", &patch])?;
    world.kubelet.run(PodSpec::new("text-0", "text", &["m=text"])).await?;
    until_condition(&world, "inferencepool", "text", "EndpointsReady=True EndpointsReady: 1/1: 1 text, verified")
        .await?;
    let parents = parents(&world)?;
    ensure!(parents.len() == 2 && parents.contains(&serde_json::from_str::<Value>(theirs)?), "{parents:?}");
    let shown = world.kubectl(&["get", "inferencepool", "text", "-o", "wide"])?;
    ensure!(shown.contains("edge"), "GATEWAYS does not name the gateway:\n{shown}");
    Ok(())
}

pub(crate) async fn status_is_written_only_when_it_changes(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    settled_pools(&mut world).await?;
    let versions = |world: &World| {
        world.kubectl(&["get", "inferencepool,inferencemodel", "-o", "jsonpath={.items[*].metadata.resourceVersion}"])
    };
    // Labels that no pool selects by, on a pod of the pool: events without a change. The model that is applied in the end is the mark
    // by which to know that they all were seen.
    let before = versions(&world)?;
    for number in 0..5 {
        world.kubectl(&["label", "pod", "text-0", "--overwrite", &format!("round={number}")])?;
    }
    world.apply_model("mark", "{modelName: mark, poolRef: {name: text}}")?;
    until_condition(&world, "inferencemodel", "mark", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    let after = versions(&world)?;
    ensure!(before.split(' ').all(|version| after.split(' ').any(|now| now == version)), "{before} became {after}");
    Ok(())
}

pub(crate) async fn explain_reads_well(shared: &Shared) -> Result<()> {
    let shown = shared.cluster().kubectl(&["explain", "inferencemodel.spec.targetModels"])?;
    for expected in [
        "the target that accepts all it carries with the fewest modalities to spare",
        "The name by which the model server knows it",
        "modalities\t<Object>",
    ] {
        let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(flat.contains(&expected.replace('\t', " ")), "no {expected:?} in\n{shown}");
    }
    ensure!(!shown.contains("Auto-generated"), "{shown}");
    Ok(())
}

pub(crate) async fn events_tell_what_changed_and_make_no_storm(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    settled_pools(&mut world).await?;
    world.kubelet.set_ready("omni-0", false).await?;
    let described = async |kind: &str, name: &str, expected: &[&str]| {
        eventually(&format!("kubectl describe {kind} {name} shows {expected:?}"), async || {
            let shown = world.kubectl(&["describe", kind, name])?;
            let events = shown.split("Events:").nth(1).unwrap_or_default().to_owned();
            let line = events.lines().find(|line| expected.iter().all(|part| line.contains(part)));
            ensure!(line.is_some(), "{shown}");
            Ok(())
        })
        .await
    };
    described("inferencepool", "omni", &["Warning", "NoneReady", "0/1: no pod is ready"]).await?;
    // Of a series it is the first that is quoted, which may be of when the model came and no pod was there yet.
    described("inferencemodel", "chat", &["Warning", "ModalityLost", "audio", "not offered by any ready endpoint"])
        .await?;
    // A pod that comes and goes: each change is written to the status, and most are told no event of.
    for round in 0..15 {
        let ready = round % 2 == 0;
        world.kubelet.set_ready("omni-0", ready).await?;
        let expected = if ready { "True" } else { "False" };
        eventually("the status follows", async || {
            let pool: Value = serde_json::from_str(&world.kubectl(&["get", "inferencepool", "omni", "-o", "json"])?)?;
            let conditions = pool["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition["type"] == "EndpointsReady");
            ensure!(ready.is_some_and(|ready| ready["status"] == expected), "{conditions:?}");
            Ok(())
        })
        .await?;
    }
    let of_omni = "--field-selector=involvedObject.kind=InferencePool,involvedObject.name=omni";
    let events: Value = serde_json::from_str(&world.kubectl(&["get", "events", of_omni, "-o", "json"])?)?;
    // How many kinds there are depends on what the controller saw first while the pool came up.
    let mut kinds = std::collections::BTreeSet::new();
    for event in events["items"].as_array().into_iter().flatten() {
        let kind = ["type", "action", "reason"].map(|part| event[part].to_string());
        ensure!(kinds.insert(kind), "one a kind of change, counted as a series:\n{events:#}");
    }
    ensure!(!kinds.is_empty(), "{events:#}");
    Ok(())
}

pub(crate) async fn a_picker_that_answers_no_more_is_told_however_busy_the_cluster_is(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    three_pools(&mut world).await?;
    until_condition(&world, "inferencemodel", "chat", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    world.picker.signal("STOP")?;
    let mut ready = true;
    eventually("the model is not programmed", async || {
        // Tables follow each other faster than a picker's patience ends.
        ready = !ready;
        world.kubelet.set_ready("omni-0", ready).await?;
        let conditions = world.object("inferencemodel", "chat")?["status"]["conditions"].clone();
        let said = "0 of 1 pickers use it so far";
        ensure!(conditions.as_array().is_some_and(|all| all.iter().any(|one| one["message"] == said)), "{conditions}");
        Ok(())
    })
    .await?;
    world.picker.signal("CONT")?;
    until_condition(&world, "inferencemodel", "chat", "Programmed=True Programmed: 1 of 1 pickers use it").await
}

pub(crate) async fn tables_fit_the_terminals_that_people_have(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    settled_pools(&mut world).await?;
    for (kind, wide, columns) in [
        ("inferencepool", false, 80),
        ("inferencemodel", false, 80),
        ("inferencepool", true, 160),
        ("inferencemodel", true, 160),
    ] {
        let mut args = vec!["get", kind];
        if wide {
            args.extend(["-o", "wide"]);
        }
        let shown = world.kubectl(&args)?;
        let longest = shown.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or(0);
        ensure!(longest <= columns, "{longest} columns:\n{shown}");
    }
    Ok(())
}
