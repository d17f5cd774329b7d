//! A pool that stands in flags: `--endpoint-selector` and `--endpoint-target-ports`, as llm-d's picker has them.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use api::{AppProtocol, InferencePool, InferencePoolSpec, PoolSelector, Port, PortNumber};
use picker::ReferenceFlags;

/// What such a pool is called, in logs, metrics and tables.
pub(crate) const SELECTED: &str = "endpoint-selector";

/// The pool, if the flags have one.
pub(crate) fn selected(flags: &ReferenceFlags, namespace: &str) -> Result<Option<InferencePool>> {
    let Some(selector) = &flags.endpoint_selector else { return Ok(None) };
    let mut match_labels = BTreeMap::new();
    for term in selector.split(',') {
        match term.split_once('=') {
            Some((name, value)) if !name.is_empty() && !name.ends_with('!') && !value.starts_with('=') => {
                match_labels.insert(name.trim().to_owned(), value.trim().to_owned());
            }
            _ => bail!("--endpoint-selector {selector:?}: {term:?} is not name=value; only equality is supported"),
        }
    }
    let ports = &flags.endpoint_target_ports;
    if ports.is_empty() || ports.len() > 8 || ports.contains(&0) {
        bail!("--endpoint-target-ports: expected 1 to 8 ports from 1 to 65535");
    }
    let spec = InferencePoolSpec {
        selector: PoolSelector { match_labels },
        target_ports: ports.iter().map(|port| Port { number: PortNumber(*port) }).collect(),
        app_protocol: AppProtocol::Http,
        endpoint_picker_ref: None,
    };
    let mut pool = InferencePool::new(SELECTED, spec);
    pool.metadata.namespace = Some(namespace.to_owned());
    Ok(Some(pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(selector: &str, ports: &[u16]) -> ReferenceFlags {
        let mut flags = ReferenceFlags::default();
        flags.endpoint_selector = Some(selector.into());
        flags.endpoint_target_ports = ports.into();
        flags
    }

    #[test]
    fn labels_and_ports_make_a_pool() {
        let pool = selected(&flags("app=vllm, tier=gpu", &[8000, 8001]), "serving").unwrap().unwrap();
        let labels = [("app", "vllm"), ("tier", "gpu")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pool.spec.selector.match_labels, labels.into());
        assert_eq!(pool.spec.target_ports.len(), 2);
        assert!(selected(&ReferenceFlags::default(), "serving").unwrap().is_none());
    }

    #[test]
    fn what_is_no_equality_is_refused_in_words() {
        for selector in ["app", "app!=x", "app in (a)", "=x", "", "app==x"] {
            let refused = selected(&flags(selector, &[1]), "n").unwrap_err().to_string();
            assert!(refused.contains("only equality is supported"), "{selector}: {refused}");
        }
        assert!(selected(&flags("a=b", &[]), "n").is_err() && selected(&flags("a=b", &[0]), "n").is_err());
    }
}
