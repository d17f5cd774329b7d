//! `thalamus demo --once`, as the README says.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn every_request_of_the_tour_lands_where_the_table_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output =
        Command::new(env!("CARGO_BIN_EXE_thalamus")).args(["demo", "--once"]).current_dir(root).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    let pool_of = |request: &str| rows.iter().find(|row| row.first() == Some(&request)).map(|row| row[2]);
    let pools = ["text", "an image", "a video", "audio", "all of it", "audio, for a reader"].map(pool_of);
    assert_eq!(pools, [Some("text"), Some("vision"), Some("vision"), Some("audio"), Some("omni"), Some("-")]);
    assert!(shown.contains(r#"model "reader" takes text and image, not audio; "chat" could take it"#), "{shown}");
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_thalamus")).args(["demo", "--manifests", "no/such"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("reading the folder no/such"), "{said}");
}

#[test]
fn the_printed_commands_work_when_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_thalamus"))
        .arg("demo")
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The last command is the sixth; the demo stays up after it.
    let commands: Vec<String> = lines.by_ref().filter(|line| line.starts_with("curl ")).take(6).collect();
    let answers = commands.iter().map(|command| {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    let answers: Vec<String> = answers.collect();
    demo.kill().unwrap();
    demo.wait().unwrap();
    for (answer, expected) in answers.iter().zip(["text-", "vision-", "vision-", "audio-", "omni-"]) {
        assert!(answer.contains(&format!(r#""server":"{expected}"#)), "{answer}");
    }
    assert!(answers[5].contains("unsupported_modality"), "{}", answers[5]);
}
