//! References of metrics and flags, written from what a process shows and takes.

#![expect(clippy::panic, reason = "what helps a test may panic like it")]

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

/// A table of a program's flags, and one for each of its commands.
pub fn flags_of(mut program: clap::Command) -> String {
    program.build();
    let mut all = String::new();
    write_flags(&mut all, &program, true);
    all
}

fn write_flags(all: &mut String, command: &clap::Command, is_first: bool) {
    if !is_first {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        _ = write!(all, "\n### `{}`\n\n{about}\n\n", command.get_bin_name().unwrap_or_else(|| command.get_name()));
    }
    let own = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str()));
    let rows: Vec<String> = own.map(flag).collect();
    if !rows.is_empty() {
        _ = write!(all, "| flag | default | meaning |\n|---|---|---|\n{}", rows.concat());
    }
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        write_flags(all, command, false);
    }
}

fn flag(arg: &clap::Arg) -> String {
    let value = arg.get_action().takes_values().then(|| {
        let names = arg.get_value_names().unwrap_or_default();
        names.first().map_or_else(|| arg.get_id().to_string(), ToString::to_string)
    });
    let name = match (arg.get_long(), value) {
        (Some(long), Some(value)) => format!("--{long} {value}"),
        (Some(long), None) => format!("--{long}"),
        (None, value) => value.unwrap_or_default(),
    };
    let shown = if arg.is_hide_default_value_set() { &[][..] } else { arg.get_default_values() };
    let defaults: Vec<String> = shown.iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let default = if defaults.is_empty() { String::new() } else { format!("`{}`", defaults.join(" ")) };
    let mut help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    if let Some(variable) = arg.get_env() {
        help += &format!(" (environment: {})", variable.to_string_lossy());
    }
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "&lt;");
    format!("| `{name}` | {default} | {help} |\n")
}

/// Holds a page of `docs` to what should stand below a heading of it, up to the next one; with `BLESS` set, writes it there.
///
/// # Panics
/// Where it is not so.
pub fn holds(page: &str, heading: &str, content: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let heading = format!("\n## {heading}\n");
    let begin = text.find(&heading).unwrap_or_else(|| panic!("{} has no heading {heading:?}", file.display()));
    let begin = begin + heading.len();
    let end = text[begin..].find("\n## ").map_or(text.len(), |end| begin + end);
    if std::env::var_os("BLESS").is_some() {
        let new = [&text[..begin], "\n", content, &text[end..]].concat();
        std::fs::write(&file, new).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        return;
    }
    assert!(
        text[begin..end] == format!("\n{content}"),
        "{} is not what it should be: BLESS=1 writes it",
        file.display()
    );
}
