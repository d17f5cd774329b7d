//! When something is written, and when it is not.

use api::InferenceModel;
use index::{Change, Event};
use serde_json::{Value, json};

use super::*;

/// A cluster of one pool and one model, without a picker.
struct Story {
    index: Index,
    publisher: Publisher,
    pickers: BTreeMap<ObjectKey, PickerState>,
    has_gateways: bool,
    reports: Reports,
    start: Instant,
    now: Instant,
}

impl Story {
    fn new() -> Self {
        let mut index = Index::default();
        let _ = index.observe(Event::Pool(Change::Applied(pool("1", 1))));
        let start = Instant::now();
        let publisher = Publisher::new(1);
        publisher.publish([("a".to_owned(), Arc::default())].into());
        Self {
            index,
            publisher,
            pickers: BTreeMap::new(),
            has_gateways: false,
            reports: Reports::default(),
            start,
            now: start,
        }
    }

    fn due(&mut self) -> Due {
        let compiled = Arc::new(self.index.compile());
        self.due_by(&compiled)
    }

    fn due_by(&mut self, compiled: &Arc<Compiled>) -> Due {
        self.reports.due(&Inputs {
            index: &self.index,
            compiled,
            publisher: &self.publisher,
            pickers: &self.pickers,
            has_gateways: self.has_gateways,
            leading_since: self.start,
            now: self.now,
            clock: Timestamp::UNIX_EPOCH,
        })
    }

    /// The conditions of the pool that are to be written, as `Type=Reason`.
    fn written(&mut self) -> Vec<String> {
        let mut updates = self.due().updates;
        assert!(updates.len() <= 1);
        let Some((_, update)) = updates.pop() else { return Vec::new() };
        update.status.conditions().iter().map(|one| format!("{}={}", one.type_, one.reason)).collect()
    }

    fn result(&mut self, succeeded: bool) {
        let sent = &self.reports.sent[&key()];
        let result = WriteResult { key: key(), status: sent.status.clone(), succeeded };
        self.reports.note(&result, self.now);
    }

    /// The watch shows the pool as it was written.
    fn seen(&mut self, version: &str, generation: i64) {
        let mut pool = pool(version, generation);
        if let Some(Sent { status: Status::Pool(parent), .. }) = self.reports.sent.get(&key()) {
            pool.status = Some(serde_json::from_value(json!({"parents": [parent]})).unwrap());
        }
        let _ = self.index.observe(Event::Pool(Change::Applied(pool)));
    }
}

fn key() -> Key {
    Key::Pool(ObjectKey::new("a", "p"))
}

fn pool(version: &str, generation: i64) -> InferencePool {
    serde_json::from_value(json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": "p", "namespace": "a", "resourceVersion": version, "generation": generation},
        "spec": {"selector": {"matchLabels": {"app": "p"}}, "targetPorts": [{"number": 8000}]},
    }))
    .unwrap()
}

fn says(written: &[String], what: &str) -> bool {
    written.iter().any(|one| one == what)
}

#[test]
fn what_was_written_is_not_written_again_because_the_watch_is_late() {
    let mut story = Story::new();
    assert!(says(&story.written(), "Programmed=Pending"));
    assert!(story.written().is_empty(), "it is on its way");
    story.result(true);
    assert!(story.written().is_empty(), "it stands, though the watch has not said so");
    story.seen("2", 1);
    assert!(story.written().is_empty());
    // Somebody else wrote over it.
    let _ = story.index.observe(Event::Pool(Change::Applied(pool("3", 1))));
    assert!(says(&story.written(), "Programmed=Pending"));
    story.result(false);
    assert!(story.written().is_empty(), "not at once");
    story.now += RETRY;
    assert!(!story.written().is_empty(), "what could not be written is tried again");
}

