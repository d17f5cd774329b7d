//! When it compiles, publishes and writes.

use std::sync::Mutex;

use cluster_watch::testing::answer;
use index::{Change, ServerKey};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use prometheus_client::registry::Registry;
use routing::Found;
use serde_json::json;

use super::*;
use crate::events::EventRecorder;

/// A loop, and the other ends of what it is wired to.
struct Running {
    events: mpsc::Sender<Event>,
    ready: watch::Receiver<bool>,
    compiled: watch::Receiver<Option<Arc<Compiled>>>,
    terms: watch::Sender<Term>,
    wanted: watch::Receiver<Arc<Wanted>>,
    /// What the API server was asked: methods and paths.
    asked: Arc<Mutex<Vec<String>>>,
    _gateways: watch::Sender<Option<bool>>,
    _states: watch::Sender<BTreeMap<ObjectKey, PickerState>>,
}

impl Running {
    fn start() -> Self {
        Self::start_with(None)
    }

    fn start_with(first_look: Option<watch::Receiver<bool>>) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&asked);
        let client = Client::new(
            tower::service_fn(move |request: http::Request<kube::client::Body>| {
                heard.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
                async move { answer(200, &serde_json::to_value(pool()).unwrap()) }
            }),
            "default",
        );
        let metrics = Metrics::register(&mut Registry::default());
        let (term, terms) = watch::channel(None);
        let recorder = EventRecorder::start(client.clone(), "test".into());
        let writer = Writer::start(client.clone(), metrics.clone(), terms.clone(), recorder);
        let (sender, events) = mpsc::channel(64);
        let (ready_sender, ready) = watch::channel(false);
        let (compiled_sender, compiled) = watch::channel(None);
        let (gateways, has_gateways) = watch::channel(Some(false));
        let (wanted_sender, wanted) = watch::channel(Arc::default());
        let (states, picker_states) = watch::channel(BTreeMap::new());
        let managed = Managed { wanted: wanted_sender, states: picker_states, accounts: ServiceAccounts::new(client) };
        let (index, publisher) = (Index::default(), Publisher::new(1));
        let event_loop = EventLoop::new(
            index,
            events,
            publisher,
            writer,
            metrics,
            ready_sender,
            compiled_sender,
            terms,
            has_gateways,
            managed,
            first_look,
        );
        tokio::spawn(event_loop.run());
        Self { events: sender, ready, compiled, terms: term, wanted, asked, _gateways: gateways, _states: states }
    }

    async fn say(&self, event: Event) {
        self.events.send(event).await.unwrap();
    }

    /// All that the loop waits for, but what is of other projects.
    async fn list_ours(&self) {
        self.say(Event::Model(Change::Relisted(Vec::new()))).await;
        self.say(Event::Pod(Change::Relisted(Vec::new()))).await;
        self.say(Event::Service(Change::Relisted(Vec::new()))).await;
        self.say(Event::Template(Change::Relisted(Vec::new()))).await;
        self.say(Event::Pool(Change::Relisted(vec![pool()]))).await;
    }

    async fn list_all(&self) {
        self.list_ours().await;
        self.say(Event::Objective(Change::Relisted(Vec::new()))).await;
        self.say(Event::Rewrite(Change::Relisted(Vec::new()))).await;
    }

    /// The names of endpoints in the newest table; none before the first.
    fn endpoints(&self) -> Option<Vec<String>> {
        let compiled = self.compiled.borrow().clone()?;
        let pool = &compiled.tables["a"].pools["p"];
        Some(pool.endpoints.keys().map(ToString::to_string).collect())
    }

    /// What was asked of the API server since this was last called.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn pool() -> InferencePool {
    serde_json::from_value(json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": "p", "namespace": "a", "uid": "one", "resourceVersion": "1"},
        "spec": {"selector": {"matchLabels": {"app": "p"}}, "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}}},
    }))
    .unwrap()
}

