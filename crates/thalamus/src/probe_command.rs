//! `thalamus probe`: what model servers are, and what each of their models can do.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use futures::future::join_all;
use probe::{Failure, KvEvents, Probed, Prober, Server, Settings};
use routing::{FoundModel, Known, Modality, Operation};
use serde_json::{Map, Value, json};

use crate::matrix::{self, Asked};
use crate::screen::{Screen, line};

/// The flags of `thalamus probe`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProbeArgs {
    /// Where model servers are, as http://HOST:PORT or HOST:PORT.
    #[arg(required = true, value_name = "URL")]
    servers: Vec<Server>,

    #[command(flatten)]
    key: KeyArgs,

    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// The key of model servers that ask for one.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeyArgs {
    /// The API key for Thalamus's own questions, where model servers ask for one. Clients bring their own.
    #[arg(long, env = "THALAMUS_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

impl KeyArgs {
    pub(crate) fn prober(&self) -> Result<Prober> {
        Prober::new(self.api_key.as_deref()).context("--api-key: it has characters that no header can hold")
    }
}

/// Fails where one of them could not be asked.
pub(crate) async fn run(args: ProbeArgs, screen: Screen) -> Result<ExitCode> {
    let ProbeArgs { servers, key, output } = args;
    let prober = key.prober()?;
    let said = join_all(servers.iter().map(|server| prober.probe(server))).await;
    let all: Vec<(&Server, Result<Probed, Failure>)> = servers.iter().zip(said).collect();
    match output {
        Output::Json => {
            let all: Vec<Value> = all.iter().map(|(server, said)| as_json(server, said)).collect();
            line(&serde_json::to_string_pretty(&all).context("writing JSON")?);
        }
        Output::Table => {
            let asked =
                all.iter().map(|(server, said)| Asked { server: server.to_string(), said: Some(said.as_ref()) });
            matrix::show(screen, &asked.collect::<Vec<_>>());
        }
    }
    let all_answered = all.iter().all(|(_, said)| said.is_ok());
    Ok(if all_answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For programs: what is not known is null.
fn as_json(server: &Server, said: &Result<Probed, Failure>) -> Value {
    match said {
        Err(failure) => json!({"server": server.to_string(), "error": failure.to_string()}),
        Ok(Probed { found, settings, doubts }) => json!({
            "server": server.to_string(),
            "engine": found.engine,
            "version": found.version,
            "answersToAnyName": found.any_name,
            "models": found.models.iter().map(|(name, found)| model(name, found)).collect::<Vec<_>>(),
            "settings": self::settings(settings),
            "notFoundOut": doubts,
        }),
    }
}

fn settings(settings: &Settings) -> Value {
    let Settings { block_tokens, blocks, data_parallel_ranks, role, kv_events } = settings;
    let publisher = |KvEvents { endpoint, replay, topic }: &KvEvents| json!({"endpoint": endpoint, "replayEndpoint": replay, "topic": topic});
    json!({
        "blockTokens": block_tokens, "blocks": blocks, "dataParallelRanks": data_parallel_ranks, "role": role,
        "kvEvents": kv_events.iter().map(publisher).collect::<Vec<_>>(),
    })
}

fn model(name: &str, model: &FoundModel) -> Value {
    let side = |known: Known| -> Map<String, Value> {
        Modality::ALL.into_iter().map(|modality| (modality.to_string(), json!(known.has(modality)))).collect()
    };
    let items = Modality::ALL
        .into_iter()
        .filter_map(|modality| Some((modality.to_string(), json!(model.limits.items(modality)?))));
    let operations: Option<Vec<&str>> =
        model.operations.map(|operations| operations.iter().map(Operation::as_str).collect());
    json!({
        "name": name,
        "adapterOf": model.parent.as_ref().map(ToString::to_string),
        "input": side(model.input),
        "output": side(model.output),
        "operations": operations,
        "contextLength": model.limits.context(),
        "maxItems": items.collect::<Map<_, _>>(),
    })
}
