//! `thalamus check`: what is wrong with objects, before anybody applies them.

#![expect(clippy::unwrap_used, reason = "what helps a test may panic like it")]

use std::path::Path;
use std::process::Command;

/// Whether it is content, and what it shows.
fn check(paths: &[&Path]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalamus"));
    command.arg("check");
    for path in paths {
        command.arg("-f").arg(path);
    }
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

fn check_text(text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("objects.yaml"), text).unwrap();
    check(&[folder.path()])
}

/// The row of an object that says this.
fn says(shown: &str, object: &str, result: &str, what: &str) -> bool {
    shown.lines().any(|line| line.contains(object) && line.contains(result) && line.contains(what))
}

const POOL: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p}
spec:
  selector: {matchLabels: {app: p}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: epp, port: {number: 9002}}
---";

#[test]
fn the_example_is_right_beside_its_pickers() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/examples/multimodal");
    let (content, shown) = check(&[&manifests]);
    assert!(content, "{shown}");
    assert!(says(&shown, "InferenceModel serving/chat", "ok", "4/4 targets; takes text+image+audio+video"), "{shown}");
    // The picker's Service is installed apart.
    assert!(says(&shown, "InferencePool serving/text", "warning", "there is no Service thalamus-picker"), "{shown}");
}

#[test]
fn a_field_that_an_api_server_would_drop_is_an_error() {
    let (content, shown) = check_text(&format!(
        "{POOL}
apiVersion: thalamus.dev/v1alpha1
kind: InferenceModel
metadata: {{name: model}}
spec:
  modelName: model
  poolRef: {{name: p}}
  modalites: {{input: [Text, Image]}}
  targetModels: [{{name: a, wieght: 3}}]
"
    ));
    assert!(!content, "{shown}");
    let expected = "unknown field `spec.modalites`; did you mean `modalities`?";
    assert!(says(&shown, "InferenceModel default/model", "error", expected), "{shown}");
    assert!(says(&shown, "InferenceModel default/model", "error", "spec.targetModels[0].wieght"), "{shown}");
}

#[test]
fn every_wrong_object_is_told_and_not_only_the_first() {
    let (content, shown) = check_text(&format!(
        "{POOL}
apiVersion: thalamus.dev/v1alpha1
kind: InferenceModel
metadata: {{name: smell}}
spec: {{modelName: a, poolRef: {{name: p}}, modalities: {{input: [Smell]}}}}
---
apiVersion: thalamus.dev/v1alpha1
kind: InferenceModel
metadata: {{name: lost}}
spec: {{modelName: b, poolRef: {{name: nowhere}}}}
---
apiVersion: thalamus.dev/v1alpha1
kind: InferenceModel
metadata: {{name: twin}}
spec: {{modelName: b, poolRef: {{name: p}}}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {{name: old}}
spec: {{targetPortNumber: 8000, selector: {{app: x}}, extensionRef: {{name: epp}}}}
"
    ));
    assert!(!content, "{shown}");
    assert!(says(&shown, "objects.yaml", "error", "unknown variant `Smell`"), "{shown}");
    assert!(says(&shown, "InferenceModel default/lost", "error", "there is no InferencePool nowhere"), "{shown}");
    assert!(says(&shown, "InferenceModel default/twin", "error", "is served by InferenceModel lost"), "{shown}");
    assert!(says(&shown, "objects.yaml", "error", "targetPorts: [{number: N}]"), "{shown}");
    assert!(says(&shown, "InferencePool default/p", "warning", "no pod has the labels"), "{shown}");
    assert!(shown.contains("4 errors, 2 warnings"), "{shown}");
}

#[test]
fn nothing_to_check_is_an_error() {
    let (content, shown) = check_text("");
    assert!(!content && shown.contains("there is no InferencePool and no InferenceModel"), "{shown}");
}
