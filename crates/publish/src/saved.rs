//! A table as bytes on a disk, and back: what a picker goes by when it starts and no controller is there.

use std::sync::Arc;

use prost::Message as _;
use routing::RoutingTable;

use crate::subscriber::take;
use crate::{Delta, Received, Scope, proto, wire};

/// Why bytes from a disk are no table for this picker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("it is truncated, or not a saved table")]
    Garbled,
    #[error("it is for {theirs}, but this picker serves {ours}")]
    OtherScope { theirs: Scope, ours: Scope },
    #[error("{0}")]
    Undecodable(String),
}

/// The bytes of a table.
pub fn save(scope: &Scope, received: &Received) -> Vec<u8> {
    let all = Delta::between(&RoutingTable::default(), &received.table);
    let saved = proto::Saved {
        namespace: scope.namespace.clone(),
        pool: scope.pool.clone().unwrap_or_default(),
        update: Some(wire::encode(received.revision, true, &all)),
    };
    saved.encode_to_vec()
}

/// The table again, for the scope that it was saved for.
pub fn restore(bytes: &[u8], scope: &Scope) -> Result<Received, Unusable> {
    let saved = proto::Saved::decode(bytes).map_err(|_| Unusable::Garbled)?;
    let update = saved.update.ok_or(Unusable::Garbled)?;
    let theirs = Scope { namespace: saved.namespace, pool: Some(saved.pool).filter(|pool| !pool.is_empty()) };
    if theirs != *scope {
        return Err(Unusable::OtherScope { theirs, ours: scope.clone() });
    }
    let revision = update.revision;
    let table = take(update, None).map_err(|reasons| Unusable::Undecodable(reasons.join("; ")))?;
    Ok(Received { revision, table: Arc::new(table) })
}
