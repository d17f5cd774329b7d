//! Does the controller run the pickers of managed pools as one would by hand?

use anyhow::{Context as _, Result, ensure};
use e2e::{PodSpec, World, eventually};
use serde_json::{Value, json};

use crate::Shared;
use crate::kubectl::until_condition;
use crate::routing::{chat, text};

fn apply_managed_pool(world: &World, name: &str, service: &str, annotations: &Value) -> Result<()> {
    let mut all = json!({"thalamus.dev/picker": "managed"});
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), annotations.clone()) {
        all.extend(more);
    }
    let pool = json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": name, "annotations": all},
        "spec": {
            "selector": {"matchLabels": {"pool": name}}, "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": service, "port": {"number": 9002}},
        },
    });
    world.apply(&pool.to_string())
}

async fn until(world: &World, kind: &str, name: &str, at: &str, expected: &Value) -> Result<()> {
    eventually(&format!("{kind} {name} has {expected} at {at}"), async || {
        let object = world.object(kind, name)?;
        let is = object.pointer(at).unwrap_or(&Value::Null);
        ensure!(is == expected, "it has {is}");
        Ok(())
    })
    .await
}

pub(crate) async fn a_managed_pool_gets_a_picker_that_serves_it_alone(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    apply_managed_pool(&world, "eyes", "eyes-picker", &json!({}))?;
    world.apply_pool("ears")?;
    world.kubelet.run(PodSpec::new("eyes-0", "eyes", &["m=text"])).await?;
    world.kubelet.run(PodSpec::new("ears-0", "ears", &["m=text"])).await?;

    let picker = world.deploy("eyes-picker").await?;
    eventually("the picker serves its pool", async || {
        let answer = picker.http.chat(&chat("m", &text())).await?;
        ensure!(answer.shown() == "200 eyes-0", "{}", answer.shown());
        Ok(())
    })
    .await?;
    let table = picker.admin.get("/debug/table").await?.text();
    ensure!(!table.contains("ears"), "it knows of another pool:\n{table}");
    world.say_complete("eyes-picker", 1)?;
    until_condition(&world, "inferencepool", "eyes", "PickerReady=True Ready: 2 of 2 pickers are ready").await?;
    until_condition(&world, "inferencepool", "eyes", "ResolvedRefs=True ResolvedRefs: Service eyes-picker exists")
        .await?;
    // The harness' own picker, of the whole namespace, and the deployed one.
    until_condition(&world, "inferencepool", "eyes", "Programmed=True Programmed: 2 of 2 pickers use it").await?;

    for kind in ["serviceaccount", "service", "networkpolicy", "poddisruptionbudget", "deployment"] {
        let owner = &world.object(kind, "eyes-picker")?["metadata"]["ownerReferences"][0];
        ensure!(owner["kind"] == "InferencePool" && owner["name"] == "eyes", "{kind} belongs to {owner}");
    }
    // Its token is good for its pool and for nothing else.
    let folder = world.folder().join("deployed-eyes-picker");
    let args = crate::trust::args(&world, &world.namespace, &folder.join("ca.crt"), Some(&folder.join("token")));
    let (curious, admin, _) = crate::trust::picker(&folder, "curious", &args).await?;
    crate::trust::until_log(&curious, "service account eyes-picker may read pool eyes only").await?;
    ensure!(admin.get("/ready").await?.status == 503, "it has the table of the whole namespace");
    Ok(())
}

pub(crate) async fn what_others_changed_is_mended_and_what_they_added_stays(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    apply_managed_pool(&world, "eyes", "eyes-picker", &json!({}))?;
    until(&world, "deployment", "eyes-picker", "/spec/replicas", &json!(2)).await?;
    world.kubectl(&["scale", "deployment", "eyes-picker", "--replicas=7"])?;
    until(&world, "deployment", "eyes-picker", "/spec/replicas", &json!(2)).await?;
    world.kubectl(&["delete", "service", "eyes-picker"])?;
    until(&world, "service", "eyes-picker", "/spec/ports/0/name", &json!("grpc-ext-proc")).await?;
    world.kubectl(&["annotate", "deployment", "eyes-picker", "example.com/mine=yes"])?;
    let label = ["label", "deployment", "eyes-picker", "app.kubernetes.io/managed-by-"];
    world.kubectl(&label)?;
    until(&world, "deployment", "eyes-picker", "/metadata/labels/app.kubernetes.io~1managed-by", &json!("thalamus"))
        .await?;
    until(&world, "deployment", "eyes-picker", "/metadata/annotations/example.com~1mine", &json!("yes")).await?;
    world.kubectl(&["delete", "configmap", "thalamus-controller-ca"])?;
    eventually("the ConfigMap is back", async || world.object("configmap", "thalamus-controller-ca").map(drop)).await
}