#[test]
fn what_is_known_of_an_object_is_not_said_of_the_one_that_took_its_place() {
    let mut story = Story::new();
    let compiled = Arc::new(story.index.compile());
    story.now += PICKER_PATIENCE;
    assert_eq!(story.due_by(&compiled).updates.len(), 1);
    let mut another = pool("7", 1);
    another.metadata.uid = Some("another".into());
    let _ = story.index.observe(Event::Pool(Change::Applied(another)));
    assert!(story.due_by(&compiled).updates.is_empty(), "it is not compiled yet");
    assert!(story.reports.sent.is_empty(), "what was on its way was the other's");
    let updates = story.due().updates;
    assert_eq!(updates[0].1.of.uid.as_deref(), Some("another"));
    assert!(updates[0].1.transitions.iter().any(|one| one.type_ == "Programmed"), "told of this one as well");
    // Nor of another generation.
    let compiled = Arc::new(story.index.compile());
    let mut changed = pool("8", 2);
    changed.metadata.uid = Some("another".into());
    let _ = story.index.observe(Event::Pool(Change::Applied(changed)));
    assert!(story.due_by(&compiled).updates.is_empty());
}

#[test]
fn a_status_on_its_way_is_taken_back_when_things_are_as_they_were() {
    let mut story = Story::new();
    story.written();
    story.result(true);
    story.seen("2", 1);
    story.pickers.insert(
        ObjectKey::new("a", "p"),
        PickerState { ready: 0, wanted: 1, stage: Stage::Rolling, hands_off: vec![] },
    );
    let mut managed = pool("3", 1);
    managed.status = story.index.pool(&ObjectKey::new("a", "p")).unwrap().status.clone();
    let before = managed.clone();
    managed.metadata.annotations = Some([("thalamus.dev/picker".to_owned(), "managed".to_owned())].into());
    let _ = story.index.observe(Event::Pool(Change::Applied(managed)));
    assert!(says(&story.written(), "PickerReady=NoPickerRef"));
    // The annotation goes before that is written, and what the watch shows is right again.
    let _ = story.index.observe(Event::Pool(Change::Applied(before)));
    let written = story.written();
    assert!(!written.is_empty() && !written.iter().any(|one| one.starts_with("PickerReady")), "{written:?}");
}

#[test]
fn what_was_said_of_another_generation_is_not_said_of_this_one() {
    let mut story = Story::new();
    story.now += PICKER_PATIENCE;
    assert!(says(&story.written(), "Programmed=NoPicker"));
    story.result(true);
    story.seen("2", 1);
    // A picker just left: as it was, whatever that is.
    story.start = story.now;
    assert!(story.written().is_empty());
    // But not of what no picker can have heard of.
    let mut edited = pool("3", 2);
    edited.status = story.index.pool(&ObjectKey::new("a", "p")).unwrap().status.clone();
    let _ = story.index.observe(Event::Pool(Change::Applied(edited)));
    assert!(says(&story.written(), "Programmed=Pending"));
    assert_eq!(story.due().look_again, Some(story.now + PICKER_PATIENCE));
}

#[test]
fn objects_that_are_gone_are_forgotten() {
    let mut story = Story::new();
    story.written();
    assert_eq!(story.reports.sent.len(), 1);
    let _ = story.index.observe(Event::Pool(Change::Deleted(ObjectKey::new("a", "p"))));
    story.due();
    assert!(story.reports.sent.is_empty());
}

#[test]
fn a_picker_that_serves_while_something_is_wrong_is_said_to_serve() {
    #[track_caller]
    fn check(ready: i64, stage: Stage, holds: bool, message: &str) {
        let verdict = picker_ready(&PickerState { ready, wanted: 2, stage, hands_off: vec![] });
        assert_eq!((verdict.holds, &*verdict.message), (holds, message));
    }
    let behind = ObjectKey::new("a", "p");
    check(
        2,
        Stage::Queued { behind: behind.clone() },
        true,
        "2 of 2 pickers are ready; waiting for the upgrade of the picker of pool a/p",
    );
    check(
        0,
        Stage::Queued { behind },
        false,
        "0 of 2 pickers are ready; waiting for the upgrade of the picker of pool a/p",
    );
    check(2, Stage::Failed("no".into()), false, "no (2 of 2 pickers are ready, unchanged)");
    check(0, Stage::Conflict("taken".into()), false, "taken");
}

