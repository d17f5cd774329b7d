//! The version stands in `Cargo.toml`, and everything else that names one agrees.

use std::path::{Path, PathBuf};

/// Images of ours.
const IMAGES: [&str; 4] = ["thalamus-picker:", "thalamus-controller:", "thalamus-envoy-module:", "modelserver-sim:"];

#[test]
fn images_the_chart_crds_and_the_changelog_are_of_this_version() {
    let (root, version) = (crate::root(), env!("CARGO_PKG_VERSION"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let chart = read("charts/thalamus/Chart.yaml");
    assert!(
        chart.contains(&format!("\nversion: {version}\n")) && chart.contains(&format!("\nappVersion: {version}\n"))
    );
    assert!(read("CHANGELOG.md").contains(&format!("\n## {version}")), "CHANGELOG.md has nothing of {version}");
    assert!(read("crds/inferencemodels.thalamus.dev.yaml").contains(&format!("thalamus.dev/version: \"{version}\"")));
    let mut named = 0;
    for path in texts(&root) {
        let text = std::fs::read_to_string(&path).unwrap();
        for image in IMAGES {
            for (at, _) in text.match_indices(image) {
                let tag: String =
                    text[at + image.len()..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
                if tag.contains('.') {
                    named += 1;
                    assert_eq!(tag.trim_end_matches('.'), version, "{} names {image}{tag}", path.display());
                }
            }
        }
    }
    assert!(named > 8, "{named} images are named");
}

/// What may name an image.
fn texts(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.join("README.md")];
    let mut folders: Vec<PathBuf> = ["manifests", "charts", "docs", "e2e", "crates"].map(|one| root.join(one)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if ["yaml", "md", "rs", "sh"].contains(&&*kind) {
                all.push(path);
            }
        }
    }
    all
}
