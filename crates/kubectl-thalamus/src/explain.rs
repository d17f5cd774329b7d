//! `explain`: where a request would go, told by a live picker.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use daemon::Table;
use http::Method;
use kube::Client;
use serde_json::Value;
use thalamus::screen::{Screen, line};

use crate::pickers::{self, PickerAddress};

/// The flags of `explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// The body of the request, as a client would send it; - is standard input.
    #[arg(short = 'f', long = "filename")]
    file: PathBuf,

    /// The path that the request would be sent to.
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,

    /// The content type of the body.
    #[arg(long, default_value = "application/json")]
    content_type: String,

    /// A picker's admin port, such as http://127.0.0.1:9090. By default the namespace's pickers are asked in turn, over forwarded ports.
    #[arg(long)]
    picker: Option<String>,
}

/// Fails when the request would be refused.
pub(crate) async fn run(client: &Client, namespace: &str, args: &ExplainArgs, screen: Screen) -> Result<ExitCode> {
    let body = if args.file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("reading standard input")?.into_bytes()
    } else {
        std::fs::read(&args.file).with_context(|| format!("reading {}", args.file.display()))?
    };
    let mut told = None;
    for picker in pickers::find(client, namespace, args.picker.as_deref()).await? {
        let path = format!("/debug/explain?path={}", args.path);
        let answer = picker.ask(client, Method::POST, &path, &args.content_type, body.clone()).await?;
        // A picker of one pool knows nothing of models of others; another picker may.
        let is_foreign = matches!(answer["refused"]["code"].as_str(), Some("model_elsewhere" | "model_not_found"));
        told = Some((picker, answer));
        if !is_foreign {
            break;
        }
    }
    let (picker, answer) = told.context("no picker answered")?;
    Ok(show(&picker, &answer, screen))
}

fn show(picker: &PickerAddress, answer: &Value, screen: Screen) -> ExitCode {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    if let Some(needs) = answer["needs"].as_str() {
        let revision = &answer["revision"];
        line(&format!("Model {}, needs {needs}; picker {}, table {revision}.", answer["model"], picker.name()));
    }
    let refused = &answer["refused"];
    if refused.is_null() {
        let to = &answer["goesTo"];
        let (endpoint, address, pool) = (text(&to["endpoint"]), text(&to["address"]), text(&to["pool"]));
        let goes = if answer["waitsFirst"] == Value::Bool(true) { "Waits for room, and would go now" } else { "Goes" };
        let (target, why) = (text(&to["target"]), text(&to["why"]));
        line(&format!("{goes} to {endpoint} ({address}) of pool {pool}, as {target}: {why}."));
    } else {
        line(&format!("Refused with {} {}: {}.", refused["status"], text(&refused["code"]), text(&refused["message"])));
    }
    let candidates = answer["candidates"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !candidates.is_empty() {
        let mut table = Table::default();
        table.row([
            "TIER",
            "POOL",
            "TARGET",
            "ENDPOINT",
            "COST MS",
            "WORK",
            "CACHED",
            "DISPLACES",
            "QUEUED",
            "IN FLIGHT",
            "PACE",
            "LACKS",
        ]);
        for one in candidates {
            let costs = &one["costs"];
            let digits = |value: &Value, digits: usize| {
                value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
            };
            let number = |name: &str| digits(&costs[name], 0);
            let work =
                costs["reading"].as_f64().zip(costs["encoding"].as_f64()).map(|(reading, encoding)| reading + encoding);
            let lacks = if one["leftOutBy"].is_null() { &one["lacks"] } else { &one["leftOutBy"] };
            table.row([
                one["tier"].to_string(),
                text(&one["pool"]),
                text(&one["target"]),
                text(&one["endpoint"]),
                costs["score"].as_f64().map_or_else(|| number("total"), |score| format!("score {score:.2}")),
                digits(&Value::from(work), 0),
                number("saved"),
                number("displaced"),
                number("queued"),
                number("inFlight"),
                digits(&costs["pace"], 2),
                text(lacks),
            ]);
        }
        screen.table(&table);
    }
    if refused.is_null() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
