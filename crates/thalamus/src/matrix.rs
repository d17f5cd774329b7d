//! What model servers were found to be, for a person: models × modalities × operations × servers.

use daemon::Table;
use probe::{Failure, Probed};
use routing::{FoundModel, Known, Modality, ModelName, OperationSet};

use crate::screen::{Screen, line};

/// What is shown of one server.
pub(crate) struct Asked<'a> {
    pub(crate) server: String,
    /// None where it has said nothing yet.
    pub(crate) said: Option<Result<&'a Probed, &'a Failure>>,
}

/// What can go in, in the order of the columns.
const INPUTS: [Modality; 4] = [Modality::Text, Modality::Image, Modality::Audio, Modality::Video];

/// Shows what each is, what its models can do, and what could not be told.
pub(crate) fn show(screen: Screen, all: &[Asked<'_>]) {
    screen.title("Model servers");
    screen.table(&servers(all));
    let models = models(all);
    if let Some(models) = models {
        screen.title("What they take and give");
        screen.table(&models);
    }
    let doubts: Vec<String> = all.iter().flat_map(doubts).collect();
    if !doubts.is_empty() {
        screen.title("Not found out");
        for doubt in doubts {
            line(&format!("  {doubt}"));
        }
    }
}

fn servers(all: &[Asked<'_>]) -> Table {
    let mut table = Table::default();
    table.row(["SERVER", "IS", "MODELS", "SETTINGS"]);
    for Asked { server, said } in all {
        match said {
            None => table.row([server.clone(), "has not answered yet".to_owned()]),
            Some(Ok(Probed { found, settings, .. })) => {
                let models = found.models.len().to_string();
                let settings = Some(settings.in_words()).filter(|words| !words.is_empty());
                table.row([server.clone(), found.what(), models, settings.unwrap_or_else(|| "?".into())]);
            }
            Some(Err(failure)) => table.row([server.clone(), failure.to_string()]),
        }
    }
    table
}

fn models(all: &[Asked<'_>]) -> Option<Table> {
    let mut rows: Vec<(&ModelName, &FoundModel, &str)> = Vec::new();
    for Asked { server, said } in all {
        let models = said.iter().flatten().flat_map(|probed| &probed.found.models);
        rows.extend(models.map(|(name, model)| (name, model, &**server)));
    }
    // What several servers have stands together.
    rows.sort_by(|one, other| one.0.cmp(other.0));
    let mut table = Table::default();
    table.row(["MODEL", "SERVER", "TEXT", "IMAGE", "AUDIO", "VIDEO", "GIVES", "CONTEXT", "FOR"]);
    for (name, model, server) in &rows {
        let name = match &model.parent {
            Some(parent) => format!("{name} (adapter of {parent})"),
            None => name.to_string(),
        };
        let mut row = vec![name, (*server).to_owned()];
        row.extend(INPUTS.map(|modality| takes(model, modality)));
        row.push(gives(model.output));
        row.push(model.limits.context().map_or_else(|| "?".into(), |tokens| tokens.to_string()));
        row.push(serves(model.operations));
        table.row(row);
    }
    (!rows.is_empty()).then_some(table)
}

/// `yes`, `≤ 4`, `-` where it is not taken, `?` where nobody knows.
fn takes(model: &FoundModel, modality: Modality) -> String {
    match (model.input.has(modality), model.limits.items(modality)) {
        (Some(true), Some(limit)) => format!("≤ {limit}"),
        (Some(true), None) => "yes".into(),
        (Some(false), _) => "-".into(),
        (None, _) => "?".into(),
    }
}

fn gives(output: Known) -> String {
    let all_known = Modality::ALL.iter().all(|modality| output.has(*modality).is_some());
    match (output.yes().is_empty(), all_known) {
        (_, true) => output.yes().to_string(),
        (true, false) => "?".into(),
        (false, false) => format!("{}, more?", output.yes()),
    }
}

fn serves(operations: Option<OperationSet>) -> String {
    let Some(operations) = operations else { return "?".into() };
    if operations.is_empty() { "-".into() } else { operations.to_string() }
}

fn doubts(asked: &Asked<'_>) -> Vec<String> {
    let of = |probed: &Probed| probed.doubts.iter().map(|doubt| format!("{}: {doubt}", asked.server)).collect();
    asked.said.and_then(Result::ok).map(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use routing::ModalitySet;

    use super::*;

    #[test]
    fn known_unknown_and_limited_are_told_apart() {
        let mut model = FoundModel::default();
        model.input =
            Known::NOTHING.with(Modality::Text, true).with(Modality::Image, true).with(Modality::Audio, false);
        model.limits = model.limits.with_items(Modality::Image, 4);
        assert_eq!(INPUTS.map(|modality| takes(&model, modality)), ["yes", "≤ 4", "-", "?"]);
        assert_eq!(gives(Known::NOTHING), "?");
        assert_eq!(gives(Known::NOTHING.with(Modality::Text, true)), "text, more?");
        assert_eq!(gives(Known::exactly(ModalitySet::TEXT)), "text");
    }
}
