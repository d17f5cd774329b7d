//! What stands in an image: a bill of materials as CycloneDX writes it, which scanners find in the image and beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::run::{cargo, output};

/// What each package is made of, as it is built for one target together with the others.
#[derive(Debug)]
pub(crate) struct Materials {
    packages: BTreeMap<String, Package>,
    /// The C library that static binaries hold.
    glibc: Option<String>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Package {
    licence: String,
    checksum: Option<String>,
    needs: BTreeSet<String>,
}

impl Materials {
    /// Of these packages; `compiler` is the C compiler that links them.
    pub(crate) fn read(root: &Path, packages: &[&str], target: &str, compiler: &str) -> Result<Self> {
        let mut command = cargo();
        command.args(["tree", "--locked", "--edges=normal", "--prefix=depth", "--format=|{p}|{l}", "--target", target]);
        command.args(packages.iter().flat_map(|package| ["--package", package])).current_dir(root);
        let mut packages = read_tree(&output(&mut command)?);
        let lock = std::fs::read_to_string(root.join("Cargo.lock")).context("reading Cargo.lock")?;
        let lock: toml::Table = lock.parse().context("reading Cargo.lock")?;
        for locked in lock["package"].as_array().context("Cargo.lock lists packages")? {
            let text = |name: &str| locked.get(name).and_then(toml::Value::as_str);
            let (Some(name), Some(version)) = (text("name"), text("version")) else { continue };
            if let Some(package) = packages.get_mut(&format!("{name}@{version}")) {
                package.checksum = text("checksum").map(str::to_owned);
            }
        }
        Ok(Self { packages, glibc: glibc(compiler) })
    }