#[test]
fn a_model_that_is_not_in_use_is_not_programmed() {
    let mut story = Story::new();
    let model: InferenceModel = serde_json::from_value(json!({
        "apiVersion": "thalamus.dev/v1alpha1", "kind": "InferenceModel", "metadata": {"name": "m", "namespace": "a"},
        "spec": {"modelName": "m"},
    }))
    .unwrap();
    let _ = story.index.observe(Event::Model(Change::Applied(model)));
    let updates = story.due().updates;
    let (_, update) = updates.iter().find(|(key, _)| matches!(key, Key::Model(_))).unwrap();
    let programmed = update.status.conditions().iter().find(|one| one.type_ == "Programmed").unwrap();
    assert_eq!((&*programmed.status, &*programmed.reason), ("False", "NotAccepted"));
}

#[test]
fn of_a_pool_that_no_gateway_is_attached_to_nothing_is_said_where_gateways_say_so_themselves() {
    let gateway = json!({"parentRef": {"name": "gw"}, "conditions": []});
    let seen = |story: &mut Story, version: &str, parents: Value| {
        let mut pool = pool(version, 1);
        pool.status = Some(serde_json::from_value(json!({ "parents": parents })).unwrap());
        let _ = story.index.observe(Event::Pool(Change::Applied(pool)));
    };
    let mut story = Story::new();
    assert!(!story.written().is_empty(), "without the Gateway API nobody else can say anything");
    let ours = |story: &Story| match &story.reports.sent[&key()].status {
        Status::Pool(Some(ours)) => json!(ours),
        other => panic!("{other:?} has no entry of ours"),
    };
    let entry = ours(&story);
    story.result(true);

    seen(&mut story, "2", json!([entry]));
    assert!(story.due().updates.is_empty());
    // The Gateway API is installed.
    story.has_gateways = true;
    let [(_, update)] = &story.due().updates[..] else { panic!("the entry is to be taken away") };
    assert_eq!(update.status, Status::Pool(None));
    assert!(update.transitions.is_empty(), "nothing became of the pool");
    story.result(true);
    seen(&mut story, "3", json!([]));
    assert!(story.due().updates.is_empty());
    // What becomes of it is told all the same, by events; here its picker fails.
    let before = story.due().updates.len();
    story.now += ACK_PATIENCE + PICKER_PATIENCE;
    let told = story.due().updates;
    assert!(before == 0 && told.iter().all(|(_, update)| update.status == Status::Pool(None)));
    let told: Vec<_> = told.iter().flat_map(|(_, update)| &update.transitions).map(|one| &*one.reason).collect();
    assert_eq!(told, ["NoPicker"]);
    story.result(true);
    // A route refers to it, and the gateway says so.
    seen(&mut story, "4", json!([gateway]));
    let written = story.written();
    assert!(written.contains(&"TargetsReachable=OnePool".to_owned()), "{written:?}");
    let entry = ours(&story);
    story.result(true);
    seen(&mut story, "5", json!([gateway, entry]));
    assert!(story.due().updates.is_empty());
    // The route is gone. What an older CRD writes as a default is nobody.
    seen(&mut story, "6", json!([{"parentRef": {"kind": "Status", "name": "default"}, "conditions": []}, entry]));
    assert_eq!(story.due().updates[0].1.status, Status::Pool(None));
    story.result(true);
    // Whoever writes all parents anew is answered, and not at once.
    seen(&mut story, "7", json!([gateway]));
    assert!(!story.due().updates.is_empty());
    story.result(true);
    seen(&mut story, "8", json!([gateway]));
    let due = story.due();
    assert!(
        due.updates.is_empty() && due.look_again.is_some(),
        "a gateway that does so would be answered again and again"
    );
    story.now += RETRY;
    assert!(!story.due().updates.is_empty());
}
