//! The last table on a disk, so that a picker that starts while no controller is there can decide all the same.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use publish::{Scope, Subscription};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a controller has to send a table before the one on the disk is used: it is newer, and takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often the file is written or touched: its time says when the controller last stood behind it.
const PAUSE: Duration = Duration::from_secs(1);

/// What is in `file`, as if its controller were lost now; or why that cannot be used.
pub(crate) fn restored(file: &Path, scope: &Scope) -> Result<Subscription, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let modified = std::fs::metadata(file).and_then(|file| file.modified()).map_err(|error| error.to_string())?;
    let received = publish::restore(&bytes, scope).map_err(|error| error.to_string())?;
    let age_when_lost = SystemTime::now().duration_since(modified).unwrap_or_default();
    Ok(Subscription { received: Some(received), lost_at: Some(Instant::now()), age_when_lost })
}

/// Uses the table that was `restored` when none comes, and keeps the newest one in `file`. Runs to the end of the process.
pub(crate) async fn keep(
    file: PathBuf,
    restored: Result<Subscription, String>,
    scope: Scope,
    subscription: watch::Sender<Subscription>,
) {
    let mut newest = subscription.subscribe();
    let came = newest.wait_for(|known| known.received.is_some());
    if tokio::time::timeout(PATIENCE, came).await.is_err() {
        match restored {
            Ok(restored) => {
                let age = restored.age(Instant::now());
                // One that came from the controller meanwhile is newer.
                if subscription.send_if_modified(|known| {
                    let none = known.received.is_none();
                    if none {
                        *known = restored;
                    }
                    none
                }) {
                    let file = file.display();
                    tracing::warn!(%file, age_s = age.as_secs(), "no controller answers; using the last table from disk");
                }
            }
            Err(error) => tracing::warn!(file = %file.display(), error, "the table on disk cannot be used"),
        }
    }
    let mut written = None;
    loop {
        let Subscription { received, lost_at, .. } = newest.borrow_and_update().clone();
        // One that came from the disk, or whose controller is gone, is there already, with its true age.
        if let (Some(received), None) = (received, lost_at) {
            let bytes = (written != Some(received.revision)).then(|| publish::save(&scope, &received));
            written = Some(received.revision);
            let to = file.clone();
            match tokio::task::spawn_blocking(move || write(&to, bytes.as_deref())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    written = None;
                    tracing::warn!(file = %file.display(), %error, "cannot save the table to disk");
                }
                Err(error) => tracing::error!(%error, "writing the table panicked"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// All of it or nothing: a file that is half written when the machine dies would be worse than none. Without bytes the file is as it
/// should be, and only its time is set.
fn write(file: &Path, bytes: Option<&[u8]>) -> io::Result<()> {
    let Some(bytes) = bytes else {
        return std::fs::File::options().append(true).open(file)?.set_modified(SystemTime::now());
    };
    let beside = file.with_extension("new");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(&beside, file)
}