pub(crate) async fn what_its_owner_took_back_is_left_alone(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    apply_managed_pool(&world, "eyes", "eyes-picker", &json!({}))?;
    until(&world, "deployment", "eyes-picker", "/spec/replicas", &json!(2)).await?;
    world.say_complete("eyes-picker", 1)?;
    world.kubectl(&["annotate", "service", "eyes-picker", "thalamus.dev/hands-off=true"])?;
    let told = "PickerReady=True Ready: 2 of 2 pickers are ready (not managed, because of annotation thalamus.dev/hands-off: Service eyes-picker)";
    until_condition(&world, "inferencepool", "eyes", told).await?;
    let elsewhere = r#"{"spec":{"selector":{"app.kubernetes.io/instance":"nobody"}}}"#;
    world.kubectl(&["patch", "service", "eyes-picker", "--type=merge", "-p", elsewhere])?;
    // What is mended was looked at after that.
    world.kubectl(&["scale", "deployment", "eyes-picker", "--replicas=7"])?;
    until(&world, "deployment", "eyes-picker", "/spec/replicas", &json!(2)).await?;
    until(&world, "service", "eyes-picker", "/spec/selector/app.kubernetes.io~1instance", &json!("nobody")).await?;
    world.kubectl(&["annotate", "service", "eyes-picker", "thalamus.dev/hands-off-"])?;
    until(&world, "service", "eyes-picker", "/spec/selector/app.kubernetes.io~1instance", &json!("eyes-picker")).await
}

pub(crate) async fn nothing_that_others_made_is_touched(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}});
    world.apply(&service.to_string())?;
    let before = world.object("service", "taken")?;
    apply_managed_pool(&world, "eyes", "taken", &json!({}))?;
    let told = "PickerReady=False Conflict: Service taken already exists and was not created by Thalamus; delete it, or name another \
        Service in endpointPickerRef";
    until_condition(&world, "inferencepool", "eyes", told).await?;
    ensure!(world.object("service", "taken")? == before, "the Service was touched");
    // Once it is out of the way, the picker is made.
    world.kubectl(&["delete", "service", "taken"])?;
    until(&world, "service", "taken", "/spec/selector/app.kubernetes.io~1instance", &json!("taken")).await?;

    // A pool that came later cannot have the same name.
    apply_managed_pool(&world, "later", "taken", &json!({}))?;
    let told = "PickerReady=False NameInUse: Service taken belongs to the picker of pool eyes, which is older or first by name; give \
        this pool a Service name of its own";
    until_condition(&world, "inferencepool", "later", told).await?;
    // And one that is not managed any more keeps what it has, which goes with the pool alone.
    world.kubectl(&["annotate", "inferencepool", "later", "thalamus.dev/picker-"])?;
    world.kubectl(&["annotate", "inferencepool", "eyes", "thalamus.dev/picker-"])?;
    eventually("nothing is said of a picker", async || {
        let pool = world.object("inferencepool", "eyes")?;
        ensure!(!pool["status"].to_string().contains("PickerReady"), "{}", pool["status"]);
        Ok(())
    })
    .await?;
    world.object("deployment", "taken").map(drop)
}

