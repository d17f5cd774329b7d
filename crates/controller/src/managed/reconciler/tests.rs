//! What is done to a cluster, and what is left alone.

use std::sync::Mutex;

use api::InferencePool;
use cluster_watch::testing::answer;
use http::Method;
use index::ManagedPicker;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// An API server that keeps objects by their paths. Its watches say nothing: what changed behind the reconciler's back is seen when it
/// lists anew.
#[derive(Default)]
struct ApiServer {
    objects: Mutex<BTreeMap<String, Value>>,
    /// Writes: methods and the ends of paths.
    written: Mutex<Vec<String>>,
    /// Writes to paths that end so are forbidden.
    forbidden: Mutex<Option<&'static str>>,
}

impl ApiServer {
    async fn answer(self: Arc<Self>, request: http::Request<Body>) -> http::Result<http::Response<Body>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        if head.uri.query().is_some_and(|query| query.contains("watch=")) {
            return std::future::pending().await;
        }
        let is_write = head.method != Method::GET;
        let end = path.rsplitn(3, '/').take(2).collect::<Vec<_>>();
        let end = end.into_iter().rev().collect::<Vec<_>>().join("/");
        if is_write {
            self.written.lock().unwrap().push(format!("{} {end}", head.method));
            if self.forbidden.lock().unwrap().is_some_and(|forbidden| end == forbidden) {
                return answer(403, &Value::Null);
            }
        }
        let sent = body.collect_bytes().await.expect("a body");
        let mut objects = self.objects.lock().unwrap();
        match head.method {
            Method::PATCH => {
                let mut object: Value = serde_json::from_slice(&sent).expect("an object");
                let metadata = object["metadata"].as_object_mut().expect("metadata");
                metadata.insert("uid".into(), format!("uid of {end}").into());
                metadata.insert("resourceVersion".into(), "1".into());
                objects.insert(path, object.clone());
                answer(200, &object)
            }
            Method::DELETE => {
                let gone = objects.remove(&path);
                answer(if gone.is_some() { 200 } else { 404 }, &gone.unwrap_or_default())
            }
            _ => match objects.get(&path) {
                Some(object) => answer(200, object),
                None if NAMES.iter().all(|name| !path.ends_with(name)) => {
                    let plural = path.rsplit('/').next().unwrap_or_default();
                    let items: Vec<&Value> = objects
                        .iter()
                        .filter(|(path, _)| path.contains(&format!("/{plural}/")))
                        .map(|(_, object)| object)
                        .collect();
                    answer(200, &json!({"metadata": {"resourceVersion": "1"}, "items": items}))
                }
                None => {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound"});
                    http::Response::builder().status(404).body(Body::from(status.to_string().into_bytes()))
                }
            },
        }
    }

    /// What was written since this was last called.
    fn written(&self) -> Vec<String> {
        std::mem::take(&mut *self.written.lock().unwrap())
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        change(self.objects.lock().unwrap().get_mut(path).expect("it is there"));
    }
}

/// The names of objects that may be asked for.
const NAMES: [&str; 2] = ["/p-picker", "/thalamus-controller-ca"];

const SERVICE: &str = "/api/v1/namespaces/a/services/p-picker";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/a/deployments/p-picker";

/// What a picker consists of, in the order in which it is made.
const MADE: [&str; 6] = [
    "PATCH configmaps/thalamus-controller-ca",
    "PATCH serviceaccounts/p-picker",
    "PATCH services/p-picker",
    "PATCH networkpolicies/p-picker",
    "PATCH poddisruptionbudgets/p-picker",
    "PATCH deployments/p-picker",
];

struct Running {
    server: Arc<ApiServer>,
    terms: watch::Sender<Term>,
    wanted: watch::Sender<Arc<Wanted>>,
    states: watch::Receiver<BTreeMap<ObjectKey, PickerState>>,
    anew: watch::Sender<u64>,
    _certificate: watch::Sender<Option<String>>,
}

impl Running {
    fn start(server: ApiServer) -> Self {
        let server = Arc::new(server);
        let there = Arc::clone(&server);
        let client = Client::new(tower::service_fn(move |request| Arc::clone(&there).answer(request)), "default");
        let (term, terms) = watch::channel(None);
        let (wanted_sender, wanted) = watch::channel(Arc::new(one_pool()));
        let (certificate_sender, certificate) = watch::channel(Some("a certificate".to_owned()));
        let (anew_sender, anew) = watch::channel(0);
        let (states_sender, states) = watch::channel(BTreeMap::new());
        let settings = Settings {
            image: "thalamus".into(),
            controller_url: "https://c.ns:9004".into(),
            controller_namespace: "ns".into(),
            controller_port: 9004,
        };
        let reconciler = PickerReconciler {
            client,
            watch_namespace: None,
            settings,
            terms,
            wanted,
            certificate,
            anew,
            states: states_sender,
        };
        tokio::spawn(reconciler.run());
        Self { server, terms: term, wanted: wanted_sender, states, anew: anew_sender, _certificate: certificate_sender }
    }

    fn lead(&self) {
        self.terms.send_replace(Some(Instant::now() + Duration::from_hours(1)));
    }

    /// The cluster is listed anew, as after a lost connection.
    fn list_anew(&self) {
        self.anew.send_modify(|times| *times += 1);
    }

