//! What is asked, answered and reported, and what becomes of it when either end goes away.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ask::{Answer, Asked, Asker, Decisions, Dialect, Options, Question, Told};
use director::{
    AttemptReport, Contradiction, Director, KnownEndpoint, Observer, OwnerFinder, Rejection, RequestHandler, Search,
};
use http::StatusCode;
use request::{Limits, Owned, OwnedKind, RequestHead, Resource, Scanner};
use routing::{Capability, Endpoint, Modality, ModalitySet, Model, Operation, Pool, RoutingTable, Target};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint as Way, Server};

/// What a picker hears of attempts.
#[derive(Debug, Default, Clone)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Observer for Heard {
    fn contradicted(&self, contradiction: &Contradiction<'_>) {
        self.0.lock().unwrap().push(format!("{:?}", contradiction.unfit));
    }

    fn attempted(&self, report: &AttemptReport<'_>) {
        let status = report.status.map_or(0, |status| status.as_u16());
        let first = if report.to_first_byte.is_some() { ", a first byte" } else { "" };
        self.0.lock().unwrap().push(format!("{} {status}{first}", report.ending.as_str()));
    }
}

/// A picker that is asked.
pub(crate) struct Picker {
    handler: Arc<RequestHandler>,
    heard: Heard,
    /// It takes no new readers.
    pub(crate) stop: CancellationToken,
    /// It ends with this, and with it every connection.
    runtime: Option<Runtime>,
    address: String,
}

impl Drop for Picker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Picker {
    fn start(max_requests: usize) -> Self {
        Self::with(max_requests, None)
    }

    fn with(max_requests: usize, owner_finder: Option<Arc<dyn OwnerFinder>>) -> Self {
        let heard = Heard::default();
        let director = Arc::new(Director::new(Instant::now()));
        let picture = ModalitySet::of(&[Modality::Text, Modality::Image]);
        let target = Target::new("renamed", "p", Capability::new(picture, ModalitySet::TEXT));
        let endpoint = |port| Endpoint::new(([127, 0, 0, 1], port).into(), "u".into());
        let mut endpoints: BTreeMap<_, _> = [("e".into(), endpoint(1))].into();
        // Two may have made what is asked for.
        endpoints.extend(owner_finder.is_some().then(|| ("f".into(), endpoint(2))));
        let table = RoutingTable {
            models: [("m".into(), Arc::new(Model::new(vec![target])))].into(),
            pools: [("p".into(), Arc::new(Pool { endpoints, ..Pool::default() }))].into(),
            ..RoutingTable::default()
        };
        director.replace_table(1, Arc::new(table));
        let handler = Arc::new(RequestHandler {
            observer: Arc::new(heard.clone()),
            owner_finder,
            ..RequestHandler::new(director, "default")
        });
        let stop = CancellationToken::new();
        let decisions =
            Decisions::new(Arc::clone(&handler), Options { max_requests }, TaskTracker::new(), stop.clone());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            Server::builder().add_service(decisions.service()).serve_with_incoming(incoming).await.unwrap();
        });
        Self { handler, heard, stop, runtime: Some(runtime), address }
    }

    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    fn channel(&self) -> Channel {
        Way::from_shared(self.address.clone()).unwrap().connect_lazy()
    }

    async fn until_in_flight(&self, expected: u64) {
        until(|| self.handler.director.in_flight() == expected).await;
    }

    async fn until_heard(&self, expected: &[&str]) {
        until(|| *self.heard.0.lock().unwrap() == expected).await;
    }
}

/// Looks again whenever something else has run.
async fn until(mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), looking).await.unwrap();
}

/// A picker, and who asks it.
pub(crate) struct World {
    pub(crate) picker: Picker,
    asker: Asker,
    stop: tokio_util::sync::DropGuard,
}

impl World {
    pub(crate) async fn start() -> Self {
        let picker = Picker::start(100);
        let channel = picker.channel();
        Self::of(picker, move || channel.clone()).await
    }

    async fn of(picker: Picker, connect: impl Fn() -> Channel + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        let asker = Asker::start(connect, stop.clone());
        asker.connected().wait_for(|connected| *connected).await.unwrap();
        Self { picker, asker, stop: stop.drop_guard() }
    }

