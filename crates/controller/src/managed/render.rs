//! What a managed picker consists of: a pure function from the pool and its template to objects.

use api::{InferencePool, PickerAutoscaling, PickerTemplateSpec};
use http::Uri;
use http::uri::Scheme;
use index::ManagedPicker;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::child::{MANAGED_BY, hash};
use crate::service_accounts::AUDIENCE;

/// What all managed pickers have in common.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// The image of pickers whose template names none.
    pub(crate) image: String,
    /// Where pickers find the controller.
    pub(crate) controller_url: String,
    /// The controller's namespace, and the port of its pods there.
    pub(crate) controller_namespace: String,
    pub(crate) controller_port: u16,
}

/// The ConfigMap, in each namespace that has a pool, with the authority that vouches for the controller.
pub(crate) const BUNDLE: &str = "thalamus-controller-ca";

/// Ports of a picker's pods.
const EXT_PROC: u16 = 9002;
const HEALTH: u16 = 9003;
const HTTP: u16 = 8080;
const ADMIN: u16 = 9090;

/// How long a picker goes on taking requests after SIGTERM, while the cluster learns that it leaves.
const DRAIN_DELAY_SECONDS: i32 = 5;

const DRAIN_SECONDS: i32 = 300;
const REPLICAS: i32 = 2;

/// The objects of a pool's picker, all of one name, in the order in which they are to be made.
pub(crate) fn picker(pool: &InferencePool, picker: &ManagedPicker, settings: &Settings) -> Vec<DynamicObject> {
    let render = Render { pool, picker, template: &picker.template, settings };
    let mut objects = vec![
        render.object("v1", "ServiceAccount", json!({"automountServiceAccountToken": false})),
        render.object("v1", "Service", json!({"spec": render.service()})),
        render.object("networking.k8s.io/v1", "NetworkPolicy", json!({"spec": render.network_policy()})),
        render.object("policy/v1", "PodDisruptionBudget", json!({"spec": render.disruption_budget()})),
        render.object("apps/v1", "Deployment", json!({"spec": render.deployment()})),
    ];
    if let Some(spec) = render.autoscaler() {
        objects.push(render.object("autoscaling/v2", "HorizontalPodAutoscaler", json!({"spec": spec})));
    }
    objects
}

/// A number that changes when the same pool would get another picker: by other settings, or by another renderer.
pub(crate) fn release(settings: &Settings) -> String {
    let pool = object(json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": "sample", "namespace": "sample", "uid": "sample"},
        "spec": {"selector": {"matchLabels": {"app": "sample"}}, "targetPorts": [{"number": 8000}]},
    }));
    let templates = [
        json!({}),
        json!({"http": true, "fallbacks": true, "otherPaths": true, "tlsSecretName": "tls", "policyConfigMapName": "policy", "autoscaling": {"maxReplicas": 2}}),
    ];
    let rendered = templates.map(|template| {
        let pool = pool.clone().try_parse().ok()?;
        let template = serde_json::from_value(template).ok()?;
        let sample = ManagedPicker { service: "sample".into(), port: EXT_PROC, template, made_from: String::new() };
        Some(picker(&pool, &sample, settings))
    });
    format!("{:016x}", hash(&rendered))
}

/// How many pickers there are at least where an autoscaler chooses.
pub(crate) fn least(autoscaling: PickerAutoscaling) -> i32 {
    autoscaling.min_replicas.unwrap_or(REPLICAS).min(autoscaling.max_replicas)
}

/// The ConfigMap by which pickers of a namespace verify the controller.
pub(crate) fn bundle(namespace: &str, certificate: &str) -> DynamicObject {
    let (label, value) = MANAGED_BY;
    object(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": BUNDLE, "namespace": namespace, "labels": {label: value}},
        "data": {"ca.crt": certificate},
    }))
}

#[expect(clippy::expect_used, reason = "the text of this file, never data, decides whether it is an object")]
fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).expect("it has apiVersion, kind and metadata")
}

struct Render<'a> {
    pool: &'a InferencePool,
    picker: &'a ManagedPicker,
    template: &'a PickerTemplateSpec,
    settings: &'a Settings,
}