    fn stage(&self) -> Option<Stage> {
        self.states.borrow().get(&ObjectKey::new("a", "p")).map(|state| state.stage.clone())
    }
}

fn one_pool() -> Wanted {
    let pool: InferencePool = serde_json::from_value(json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": "p", "namespace": "a", "uid": "pool"},
        "spec": {"selector": {"matchLabels": {"app": "p"}}, "targetPorts": [{"number": 8000}]},
    }))
    .unwrap();
    let picker = ManagedPicker {
        service: "p-picker".into(),
        port: 9002,
        template: serde_json::from_value(json!({})).unwrap(),
        made_from: "defaults".into(),
    };
    Wanted { pickers: [(ObjectKey::new("a", "p"), (pool, picker))].into(), namespaces: ["a".to_owned()].into() }
}

async fn pass(seconds: u64) {
    let never = std::future::pending::<()>();
    assert!(tokio::time::timeout(Duration::from_secs(seconds), never).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_picker_is_made_in_its_order_by_the_leader_alone() {
    let running = Running::start(ApiServer::default());
    pass(60).await;
    assert_eq!((running.server.written(), running.stage()), (vec![], None));
    running.lead();
    pass(2).await;
    assert_eq!(running.server.written(), MADE);
    assert_eq!(running.stage(), Some(Stage::Rolling));
    pass(60).await;
    assert_eq!(running.server.written(), Vec::<String>::new(), "what is as it is to be is left alone");
    running.list_anew();
    pass(60).await;
    assert_eq!(running.server.written(), Vec::<String>::new(), "and what was listed again as well");
}

#[tokio::test(start_paused = true)]
async fn what_others_change_is_mended_and_what_its_owner_took_back_is_not() {
    let running = Running::start(ApiServer::default());
    running.lead();
    pass(2).await;
    running.server.written();
    running.server.change(SERVICE, |service| service["spec"]["ports"] = json!([]));
    running.list_anew();
    pass(10).await;
    assert_eq!(running.server.written(), ["PATCH services/p-picker"]);
    running.server.objects.lock().unwrap().remove(SERVICE);
    running.list_anew();
    pass(10).await;
    assert_eq!(running.server.written(), ["PATCH services/p-picker"], "it was removed");
    running.server.change(SERVICE, |service| {
        service["spec"]["ports"] = json!([]);
        service["metadata"]["annotations"] = json!({"thalamus.dev/hands-off": "true"});
    });
    running.list_anew();
    pass(10).await;
    assert_eq!(running.server.written(), Vec::<String>::new());
    let states = running.states.borrow();
    assert_eq!(states[&ObjectKey::new("a", "p")].hands_off, ["Service p-picker"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ours_is_told_and_never_touched() {
    let server = ApiServer::default();
    let theirs = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "p-picker", "namespace": "a"}});
    server.objects.lock().unwrap().insert(SERVICE.into(), theirs.clone());
    let running = Running::start(server);
    running.lead();
    pass(60).await;
    let written = running.server.written();
    assert!(!written.iter().any(|one| one.contains("services/") || one.contains("deployments/")), "{written:?}");
    let Some(Stage::Conflict(why)) = running.stage() else { panic!("{:?}", running.stage()) };
    assert!(why.starts_with("Service p-picker already exists and was not created by Thalamus"), "{why}");
    assert_eq!(running.server.objects.lock().unwrap()[SERVICE], theirs);
    // Its owner makes room.
    running.server.objects.lock().unwrap().remove(SERVICE);
    pass(10).await;
    assert_eq!(running.stage(), Some(Stage::Rolling));
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_refuses_is_told_and_tried_again_without_haste() {
    let server = ApiServer { forbidden: Mutex::new(Some("deployments/p-picker")), ..ApiServer::default() };
    let running = Running::start(server);
    running.lead();
    pass(2).await;
    let Some(Stage::Failed(why)) = running.stage() else { panic!("{:?}", running.stage()) };
    assert!(why.contains("Deployment p-picker"), "{why}");
    running.server.written();
    pass(60).await;
    let tried = running.server.written().len();
    assert!((8..=14).contains(&tried), "tried {tried} times in a minute");
    *running.server.forbidden.lock().unwrap() = None;
    pass(10).await;
    assert_eq!(running.stage(), Some(Stage::Rolling));
}

#[tokio::test(start_paused = true)]
async fn a_term_that_ends_ends_the_work_and_what_was_known_in_it() {
    let running = Running::start(ApiServer::default());
    running.lead();
    pass(2).await;
    running.terms.send_replace(None);
    pass(2).await;
    assert_eq!(running.stage(), None);
    running.server.written();
    running.server.objects.lock().unwrap().remove(DEPLOYMENT);
    running.list_anew();
    pass(60).await;
    assert_eq!(running.server.written(), Vec::<String>::new());
    running.lead();
    pass(10).await;
    assert_eq!(running.server.written(), ["PATCH deployments/p-picker"]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_managed_no_more_has_no_state_and_keeps_its_picker_until_kubernetes_takes_it() {
    let running = Running::start(ApiServer::default());
    running.lead();
    pass(2).await;
    running.server.written();
    running.wanted.send_replace(Arc::new(Wanted { pickers: BTreeMap::new(), ..one_pool() }));
    pass(10).await;
    assert_eq!((running.stage(), running.server.written()), (None, vec![]));
}
