//! What our dependencies may be is what `deny.toml` says: the part of `cargo deny check` that needs no network.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

#[test]
fn licences_and_sources_are_those_that_deny_toml_allows() {
    let root = crate::root();
    let deny: toml::Table = std::fs::read_to_string(root.join("deny.toml")).unwrap().parse().unwrap();
    let allowed = deny["licenses"]["allow"].as_array().unwrap();
    let allowed: BTreeSet<&str> = allowed.iter().map(|licence| licence.as_str().unwrap()).collect();
    let metadata = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(&root)
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 200, "{} packages", packages.len());
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut wrong = Vec::new();
    for package in packages {
        let named = format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let licence = package["license"].as_str().unwrap_or_default();
        let is_allowed = Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|licence| {
            licence.evaluate(|asked| {
                let name = asked.to_string();
                let is_allowed = allowed.contains(&*name);
                used.extend(is_allowed.then_some(name));
                is_allowed
            })
        });
        if !is_allowed {
            wrong.push(format!("{named}: {licence:?} is not allowed"));
        }
        let source = package["source"].as_str().unwrap_or("path");
        if source != "path" && !source.starts_with("registry+") {
            wrong.push(format!("{named} comes from {source}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let unused: Vec<&&str> = allowed.iter().filter(|licence| !used.contains(**licence)).collect();
    assert!(unused.is_empty(), "deny.toml allows what nobody has: {unused:?}");
}
