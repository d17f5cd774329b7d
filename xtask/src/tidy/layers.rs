//! Which crate may name which, and what each must not reach, directly or through others. docs/architecture.md says why.

use std::collections::BTreeMap;

use crate::run::{cargo, output};

/// Our crates: what they may name of ours, and what must be nowhere below them.
const LAYERS: [Layer; 22] = [
    // 0: the vocabulary
    layer("routing", &[], PURE),
    // 1: pure values and functions; the Kubernetes nouns
    layer("scheduling", &["routing"], PURE),
    layer("media", &["routing"], PURE),
    layer("request", &["routing", "media"], PURE),
    layer("h2-authority", &[], &["tokio", "kube", "hyper", "tonic", "h2", "tracing", "serde"]),
    layer("api", &[], &["tokio", "kube-client", "tonic", "hyper"]),
    // 2: engines
    layer("index", &["api", "routing"], &["tokio", "kube-client", "tonic", "hyper"]),
    layer(
        "director",
        &["routing", "scheduling", "request", "media"],
        &["tokio", "kube", "kube-core", "k8s-openapi", "hyper", "tonic"],
    ),
    // 3: edges
    layer("publish", &["routing"], KUBERNETES),
    layer("ext-proc", &["director", "request", "routing", "scheduling"], KUBERNETES),
    layer("proxy", &["director", "request", "routing"], KUBERNETES),
    layer("daemon", &["h2-authority"], KUBERNETES),
    layer(
        "cluster-watch",
        &["api", "index", "publish", "daemon"],
        &["director", "ext-proc", "proxy", "request", "scheduling"],
    ),
    // 4: processes
    layer(
        "controller",
        &["api", "cluster-watch", "index", "publish", "daemon"],
        &["director", "ext-proc", "proxy", "picker", "request", "scheduling"],
    ),
    layer(
        "picker",
        &["director", "scheduling", "request", "ext-proc", "proxy", "publish", "routing", "daemon"],
        &["kube", "kube-core", "kube-client", "k8s-openapi", "api", "index"],
    ),
    layer("standalone", &["api", "cluster-watch", "index", "publish", "picker", "daemon"], &["controller"]),
    layer(
        "thalamus",
        &["api", "index", "publish", "picker", "proxy", "director", "request", "routing", "daemon", "modelserver-sim"],
        &["kube-client", "controller"],
    ),
    layer("kubectl-thalamus", &["api", "index", "routing", "daemon", "thalamus"], &["controller"]),
    layer(
        "modelserver-sim",
        &["routing", "daemon"],
        &["kube", "kube-core", "kube-client", "k8s-openapi", "api", "index", "request"],
    ),
    layer("xtask", &["api", "director"], &["tokio", "kube-client"]),
    layer("fuzz", &["h2-authority", "media", "request", "routing"], &["tokio", "kube-client"]),
    layer("e2e", &["api", "publish", "routing", "thalamus", "modelserver-sim"], &[]),
];

const PURE: &[&str] = &[
    "tokio",
    "kube",
    "kube-core",
    "k8s-openapi",
    "serde",
    "serde_json",
    "tracing",
    "hyper",
    "tonic",
    "http",
    "rand",
    "fastrand",
    "jiff",
    "chrono",
];
const KUBERNETES: &[&str] = &["kube", "kube-core", "kube-client", "k8s-openapi", "api", "index"];

struct Layer {
    name: &'static str,
    may_name: &'static [&'static str],
    must_not_reach: &'static [&'static str],
}

const fn layer(
    name: &'static str,
    may_name: &'static [&'static str],
    must_not_reach: &'static [&'static str],
) -> Layer {
    Layer { name, may_name, must_not_reach }
}

/// What a crate needs, each with the way to it, as it is when that crate is built alone.
fn reached(name: &str) -> BTreeMap<String, Vec<String>> {
    let tree = cargo_tree(name);
    let mut way: Vec<String> = Vec::new();
    let mut reached = BTreeMap::new();
    for line in tree.lines() {
        let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let depth: usize = line[..digits].parse().expect("cargo prints the depth first");
        let package = line[digits..].split(' ').next().unwrap_or_default().to_owned();
        way.truncate(depth);
        way.push(package.clone());
        if depth > 0 {
            reached.entry(package).or_insert_with(|| way.clone());
        }
    }
    reached
}

fn cargo_tree(name: &str) -> String {
    let args = ["tree", "--package", name, "--edges", "normal", "--prefix", "depth", "--format", "{p}", "--offline"];
    output(cargo().args(args).current_dir(crate::root())).expect("cargo tree works offline once cargo built us")
}

#[test]
fn every_crate_is_in_the_table() {
    let folders = [crate::root().join("crates"), crate::root()];
    let names = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("there").flatten());
    for entry in names.filter(|entry| entry.path().join("src").exists() && entry.path().join("Cargo.toml").exists()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(LAYERS.iter().any(|layer| layer.name == name), "{name} is in no layer: add it to the table");
    }
}

#[test]
fn arrows_point_down_and_the_hot_path_never_reaches_kubernetes() {
    let ours: Vec<&str> = LAYERS.iter().map(|layer| layer.name).collect();
    for layer in &LAYERS {
        let reached = reached(layer.name);
        for (package, way) in &reached {
            let direct = way.len() == 2;
            assert!(
                !(direct && ours.contains(&package.as_str()) && !layer.may_name.contains(&package.as_str())),
                "{} names {package}, which is not below it",
                layer.name
            );
            assert!(
                !layer.must_not_reach.contains(&package.as_str()),
                "{} reaches {package}: {}",
                layer.name,
                way.join(" → ")
            );
        }
    }
}
