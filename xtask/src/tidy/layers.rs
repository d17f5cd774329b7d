//! Which crate may name which, and what each must not reach, directly or through others. docs/architecture.md says why.

use std::collections::BTreeMap;

use crate::run::{cargo, output};

/// Our crates, layer by layer: what each may name of ours, and what must be nowhere below it.
const LAYERS: [&[Crate]; 6] = [
    // 0: the vocabulary
    &[member("routing", &[], PURE)],
    // 1: pure values and functions; the Kubernetes nouns
    &[
        member("scheduling", &["routing"], PURE),
        member("media", &["routing"], PURE),
        member("request", &["routing", "media"], PURE),
        member("h2-authority", &[], &["tokio", "kube", "hyper", "tonic", "h2", "tracing", "serde"]),
        member("api", &[], &["tokio", "kube-client", "tonic", "hyper"]),
    ],
    // 2: engines
    &[
        member("index", &["api", "routing"], &["tokio", "kube-client", "tonic", "hyper"]),
        member(
            "director",
            &["routing", "scheduling", "request", "media"],
            &["tokio", "kube", "kube-core", "k8s-openapi", "hyper", "tonic"],
        ),
    ],
    // 3: edges
    &[
        member("publish", &["routing"], KUBERNETES),
        member("metered", &["director"], KUBERNETES),
        member("ext-proc", &["director", "metered", "request", "routing", "scheduling"], KUBERNETES),
        member("ask", &["director", "media", "metered", "request", "routing"], KUBERNETES),
        member("proxy", &["daemon", "director", "request", "routing"], KUBERNETES),
        member("traces", &["daemon", "director", "request", "routing"], KUBERNETES),
        member("daemon", &["h2-authority", "routing"], KUBERNETES),
        member("probe", &["daemon", "routing"], KUBERNETES),
        member(
            "cluster-watch",
            &["api", "index", "publish", "daemon"],
            &["director", "ext-proc", "proxy", "request", "scheduling"],
        ),
    ],
    // 4: processes
    &[
        member(
            "controller",
            &["api", "cluster-watch", "index", "probe", "publish", "daemon", "routing"],
            &["director", "ext-proc", "proxy", "picker", "request", "scheduling"],
        ),
        member(
            "picker",
            &[
                "ask",
                "director",
                "scheduling",
                "request",
                "ext-proc",
                "proxy",
                "publish",
                "routing",
                "daemon",
                "traces",
            ],
            &["kube", "kube-core", "kube-client", "k8s-openapi", "api", "index"],
        ),
        member("envoy-module", &["ask", "director", "picker", "request", "routing"], KUBERNETES),
        member("standalone", &["api", "cluster-watch", "index", "publish", "picker", "daemon"], &["controller"]),
        member(
            "thalamus",
            &[
                "api",
                "index",
                "publish",
                "picker",
                "probe",
                "proxy",
                "director",
                "request",
                "routing",
                "daemon",
                "modelserver-sim",
                "simulate",
                "traces",
            ],
            &["kube-client", "controller"],
        ),
        member(
            "simulate",
            &["director", "media", "request", "routing", "scheduling"],
            &["tokio", "kube", "kube-core", "k8s-openapi", "hyper", "tonic"],
        ),
        member("kubectl-thalamus", &["api", "index", "routing", "daemon", "thalamus"], &["controller"]),
        member(
            "modelserver-sim",
            &["routing", "daemon"],
            &["kube", "kube-core", "kube-client", "k8s-openapi", "api", "index", "request"],
        ),
    ],
    // 5: what builds and tries the rest
    &[
        member("xtask", &["api", "director", "media", "request"], &["tokio", "kube-client"]),
        member("fuzz", &["director", "ext-proc", "h2-authority", "media", "request", "routing"], KUBERNETES),
        member("e2e", &["api", "ext-proc", "probe", "publish", "routing", "thalamus", "modelserver-sim"], &[]),
    ],
];

/// Which may name one of their own layer, and which; everything else points down.
const SIDEWAYS: [(&str, &str); 14] = [
    ("traces", "daemon"),
    ("probe", "daemon"),
    ("thalamus", "simulate"),
    ("ext-proc", "metered"),
    ("ask", "metered"),
    ("request", "media"),
    ("proxy", "daemon"),
    ("cluster-watch", "publish"),
    ("cluster-watch", "daemon"),
    ("standalone", "picker"),
    ("envoy-module", "picker"),
    ("thalamus", "picker"),
    ("thalamus", "modelserver-sim"),
    ("kubectl-thalamus", "thalamus"),
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

struct Crate {
    name: &'static str,
    may_name: &'static [&'static str],
    must_not_reach: &'static [&'static str],
}

const fn member(
    name: &'static str,
    may_name: &'static [&'static str],
    must_not_reach: &'static [&'static str],
) -> Crate {
    Crate { name, may_name, must_not_reach }
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
        assert!(level(&name).is_some(), "{name} is in no layer: add it to the table");
    }
}

/// In which layer a crate is.
fn level(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.iter().any(|member| member.name == name))
}

#[test]
fn arrows_point_down_or_are_listed() {
    let arrows = LAYERS.iter().flat_map(|layer| layer.iter());
    let arrows = arrows.flat_map(|member| member.may_name.iter().map(|below| (member.name, *below)));
    let not_down: Vec<_> = arrows.filter(|(from, to)| level(to) >= level(from)).collect();
    for (from, to) in &not_down {
        assert!(
            level(from) == level(to) && SIDEWAYS.contains(&(from, to)),
            "{from} may name {to}, which is in no layer below it"
        );
    }
    for arrow in SIDEWAYS {
        assert!(not_down.contains(&arrow), "{arrow:?} is listed as an arrow within a layer, and is none");
    }
}

#[test]
fn crates_name_what_they_may_and_the_hot_path_never_reaches_kubernetes() {
    for member in LAYERS.iter().flat_map(|layer| layer.iter()) {
        let reached = reached(member.name);
        for (package, way) in &reached {
            let names = way.len() == 2 && level(package).is_some();
            assert!(
                !names || member.may_name.contains(&package.as_str()),
                "{} names {package}, and the table does not say that it may",
                member.name
            );
            assert!(
                !member.must_not_reach.contains(&package.as_str()),
                "{} reaches {package}: {}",
                member.name,
                way.join(" → ")
            );
        }
    }
}