impl Render<'_> {
    fn object(&self, api_version: &str, kind: &str, body: Value) -> DynamicObject {
        let mut value = json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {
                "name": self.picker.service,
                "namespace": self.pool.namespace(),
                "labels": self.labels(),
                // The pool takes it along when it goes.
                "ownerReferences": [{
                    "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
                    "name": self.pool.name_any(), "uid": self.pool.uid().unwrap_or_default(),
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
        });
        if let (Some(value), Value::Object(body)) = (value.as_object_mut(), body) {
            value.extend(body);
        }
        object(value)
    }

    /// By which the Service finds its pods. The Service's name and not the pool's: a label's value has 63 bytes at most.
    fn selector(&self) -> Value {
        json!({"app.kubernetes.io/name": "thalamus-picker", "app.kubernetes.io/instance": self.picker.service})
    }

    fn labels(&self) -> Value {
        let (label, value) = MANAGED_BY;
        let mut labels = self.selector();
        labels[label] = json!(value);
        labels
    }

    fn service(&self) -> Value {
        let port = |name: &str, port: u16, protocol: Option<&str>| {
            let mut port = json!({"name": name, "port": port, "targetPort": name, "protocol": "TCP"});
            if let Some(protocol) = protocol {
                port["appProtocol"] = json!(protocol);
            }
            port
        };
        // As the charts of other pickers name and mark it, and gateways look for it.
        let mut ports = vec![port("grpc-ext-proc", self.picker.port, Some("kubernetes.io/h2c"))];
        let others = [("grpc-health", HEALTH, None), ("http", HTTP, Some("http"))];
        for (name, number, protocol) in others {
            let wanted = name != "http" || self.template.http == Some(true);
            if wanted && number != self.picker.port {
                ports.push(port(name, number, protocol));
            }
        }
        json!({"selector": self.selector(), "ports": ports, "type": "ClusterIP"})
    }

    /// Whoever may ask a picker may do so; a picker itself talks to the controller, to name servers, to its model servers, and to the
    /// collector that it sends spans to.
    fn network_policy(&self) -> Value {
        let tcp = |port: u16| json!({"protocol": "TCP", "port": port});
        let mut ingress = vec![tcp(EXT_PROC), tcp(HEALTH), tcp(ADMIN)];
        if self.template.http == Some(true) {
            ingress.push(tcp(HTTP));
        }
        let model_servers: Vec<Value> = self.pool.spec.target_ports.iter().map(|port| tcp(port.number.0)).collect();
        let mut egress = vec![
            json!({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}),
            json!({
                "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.settings.controller_namespace}}}],
                "ports": [tcp(self.settings.controller_port)],
            }),
            json!({"to": [{"podSelector": {"matchLabels": self.pool.spec.selector.match_labels}}], "ports": model_servers}),
        ];
        let collector: Vec<Value> = self.collector_ports().into_iter().map(tcp).collect();
        if !collector.is_empty() {
            egress.push(json!({"ports": collector}));
        }
        json!({
            "podSelector": {"matchLabels": self.selector()},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": ingress}],
            "egress": egress,
        })
    }

    /// Of the collector that the template names: those that it says, or, where it says them elsewhere, those that OTLP has, and that of HTTPS.
    fn collector_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = Vec::new();
        for variable in &self.template.env {
            if !matches!(&*variable.name, "OTEL_EXPORTER_OTLP_ENDPOINT" | "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
                continue;
            }
            let value = variable.value.as_deref().unwrap_or_default();
            if value.is_empty() && variable.value_from.is_none() {
                continue;
            }
            match value.parse::<Uri>() {
                Ok(uri) if uri.scheme().is_some() => {
                    let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
                    ports.push(uri.port_u16().unwrap_or(default));
                }
                // From a Secret, or from another variable.
                _ => ports.extend([443, 4317, 4318]),
            }
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    fn disruption_budget(&self) -> Value {
        json!({"maxUnavailable": 1, "selector": {"matchLabels": self.selector()}})
    }

    fn deployment(&self) -> Value {
        let mut deployment = json!({
            "selector": {"matchLabels": self.selector()},
            // One at a time, and each replaced before it goes.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "progressDeadlineSeconds": 600,
            // Nobody may stop it half way, and so keep others from their turn.
            "paused": false,
            "template": self.pod(),
        });
        // An autoscaler's word would be taken back with each apply.
        if self.template.autoscaling.is_none() {
            deployment["replicas"] = json!(self.template.replicas.unwrap_or(REPLICAS));
        }
        deployment
    }

    fn pod(&self) -> Value {
        let PickerTemplateSpec {
            image,
            image_pull_secrets,
            resources,
            node_selector,
            tolerations,
            priority_class_name,
            pod_labels,
            pod_annotations,
            env,
            ..
        } = self.template;
        let mut labels = json!(pod_labels);
        if let (Some(labels), Value::Object(ours)) = (labels.as_object_mut(), self.labels()) {
            labels.extend(ours);
        }
        let drain = self.template.drain_seconds.unwrap_or(DRAIN_SECONDS);
        let default_resources = json!({"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}});
        let mut ports = vec![("grpc-ext-proc", EXT_PROC), ("grpc-health", HEALTH), ("admin", ADMIN)];
        if self.template.http == Some(true) {
            ports.push(("http", HTTP));
        }
        let ports: Vec<Value> =
            ports.iter().map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"})).collect();
        let mut mounts = vec![
            json!({"name": "controller", "mountPath": "/var/run/thalamus/controller", "readOnly": true}),
            json!({"name": "table", "mountPath": "/var/lib/thalamus"}),
        ];
        let mut volumes = vec![
            // What verifies the controller, and what says who we are. Both are replaced by the kubelet while the picker runs.
            json!({"name": "controller", "projected": {"sources": [
                {"configMap": {"name": BUNDLE, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"serviceAccountToken": {"path": "token", "audience": AUDIENCE, "expirationSeconds": 3600}},
            ]}}),
            // Outlives the container, not the pod: for a picker that starts again while no controller is there.
            json!({"name": "table", "emptyDir": {"sizeLimit": "256Mi"}}),
        ];
        if let Some(secret) = &self.template.tls_secret_name {
            mounts.push(json!({"name": "tls", "mountPath": "/var/run/thalamus/tls", "readOnly": true}));
            volumes.push(json!({"name": "tls", "secret": {"secretName": secret}}));
        }
        if let Some(policy) = &self.template.policy_config_map_name {
            mounts.push(json!({"name": "policy", "mountPath": "/var/run/thalamus/policy", "readOnly": true}));
            let items = json!([{"key": "policy.yaml", "path": "policy.yaml"}]);
            volumes.push(json!({"name": "policy", "configMap": {"name": policy, "items": items}}));
        }
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
        let mut all = vec![field("NAMESPACE", "metadata.namespace"), field("POD_NAME", "metadata.name")];
        all.extend(env.iter().map(|variable| json!(variable)));
        let mut pod = json!({
            "metadata": {"labels": labels},
            "spec": {
                "serviceAccountName": self.picker.service,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": DRAIN_DELAY_SECONDS + drain + 10,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "topologySpreadConstraints": [{
                    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": self.selector()},
                }],
                "containers": [{
                    "name": "picker",
                    "image": image.as_ref().unwrap_or(&self.settings.image),
                    "args": self.args(drain),
                    "env": all,
                    "ports": ports,
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": "admin"}, "periodSeconds": 2},
                    "livenessProbe": {"httpGet": {"path": "/live", "port": "admin"}, "periodSeconds": 10},
                    "resources": resources.as_ref().map_or(default_resources, |resources| json!(resources)),
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": mounts,
                }],
                "volumes": volumes,
            },
        });
        let spec = &mut pod["spec"];
        if !image_pull_secrets.is_empty() {
            spec["imagePullSecrets"] = json!(image_pull_secrets);
        }
        if !node_selector.is_empty() {
            spec["nodeSelector"] = json!(node_selector);
        }
        if !tolerations.is_empty() {
            spec["tolerations"] = json!(tolerations);
        }
        if let Some(class) = priority_class_name {
            spec["priorityClassName"] = json!(class);
        }
        if !pod_annotations.is_empty() {
            pod["metadata"]["annotations"] = json!(pod_annotations);
        }
        pod
    }

    fn args(&self, drain: i32) -> Vec<String> {
        let PickerTemplateSpec {
            http,
            tls_secret_name,
            policy_config_map_name,
            max_body_bytes,
            max_buffered_bytes,
            max_waiting,
            max_wait_seconds,
            fallbacks,
            other_paths,
            other_path_list,
            ..
        } = self.template;
        let mut args = vec![
            format!("--controller={}", self.settings.controller_url),
            "--controller-ca=/var/run/thalamus/controller/ca.crt".to_owned(),
            "--token-file=/var/run/thalamus/controller/token".to_owned(),
            "--table-file=/var/lib/thalamus/table".to_owned(),
            format!("--pool={}", self.pool.name_any()),
            format!("--drain-delay={DRAIN_DELAY_SECONDS}s"),
            format!("--drain-timeout={drain}s"),
            "--log-format=json".to_owned(),
        ];
        if *http == Some(true) {
            args.push(format!("--http-listen=0.0.0.0:{HTTP}"));
        }
        if tls_secret_name.is_some() {
            args.push("--tls-cert=/var/run/thalamus/tls/tls.crt".to_owned());
            args.push("--tls-key=/var/run/thalamus/tls/tls.key".to_owned());
        }
        if policy_config_map_name.is_some() {
            args.push("--config-file=/var/run/thalamus/policy/policy.yaml".to_owned());
        }
        args.extend(max_body_bytes.map(|bytes| format!("--max-body-bytes={bytes}")));
        args.extend(max_buffered_bytes.map(|bytes| format!("--max-buffered-bytes={bytes}")));
        args.extend(max_waiting.map(|requests| format!("--max-waiting={requests}")));
        args.extend(max_wait_seconds.map(|seconds| format!("--max-wait={seconds}s")));
        if *fallbacks == Some(true) {
            args.push("--fallbacks".to_owned());
        }
        if *other_paths != Some(true) && other_path_list.is_empty() {
            args.push("--other-paths-to=".to_owned());
        }
        args.extend(other_path_list.iter().map(|path| format!("--other-path={path}")));
        args
    }

    fn autoscaler(&self) -> Option<Value> {
        let autoscaling = self.template.autoscaling?;
        let metric = match autoscaling.requests_in_flight {
            Some(requests) => json!({"type": "Pods", "pods": {
                "metric": {"name": "thalamus_picker_requests_in_flight"},
                "target": {"type": "AverageValue", "averageValue": requests.to_string()},
            }}),
            None => json!({"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70},
            }}),
        };
        Some(json!({
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.picker.service},
            "minReplicas": least(autoscaling),
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [metric],
        }))
    }
}

#[cfg(test)]
mod tests;
