//! What is asked of a managed picker stands in its objects.

use serde_json::json;

use super::*;

fn rendered(template: Value) -> Vec<Value> {
    let pool: InferencePool = serde_json::from_value(json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": "vision", "namespace": "serving", "uid": "u-1"},
        "spec": {
            "selector": {"matchLabels": {"app": "vision"}}, "targetPorts": [{"number": 8000}, {"number": 8001}],
            "endpointPickerRef": {"name": "vision-picker", "port": {"number": 9002}},
        },
    }))
    .unwrap();
    let template = serde_json::from_value(template).unwrap();
    let managed = ManagedPicker { service: "vision-picker".into(), port: 9002, template, made_from: "a test".into() };
    let settings = Settings {
        image: "picker:1".into(),
        controller_url: "https://c.ns:9004".into(),
        controller_namespace: "ns".into(),
        controller_port: 9004,
    };
    picker(&pool, &managed, &settings).iter().map(|object| json!(object)).collect()
}

fn of<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn every_object_has_the_services_name_and_belongs_to_the_pool() {
    let objects = rendered(json!({"autoscaling": {"maxReplicas": 5}}));
    let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    assert_eq!(
        kinds,
        ["ServiceAccount", "Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment", "HorizontalPodAutoscaler"]
    );
    for object in &objects {
        let metadata = &object["metadata"];
        assert_eq!((&metadata["name"], &metadata["namespace"]), (&json!("vision-picker"), &json!("serving")));
        assert_eq!(metadata["ownerReferences"][0]["uid"], "u-1");
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "thalamus");
    }
}

#[test]
fn a_policy_is_read_where_its_config_map_is_mounted() {
    let objects = rendered(json!({"policyConfigMapName": "batch-last"}));
    let pod = &of(&objects, "Deployment")["spec"]["template"]["spec"];
    let named = |of: &Value| of.as_array().unwrap().iter().find(|one| one["name"] == "policy").unwrap().clone();
    assert_eq!(named(&pod["volumes"])["configMap"]["name"], "batch-last");
    let container = &pod["containers"][0];
    let place = named(&container["volumeMounts"])["mountPath"].as_str().unwrap().to_owned();
    assert!(container["args"].as_array().unwrap().contains(&json!(format!("--config-file={place}/policy.yaml"))));
}

#[test]
fn gateways_find_the_port_that_the_pool_names() {
    let ports = |template| of(&rendered(template), "Service")["spec"]["ports"].clone();
    let plain = ports(json!({}));
    assert_eq!(
        plain[0],
        json!({"name": "grpc-ext-proc", "port": 9002, "targetPort": "grpc-ext-proc", "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"})
    );
    assert_eq!(plain.as_array().unwrap().len(), 2);
    assert_eq!(ports(json!({"http": true}))[2]["port"], 8080);
}

#[test]
fn the_template_decides_and_what_it_leaves_out_has_a_default() {
    let objects = rendered(json!({}));
    let spec = &of(&objects, "Deployment")["spec"];
    assert_eq!(spec["replicas"], 2);
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "picker:1");
    assert!(container["args"].as_array().unwrap().contains(&json!("--pool=vision")));
    let is_told = |objects: &[Value], arg: &str| {
        let container = &of(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
        container["args"].as_array().unwrap().contains(&json!(arg))
    };
    let (refused, listed) = ("--other-paths-to=", "--other-path=/healthz");
    assert!(is_told(&objects, refused) && !is_told(&rendered(json!({"otherPaths": true})), refused));
    assert!(is_told(&rendered(json!({"otherPaths": true, "otherPathList": ["/healthz"]})), listed));

    let objects = rendered(json!({
        "replicas": 3, "image": "mine:2", "tlsSecretName": "cert", "maxBodyBytes": 4096, "maxWaiting": 0, "maxWaitSeconds": 9, "drainSeconds": 7,
        "nodeSelector": {"gpu": "no"}, "podLabels": {"team": "a", "app.kubernetes.io/name": "stolen"},
    }));
    let spec = &of(&objects, "Deployment")["spec"];
    assert_eq!(spec["replicas"], 3);
    let pod = &spec["template"];
    assert_eq!(pod["spec"]["containers"][0]["image"], "mine:2");
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 22);
    assert_eq!(pod["spec"]["nodeSelector"]["gpu"], "no");
    // Labels by which the pods are found are not to be had.
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/name"], "thalamus-picker");
    let args = json!(pod["spec"]["containers"][0]["args"]);
    for arg in [
        "--tls-cert=/var/run/thalamus/tls/tls.crt",
        "--max-body-bytes=4096",
        "--drain-timeout=7s",
        "--max-waiting=0",
        "--max-wait=9s",
    ] {
        assert!(args.as_array().unwrap().contains(&json!(arg)), "{arg}");
    }
}

#[test]
fn spans_get_out_to_the_collector_that_the_template_names() {
    let rendered = |env: Value| {
        let objects = rendered(json!({"env": env}));
        let container = &of(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
        let egress = &of(&objects, "NetworkPolicy")["spec"]["egress"];
        let ports = egress.get(3).map(|rule| rule["ports"].as_array().unwrap().iter().map(|port| port["port"].clone()));
        (container["env"].clone(), ports.map(Iterator::collect::<Vec<Value>>))
    };
    let (env, ports) = rendered(json!([]));
    assert_eq!((env.as_array().unwrap().len(), ports), (2, None));
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (env, ports) = rendered(json!([{"name": name, "value": "http://otel.monitoring:4317"}]));
    assert_eq!(env[2], json!({"name": name, "value": "http://otel.monitoring:4317"}));
    assert_eq!(ports, Some(vec![json!(4317)]));
    let (_, ports) = rendered(json!([{"name": name, "value": "https://otel.example"}]));
    assert_eq!(ports, Some(vec![json!(443)]));
    let secret = json!({"secretKeyRef": {"name": "otel", "key": "endpoint"}});
    let (env, ports) = rendered(json!([{"name": name, "valueFrom": secret}]));
    assert_eq!(env[2]["valueFrom"]["secretKeyRef"]["name"], "otel");
    let elsewhere = Some(vec![json!(443), json!(4317), json!(4318)]);
    assert_eq!(ports, elsewhere);
    assert_eq!(rendered(json!([{"name": name, "value": "$(OTEL_URL)"}])).1, elsewhere);
    assert_eq!(rendered(json!([{"name": name, "value": ""}])).1, None);
}

#[test]
fn an_autoscaler_owns_the_number_of_replicas() {
    let objects = rendered(json!({"autoscaling": {"maxReplicas": 1, "requestsInFlight": 50}, "replicas": 9}));
    assert!(of(&objects, "Deployment")["spec"].get("replicas").is_none());
    let autoscaler = &of(&objects, "HorizontalPodAutoscaler")["spec"];
    assert_eq!((&autoscaler["minReplicas"], &autoscaler["maxReplicas"]), (&json!(1), &json!(1)));
    assert_eq!(autoscaler["metrics"][0]["pods"]["target"]["averageValue"], "50");
}
