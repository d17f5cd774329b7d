//! Pickers that the controller runs for managed pools.
//!
//! ```text
//!  index ──ManagedPicker──► plan ──steps──► reconciler ──server-side apply──► API server
//!      render, rollout ──────┘ ▲             ▲  └──PickerState──► event_loop ──► status
//!           (pure)            seen ◄─────────┴── watches of what it made: drift, rollouts
//! ```

use std::collections::{BTreeMap, BTreeSet};

use api::InferencePool;
use index::{ManagedPicker, ObjectKey};

mod child;
mod plan;
mod reconciler;
mod render;
mod rollout;
mod seen;

pub(crate) use reconciler::PickerReconciler;
pub(crate) use render::Settings;

/// What is to be there.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Wanted {
    /// The picker of each managed pool.
    pub(crate) pickers: BTreeMap<ObjectKey, (InferencePool, ManagedPicker)>,
    /// Namespaces whose pickers need to verify us.
    pub(crate) namespaces: BTreeSet<String>,
}

/// How far the picker of a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PickerState {
    pub(crate) ready: i64,
    pub(crate) wanted: i64,
    pub(crate) stage: Stage,
    /// Objects of it that are not kept in shape, because their owner took them back.
    pub(crate) hands_off: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    Complete,
    /// Pods are on their way.
    Rolling,
    /// Kubernetes gave up on it.
    Stuck,
    /// It is to be upgraded once the picker of another pool is.
    Queued {
        behind: ObjectKey,
    },
    /// Something of that name is there that we did not make.
    Conflict(String),
    Failed(String),
}

/// What could not be made as it is to be.
#[derive(Debug, Default)]
struct Failures {
    /// Pools whose pickers could not: how often in a row, and why.
    pickers: BTreeMap<ObjectKey, (u32, String)>,
    /// Namespaces where something that is not ours is in the place of the certificate, and what.
    bundles: BTreeMap<String, String>,
}

impl Failures {
    fn times(&self, pool: &ObjectKey) -> u32 {
        self.pickers.get(pool).map_or(0, |(times, _)| *times)
    }

    fn why(&self, pool: &ObjectKey) -> Option<&str> {
        self.pickers.get(pool).map(|(_, why)| &**why)
    }

    fn note(&mut self, pool: &ObjectKey, why: String) {
        let times = self.times(pool).saturating_add(1);
        self.pickers.insert(pool.clone(), (times, why));
    }

    fn forget(&mut self, pool: &ObjectKey) {
        self.pickers.remove(pool);
    }
}
