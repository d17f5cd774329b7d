//! What one audience is told: the newest table of a scope, made once for all who listen, and how each of them stands with it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use routing::{Parts, RoutingTable};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::proto::Update;
use crate::publisher::Standing;
use crate::{Delta, wire};

/// Who is told the same: pickers of one scope that understand as much. Within a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Audience {
    pub(crate) pool: Option<String>,
    pub(crate) schema: u32,
}

/// The table of a namespace, its number, and what its parts are made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whole {
    pub(crate) revision: u64,
    pub(crate) table: Arc<RoutingTable>,
    pub(crate) parts: Arc<Parts>,
}

/// A table and its number.
#[derive(Debug, Clone)]
pub(crate) struct Numbered {
    pub(crate) revision: u64,
    pub(crate) table: Arc<RoutingTable>,
}

/// The feed of an audience.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    newest: watch::Sender<Option<Numbered>>,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    pickers: BTreeMap<u64, ConnectedPicker>,
    /// Most are in step, so the last update is kept: to compare tables and write the difference down is most of what publishing costs.
    last_step: Option<Step>,
    /// What of the newest table this audience is too old for.
    left_out: Vec<String>,
}

/// What took pickers from one table to the next.
#[derive(Debug)]
struct Step {
    from: Option<Arc<RoutingTable>>,
    revision: u64,
    update: Option<Update>,
}

/// A connected picker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ConnectedPicker {
    pub(crate) name: String,
    pub(crate) acked: Option<u64>,
    /// What it refused, and why.
    pub(crate) refused: Option<(u64, String)>,
    /// When it was sent what it has not answered yet.
    pub(crate) owing_since: Option<Instant>,
}

// === impl Audience ===

impl Audience {
    /// Every audience of a scope.
    pub(crate) fn all_of(pool: Option<String>) -> RangeInclusive<Self> {
        Self { pool: pool.clone(), schema: 0 }..=Self { pool, schema: u32::MAX }
    }
}

// === impl Feed ===

impl Feed {
    /// Makes this namespace's table the newest, as far as it concerns the audience. One that is equal to the one before wakes nobody.
    pub(crate) fn publish(&self, Whole { revision, table, parts }: &Whole, audience: &Audience) {
        let pool = audience.pool.as_deref();
        let table = pool.map_or_else(|| Arc::clone(table), |pool| Arc::new(parts.part(table, pool)));
        let (table, left_out) = wire::understood(table, audience.schema);
        self.lock().left_out = left_out;
        self.newest.send_if_modified(|newest| {
            let same = newest.as_ref().is_some_and(|known| known.table == table);
            match newest {
                // The next is made from this one: what they share need not be compared.
                Some(known) if same => known.table = table,
                _ => *newest = Some(Numbered { revision: *revision, table }),
            }
            !same
        });
    }

    pub(crate) fn renumber(&self, revision: u64) {
        self.newest.send_if_modified(|newest| {
            if let Some(newest) = newest {
                newest.revision = revision;
            }
            newest.is_some()
        });
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Numbered>> {
        self.newest.subscribe()
    }

    pub(crate) fn join(&self, id: u64, name: String) {
        self.lock().pickers.insert(id, ConnectedPicker { name, ..ConnectedPicker::default() });
    }

    /// Whether nobody is left.
    pub(crate) fn leave(&self, id: u64) -> bool {
        let mut heard = self.lock();
        heard.pickers.remove(&id);
        heard.pickers.is_empty()
    }

    /// Notes something of a picker; answers whether that changed how it stands.
    pub(crate) fn update(&self, id: u64, change: impl FnOnce(&mut ConnectedPicker)) -> bool {
        let mut heard = self.lock();
        let Some(picker) = heard.pickers.get_mut(&id) else { return false };
        let before = picker.clone();
        change(picker);
        *picker != before
    }

    /// What takes a picker from one table to the newest; none where both say the same. `is_kept` for the next who is in step: a snapshot is
    /// large, and of one pool nearly nobody asks for another.
    pub(crate) fn step(&self, from: Option<&Arc<RoutingTable>>, to: &Numbered, is_kept: bool) -> Option<Update> {
        let same = |a: &Option<Arc<RoutingTable>>| match (a, from) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let mut heard = self.lock();
        if let Some(step) = heard.last_step.as_ref().filter(|step| step.revision == to.revision && same(&step.from)) {
            return step.update.clone();
        }
        let delta = Delta::between(from.map_or(&RoutingTable::default(), |from| from), &to.table);
        let nothing = from.is_some() && delta.is_empty();
        let update = (!nothing).then(|| wire::encode(to.revision, from.is_none(), &delta));
        let step = Step { from: from.map(Arc::clone), revision: to.revision, update: update.clone() };
        heard.last_step = is_kept.then_some(step);
        update
    }

    /// Adds how its pickers stand.
    pub(crate) fn add_to(&self, standing: &mut Standing) {
        let newest = self.newest.borrow().as_ref().map(|newest| newest.revision);
        let heard = self.lock();
        for ConnectedPicker { name, acked, refused, owing_since } in heard.pickers.values() {
            standing.connected += 1;
            standing.owing_since = standing.owing_since.into_iter().chain(*owing_since).min();
            match refused {
                Some((revision, why)) if newest.is_some_and(|newest| *revision >= newest) => {
                    standing.refusals.push(format!("{name}: {why}"));
                }
                _ if !heard.left_out.is_empty() => {
                    let what = heard.left_out.join(", ");
                    standing.refusals.push(format!("{name}: too old for {what}, which it does not serve; upgrade it"));
                }
                _ => standing.current += usize::from(newest.is_some() && *acked >= newest),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        // Each look leaves it whole.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
