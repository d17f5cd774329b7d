//! The flags of `modelserver-sim`.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use daemon::LogArgs;
use routing::{Capability, Limits, Modality, ModalitySet, Operation, OperationSet};

use crate::{Options, Sim};

/// A model server with chosen modalities and no model.
#[derive(Debug, Parser)]
#[command(name = "modelserver-sim", version)]
pub struct Args {
    /// Where to serve.
    #[arg(long, default_value = "0.0.0.0:8000")]
    pub listen: SocketAddr,

    /// What it calls itself in its answers.
    #[arg(long, env = "POD_NAME", default_value = "modelserver-sim")]
    pub name: String,

    /// A model and what it takes and gives, as NAME=text,image or NAME=text,audio:text,audio, the operations that it alone serves
    /// as NAME=audio:text:transcriptions,translations, and its limits as NAME=text,image<=4 and, after a third colon, its context length as
    /// NAME=text:text::4096. May be repeated.
    #[arg(long = "model", default_value = "model=text")]
    pub models: Vec<ModelSpec>,

    /// How long an answer takes.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub latency: Duration,

    /// How many requests are worked on at once; the others wait.
    #[arg(long, default_value_t = 64)]
    pub slots: usize,

    #[command(flatten)]
    pub log: LogArgs,
}

/// A model and its capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    pub name: String,
    pub capability: Capability,
    pub limits: Limits,
}

impl FromStr for ModelSpec {
    type Err = String;

    fn from_str(spec: &str) -> Result<Self, String> {
        let expected = "expected NAME=INPUT, NAME=INPUT:OUTPUT, NAME=INPUT:OUTPUT:OPERATIONS or NAME=INPUT:OUTPUT:OPERATIONS:CONTEXT";
        let (name, sides) = spec.split_once('=').ok_or(expected)?;
        let mut sides = sides.splitn(4, ':');
        let (input, mut limits) = input(sides.next().unwrap_or_default())?;
        let output = ModalitySet::parse_list(sides.next().unwrap_or("text")).map_err(|error| error.to_string())?;
        let operations = sides.next().filter(|list| !list.is_empty()).map_or(Ok(OperationSet::ALL), operations)?;
        if let Some(context) = sides.next() {
            limits = limits.with_context(context.parse().map_err(|_| format!("{context:?} is no number of tokens"))?);
        }
        Ok(Self { name: name.to_owned(), capability: Capability { input, output, operations }, limits })
    }
}

/// `text,image<=4`.
fn input(list: &str) -> Result<(ModalitySet, Limits), String> {
    let (mut input, mut limits) = (ModalitySet::EMPTY, Limits::NONE);
    for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let (word, limit) = word.split_once("<=").map_or((word, None), |(word, limit)| (word, Some(limit)));
        let modality: Modality = word.parse().map_err(|error: routing::UnknownModality| error.to_string())?;
        input = input.with(modality);
        if let Some(limit) = limit {
            limits =
                limits.with_items(modality, limit.parse().map_err(|_| format!("{limit:?} is no number of items"))?);
        }
    }
    Ok((input, limits))
}

fn operations(list: &str) -> Result<OperationSet, String> {
    let known = |word: &str| Operation::ALL.into_iter().find(|operation| operation.as_str() == word);
    list.split(',').map(|word| known(word.trim()).ok_or_else(|| format!("unknown operation {word:?}"))).collect()
}

impl std::fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Capability { input, output, operations } = self.capability;
        let limited = |modality: Modality| match self.limits.items(modality) {
            Some(limit) => format!("{modality}<={limit}"),
            None => modality.to_string(),
        };
        let input = input.iter().map(limited).collect::<Vec<_>>().join(",");
        let output = output.iter().map(Modality::as_str).collect::<Vec<_>>().join(",");
        write!(f, "{}={input}:{output}", self.name)?;
        let context = self.limits.context();
        if operations == OperationSet::ALL && context.is_none() {
            return Ok(());
        }
        let operations = if operations == OperationSet::ALL { OperationSet::EMPTY } else { operations };
        write!(f, ":{}", operations.iter().map(Operation::as_str).collect::<Vec<_>>().join(","))?;
        context.map_or(Ok(()), |tokens| write!(f, ":{tokens}"))
    }
}

impl Args {
    /// Serves until told to stop.
    pub async fn run(self) -> Result<()> {
        let Self { listen, name, models, latency, slots, log } = self;
        let _log = log.init()?;
        let listener = daemon::bind(listen, "--listen").await?;
        tracing::info!(listen = %listener.local_addr()?, name, "model server simulator started");
        let stop = daemon::stop_on_signal()?;
        Sim::new(Options { name, models, latency, slots }).serve(listener, stop).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_read_with_and_without_outputs() {
        let spec: ModelSpec = "omni=text,audio:text,audio".parse().unwrap();
        assert_eq!(spec.capability.to_string(), "text+audio → text+audio");
        assert_eq!("m=text,image".parse::<ModelSpec>().unwrap().capability.to_string(), "text+image → text");
        assert!("m=smell".parse::<ModelSpec>().is_err());
        let whisper = "w=audio:text:transcriptions,translations";
        assert_eq!(whisper.parse::<ModelSpec>().unwrap().to_string(), whisper);
        for limited in ["m=text,image<=4:text", "m=text,image<=4:text::4096", "w=audio<=1:text:transcriptions:448"] {
            assert_eq!(limited.parse::<ModelSpec>().unwrap().to_string(), limited);
        }
        assert!("m=text,image<=x".parse::<ModelSpec>().is_err() && "m=text:text::x".parse::<ModelSpec>().is_err());
    }
}