pub(crate) async fn a_template_decides_how_pickers_run(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    apply_managed_pool(&world, "eyes", "eyes-picker", &json!({"thalamus.dev/picker-template": "big"}))?;
    let told =
        format!("PickerReady=False TemplateNotFound: there is no PickerTemplate big in namespace {}", world.namespace);
    until_condition(&world, "inferencepool", "eyes", &told).await?;
    let template = |spec: &str| {
        world.apply(&format!(
            "{{apiVersion: thalamus.dev/v1alpha1, kind: PickerTemplate, metadata: {{name: big}}, spec: {spec}}}"
        ))
    };
    template(
        "{autoscaling: {minReplicas: 2, maxReplicas: 9, requestsInFlight: 100}, http: true, resources: {requests: {cpu: '2'}}}",
    )?;
    until(&world, "horizontalpodautoscaler", "eyes-picker", "/spec/maxReplicas", &json!(9)).await?;
    until(&world, "deployment", "eyes-picker", "/spec/template/spec/containers/0/resources/requests/cpu", &json!("2"))
        .await?;
    until(&world, "service", "eyes-picker", "/spec/ports/2/name", &json!("http")).await?;
    // An autoscaler's number of replicas is not taken back.
    world.kubectl(&["scale", "deployment", "eyes-picker", "--replicas=5"])?;
    template("{autoscaling: {maxReplicas: 8}}")?;
    until(&world, "horizontalpodautoscaler", "eyes-picker", "/spec/maxReplicas", &json!(8)).await?;
    until(&world, "deployment", "eyes-picker", "/spec/replicas", &json!(5)).await?;
    // What is not wanted any more goes once the picker stands.
    template("{replicas: 1}")?;
    until(&world, "deployment", "eyes-picker", "/spec/replicas", &json!(1)).await?;
    world.say_complete("eyes-picker", 1)?;
    eventually("the autoscaler is gone", async || {
        let all = world.kubectl(&["get", "horizontalpodautoscaler", "-o", "name"])?;
        ensure!(all.is_empty(), "{all}");
        Ok(())
    })
    .await?;
    // Handing the number over to an autoscaler takes no picker away.
    template("{replicas: 4}")?;
    until(&world, "deployment", "eyes-picker", "/spec/replicas", &json!(4)).await?;
    template("{autoscaling: {maxReplicas: 8, requestsInFlight: 9}, http: true}")?;
    until(&world, "service", "eyes-picker", "/spec/ports/2/name", &json!("http")).await?;
    until(&world, "horizontalpodautoscaler", "eyes-picker", "/spec/maxReplicas", &json!(8)).await?;
    let replicas = world.object("deployment", "eyes-picker")?["spec"]["replicas"].clone();
    ensure!(replicas == 4, "there were 4 replicas, and now {replicas} are asked for");
    let wrong = template("{autoscaling: {minReplicas: 5, maxReplicas: 2}}").err().context("it was accepted")?;
    ensure!(wrong.to_string().contains("minReplicas must not be above maxReplicas"), "{wrong}");
    Ok(())
}

pub(crate) async fn an_upgrade_replaces_the_pickers_of_one_pool_at_a_time(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    for pool in ["one", "two"] {
        apply_managed_pool(&world, pool, &format!("{pool}-picker"), &json!({}))?;
    }
    let image = |world: &World, pool: &str| -> Result<String> {
        let deployment = world.object("deployment", &format!("{pool}-picker"))?;
        Ok(deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned())
    };
    for pool in ["one", "two"] {
        eventually("the Deployment is there", async || image(&world, pool)).await?;
        world.say_complete(&format!("{pool}-picker"), 1)?;
        until_condition(&world, "inferencepool", pool, "PickerReady=True Ready: 2 of 2 pickers are ready").await?;
    }
    world.kill_controller();
    world.restart_controller_with(&["--picker-image=thalamus-picker:next"]).await?;
    let queued = format!(
        "PickerReady=True UpgradeQueued: 2 of 2 pickers are ready; waiting for the upgrade of the picker of pool {}/one",
        world.namespace
    );
    until_condition(&world, "inferencepool", "two", &queued).await?;
    ensure!(image(&world, "one")? == "thalamus-picker:next", "{}", image(&world, "one")?);
    ensure!(image(&world, "two")? == "thalamus-picker:0.1.0", "{}", image(&world, "two")?);
    // While the first is on its way, so that Kubernetes' own controller would say.
    world.kubectl(&["annotate", "deployment", "one-picker", "--overwrite", "deployment.kubernetes.io/revision=2"])?;
    until_mended(&world, "two-picker").await?;
    ensure!(image(&world, "two")? == "thalamus-picker:0.1.0", "two at a time");
    world.say_complete("one-picker", 2)?;
    eventually("the second is upgraded", async || {
        ensure!(image(&world, "two")? == "thalamus-picker:next", "{}", image(&world, "two")?);
        Ok(())
    })
    .await
}

