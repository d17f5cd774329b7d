//! Tests of what is written, and when.

use super::*;
use std::sync::atomic::{AtomicU16, Ordering};

use api::ParentReference;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use cluster_watch::testing::answer;

#[test]
fn each_object_has_its_turn_and_none_is_written_twice_at_once() {
    let mut wanted: BTreeMap<Key, u8> = [(key("a"), 1), (key("b"), 2), (key("c"), 3)].into();
    let busy = BTreeSet::from([key("b")]);
    assert_eq!(after(&mut wanted, Some(&key("a")), &busy), Some((key("c"), 3)));
    assert_eq!(after(&mut wanted, Some(&key("c")), &busy), Some((key("a"), 1)));
    assert_eq!(after(&mut wanted, Some(&key("a")), &busy), None, "the one that is left is being written");
    assert_eq!(after(&mut wanted, None, &BTreeSet::new()), Some((key("b"), 2)));
}

fn ours(conditions: Vec<Condition>) -> ParentStatus {
    let parent_ref = ParentReference {
        group: String::new(),
        kind: "Service".into(),
        name: "picker".into(),
        namespace: Some("a".into()),
    };
    ParentStatus { parent_ref, controller_name: Some(api::CONTROLLER_NAME.into()), conditions }
}

#[test]
fn a_gateways_entry_passes_untouched_even_in_fields_nobody_here_knows() {
    let theirs =
        json!({"parentRef": {"name": "gw", "sectionName": "x"}, "controllerName": "example.com/gw", "conditions": []});
    let mut pool = json!({"status": {"parents": [theirs], "other": 1}});
    assert!(replace_ours(&mut pool, Some(&ours(vec![]))));
    assert_eq!(pool["status"]["parents"][0], theirs);
    assert_eq!(pool["status"]["parents"][1]["parentRef"]["name"], "picker");
    assert_eq!(pool["status"]["other"], 1);
    assert!(!replace_ours(&mut pool, Some(&ours(vec![]))), "the same again changes nothing");
}

#[test]
fn a_pool_without_a_status_gets_one() {
    let mut pool = json!({"spec": {}});
    assert!(replace_ours(&mut pool, Some(&ours(vec![]))));
    assert_eq!(pool["status"]["parents"].as_array().unwrap().len(), 1);
}

/// An API server that writes down what it is asked, and answers each time it is let.
struct Gate {
    /// Method, path and body.
    asked: watch::Sender<Vec<String>>,
    open: Arc<Semaphore>,
    status: AtomicU16,
}

impl Gate {
    fn new() -> (Arc<Self>, Client) {
        let gate = Self { asked: watch::Sender::default(), open: Arc::new(Semaphore::new(0)), status: 200.into() };
        let gate = Arc::new(gate);
        let there = Arc::clone(&gate);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let gate = Arc::clone(&there);
            async move {
                let (head, body) = request.into_parts();
                let body = String::from_utf8(body.collect_bytes().await.expect("a body").to_vec()).expect("JSON");
                let asked = format!("{} {} {body}", head.method, head.uri.path());
                gate.asked.send_modify(|known| known.push(asked));
                gate.open.acquire().await.expect("never closed").forget();
                let model = json!({"apiVersion": "thalamus.dev/v1alpha1", "kind": "InferenceModel",
                    "metadata": {"name": "m", "uid": "another"}, "spec": {"modelName": "m"}});
                answer(gate.status.load(Ordering::Relaxed), &model)
            }
        });
        (gate, Client::new(service, "default"))
    }

    /// What was asked when nothing more is asked of its own accord.
    async fn settled(&self, count: usize) -> Vec<String> {
        let mut asked = self.asked.subscribe();
        let more = asked.wait_for(|asked| asked.len() > count);
        assert!(tokio::time::timeout(Duration::from_secs(1), more).await.is_err(), "{:?}", self.asked.borrow());
        self.asked.borrow().clone()
    }
}

fn key(name: &str) -> Key {
    Key::Model(ObjectKey::new("a", name))
}

fn update() -> StatusUpdate {
    let of = ObjectReference { uid: Some("one".into()), ..ObjectReference::default() };
    StatusUpdate { status: Status::Model(InferenceModelStatus::default()), of, transitions: Vec::new() }
}

fn writer(client: &Client) -> (Writer, watch::Sender<Term>) {
    let (term, terms) = watch::channel(Some(Instant::now() + Duration::from_hours(1)));
    let event_recorder = EventRecorder::start(client.clone(), "test".into());
    (Writer::start(client.clone(), Metrics::register(&mut Registry::default()), terms, event_recorder), term)
}

