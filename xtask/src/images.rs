//! Container images from scratch: static binaries alone, no shell, no package, not root. Written as an archive that `docker load`,
//! `podman load`, `skopeo copy docker-archive:…` and `ctr images import` take; no builder and no daemon is needed.

mod architecture;
mod bill;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) use architecture::Architecture;
use bill::Materials;

use crate::run::{SHIPPED, cargo, output, run, target_folder};

/// Our binaries, and the package of each.
const BINARIES: [(&str, &str); 5] = [
    ("thalamus-controller", "controller"),
    ("thalamus-picker", "picker"),
    ("thalamus-standalone", "standalone"),
    ("thalamus", "thalamus"),
    ("modelserver-sim", "modelserver-sim"),
];

/// Our images: each is called as its first binary is, which it starts. The picker starts the other one where it has no controller.
const IMAGES: [&[&str]; 4] =
    [&["thalamus-controller"], &["thalamus-picker", "thalamus-standalone"], &["thalamus"], &["modelserver-sim"]];

/// Nobody in particular: the user that the manifests name, too.
const USER: &str = "65532:65532";

/// How binaries are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Shipped,
    /// For tests: quick to build.
    Dev,
}

/// Builds all images for this machine's architecture, or another, and answers with their archives.
pub(crate) fn build(root: &Path, profile: Profile, architecture: Option<Architecture>) -> Result<Vec<PathBuf>> {
    let here = host()?;
    let architecture = architecture.map_or_else(Architecture::here, Ok)?;
    let target = architecture.target();
    let is_foreign = target != here;
    let mut command = cargo();
    command.args(["build", "--locked", "--target", target]).current_dir(root);
    let compiler = if is_foreign { architecture.compiler() } else { "cc" };
    if is_foreign {
        architecture.is_ready(compiler)?;
        let name = target.replace('-', "_");
        command
            .env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler)
            .env(format!("CC_{name}"), compiler);
    }
    command.args(BINARIES.iter().flat_map(|(_, package)| ["--package", package]));
    command.args(BINARIES.iter().flat_map(|(binary, _)| ["--bin", binary]));
    match profile {
        Profile::Shipped => command.args(["--profile", SHIPPED]),
        Profile::Dev => command.env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_INCREMENTAL", "0"),
    };
    // Whole: an image has no C library to find. Only for the target, not for what cargo runs while it builds.
    run("static binaries", command.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;

    let target_folder = target_folder(root);
    let binaries = target_folder.join(target).join(if profile == Profile::Shipped { SHIPPED } else { "debug" });
    let place = target_folder.join(if profile == Profile::Shipped { "images" } else { "images-dev" });
    let place = if is_foreign { place.join(architecture.as_str()) } else { place };
    std::fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    let packages = BINARIES.map(|(_, package)| package);
    let materials = Materials::read(root, &packages, target, compiler)?;
    let image = |names: &&[&str]| {
        let (name, held): (_, Vec<PathBuf>) = (names[0], names.iter().map(|name| binaries.join(name)).collect());
        let held_packages = BINARIES.iter().filter(|(binary, _)| names.contains(binary)).map(|(_, package)| *package);
        let bill = materials.bill(name, version, &held_packages.collect::<Vec<_>>());
        let bill = serde_json::to_vec_pretty(&bill).context("writing a bill of materials")?;
        let beside = place.join(format!("{name}.cdx.json"));
        std::fs::write(&beside, &bill).with_context(|| format!("writing {}", beside.display()))?;
        let archive = place.join(format!("{name}.tar"));
        write(&held, Some(&bill), architecture, &format!("{name}:{version}"), &archive)
    };
    let images = IMAGES.iter().map(image).collect::<Result<_>>()?;
    if is_foreign {
        let all = BINARIES.map(|(binary, _)| binaries.join(binary));
        architecture.try_out(root, &all, &binaries.join("thalamus"))?;
    }
    Ok(images)
}

/// What the tests' node needs beside them: its name server, and what holds a pod's network.
pub(crate) fn of_the_node(kube: &Path, place: &Path) -> Result<Vec<PathBuf>> {
    ["pause", "coredns"]
        .into_iter()
        .map(|name| {
            write(
                &[kube.join(name)],
                None,
                Architecture::here()?,
                &format!("localhost/{name}:1"),
                &place.join(format!("{name}.tar")),
            )
        })
        .collect()
}

