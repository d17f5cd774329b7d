//! `/debug/table`: what was compiled, for a person.

use daemon::Table;
use index::Compiled;
use publish::Publisher;

pub(crate) fn table(compiled: Option<&Compiled>, publisher: &Publisher) -> Table {
    let mut view = Table::default();
    let Some(compiled) = compiled else {
        view.row(["nothing compiled yet: not every kind has been listed"]);
        return view;
    };
    view.row(["NAMESPACE", "POOL", "ENDPOINTS", "PICKERS"]);
    for (key, report) in &compiled.pools {
        let endpoints = report.verdicts.iter().find(|verdict| verdict.type_ == "EndpointsReady");
        let standing = publisher.standing(&key.namespace, [key.name.as_str()]);
        view.row([
            key.namespace.clone(),
            key.name.clone(),
            endpoints.map(|verdict| verdict.message.clone()).unwrap_or_default(),
            format!("{}/{} up to date", standing.current, standing.connected),
        ]);
    }
    view.row([""]);
    view.row(["NAMESPACE", "OBJECT", "POOLS", "INPUT", "OUTPUT", "READY"]);
    for (key, report) in &compiled.models {
        let summary = &report.summary;
        view.row([&key.namespace, &key.name, &summary.pools, &summary.input, &summary.output, &summary.ready]);
    }
    view
}
