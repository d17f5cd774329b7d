//! Asks a server again whenever it may be another than it was.

use std::time::Duration;

use daemon::Clients;
use routing::Found;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;
use tokio::time::Instant;

use crate::prober::CONNECT;
use crate::{Failure, Probed, Prober, Server};

/// How often a server is asked. Each wait is drawn from 0.8 to 1.2 of its length, so that many servers are not asked at once for ever after.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Whether it is there, and what it lists.
    pub glance: Duration,
    /// All of it: what changed without a sign is noticed by then.
    pub whole: Duration,
}

/// How soon after a look a doubt is followed by another: many may have the same. Twice as long after each that found nothing new, up to
/// 64 s: a server may never say what it was believed to. A look for another reason begins anew.
const DOUBTED: Duration = Duration::from_secs(1);
const MAX_DOUBLINGS: u32 = 6;

/// How often a connection may be lost without a cause that can be seen, before that counts for nothing.
const LOST_FOR_NOTHING: u32 = 3;

impl Prober {
    /// Asks until nobody listens, and tells what came of it whenever that is news: at once, when the server's list changes, when it comes
    /// back, when it lost our connection, when somebody doubts it, and from time to time.
    pub async fn watch<N>(
        &self,
        server: &Server,
        pace: Pace,
        tell: &Sender<N>,
        news: impl Fn(Result<Probed, Failure>) -> N,
    ) -> Result<(), SendError<N>> {
        // Of its own, so that there is one connection, which ends with the process at the other end.
        let eye = Clients::new(CONNECT);
        let mut doubts = self.doubts().of(server);
        let mut last: Option<Result<Probed, Failure>> = None;
        let mut known: Option<Found> = None;
        let (mut why, mut lost_for_nothing, mut doubted_for_nothing) = (Why::Due, 0, 0);
        loop {
            doubts.mark_unchanged();
            let before = self.sign(&eye, server).await;
            let mut said = match &before {
                Ok(_) => self.probe(server).await,
                Err(failure) => Err(failure.clone()),
            };
            if let Ok(probed) = &mut said {
                if let Some(known) = &known {
                    probed.found = std::mem::take(&mut probed.found).remembering(known);
                }
                known = Some(probed.found.clone());
            }
            if last.as_ref().is_some_and(|last| is_no_news(&said, last)) {
                match why {
                    Why::Lost => (lost_for_nothing, doubted_for_nothing) = (lost_for_nothing + 1, 0),
                    Why::Doubted => doubted_for_nothing = MAX_DOUBLINGS.min(doubted_for_nothing + 1),
                    Why::Due | Why::Another => doubted_for_nothing = 0,
                }
            } else {
                tell.send(news(said.clone())).await?;
                (last, lost_for_nothing, doubted_for_nothing) = (Some(said), 0, 0);
            }
            let looked = Instant::now();
            let due = looked + drawn(pace.whole);
            let doubted_from = looked + drawn(DOUBTED * (1 << doubted_for_nothing));
            let mut is_doubted = false;
            why = loop {
                tokio::select! {
                    () = tokio::time::sleep(drawn(pace.glance)) => {}
                    () = tokio::time::sleep_until(doubted_from), if is_doubted => break Why::Doubted,
                    Ok(()) = doubts.changed(), if !is_doubted => {
                        is_doubted = true;
                        continue;
                    }
                }
                let is_known = matches!(last, Some(Ok(_)));
                match (self.sign(&eye, server).await, &before) {
                    (Err(failure), _) if is_known => {
                        tell.send(news(Err(failure.clone()))).await?;
                        last = Some(Err(failure));
                    }
                    // Still away. What it fails by may change, and matters to nobody.
                    (Err(_), _) => {}
                    (Ok(now), Ok(before)) if is_known && now.listed == before.listed => {
                        // Some servers close connections that are idle: who does that often says nothing by it.
                        if now.connection != before.connection && lost_for_nothing < LOST_FOR_NOTHING {
                            break Why::Lost;
                        }
                        if Instant::now() >= due {
                            break Why::Due;
                        }
                    }
                    _ => break Why::Another,
                }
            };
        }
    }
}

/// Whether the same was found. Its settings decide nothing, and a server that is busy does not say them.
fn is_no_news(said: &Result<Probed, Failure>, last: &Result<Probed, Failure>) -> bool {
    match (said, last) {
        (Ok(said), Ok(last)) => (&said.found, &said.doubts) == (&last.found, &last.doubts),
        _ => said == last,
    }
}

/// Why a server is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It lost our connection: it may have been started anew between two glances.
    Lost,
    /// It lists other models, or was away.
    Another,
    /// It refused what it was found to take.
    Doubted,
    Due,
}

fn drawn(length: Duration) -> Duration {
    length.mul_f64(0.8 + 0.4 * fastrand::f64())
}