/// The controller has looked at every managed picker once more: it has made a Service again that was deleted.
async fn until_mended(world: &World, service: &str) -> Result<()> {
    world.kubectl(&["delete", "service", service])?;
    eventually("the Service is back", async || world.object("service", service).map(drop)).await
}

pub(crate) async fn an_upgrade_that_the_api_server_refuses_holds_up_nobody(shared: &Shared) -> Result<()> {
    let mut world = shared.world().await?;
    let template = |spec: &str| {
        world.apply(&format!(
            "{{apiVersion: thalamus.dev/v1alpha1, kind: PickerTemplate, metadata: {{name: own}}, spec: {spec}}}"
        ))
    };
    template("{}")?;
    apply_managed_pool(&world, "one", "one-picker", &json!({"thalamus.dev/picker-template": "own"}))?;
    apply_managed_pool(&world, "two", "two-picker", &json!({}))?;
    for pool in ["one", "two"] {
        until(&world, "deployment", &format!("{pool}-picker"), "/spec/replicas", &json!(2)).await?;
        world.say_complete(&format!("{pool}-picker"), 1)?;
        until_condition(&world, "inferencepool", pool, "PickerReady=True Ready: 2 of 2 pickers are ready").await?;
    }
    // More is asked for than the limit allows, which only the API server knows to refuse.
    template("{resources: {requests: {cpu: '2'}, limits: {cpu: '1'}}}")?;
    let failed = |pool: &Value| {
        let conditions = pool["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
        let is = |one: &&Value| one["type"] == "PickerReady" && one["reason"] == "Failed";
        conditions.iter().find(is).and_then(|one| one["message"].as_str()).unwrap_or_default().to_owned()
    };
    eventually("it says why, and that the pickers there serve", async || {
        let why = failed(&world.object("inferencepool", "one")?);
        ensure!(
            why.contains("must be less than or equal to cpu limit") && why.contains("2 of 2 pickers are ready"),
            "{why}"
        );
        Ok(())
    })
    .await?;
    world.kill_controller();
    world.restart_controller_with(&["--picker-image=thalamus-picker:next"]).await?;
    let image = "/spec/template/spec/containers/0/image";
    until(&world, "deployment", "two-picker", image, &json!("thalamus-picker:next")).await?;
    let others = world.object("deployment", "one-picker")?;
    ensure!(others.pointer(image) == Some(&json!("thalamus-picker:0.1.0")), "{others}");
    Ok(())
}

pub(crate) async fn a_template_that_kubernetes_would_refuse_is_told_by_its_field(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    apply_managed_pool(&world, "eyes", "eyes-picker", &json!({"thalamus.dev/picker-template": "own"}))?;
    for (generation, (labels, wrong)) in [
        ("{a b: c}", r#"podLabels has the invalid key "a b": use 1 to 63 letters, digits, -, _ and ., optionally after a domain and /"#),
        ("{team: 'a b'}", r#"podLabels has the invalid value team: "a b": use at most 63 letters, digits, -, _ and ."#),
        ("{pool: eyes}", "podLabels match the pool's selector, so every picker would become one of its model servers"),
    ]
    .into_iter()
    .enumerate()
    {
        world.apply(&format!(
            "{{apiVersion: thalamus.dev/v1alpha1, kind: PickerTemplate, metadata: {{name: own}}, spec: {{podLabels: {labels}}}}}"
        ))?;
        let told = format!("PickerReady=False InvalidTemplate: PickerTemplate own, generation {}: {wrong}", generation + 1);
        until_condition(&world, "inferencepool", "eyes", &told).await?;
    }
    Ok(())
}

pub(crate) async fn a_pool_that_is_being_deleted_gets_nothing_made_anew(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    for pool in ["going", "staying"] {
        apply_managed_pool(&world, pool, &format!("{pool}-picker"), &json!({}))?;
        until(&world, "deployment", &format!("{pool}-picker"), "/spec/replicas", &json!(2)).await?;
    }
    // Foreground: the pool stays until what belongs to it is gone. Nobody collects it here but this test.
    world.kubectl(&["delete", "inferencepool", "going", "--cascade=foreground", "--wait=false"])?;
    let told = "PickerReady=False Deleting: the pool is being deleted, and its picker with it";
    until_condition(&world, "inferencepool", "going", told).await?;
    until_mended(&world, "staying-picker").await?;
    world.kubectl(&["delete", "deployment,service", "going-picker"])?;
    until_mended(&world, "staying-picker").await?;
    let left =
        world.kubectl(&["get", "deployment,service", "-l", "app.kubernetes.io/instance=going-picker", "-o", "name"])?;
    ensure!(left.is_empty(), "made anew: {left}");
    Ok(())
}

pub(crate) async fn a_certificate_of_somebody_else_is_told_on_the_pool(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    world.kubectl(&["create", "configmap", "thalamus-controller-ca", "--from-literal=ca.crt=theirs"])?;
    apply_managed_pool(&world, "eyes", "eyes-picker", &json!({}))?;
    until_condition(
        &world,
        "inferencepool",
        "eyes",
        "PickerReady=False Conflict: ConfigMap thalamus-controller-ca already exists and was not created by Thalamus, but pickers \
         verify the controller with it; delete it",
    )
    .await?;
    ensure!(world.object("configmap", "thalamus-controller-ca")?["data"]["ca.crt"] == "theirs", "it was touched");
    until_mended(&world, "eyes-picker").await?;
    let told = world.controller.log().matches("cannot publish the CA that pickers verify the controller with").count();
    ensure!(told == 1, "it was told {told} times");
    world.kubectl(&["delete", "configmap", "thalamus-controller-ca"])?;
    world.say_complete("eyes-picker", 1)?;
    until_condition(&world, "inferencepool", "eyes", "PickerReady=True Ready: 2 of 2 pickers are ready").await
}

pub(crate) async fn a_picker_that_is_renamed_leaves_nothing_behind(shared: &Shared) -> Result<()> {
    let world = shared.world().await?;
    apply_managed_pool(&world, "eyes", "old-name", &json!({}))?;
    until(&world, "deployment", "old-name", "/spec/replicas", &json!(2)).await?;
    apply_managed_pool(&world, "eyes", "new-name", &json!({}))?;
    until(&world, "deployment", "new-name", "/spec/replicas", &json!(2)).await?;
    // What serves now stays until the other does.
    world.object("deployment", "old-name")?;
    world.say_complete("new-name", 1)?;
    eventually("nothing of the old name is left", async || {
        let kinds = "deployment,service,serviceaccount,poddisruptionbudget,networkpolicy";
        let left = world.kubectl(&["get", kinds, "-l", "app.kubernetes.io/instance=old-name", "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
    .await?;
    world.object("service", "new-name").map(drop)
}

pub(crate) async fn a_controller_of_one_namespace_needs_rights_in_no_other(shared: &Shared) -> Result<()> {
    let mut world = shared.world_with(e2e::Options { limited: true, ..e2e::Options::default() }).await?;
    apply_managed_pool(&world, "eyes", "eyes-picker", &json!({}))?;
    world.kubelet.run(PodSpec::new("eyes-0", "eyes", &["m=text"])).await?;
    until(&world, "deployment", "eyes-picker", "/spec/replicas", &json!(2)).await?;
    until_condition(&world, "inferencepool", "eyes", "Programmed=True Programmed: 1 of 1 pickers use it").await?;
    let account = "--as=system:serviceaccount:thalamus-system:limited";
    for what in ["pods", "inferencepools", "services"] {
        let may = |namespace: &str| {
            shared.cluster().kubectl(&["auth", "can-i", "list", what, account, "-n", namespace]).is_ok()
        };
        ensure!(may(&world.namespace) && !may("default"), "rights to {what}");
    }
    Ok(())
}
