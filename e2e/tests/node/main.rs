//! The whole of it as users have it: a cluster with a node, the images that are built here, and the one command that installs them.
//!
//! Where a node cannot run (it needs root, and Debian's packages), nothing is tested here, and the first line says so.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{Client, Cluster, binary, eventually, root};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

struct Shared {
    cluster: Cluster,
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests must know that some were not run")]
fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // The node has as many cores as the machine, and they share it.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    if arguments.list {
        return Ok(ExitCode::SUCCESS);
    }
    let (Some(images), Some(_)) = (std::env::var_os("THALAMUS_IMAGES"), std::env::var_os("NODE_ROOT")) else {
        eprintln!(
            "node: not run: THALAMUS_IMAGES and NODE_ROOT are not set; `cargo xtask test` sets them as root on Debian"
        );
        return Ok(ExitCode::SUCCESS);
    };
    // Listened to before anything starts, so that whatever does is ended.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("a runtime")?;
    let folder = tempfile::Builder::new().prefix("thalamus-node-").tempdir_in("/dev/shm").context("making a folder")?;
    let names = ["pause", "coredns", "thalamus-controller", "thalamus-picker", "modelserver-sim"];
    let images: Vec<PathBuf> = names.iter().map(|name| PathBuf::from(&images).join(format!("{name}.tar"))).collect();
    let cluster = Cluster::start_with_node(folder.path(), &images)?;
    let shared = Arc::new(Shared { cluster, folder, runtime });
    let interrupted = Arc::clone(&shared);
    shared.runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cluster.end();
            std::process::exit(130);
        }
    });
    let started = shared.runtime.block_on(install(&shared));

    let trial = |name: &str, test: fn(&Shared) -> Result<()>| {
        let shared = Arc::clone(&shared);
        let run = move || test(&shared).map_err(|error| Failed::from(format!("{error:#}")));
        Trial::test(format!("node::{name}"), run)
    };
    let trials = vec![
        trial("a_managed_pool_is_served_by_pods_of_its_own", |shared| shared.block_on(served(shared))),
        trial("pickers_are_replaced_under_load_and_no_request_is_lost", |shared| shared.block_on(replaced(shared))),
        trial("the_leaders_pod_goes_and_another_leads", |shared| shared.block_on(handed_over(shared))),
        trial("a_chart_for_another_picker_starts_our_image", |shared| shared.block_on(in_the_place_of_another(shared))),
        trial("a_pool_takes_its_picker_along", |shared| shared.block_on(taken_along(shared))),
    ];
    let conclusion = started.map(|()| libtest_mimic::run(&arguments, trials).exit_code());
    shared.cluster.end();
    conclusion
}

impl Shared {
    fn block_on<T>(&self, test: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(test)
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(args)
    }

    /// Waits until a Deployment stands; when it does not, says what its pods have to say.
    async fn until_available(&self, namespace: &str, deployment: &str) -> Result<()> {
        let stands = eventually(&format!("Deployment {deployment} stands"), async || {
            self.cluster.deployment_stands(namespace, deployment)
        })
        .await;
        stands.with_context(|| {
            let shown = ["get", "describe", "logs"].map(|verb| {
                let args: &[&str] = match verb {
                    "get" => &["get", "pods,events", "-n", namespace],
                    "describe" => &["describe", "pods", "-n", namespace],
                    _ => &["logs", "-n", namespace, "--tail=20", "--all-pods", "deployment"],
                };
                let mut args = args.to_vec();
                let name = format!("deployment/{deployment}");
                if verb == "logs" {
                    args.pop();
                    args.push(&name);
                }
                self.kubectl(&args).unwrap_or_else(|error| error.to_string())
            });
            shown.join("\n")
        })
    }
}

async fn install(shared: &Shared) -> Result<()> {
    eventually("there are service accounts", async || shared.kubectl(&["get", "serviceaccount", "default"])).await?;
    let dns = root().join("e2e/kube/dns/dns.yaml").display().to_string();
    shared.kubectl(&["apply", "--server-side", "-f", &dns])?;
    shared.until_available("kube-system", "coredns").await?;
    shared.cluster.install()?;
    shared.until_available("thalamus-system", "thalamus-controller").await?;
    let small = json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "PickerTemplate", "metadata": {"name": "default"},
        "spec": {"http": true, "drainSeconds": 20, "policyConfigMapName": "batch-last", "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}}}});
    let rules =
        "apiVersion: thalamus.dev/v1alpha1\nkind: SchedulingPolicy\nrules: [{models: [batch], toPriority: -1}]\n";
    let policy = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "batch-last"}, "data": {"policy.yaml": rules}});
    let pool = json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": "eyes", "annotations": {"thalamus.dev/picker": "managed"}},
        "spec": {
            "selector": {"matchLabels": {"app": "eyes"}}, "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": "eyes-picker", "port": {"number": 9002}},
        },
    });
    let model = json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "InferenceModel", "metadata": {"name": "see"},
        "spec": {"modelName": "see", "poolRef": {"name": "eyes"}, "modalities": {"input": ["Text", "Image"]}}});
    let servers = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "eyes"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "eyes"}}, "template": {
            "metadata": {"labels": {"app": "eyes"}},
            "spec": {"containers": [{
                "name": "sim", "image": "modelserver-sim:0.1.0", "args": ["--model=see=text,image", "--latency=50ms"],
                "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1},
                "resources": {"requests": {"cpu": "10m"}},
            }]},
        }},
    });
    shared.kubectl(&["create", "namespace", "serving"])?;
    for object in [policy, small, pool, model, servers] {
        shared.cluster.apply("serving", &object.to_string())?;
    }
    shared.until_available("serving", "eyes").await?;
    eventually("the controller makes the picker", async || {
        shared.kubectl(&["get", "deployment", "eyes-picker", "-n", "serving"])
    })
    .await?;
    shared.until_available("serving", "eyes-picker").await
}

