//! The reference of metrics, written from what a process shows.

use std::fmt::Write as _;
use std::path::Path;

/// A table of what this exposition has: a row for each metric, with the labels of its first sample.
pub fn table_of(exposition: &str) -> String {
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    let mut lines = exposition.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else { continue };
        let kind = lines.next().and_then(|line| line.rsplit_once(' ')).map_or("", |(_, kind)| kind);
        let sample = lines.find(|line| !line.starts_with('#')).unwrap_or_default();
        let labels =
            sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
        let labels: Vec<String> = labels
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0))
            .filter(|label| *label != "le")
            .map(|label| format!("`{label}`"))
            .collect();
        let end = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let kind = if kind == "info" { "gauge" } else { kind };
        let help = help.trim_end_matches('.').replace('|', "\\|");
        _ = writeln!(table, "| `{name}{end}` | {kind} | {} | {help} |", labels.join(", "));
    }
    table
}

/// Holds a file to what should stand below a heading of it, up to the next one; with `BLESS` set, writes it there.
///
/// # Panics
/// Where it is not so.
pub fn holds(file: &Path, heading: &str, content: &str) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let heading = format!("\n## {heading}\n");
    let begin = text.find(&heading).unwrap_or_else(|| panic!("{} has no heading {heading:?}", file.display()));
    let begin = begin + heading.len();
    let end = text[begin..].find("\n## ").map_or(text.len(), |end| begin + end);
    if std::env::var_os("BLESS").is_some() {
        let new = [&text[..begin], "\n", content, &text[end..]].concat();
        std::fs::write(file, new).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        return;
    }
    assert!(
        text[begin..end] == format!("\n{content}"),
        "{} is not what it should be: BLESS=1 writes it",
        file.display()
    );
}
