//! Does it hold while everything comes and goes? Half an hour of it is `cargo xtask soak`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Cluster, Soak};

use crate::Shared;

pub(crate) async fn no_answer_is_wrong_or_lost_while_everything_comes_and_goes(shared: &Shared) -> Result<()> {
    let folder = shared.folder().join("soak");
    std::fs::create_dir_all(&folder)?;
    let cluster = Arc::new(Cluster::start(&folder)?);
    let seed = fastrand::u64(..);
    let soak = Soak { length: Duration::from_secs(45), relies_on: 100, seed };
    let summary = Box::pin(soak.run(Arc::clone(&cluster), &folder, |_| {})).await;
    cluster.end();
    let summary = summary.map_err(|error| error.context(format!("seed {seed}")))?;
    ensure!(summary.relied_on > 100, "{}", summary.line());
    Ok(())
}