/// The picker's own HTTP port, by the address of its Service.
fn picker(shared: &Shared) -> Result<Client> {
    let address =
        shared.kubectl(&["get", "service", "eyes-picker", "-n", "serving", "-o", "jsonpath={.spec.clusterIP}"])?;
    let address: SocketAddr = format!("{address}:8080").parse().context("a Service has an address")?;
    Ok(Client::new(address))
}

fn picture() -> Value {
    let image = json!({"type": "image_url", "image_url": {"url": "https://example.com/x.png"}});
    json!({"model": "see", "messages": [{"role": "user", "content": [image]}]})
}

fn conditions(shared: &Shared, kind: &str, name: &str) -> Result<String> {
    let path = if kind == "inferencepool" { ".status.parents[*].conditions[*]" } else { ".status.conditions[*]" };
    let format = format!("jsonpath={{range {path}}}{{.type}}={{.status}} {{.message}}{{\"\\n\"}}{{end}}");
    shared.kubectl(&["get", kind, name, "-n", "serving", "-o", &format])
}

async fn served(shared: &Shared) -> Result<()> {
    let client = picker(shared)?;
    eventually("a picture is answered", async || {
        let answer = client.chat(&picture()).await?;
        ensure!(answer.status == 200, "{}", answer.shown());
        Ok(())
    })
    .await?;
    for (kind, name, expected) in [
        ("inferencepool", "eyes", "PickerReady=True 2 of 2 pickers are ready"),
        ("inferencepool", "eyes", "Programmed=True 2 of 2 pickers use it"),
        ("inferencepool", "eyes", "ResolvedRefs=True Service eyes-picker exists"),
        ("inferencemodel", "see", "Available=True takes text+image, gives text"),
    ] {
        eventually(expected, async || {
            let shown = conditions(shared, kind, name)?;
            ensure!(shown.lines().any(|line| line == expected), "{shown}");
            Ok(())
        })
        .await?;
    }
    // The plugin reaches pickers by their forwarded ports, since nobody else is shown what they decide by.
    let file = shared.folder.path().join("request.json");
    std::fs::write(&file, picture().to_string())?;
    let plugin = Command::new(binary("kubectl-thalamus")?)
        .args(["explain", "-n", "serving", "-f"])
        .arg(&file)
        .env("KUBECONFIG", shared.cluster.kubeconfig())
        .output()
        .context("running the plugin")?;
    let shown = String::from_utf8_lossy(&plugin.stdout).into_owned() + &String::from_utf8_lossy(&plugin.stderr);
    ensure!(plugin.status.success() && shown.contains("of pool eyes, as see"), "{shown}");
    let log = shared.kubectl(&["logs", "-n", "serving", "deployment/eyes-picker"])?;
    ensure!(log.contains("scheduling policy read"), "the ConfigMap that the template names is not read: {log}");
    let ips = "jsonpath={.items[*].status.podIP}";
    let ips =
        shared.kubectl(&["get", "pods", "-n", "serving", "-l", "app.kubernetes.io/name=thalamus-picker", "-o", ips])?;
    let ip = ips.split_whitespace().next().context("a picker's pod has an address")?;
    let admin = Client::new(format!("{ip}:9090").parse().context("an address")?);
    for (path, status) in [("/metrics", 200), ("/ready", 200), ("/debug/table", 403), ("/debug/load", 403)] {
        let answer = admin.get(path).await?;
        ensure!(answer.status == status, "{path}: {}", answer.shown());
    }
    Ok(())
}

async fn replaced(shared: &Shared) -> Result<()> {
    let client = picker(shared)?;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (client, stop, answered) = (client.clone(), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.chat(&picture()).await?;
                    ensure!(answer.status == 200, "{}", answer.shown());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    shared.kubectl(&["rollout", "restart", "deployment", "eyes-picker", "-n", "serving"])?;
    let rolled = shared.kubectl(&["rollout", "status", "deployment", "eyes-picker", "-n", "serving", "--timeout=120s"]);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.context("a client panicked")?.context("a request was lost")?;
    }
    rolled?;
    ensure!(answered.load(Ordering::Relaxed) > 20, "{answered:?} answers are no load");
    Ok(())
}