    fn ask(&self, question: Question) -> (Result<Asked, Rejection>, oneshot::Receiver<Told>) {
        let (tell, told) = oneshot::channel();
        (self.asker.ask(question, move |answer| drop(tell.send(answer))), told)
    }

    pub(crate) async fn answer(&self, question: Question) -> Told {
        let (asked, told) = self.ask(question);
        let _asked = asked?;
        told.await.unwrap()
    }

    /// A request that goes to the endpoint.
    async fn dispatched(&self) -> Asked {
        self.sent(chat("m")).await
    }

    async fn sent(&self, question: Question) -> Asked {
        let (asked, told) = self.ask(question);
        let answer = told.await.unwrap();
        let Ok(Answer::Dispatch(instruction)) = answer else { panic!("{answer:?}") };
        assert_eq!(instruction.address.ip().to_string(), "127.0.0.1");
        assert_eq!(&*instruction.splices[0].with, b"\"renamed\"");
        let mut asked = asked.unwrap();
        asked.dispatched(instruction.makes);
        asked
    }
}

fn chat(model: &str) -> Question {
    let head = RequestHead { path: "/v1/chat/completions", ..RequestHead::default() };
    let mut scanner = Scanner::new(&head, Limits::default()).unwrap();
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#);
    scanner.feed(body.as_bytes()).unwrap();
    Question {
        request: scanner.finish().unwrap(),
        path: head.path.to_owned(),
        pool: None,
        caller: None,
        authorization: None,
        dialect: Dialect::OpenAi,
    }
}

#[tokio::test]
async fn a_dispatched_request_counts_until_its_reader_says_how_it_ended() {
    let world = World::start().await;
    let (mut good, mut bad, dropped) = (world.dispatched().await, world.dispatched().await, world.dispatched().await);
    let (unreachable, unseen) = (world.dispatched().await, world.dispatched().await);
    world.picker.until_in_flight(5).await;
    good.head(StatusCode::OK);
    good.body(b"some");
    good.ended();
    world.picker.until_heard(&["complete 200, a first byte"]).await;
    bad.head(StatusCode::SERVICE_UNAVAILABLE);
    bad.broke_off();
    world.picker.until_in_flight(3).await;
    drop(dropped);
    world.picker.until_in_flight(2).await;
    unreachable.unreachable();
    unseen.unseen();
    world.picker.until_in_flight(0).await;
    let heard = ["complete 200, a first byte", "broke_off 503", "abandoned 0", "unreachable 0"];
    world.picker.until_heard(&heard).await;
}

#[tokio::test]
async fn what_an_endpoint_refuses_is_known_to_the_picker() {
    let world = World::start().await;
    let mut question = chat("m");
    question.request.requires.input = ModalitySet::of(&[Modality::Text, Modality::Image]);
    let mut asked = world.sent(question).await;
    asked.head(StatusCode::BAD_REQUEST);
    let body = br#"{"error":{"message":"At most 0 image(s) may be provided in one prompt."}}"#;
    body.chunks(7).for_each(|piece| asked.body(piece));
    asked.ended();
    let contradiction = "Items { modality: Image, most: 0 }";
    world.picker.until_heard(&[contradiction, "complete 400, a first byte"]).await;
}

/// An owner finder that finds nobody until it is told to.
#[derive(Debug)]
struct Slow(tokio::sync::Semaphore);

impl OwnerFinder for Slow {
    fn find<'f>(
        &'f self,
        _: &'f Owned,
        _: Option<&'f str>,
        _: Option<IpAddr>,
        among: &'f [KnownEndpoint],
    ) -> Pin<Box<dyn Future<Output = Search> + Send + 'f>> {
        Box::pin(async move {
            self.0.acquire().await.unwrap().forget();
            Search::Found(among[0].state.id().clone())
        })
    }
}