fn pod(number: usize) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("pod-{number}"), "namespace": "a", "uid": format!("uid-{number}"), "labels": {"app": "p"}},
        "status": {"phase": "Running", "podIP": format!("10.0.0.{number}"), "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

async fn pass(milliseconds: u64) {
    let never = std::future::pending::<()>();
    assert!(tokio::time::timeout(Duration::from_millis(milliseconds), never).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_compiled_before_every_kind_was_listed() {
    let running = Running::start();
    running.list_ours().await;
    running.say(Event::Objective(Change::Relisted(Vec::new()))).await;
    pass(4_000).await;
    assert_eq!((running.endpoints(), *running.ready.borrow()), (None, false));
    running.say(Event::Rewrite(Change::Relisted(Vec::new()))).await;
    pass(60).await;
    assert_eq!((running.endpoints(), *running.ready.borrow()), (Some(vec![]), true));
}

#[tokio::test(start_paused = true)]
async fn kinds_of_other_projects_are_waited_for_and_not_for_ever() {
    let running = Running::start();
    running.list_ours().await;
    pass(4_900).await;
    assert_eq!(running.endpoints(), None);
    pass(200).await;
    assert_eq!(running.endpoints(), Some(vec![]));
}

#[tokio::test(start_paused = true)]
async fn one_of_our_kinds_is_waited_for_as_long_as_it_takes() {
    let running = Running::start();
    running.say(Event::Pool(Change::Relisted(vec![pool()]))).await;
    running.say(Event::Objective(Change::Relisted(Vec::new()))).await;
    running.say(Event::Rewrite(Change::Relisted(Vec::new()))).await;
    pass(3_600_000).await;
    assert_eq!((running.endpoints(), *running.ready.borrow()), (None, false));
}

#[tokio::test(start_paused = true)]
async fn what_comes_together_is_compiled_together_and_a_busy_cluster_is_not_waited_out() {
    let mut running = Running::start();
    running.list_all().await;
    pass(60).await;
    running.compiled.borrow_and_update();
    for number in 1..=3 {
        running.say(Event::Pod(Change::Applied(pod(number)))).await;
    }
    pass(15).await;
    assert!(!running.compiled.has_changed().unwrap(), "it is not quiet yet");
    pass(10).await;
    assert_eq!(running.endpoints().unwrap().len(), 3);
    // One every 10 ms: never quiet for 20.
    let mut compiled = 0;
    for number in 4..=103 {
        running.say(Event::Pod(Change::Applied(pod(number)))).await;
        pass(10).await;
        compiled += usize::from(running.compiled.has_changed().unwrap());
        running.compiled.borrow_and_update();
        let waiting = number - running.endpoints().unwrap().len();
        assert!(waiting <= 6, "{waiting} pods wait, the oldest for longer than 50 ms");
    }
    assert!((15..=25).contains(&compiled), "compiled {compiled} times in a second");
}

#[tokio::test(start_paused = true)]
async fn a_standby_compiles_and_writes_nothing_and_every_new_term_compares_anew() {
    let running = Running::start();
    running.list_all().await;
    pass(1_000).await;
    assert_eq!((running.endpoints(), running.asked()), (Some(vec![]), vec![]));
    let term = || Some(Instant::now() + Duration::from_hours(1));
    let pools = "/apis/inference.networking.k8s.io/v1/namespaces/a/inferencepools/p";
    running.terms.send_replace(term());
    pass(1_000).await;
    let asked = running.asked();
    assert!(asked.iter().any(|one| one.ends_with(pools)), "{asked:?}");
    pass(1_000).await;
    assert!(!running.asked().iter().any(|one| one.contains(pools)), "what was written stands");

    running.terms.send_replace(None);
    running.say(Event::Pool(Change::Deleted(ObjectKey::new("a", "p")))).await;
    running.say(Event::Pool(Change::Applied(pool()))).await;
    pass(1_000).await;
    assert_eq!(running.asked(), Vec::<String>::new());
    running.terms.send_replace(term());
    pass(1_000).await;
    assert!(running.asked().iter().any(|one| one.contains(pools)), "what another wrote meanwhile is unknown");
}

#[tokio::test(start_paused = true)]
async fn pods_change_no_picker_that_is_wanted_and_pools_do() {
    let mut running = Running::start();
    running.list_all().await;
    pass(60).await;
    assert_eq!(running.wanted.borrow_and_update().namespaces, ["a".to_owned()].into());
    running.say(Event::Pod(Change::Applied(pod(1)))).await;
    pass(60).await;
    assert!(!running.wanted.has_changed().unwrap());
    running.say(Event::Pool(Change::Deleted(ObjectKey::new("a", "p")))).await;
    pass(60).await;
    assert!(running.wanted.has_changed().unwrap() && running.wanted.borrow().namespaces.is_empty());
}

/// The last of what was found may come with the word that all were asked.
#[tokio::test(start_paused = true)]
async fn the_first_tables_wait_for_what_servers_are_found_to_be() {
    let (looked, first_look) = watch::channel(false);
    let running = Running::start_with(Some(first_look));
    running.list_all().await;
    running.say(Event::Pod(Change::Applied(pod(1)))).await;
    pass(100).await;
    assert_eq!((running.endpoints().map(|all| all.len()), *running.ready.borrow()), (Some(1), false));

    let server = ServerKey { pod: ObjectKey::new("a", "pod-1"), uid: "uid-1".into(), port: 8000 };
    let found = Found { engine: Some("vLLM".into()), ..Found::default() };
    running.say(Event::Found(server, Arc::new(found))).await;
    looked.send_replace(true);
    running.ready.clone().wait_for(|ready| *ready).await.unwrap();
    let compiled = running.compiled.borrow().clone().unwrap();
    assert!(compiled.tables["a"].pools["p"].endpoints["pod-1-rank-0"].found.is_some(), "told without it");
}