#[tokio::test(start_paused = true)]
async fn several_are_written_at_once_and_of_one_object_one() {
    let (gate, client) = Gate::new();
    let (mut writer, _term) = writer(&client);
    for number in 0..20 {
        writer.write(key(&format!("m{number:02}")), update());
    }
    assert_eq!(gate.settled(AT_ONCE).await.len(), AT_ONCE);
    for _ in 0..3 {
        writer.write(key("m00"), update());
    }
    gate.open.add_permits(100);
    for _ in 0..21 {
        assert!(writer.result().await.succeeded);
    }
    // One that was under way, and one for all that were asked for meanwhile.
    let asked = gate.settled(21).await;
    assert_eq!((asked.len(), asked.iter().filter(|path| path.contains("/m00/status")).count()), (21, 2));

    for _ in 0..2 {
        writer.write(key("alone"), update());
    }
    gate.open.forget_permits(100);
    assert_eq!(gate.settled(22).await.len(), 22);
    writer.write(key("alone"), update());
    assert_eq!(gate.settled(22).await.len(), 22, "it is being written");
}

#[tokio::test(start_paused = true)]
async fn while_writes_fail_there_is_one_at_a_time() {
    let (gate, client) = Gate::new();
    let (mut writer, _term) = writer(&client);
    gate.status.store(403, Ordering::Relaxed);
    for number in 0..30 {
        writer.write(key(&format!("m{number:02}")), update());
    }
    assert_eq!(gate.settled(AT_ONCE).await.len(), AT_ONCE);
    gate.open.add_permits(AT_ONCE);
    for _ in 0..AT_ONCE {
        assert!(!writer.result().await.succeeded);
    }
    assert_eq!(gate.settled(AT_ONCE + 1).await.len(), AT_ONCE + 1);
    gate.status.store(200, Ordering::Relaxed);
    gate.open.add_permits(1);
    assert!(writer.result().await.succeeded);
    assert_eq!(gate.settled(2 * AT_ONCE + 1).await.len(), 2 * AT_ONCE + 1);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_lead_any_more_stops_at_once() {
    let (gate, client) = Gate::new();
    let (mut writer, term) = writer(&client);
    writer.write(key("m"), update());
    gate.settled(1).await;
    let stopped = Instant::now();
    term.send_replace(None);
    assert!(!writer.result().await.succeeded);
    assert_eq!(stopped.elapsed(), Duration::ZERO);
    writer.write(key("n"), update());
    assert!(!writer.result().await.succeeded);
    assert_eq!(gate.settled(1).await.len(), 1, "nothing is begun");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_to_an_object_that_took_the_name_of_another() {
    let (gate, client) = Gate::new();
    let (mut writer, _term) = writer(&client);
    gate.open.add_permits(2);
    writer.write(key("m"), update());
    assert!(writer.result().await.succeeded);
    let asked = gate.settled(1).await.remove(0);
    let test = r#"[{"op":"test","path":"/metadata/uid","value":"one"},{"op":"add","path":"/status","value":"#;
    assert!(asked.starts_with("PATCH") && asked.contains(test), "the API server is to look whose it is: {asked}");
    // A pool is read first.
    writer.write(
        Key::Pool(ObjectKey::new("a", "p")),
        StatusUpdate { status: Status::Pool(Some(ours(vec![]))), ..update() },
    );
    assert!(writer.result().await.succeeded);
    let asked = gate.settled(2).await.remove(1);
    assert!(asked.starts_with("GET"), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn what_was_to_be_told_of_an_object_is_not_told_of_the_next_of_its_name() {
    let (gate, client) = Gate::new();
    let (mut writer, _term) = writer(&client);
    let gone = Transition { holds: false, type_: "Accepted".into(), reason: "Gone".into(), message: String::new() };
    writer.write(key("m"), update());
    gate.settled(1).await;
    writer.write(key("m"), StatusUpdate { transitions: vec![gone.clone()], ..update() });
    writer.write(key("m"), update());
    let told = |writer: &Writer| writer.wanted.lock().unwrap().values().next().unwrap().transitions.clone();
    assert_eq!(told(&writer), [gone], "a status that was not written yet is told with the next");
    let of = ObjectReference { uid: Some("next".into()), ..ObjectReference::default() };
    writer.write(key("m"), StatusUpdate { of, ..update() });
    assert_eq!(told(&writer), []);
    gate.open.add_permits(2);
    assert!(writer.result().await.succeeded && writer.result().await.succeeded);
}