#[tokio::test]
async fn who_goes_away_while_an_owner_is_looked_for_is_forgotten() {
    let slow = Arc::new(Slow(tokio::sync::Semaphore::new(0)));
    let picker = Picker::with(100, Some(Arc::clone(&slow) as Arc<dyn OwnerFinder>));
    let channel = picker.channel();
    let world = World::of(picker, move || channel.clone()).await;
    let follow = || {
        let mut question = chat("m");
        question.request.resource = Resource::Operation(Operation::Responses);
        question.request.requires.operation = Operation::Responses;
        question.request.follows = Some(Owned { kind: OwnedKind::Response, id: "resp_1".into() });
        question
    };
    let (gone, _) = world.ask(follow());
    let (stays, told) = world.ask(follow());
    drop(gone);
    // It was heard of before this is answered.
    drop(world.dispatched().await);
    slow.0.add_permits(2);
    assert!(matches!(told.await.unwrap(), Ok(Answer::Dispatch(_))));
    world.picker.until_in_flight(1).await;
    drop(stays);
    world.picker.until_in_flight(0).await;
}

#[test]
fn what_cannot_be_an_id_is_not_remembered() {
    assert!(Owned::may_have("resp_1") && !Owned::may_have("") && !Owned::may_have("a\nb"));
    assert!(!Owned::may_have(&"x".repeat(1 << 20)));
}

#[tokio::test]
async fn what_the_picker_answers_itself_is_the_clients_answer() {
    let world = World::start().await;
    let answer = world.answer(chat("nobody")).await;
    let Ok(Answer::Reply(reply, code)) = answer else { panic!("{answer:?}") };
    assert_eq!((reply.status, &*code), (StatusCode::NOT_FOUND, "model_not_found"));
    assert!(String::from_utf8_lossy(&reply.body).contains("nobody"));
}

#[tokio::test]
async fn no_more_is_under_way_than_the_picker_takes() {
    let picker = Picker::start(4);
    let channel = picker.channel();
    let world = World::of(picker, move || channel.clone()).await;
    let mut kept = Vec::new();
    let refused = loop {
        let (asked, told) = world.ask(chat("m"));
        match told.await.unwrap() {
            Ok(Answer::Dispatch(_)) => kept.push(asked),
            other => break other,
        }
    };
    let Ok(Answer::Reply(reply, code)) = refused else { panic!("{refused:?}") };
    assert_eq!((reply.status, &*code), (StatusCode::SERVICE_UNAVAILABLE, "overloaded"));
    assert!((2..=4).contains(&kept.len()), "{}", kept.len());
    kept.clear();
    world.picker.until_in_flight(0).await;
    drop(world.dispatched().await);
}

#[tokio::test]
async fn a_picker_that_leaves_answers_on_until_another_one_is_found() {
    let (old, new) = (Picker::start(100), Picker::start(100));
    let ways = [old.channel(), new.channel()];
    let turn = AtomicUsize::new(0);
    let world = World::of(old, move || ways[turn.fetch_add(1, Ordering::Relaxed).min(1)].clone()).await;
    let running = world.dispatched().await;
    world.picker.stop.cancel();
    // Whoever it is that is asked, each is answered.
    until_async(async || {
        let asked = world.dispatched().await;
        let is_new = new.handler.director.in_flight() > 0;
        asked.ended();
        is_new
    })
    .await;
    running.ended();
    world.picker.until_in_flight(0).await;
    new.until_in_flight(0).await;
}

async fn until_async(mut holds: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), looking).await.unwrap();
}

#[tokio::test]
async fn a_reader_that_is_gone_leaves_nothing_behind() {
    let world = World::start().await;
    let (_one, _two) = (world.dispatched().await, world.dispatched().await);
    let World { picker, stop, .. } = world;
    drop(stop);
    picker.until_in_flight(0).await;
    picker.until_heard(&["abandoned 0", "abandoned 0"]).await;
}

#[tokio::test]
async fn without_a_picker_it_is_said_at_once_and_with_one_again_all_is_well() {
    let (lost, found) = (Picker::start(100), Picker::start(100));
    let ways = [lost.channel(), found.channel()];
    let turn = AtomicUsize::new(0);
    let mut world = World::of(lost, move || ways[turn.fetch_add(1, Ordering::Relaxed).min(1)].clone()).await;
    let asked = world.dispatched().await;
    world.picker.kill();
    let mut connected = world.asker.connected();
    connected.wait_for(|connected| !*connected).await.unwrap();
    let (refused, told) = world.ask(chat("m"));
    assert_eq!(refused.unwrap_err(), Rejection::NobodyToAsk);
    assert!(told.await.is_err(), "nobody is told of what was not asked");
    asked.ended();
    connected.wait_for(|connected| *connected).await.unwrap();
    drop(world.dispatched().await);
}
