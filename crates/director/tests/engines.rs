//! What engines' own parsers take is taken here, and read as they read it; each difference stands in `docs/differences.md` with its reason.
//!
//! `testdata/engines/record.py` asks the engines and writes down what they said; the table has their versions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use director::{Director, RequestHandler};
use request::RequestHead;
use routing::{Draw, Endpoint, Modality, ModalitySet, Pool, RoutingTable};
use serde_json::Value;

/// What is read of a request: text, pictures, sounds, videos, and the model.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    text: bool,
    items: [usize; 3],
    model: String,
}

/// What an engine says of a request that it takes; none of one that it refuses or has no path for.
fn verdicts(table: &str) -> BTreeMap<&str, Option<Read>> {
    let rows = table.lines().skip_while(|line| line.starts_with('#')).skip(1);
    let read = |row: &str| {
        let mut cells = row.split('\t').skip(1);
        let mut next = || cells.next().expect("seven cells");
        let (status, text) = (next(), next() == "1");
        let taken = status == "200";
        let mut count = || next().parse().unwrap_or(0);
        let items = [count(), count(), count()];
        let model = next();
        let model =
            if model.starts_with('"') { serde_json::from_str(model).expect("a string") } else { model.to_owned() };
        taken.then_some(Read { text, items, model })
    };
    rows.map(|row| (row.split('\t').next().expect("a name"), read(row))).collect()
}

/// A picker of one pool, whose servers take anything.
fn handler() -> Arc<RequestHandler> {
    let endpoint = Endpoint::new(([10, 0, 0, 1], 8000).into(), "".into());
    let pool = Pool { endpoints: [("pod".into(), endpoint)].into(), ..Pool::default() };
    let director = Director::new(now());
    let table = RoutingTable { pools: [("pool".into(), Arc::new(pool))].into(), ..RoutingTable::default() };
    director.replace_table(1, Arc::new(table));
    Arc::new(RequestHandler::new(Arc::new(director), "serving"))
}

#[expect(clippy::disallowed_methods, reason = "tests are an edge: some instant must come from somewhere")]
fn now() -> Instant {
    Instant::now()
}

/// What is read of it here, or why it is refused.
fn read(handler: &Arc<RequestHandler>, request: &Value) -> Result<Read, String> {
    let head = RequestHead {
        method: request["method"].as_str().expect("a method"),
        path: request["path"].as_str().expect("a path"),
        content_type: request["content_type"].as_str(),
        ..RequestHead::default()
    };
    let body = match &request["body"] {
        Value::String(body) => body.clone().into_bytes(),
        _ => STANDARD.decode(request["body_base64"].as_str().expect("a body")).expect("base64"),
    };
    let explain = || {
        let mut transaction = handler.open(&head)?;
        transaction.feed(&body)?;
        let explained = transaction.explain(now(), Draw::new(1))?;
        explained.outcome.map(|_| explained.request)
    };
    let request = explain().map_err(|rejection| format!("{}: {rejection}", rejection.code().as_str()))?;
    let count = |modality| request.media.iter().filter(|item| item.modality == modality).count();
    Ok(Read {
        text: !request.requires.input.intersection(ModalitySet::TEXT).is_empty(),
        items: [count(Modality::Image), count(Modality::Audio), count(Modality::Video)],
        model: request.model.unwrap_or_else(|| "-".into()),
    })
}

/// How they differ; none where they do not. What a request has of empty text is no question: nothing is routed by it.
fn difference(engine: &Read, here: &Result<Read, String>) -> Option<String> {
    match here {
        Err(why) => Some(format!("refused: {why}")),
        Ok(here) if here.items != engine.items => {
            Some(format!("image, audio and video {:?}, an engine {:?}", here.items, engine.items))
        }
        Ok(here) if here.model != engine.model && !(here.model == "-" && engine.model.is_empty()) => {
            Some(format!("model {:?}, an engine {:?}", here.model, engine.model))
        }
        Ok(_) => None,
    }
}

/// The names in the first column of the tables, between backticks; `*` stands for any end.
fn listed(page: &str) -> Vec<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| row.split('|').nth(1).into_iter().flat_map(|cell| cell.split('`').skip(1).step_by(2))).collect()
}

fn stands_for(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "tests are an edge: the corpus is a folder")]
fn every_difference_to_engines_is_listed_with_its_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text =
        |path: &str| std::fs::read_to_string(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (table, page) = (text("testdata/engines/verdicts.tsv"), text("../../docs/differences.md"));
    let (engines, listed, handler) = (verdicts(&table), listed(&page), handler());
    let mut files: Vec<_> = std::fs::read_dir(folder.join("testdata/engines/corpus")).unwrap().flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    let (mut asked, mut differ, mut unlisted) = (0, BTreeSet::new(), Vec::new());
    for line in files
        .iter()
        .flat_map(|file| text(&file.path().to_string_lossy()).lines().map(str::to_owned).collect::<Vec<_>>())
    {
        let request: Value = serde_json::from_str(&line).unwrap();
        let name = request["name"].as_str().unwrap();
        let Some(engine) = &engines[name] else { continue };
        asked += 1;
        let here = read(&handler, &request);
        if let Some(difference) = difference(engine, &here) {
            if !listed.iter().any(|pattern| stands_for(pattern, name)) {
                unlisted.push(format!("{name}: {difference}"));
            }
            differ.insert(name.to_owned());
        }
    }
    assert!(asked > 400, "only {asked} requests are taken by engines");
    assert!(
        unlisted.is_empty(),
        "{} differences have no reason in docs/differences.md:\n{}",
        unlisted.len(),
        unlisted.join("\n")
    );
    let stale: Vec<_> = listed.iter().filter(|pattern| !differ.iter().any(|name| stands_for(pattern, name))).collect();
    assert!(stale.is_empty(), "docs/differences.md lists what is no difference any more: {stale:?}");
}
