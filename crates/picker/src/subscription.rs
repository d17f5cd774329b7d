//! From tables that arrive to decisions that use them.

use std::sync::Arc;

use director::Director;
use publish::Subscription;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Who hears of tables.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) ready: watch::Sender<bool>,
    /// The revision that decisions are made from.
    pub(crate) tables: watch::Sender<u64>,
}

/// Gives the director each new table. The first one makes the picker ready; being told to stop makes it unready, while decisions, and
/// the tables they are made from, go on until the process ends.
pub(crate) async fn follow(
    mut subscription: watch::Receiver<Subscription>,
    director: Arc<Director>,
    Told { ready, tables }: Told,
    stop: CancellationToken,
) {
    loop {
        let received = subscription.borrow_and_update().received.clone();
        if let Some(received) = received
            && director.table().is_none_or(|(revision, _)| revision != received.revision)
        {
            let (pools, models) = (received.table.pools.len(), received.table.models.len());
            let endpoints: usize = received.table.pools.values().map(|pool| pool.endpoints.len()).sum();
            tracing::info!(revision = received.revision, models, pools, endpoints, "table received");
            director.replace_table(received.revision, received.table);
            tables.send_replace(received.revision);
        }
        ready.send_replace(director.table().is_some() && !stop.is_cancelled());
        tokio::select! {
            changed = subscription.changed() => if changed.is_err() { return },
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
    }
}
