//! From what the watches say to the table that the picker decides by.

use std::time::Duration;

use daemon::Deadline;
use index::{Change, Event, Index, Listed, ObjectKey, Stale};
use publish::Publisher;
use tokio::sync::mpsc;

/// Compile so long after the first event that is not compiled: most come several at once.
const QUIET: Duration = Duration::from_millis(20);

/// How long to wait for kinds that need not be there, once all others were listed.
const OTHERS_PATIENCE: Duration = Duration::from_secs(5);

/// Owns the index of one pool.
#[derive(Debug)]
pub(crate) struct Compiler {
    index: Index,
    events: mpsc::Receiver<Event>,
    publisher: Publisher,
    pool: ObjectKey,
    /// What was said of the pool last.
    said: Option<String>,
}

impl Compiler {
    pub(crate) fn new(events: mpsc::Receiver<Event>, publisher: Publisher, pool: ObjectKey) -> Self {
        let mut index = Index::default();
        // Of these kinds nothing is asked, and nothing is made.
        let _ = index.observe(Event::Service(Change::Relisted(Vec::new())));
        let _ = index.observe(Event::Template(Change::Relisted(Vec::new())));
        Self { index, events, publisher, pool, said: None }
    }

    /// Runs until the watches are gone.
    pub(crate) async fn run(mut self) {
        let (mut due, mut patience) = (Deadline::default(), Deadline::default());
        let mut without_others = false;
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    let Some(event) = event else { return };
                    if self.index.observe(event) != Stale::NOTHING {
                        due.within(QUIET);
                    }
                }
                () = patience.reached() => {
                    without_others = true;
                    due.within(Duration::ZERO);
                }
                () = due.reached() => match self.index.listed() {
                    Listed::TooLittle => {}
                    Listed::AllButOthers if !without_others => patience.within(OTHERS_PATIENCE),
                    Listed::AllButOthers | Listed::All => self.compile(),
                }
            }
        }
    }

    fn compile(&mut self) {
        let compiled = self.index.compile();
        let verdicts = compiled.pools.get(&self.pool).map(|report| &*report.verdicts);
        let said = match verdicts {
            None => format!("there is no InferencePool {}", self.pool),
            Some(verdicts) => {
                let ready = verdicts.iter().find(|verdict| verdict.type_ == "EndpointsReady");
                format!("endpoints ready: {}", ready.map_or("", |verdict| &verdict.message))
            }
        };
        if self.said.as_ref() != Some(&said) {
            if verdicts.is_none() {
                tracing::warn!("{said}; requests are refused until there is one");
            } else {
                tracing::info!("{said}");
            }
            self.said = Some(said);
        }
        self.publisher.publish(compiled.tables);
    }
}

#[cfg(test)]
mod tests {
    use publish::{Access, Scope, Subscriber, Subscription};
    use serde_json::json;
    use tokio::sync::watch;

    use super::*;

    fn pool() -> api::InferencePool {
        serde_json::from_value(json!({
            "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"selector": {"matchLabels": {"app": "p"}}, "targetPorts": [{"number": 8000}]},
        }))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_is_published_once_everything_is_listed_or_others_took_too_long() {
        for others in [true, false] {
            let (events, received) = mpsc::channel(8);
            let publisher = Publisher::new(1);
            let channel = publisher.channel();
            tokio::spawn(Compiler::new(received, publisher, ObjectKey::new("n", "p")).run());
            let (sender, mut subscription) = watch::channel(Subscription::default());
            let scope = Scope { namespace: "n".into(), pool: Some("p".into()) };
            let subscriber =
                Subscriber { picker: "a".into(), scope, contradicted: tokio::sync::mpsc::channel(1).1, memory: None };
            let access = move |_| Ok(Access { channel: channel.clone(), token: None, others: false });
            tokio::spawn(subscriber.run(access, sender));

            events.send(Event::Pool(Change::Relisted(vec![pool()]))).await.unwrap();
            events.send(Event::Model(Change::Relisted(vec![]))).await.unwrap();
            if others {
                events.send(Event::Objective(Change::Relisted(vec![]))).await.unwrap();
                events.send(Event::Rewrite(Change::Relisted(vec![]))).await.unwrap();
            }
            tokio::task::yield_now().await;
            assert!(subscription.borrow().received.is_none(), "pods were not listed yet");
            let start = tokio::time::Instant::now();
            events.send(Event::Pod(Change::Relisted(vec![]))).await.unwrap();
            let received = subscription.wait_for(|subscription| subscription.received.is_some()).await.unwrap();
            let table = &received.received.as_ref().unwrap().table;
            assert_eq!(table.pools.keys().map(|name| &**name).collect::<Vec<_>>(), ["p"]);
            assert_eq!(start.elapsed() >= OTHERS_PATIENCE, !others);
        }
    }
}
