//! Are the controller's rights what it uses, and does it ask for nothing else?

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::root;
use serde_json::Value;

/// What was asked for: verb, group, and resource with its subresource.
type Use = (String, String, String);

/// Compares what the API server wrote down in a whole run with the roles that users apply. A right that no test uses is one too many: the
/// tests would pass without it. One that is missing shows as a 403.
pub(crate) fn every_right_is_used_and_none_is_missing(audit_log: &Path) -> Result<()> {
    let log = std::fs::read_to_string(audit_log).with_context(|| format!("reading {}", audit_log.display()))?;
    let (mut used, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for line in log.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        if text("/impersonatedUser/username") != "system:serviceaccount:thalamus-system:thalamus-controller" {
            continue;
        }
        let resource = [text("/objectRef/resource"), text("/objectRef/subresource")];
        let resource = resource.join("/").trim_end_matches('/').to_owned();
        let code = event.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0);
        let what = (text("/verb"), text("/objectRef/apiGroup"), resource.clone());
        match code {
            403 => _ = refused.insert(what),
            // What a patch makes needs the right to create, too.
            201 => used.extend([what, ("create".to_owned(), text("/objectRef/apiGroup"), resource)]),
            _ => _ = used.insert(what),
        }
    }
    ensure!(used.len() > 20, "{} uses are no whole run", used.len());
    let missing: Vec<&Use> = refused.iter().filter(|what| !used.contains(what)).collect();
    ensure!(missing.is_empty(), "the controller was refused {missing:?}");
    let unused: Vec<Use> = granted()?
        .into_iter()
        .filter(|alternatives| !alternatives.iter().any(|one| used.contains(one)))
        .filter_map(|alternatives| alternatives.into_iter().next())
        // Asked about by an admission plugin, which no log shows; nothing that goes with its owner could be made without it.
        .filter(|(_, _, resource)| resource != "inferencepools/finalizers")
        .collect();
    ensure!(unused.is_empty(), "no test uses these rights: {unused:?}");
    Ok(())
}

/// Each right of the roles; where a rule names several groups, one of them is enough: they are alternatives.
fn granted() -> Result<Vec<Vec<Use>>> {
    let file = root().join("manifests/controller/rbac.yaml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).context("reading roles")?;
    let list = |value: &Value| -> Vec<String> {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let mut rights = Vec::new();
    for rule in
        documents.iter().flat_map(|document| document["rules"].as_array().map(Vec::as_slice).unwrap_or_default())
    {
        for (verb, resource) in list(&rule["verbs"])
            .iter()
            .flat_map(|verb| list(&rule["resources"]).into_iter().map(move |r| (verb.clone(), r)))
        {
            let groups = list(&rule["apiGroups"]);
            rights.push(groups.into_iter().map(|group| (verb.clone(), group, resource.clone())).collect());
        }
    }
    Ok(rights)
}
