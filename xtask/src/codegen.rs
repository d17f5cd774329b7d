//! Everything that is generated and checked in: CRD files, protobuf code, documentation. What each file would hold is a value, so that a test can
//! compare it with what is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where a protocol's definition lives, and the module that holds its code.
struct Protocol {
    include: &'static str,
    file: &'static str,
    generated: &'static str,
}

const PROTOCOLS: [Protocol; 3] = [
    Protocol {
        include: "crates/publish/proto",
        file: "thalamus/publish/v1/tables.proto",
        generated: "crates/publish/src/proto/generated.rs",
    },
    Protocol {
        include: "crates/ask/proto",
        file: "thalamus/ask/v1/ask.proto",
        generated: "crates/ask/src/proto/generated.rs",
    },
    Protocol {
        include: "crates/ext-proc/proto",
        file: "envoy/ext_proc.proto",
        generated: "crates/ext-proc/src/proto/generated.rs",
    },
];

/// Every generated file, by its path from the root, with its content.
pub(crate) fn generate(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for crd in api::crds() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let yaml = serde_saphyr::to_string(&api::manifest(&crd)).with_context(|| format!("writing {name}"))?;
        let content = format!("# Written by `cargo xtask codegen` from crates/api. Do not edit.\n{yaml}");
        files.insert(PathBuf::from(format!("charts/thalamus/crds/{name}.yaml")), content.clone());
        // InferencePool may have another owner, so it is applied by itself.
        let folder = if crd.spec.group == "thalamus.dev" { "crds" } else { "crds/inference-pool" };
        files.insert(PathBuf::from(format!("{folder}/{name}.yaml")), content);
    }
    files.insert(PathBuf::from("docs/errors.md"), crate::docs::errors());
    files.insert(PathBuf::from("docs/objects.md"), crate::docs::objects::page());
    files.insert(PathBuf::from("docs/reading.md"), crate::docs::reading());
    files.extend(crate::monitoring::files()?);
    for protocol in &PROTOCOLS {
        files.insert(PathBuf::from(protocol.generated), rust_of(root, protocol)?);
    }
    Ok(files)
}

/// Writes every generated file that differs, and says which.
pub(crate) fn run(root: &Path) -> Result<()> {
    for (path, content) in generate(root)? {
        let full = root.join(&path);
        if std::fs::read_to_string(&full).is_ok_and(|old| old == content) {
            continue;
        }
        if let Some(folder) = full.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        std::fs::write(&full, content).with_context(|| format!("writing {}", full.display()))?;
        crate::say(&format!("wrote {}", path.display()));
    }
    Ok(())
}

/// Compiled by `protox`, so that nobody needs protoc.
fn rust_of(root: &Path, protocol: &Protocol) -> Result<String> {
    let include = root.join(protocol.include);
    let descriptors =
        protox::compile([protocol.file], [include]).with_context(|| format!("compiling {}", protocol.file))?;
    let folder = std::env::temp_dir().join(format!("thalamus-codegen-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .out_dir(&folder)
        .compile_fds(descriptors)
        .with_context(|| format!("generating code for {}", protocol.file))?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let ours = files.iter().find(|file| !file.ends_with("google.protobuf.rs")).context("no code was generated")?;
    let code = std::fs::read_to_string(ours)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_are_fresh() {
        let root = crate::root();
        for (path, content) in generate(&root).unwrap() {
            let there = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
            assert!(there == content, "{} is not what its source says: run `cargo xtask codegen`", path.display());
        }
    }
}