async fn handed_over(shared: &Shared) -> Result<()> {
    let holder = || {
        let holder = "jsonpath={.spec.holderIdentity}";
        shared.kubectl(&["get", "lease", "thalamus-controller", "-n", "thalamus-system", "-o", holder])
    };
    let before = holder()?;
    ensure!(before.starts_with("thalamus-controller-"), "a pod leads, not {before:?}");
    let client = picker(shared)?;
    shared.kubectl(&["delete", "pod", &before, "-n", "thalamus-system", "--wait=false"])?;
    for _ in 0..20 {
        let answer = client.chat(&picture()).await?;
        ensure!(answer.status == 200, "{}", answer.shown());
    }
    eventually("another leads", async || {
        let now = holder()?;
        ensure!(now != before && !now.is_empty(), "{now:?} holds the lease");
        Ok(())
    })
    .await?;
    // It has the pickers, and what is applied now is served.
    let other = json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "InferenceModel", "metadata": {"name": "look"},
        "spec": {"modelName": "look", "targetModels": [{"name": "see", "poolRef": {"name": "eyes"}}]}});
    shared.cluster.apply("serving", &other.to_string())?;
    eventually("a model that was applied since is served", async || {
        let answer = client.chat(&json!({"model": "look", "messages": [{"role": "user", "content": "hi"}]})).await?;
        ensure!(answer.status == 200, "{}", answer.shown());
        Ok(())
    })
    .await?;
    eventually("both pickers know it", async || {
        let shown = conditions(shared, "inferencemodel", "look")?;
        ensure!(shown.contains("Programmed=True 2 of 2 pickers use it"), "{shown}");
        Ok(())
    })
    .await
}

/// A Deployment as the charts of other pickers write it, with their rights and flags and no more; the image alone is ours.
async fn in_the_place_of_another(shared: &Shared) -> Result<()> {
    let pool = json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {"name": "plain"},
        "spec": {"selector": {"matchLabels": {"app": "eyes"}}, "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": "plain-epp", "port": {"number": 9002}}},
    });
    let may_see = |groups: &str, resources: &str| json!({"apiGroups": [groups], "resources": [resources], "verbs": ["get", "list", "watch"]});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "epp"},
        "rules": [may_see("inference.networking.k8s.io", "inferencepools"), may_see("", "pods")]});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "epp"}});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "epp"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "epp"},
        "subjects": [{"kind": "ServiceAccount", "name": "epp"}]});
    let probe = json!({"grpc": {"port": 9003, "service": "inference-extension"}, "periodSeconds": 1});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "plain-epp"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "plain-epp"}}, "template": {
            "metadata": {"labels": {"app": "plain-epp"}},
            "spec": {"serviceAccountName": "epp", "containers": [{
                "name": "epp", "image": "thalamus-picker:0.1.0",
                "args": ["--pool-name", "plain", "--pool-namespace", "serving", "--zap-encoder", "json", "--grpc-port", "9002",
                    "--grpc-health-port", "9003"],
                "ports": [{"containerPort": 9002}, {"containerPort": 9003}, {"name": "metrics", "containerPort": 9090}],
                "readinessProbe": probe, "livenessProbe": probe,
            }]},
        }},
    });
    for object in [pool, role, account, binding, deployment] {
        shared.cluster.apply("serving", &object.to_string())?;
    }
    shared.until_available("serving", "plain-epp").await?;
    let log = shared.kubectl(&["logs", "-n", "serving", "deployment/plain-epp"])?;
    let pod = shared.kubectl(&[
        "get",
        "pod",
        "-n",
        "serving",
        "-l",
        "app=plain-epp",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ])?;
    ensure!(log.contains("no controller") && log.contains("endpoints ready: 2/2"), "{log}");
    ensure!(pod.starts_with("plain-epp-"), "{pod}");
    shared
        .kubectl(&["delete", "deployment,inferencepool", "plain-epp", "plain", "-n", "serving", "--ignore-not-found"])
        .map(drop)
}

async fn taken_along(shared: &Shared) -> Result<()> {
    shared.kubectl(&["delete", "inferencepool", "eyes", "-n", "serving"])?;
    // Kubernetes' collector learns of a new kind within half a minute, and pods drain: three things to wait for.
    for kinds in ["deployment", "service,serviceaccount,poddisruptionbudget,networkpolicy", "pods"] {
        eventually(&format!("{kinds} of the picker is gone"), async || {
            let label = "app.kubernetes.io/instance=eyes-picker";
            let left = shared.kubectl(&["get", kinds, "-n", "serving", "-l", label, "-o", "name"])?;
            if !left.trim().is_empty() {
                bail!("{left}");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}