/// Builds the library that Envoy loads, with all that it needs but glibc, and an image of it and its licence, to be mounted; answers with both.
pub(crate) fn envoy_module(root: &Path) -> Result<[PathBuf; 2]> {
    let (target, target_folder) = (host()?, target_folder(root));
    let place = target_folder.join("envoy-module");
    let link = place.join("link");
    std::fs::create_dir_all(&link).with_context(|| format!("making {}", link.display()))?;
    // The images of Envoy have no libgcc_s.so.1: the linker is told to take what it is made of instead.
    std::fs::write(link.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n").context("writing a script for the linker")?;
    let mut command = cargo();
    command.args(["build", "--profile", SHIPPED, "--package", "envoy-module", "--target", &target]).current_dir(root);
    run("the library for Envoy", command.env("RUSTFLAGS", format!("-C link-arg=-L{}", link.display())))?;
    let built = target_folder.join(&target).join(SHIPPED).join(LIBRARY);
    let content = std::fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    ensure!(
        !has(&content, b"libgcc_s.so.1"),
        "{} needs libgcc_s.so.1, which the images of Envoy do not have",
        built.display()
    );
    let library = place.join(LIBRARY);
    std::fs::write(&library, &content).with_context(|| format!("writing {}", library.display()))?;
    let images = target_folder.join("images");
    std::fs::create_dir_all(&images).with_context(|| format!("making {}", images.display()))?;
    let reference = format!("thalamus-envoy-module:{}", env!("CARGO_PKG_VERSION"));
    let archive = images.join("thalamus-envoy-module.tar");
    let licence = std::fs::read(root.join("LICENSE")).context("reading LICENSE")?;
    let image = pack(
        &[(LIBRARY, &content, 0o644), ("LICENSE", &licence, 0o644)],
        &json!({"Labels": labels("thalamus-envoy-module")}),
        Architecture::here()?,
        &reference,
        &archive,
    )?;
    Ok([library, image])
}

/// What Envoy looks for.
const LIBRARY: &str = "libthalamus_envoy.so";

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn labels(name: &str) -> Value {
    json!({"org.opencontainers.image.title": name, "org.opencontainers.image.version": env!("CARGO_PKG_VERSION")})
}

/// Writes an image of binaries, which starts the first, and of the bill of what they are made of. Equal binaries give equal archives.
fn write(
    binaries: &[PathBuf],
    bill: Option<&[u8]>,
    architecture: Architecture,
    reference: &str,
    archive: &Path,
) -> Result<PathBuf> {
    let mut files = Vec::new();
    for binary in binaries {
        let name = binary.file_name().context("a binary has a name")?.to_string_lossy().into_owned();
        let content = std::fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
        ensure!(
            !is_dynamic(&content),
            "{} needs a dynamic linker, which an image from scratch does not have",
            binary.display()
        );
        files.push((name, content));
    }
    let name = files.first().context("an image of something")?.0.clone();
    let mut files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice(), 0o755)).collect();
    let bill_name = format!("usr/share/sbom/{name}.cdx.json");
    files.extend(bill.map(|bill| (bill_name.as_str(), bill, 0o644)));
    let config = json!({
        "Entrypoint": [format!("/{name}")], "User": USER, "WorkingDir": "/",
        // What a burst of bodies took goes back after 10 ms, not 100 (ADR 0016).
        "Env": ["MIMALLOC_ARENA_PURGE_MULT=1"],
        "Labels": labels(&name),
    });
    pack(&files, &config, architecture, reference, archive)
}

/// Writes an image of these files, in one layer.
fn pack(
    files: &[(&str, &[u8], u32)],
    config: &Value,
    architecture: Architecture,
    reference: &str,
    archive: &Path,
) -> Result<PathBuf> {
    let layer = tar(files)?;
    let layer_digest = digest(&layer);
    let config = json!({
        "architecture": architecture.as_str(), "os": "linux", "created": "1970-01-01T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask images"}],
    });
    let config = config.to_string().into_bytes();
    let config_name = format!("{}.json", digest(&config));
    let layer_name = format!("{layer_digest}/layer.tar");
    let full = if reference.contains('/') { reference.to_owned() } else { format!("docker.io/library/{reference}") };
    let manifest: Value = json!([{"Config": config_name, "RepoTags": [full], "Layers": [layer_name]}]);
    let manifest = manifest.to_string().into_bytes();
    let whole =
        tar(&[(&config_name, &config, 0o644), (&layer_name, &layer, 0o644), ("manifest.json", &manifest, 0o644)])?;
    // Beside first: an archive is never half there.
    let new = archive.with_extension("new");
    std::fs::write(&new, &whole).and_then(|()| std::fs::rename(&new, archive)).context("writing an image")?;
    crate::say(&format!("{full}: {} ({} MB)", archive.display(), whole.len() / 1_000_000));
    Ok(archive.to_owned())
}

fn tar(files: &[(&str, &[u8], u32)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        builder.append_data(&mut header, name, *content).with_context(|| format!("packing {name}"))?;
    }
    builder.into_inner().context("packing")
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Whether an ELF file of 64 bits, little-endian, asks for an interpreter (PT_INTERP, 3).
fn is_dynamic(elf: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        elf.get(at..at + bytes).map(|bytes| bytes.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let (Some(table), Some(size), Some(count)) = (number(0x20, 8), number(0x36, 2), number(0x38, 2)) else {
        return true;
    };
    elf.get(..4) != Some(b"\x7fELF") || (0..count).any(|entry| number(table + entry * size, 4) == Some(3))
}

fn host() -> Result<String> {
    let said = output(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    ensure!(host.contains("linux"), "images are of Linux binaries, and this is {host}");
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_needs_a_linker_is_found_out() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_dynamic(&this), "tests are linked dynamically");
        assert!(is_dynamic(b"#!/bin/sh"), "a script is no static binary");
        assert!(is_dynamic(&[]));
    }
}