    /// The bill of an image that holds the binaries of these packages.
    pub(crate) fn bill(&self, image: &str, version: &str, packages: &[&str]) -> Value {
        let mut held: BTreeSet<String> = BTreeSet::new();
        let mut next: Vec<String> = packages.iter().map(|package| format!("{package}@{version}")).collect();
        while let Some(id) = next.pop() {
            if held.insert(id.clone()) {
                next.extend(self.packages.get(&id).into_iter().flat_map(|package| package.needs.iter().cloned()));
            }
        }
        let reference = |id: &str| format!("pkg:cargo/{id}");
        let mut components: Vec<Value> = Vec::new();
        let mut dependencies: Vec<Value> = Vec::new();
        for id in &held {
            let Package { licence, checksum, needs } = self.packages.get(id).cloned().unwrap_or_default();
            let (name, version) = id.split_once('@').unwrap_or((id, ""));
            let mut component = json!({
                "type": "library", "bom-ref": reference(id), "name": name, "version": version, "purl": reference(id),
            });
            if !licence.is_empty() {
                // Older manifests have a slash where SPDX has a word.
                component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
            }
            if let Some(checksum) = checksum {
                component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
            }
            components.push(component);
            let needs: Vec<String> = needs.iter().map(|need| reference(need)).collect();
            dependencies.push(json!({"ref": reference(id), "dependsOn": needs}));
        }
        if let Some(version) = &self.glibc {
            components.push(json!({
                "type": "library", "bom-ref": "glibc", "name": "glibc", "version": version,
                "cpe": format!("cpe:2.3:a:gnu:glibc:{version}:*:*:*:*:*:*:*"),
                "licenses": [{"expression": "LGPL-2.1-or-later"}],
            }));
        }
        let whole = format!("{image}:{version}");
        let roots: Vec<String> = packages.iter().map(|package| reference(&format!("{package}@{version}"))).collect();
        dependencies.push(json!({"ref": whole, "dependsOn": roots}));
        json!({
            "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
            "metadata": {"component": {
                "type": "container", "bom-ref": whole, "name": image, "version": version,
                "licenses": [{"expression": "Apache-2.0"}],
            }},
            "components": components, "dependencies": dependencies,
        })
    }
}

/// What `cargo tree` prints, a package a line: how deep it stands, its name and its licence. What runs only while others are built is left out.
fn read_tree(tree: &str) -> BTreeMap<String, Package> {
    let mut packages: BTreeMap<String, Package> = BTreeMap::new();
    // The packages that a line stands below, and how deep what is left out began.
    let mut above: Vec<String> = Vec::new();
    let mut left_out: Option<usize> = None;
    for line in tree.lines() {
        let mut parts = line.splitn(3, '|');
        let (Some(Ok(depth)), Some(named), Some(licence)) =
            (parts.next().map(str::parse::<usize>), parts.next(), parts.next())
        else {
            continue;
        };
        if left_out.is_some_and(|from| depth > from) {
            continue;
        }
        left_out = named.contains("(proc-macro)").then_some(depth);
        if left_out.is_some() {
            continue;
        }
        let mut words = named.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        let id = format!("{name}@{}", version.trim_start_matches('v'));
        above.truncate(depth);
        if let Some(parent) = above.last() {
            packages.entry(parent.clone()).or_default().needs.insert(id.clone());
        }
        // One that stood before says its own packages there.
        let licence = licence.trim_end_matches(" (*)");
        licence.clone_into(&mut packages.entry(id.clone()).or_default().licence);
        above.push(id);
    }
    packages
}

/// The version of the C library that a compiler links, by what the library says of itself.
fn glibc(compiler: &str) -> Option<String> {
    let library = output(Command::new(compiler).arg("-print-file-name=libc.a")).ok()?;
    let content = std::fs::read(library.trim()).ok()?;
    let said = b"stable release version ";
    let at = content.windows(said.len()).position(|window| window == said)? + said.len();
    let version: Vec<u8> =
        content[at..].iter().copied().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').collect();
    Some(String::from_utf8(version).ok()?.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_lists_what_a_binary_holds_and_nothing_that_only_builds_it() {
        let tree = "0|a v0.1.0 (/a)|Apache-2.0\n1|b v1.0.0|MIT/Apache-2.0\n2|c v2.0.0|MIT\n1|d v3.0.0 (proc-macro)|MIT\n2|syn v2.0.0|MIT\n\
                    1|e v4.0.0|ISC\n\n0|f v0.1.0 (/f)|Apache-2.0\n1|b v1.0.0|MIT/Apache-2.0 (*)\n1|g v1.0.0|MIT\n";
        let materials = Materials { packages: read_tree(tree), glibc: Some("2.36".into()) };
        let bill = materials.bill("image", "0.1.0", &["f"]);
        let names: Vec<&str> =
            bill["components"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["b", "c", "f", "g", "glibc"]);
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["dependencies"][0], json!({"ref": "pkg:cargo/b@1.0.0", "dependsOn": ["pkg:cargo/c@2.0.0"]}));
        let all = materials.bill("image", "0.1.0", &["a", "f"]);
        assert_eq!(all["components"].as_array().unwrap().len(), 7);
        assert!(!all.to_string().contains("syn@"));
    }

    /// What is shipped must be what the lock file pins.
    #[test]
    fn everything_that_is_shipped_has_a_licence_and_a_checksum() {
        let materials = Materials::read(&crate::root(), &["picker"], &super::super::host().unwrap(), "cc").unwrap();
        let bill = materials.bill("thalamus-picker", env!("CARGO_PKG_VERSION"), &["picker"]);
        let components = bill["components"].as_array().unwrap();
        assert!(components.len() > 100, "{}", components.len());
        for component in components {
            let name = component["name"].as_str().unwrap();
            let is_ours = component["version"] == env!("CARGO_PKG_VERSION") && component["hashes"].is_null();
            assert!(!component["licenses"].is_null(), "{name} has no licence");
            assert!(is_ours || name == "glibc" || !component["hashes"].is_null(), "{name} has no checksum");
        }
    }
}
