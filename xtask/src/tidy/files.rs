//! How files are written.

use std::path::{Path, PathBuf};

/// Longest hand-written file; tests aside. Someone must read it.
const MAX_LINES: usize = 600;

/// Every tracked or new Rust file, by its path from the root.
fn rust_files() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = crate::root();
    let mut found = Vec::new();
    walk(&root, &mut found);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a file of ours");
        (path.strip_prefix(&root).expect("below the root").to_path_buf(), text)
    };
    found.into_iter().map(read).collect()
}

fn is_generated(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "generated.rs")
}

fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn no_file_is_longer_than_someone_reads() {
    for (path, text) in rust_files().iter().filter(|(path, _)| !is_generated(path) && !is_test(path)) {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines: what are its two thoughts?", path.display());
    }
}

/// What stands between a gateway and h2 until h2 takes the gateway's names: it may not grow into an HTTP/2 of its own.
const MAX_LINES_OF_H2_AUTHORITY: usize = 700;

#[test]
fn what_is_to_go_when_h2_takes_such_names_stays_small() {
    let ours = rust_files().into_iter().filter(|(path, _)| path.starts_with("crates/h2-authority") && !is_test(path));
    let lines: usize = ours.map(|(_, text)| text.lines().count()).sum();
    assert!((1..=MAX_LINES_OF_H2_AUTHORITY).contains(&lines), "crates/h2-authority has {lines} lines (ADR 0012)");
}

#[test]
fn every_file_says_first_what_it_holds() {
    // The tests of `foo.rs` in `foo/tests.rs` are explained by `foo.rs`.
    let explained = |path: &Path| path.file_name().is_some_and(|name| name == "tests.rs");
    for (path, text) in rust_files().iter().filter(|(path, _)| !is_generated(path) && !explained(path)) {
        assert!(text.starts_with("//! "), "{} does not begin with `//!` and a sentence", path.display());
    }
}

#[test]
fn modules_are_foo_and_a_folder_never_mod_rs() {
    for (path, _) in rust_files() {
        assert!(path.file_name().is_none_or(|name| name != "mod.rs"), "{}", path.display());
    }
}

#[test]
fn no_test_sleeps() {
    let sleep = concat!("sleep", "(");
    for (path, text) in rust_files().iter().filter(|(path, _)| is_test(path)) {
        assert!(!text.contains(sleep), "{} waits for time instead of for something", path.display());
    }
}

#[test]
fn every_manifest_names_the_licence() {
    let root = crate::root();
    let mut manifests: Vec<PathBuf> =
        ["Cargo.toml", "xtask/Cargo.toml", "e2e/Cargo.toml", "fuzz/Cargo.toml"].map(|path| root.join(path)).into();
    let crates = std::fs::read_dir(root.join("crates")).expect("our crates");
    manifests.extend(crates.map(|folder| folder.expect("a folder").path().join("Cargo.toml")));
    for path in manifests {
        let text = std::fs::read_to_string(&path).expect("a manifest");
        let named = ["license.workspace = true", "license = \"Apache-2.0\""].iter().any(|line| text.contains(line));
        assert!(named, "{} names no licence", path.display());
    }
    assert!(std::fs::read_to_string(root.join("LICENSE")).expect("LICENSE").contains("Apache-2.0"));
}

/// Where `main` gives an error back, whoever has RUST_BACKTRACE set gets twenty frames for a mistake of theirs.
#[test]
fn no_main_gives_its_error_to_the_runtime() {
    let mains = rust_files()
        .into_iter()
        .filter(|(path, _)| path.ends_with("src/main.rs") && (path.starts_with("crates") || path.starts_with("xtask")));
    for (path, text) in mains {
        let signature = text.lines().find(|line| line.contains("fn main()")).expect("a main");
        assert!(!signature.contains("Result"), "{}: {signature}", path.display());
    }
}
